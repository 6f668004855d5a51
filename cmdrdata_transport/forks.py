"""What must happen around `os.fork()`.

Knows two rules. No fork falls between opening a file and noting that it is open, because the child
would keep a lock alive that nobody knows of. And in the child every registered object lets go of
what is the parent's: a lock on an open file belongs to both, so a child closes it and never unlocks.

Does not know what is opened. A child made without Python's knowledge (a `fork` in C that never tells
the interpreter) is outside of this; `exec` is not, since all our files are close-on-exec.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

PATIENCE_SECONDS = 1.0
"""How long a fork waits for files being opened: longer than that takes, short if a thread is stuck."""


class Forkable(Protocol):
    """Something that holds what a forked child must not use."""

    def after_fork_in_child(self) -> None:
        """Let go of the parent's files and threads. The child has one thread and runs nothing else yet."""


_opening = threading.Lock()
_registered: WeakSet[Forkable] = WeakSet()
_forking_thread: int | None = None


def register(thing: Forkable) -> None:
    """Have `thing.after_fork_in_child()` called in every child, as long as the thing lives."""
    _registered.add(thing)


@contextmanager
def opening(*, wait: bool = False) -> Generator[None]:
    """No fork happens inside.

    Without `wait` this never blocks, so it may be used where garbage collection can enter; the price
    is that while another thread is opening files, this one is not guarded.
    """
    lock = _opening
    guarded = lock.acquire(timeout=PATIENCE_SECONDS) if wait else lock.acquire(blocking=False)
    try:
        yield
    finally:
        if guarded:
            lock.release()


def _before() -> None:
    global _forking_thread  # noqa: PLW0603 - one fork at a time, as the lock says
    if _opening.acquire(timeout=PATIENCE_SECONDS):
        _forking_thread = threading.get_ident()


def _after_in_parent() -> None:
    global _forking_thread  # noqa: PLW0603 - see `_before`
    if _forking_thread == threading.get_ident():
        _forking_thread = None
        _opening.release()


def _after_in_child() -> None:
    global _forking_thread, _opening  # noqa: PLW0603 - see `_before`
    _forking_thread = None
    _opening = threading.Lock()
    for thing in list(_registered):
        thing.after_fork_in_child()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
