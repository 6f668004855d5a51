"""What must happen around `os.fork()`.

Knows three rules. No fork falls between opening a file and noting that it is open, because the child
would keep a lock alive that nobody knows of. What cannot stand a fork comes to rest before it. And in
the child every registered object lets go of what is the parent's: a lock on an open file belongs to
both, so a child closes the file and never unlocks it.

Does not know what is opened. A child made without Python's knowledge, by a `fork` in C that does not
tell the interpreter, has to be noticed by whoever comes first (`notice`). After `exec` nothing of ours
is open: all our files are close-on-exec.
"""

from __future__ import annotations

import logging
import mmap
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Literal, Protocol
from weakref import WeakSet

from cmdrdata_transport import identity

PATIENCE_SECONDS = 1.0
"""How long a fork waits for files being opened: longer than that takes, short if a thread is stuck."""


class Forkable(Protocol):
    """Something that holds what a forked child must not use."""

    def after_fork_in_child(self) -> None:
        """Let go of the parent's files and threads. The child has one thread and runs nothing else yet."""


class Settled(Forkable, Protocol):
    """Something that must be at rest when a fork happens."""

    def before_fork(self) -> None:
        """Come to rest, in `PATIENCE_SECONDS` at most."""

    def after_fork_in_parent(self) -> None:
        """Go on. In the child `after_fork_in_child` is called instead."""


class _Gate:
    """Keeps forks out while files are opened, and waits for that no longer than is sensible."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forking_thread: int | None = None

    def close(self) -> None:
        if self.lock.acquire(timeout=PATIENCE_SECONDS):
            self.forking_thread = threading.get_ident()

    def open(self) -> None:
        if self.forking_thread == threading.get_ident():
            self.forking_thread = None
            self.lock.release()


_gates = {"read": _Gate(), "write": _Gate()}  # the one that nobody waits at is closed last
_registered: WeakSet[Forkable] = WeakSet()
_to_settle: WeakSet[Settled] = WeakSet()


def register(thing: Forkable) -> None:
    """Have `thing.after_fork_in_child()` called in every child, as long as the thing lives."""
    _registered.add(thing)


def register_to_settle(thing: Settled) -> None:
    """Have all three methods of `thing` called at every fork, as long as it lives."""
    _registered.add(thing)
    _to_settle.add(thing)


@contextmanager
def opening(to: Literal["read", "write"]) -> Generator[None]:
    """No fork happens inside.

    To open (or close) a file to read waits for its turn. To open one to write never waits, because
    garbage collection can get there. So it is not guarded while another thread does the same, or from
    the moment on when a fork is under way: then the child may keep that file's lock until it ends.
    """
    lock = _gates[to].lock
    guarded = lock.acquire(timeout=PATIENCE_SECONDS) if to == "read" else lock.acquire(blocking=False)
    try:
        yield
    finally:
        if guarded:
            lock.release()


def notice() -> None:
    """Do in this process what a child does that Python knows of: it has turned out to be one."""
    identity.differ()
    _after_in_child()


def unnoticed() -> bool:
    """Whether this is a child that nobody has noticed yet. Only Linux tells; to ask costs next to nothing."""
    return not _page[0]


def _wiped_in_children() -> mmap.mmap:
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # then a child has what its parent wrote
        if sys.platform == "linux":
            page.madvise(_WIPE_ON_FORK)
    page[0] = 1
    return page


_WIPE_ON_FORK = 18
"""Linux's MADV_WIPEONFORK, which Python has no name for."""

_page = _wiped_in_children()


def _before() -> None:
    for thing in list(_to_settle):
        thing.before_fork()
    for gate in _gates.values():
        gate.close()


def _after_in_parent() -> None:
    for gate in _gates.values():
        gate.open()
    for thing in list(_to_settle):
        thing.after_fork_in_parent()


def _after_in_child() -> None:
    _gates.update(read=_Gate(), write=_Gate())
    _page[0] = 1
    for thing in list(_registered):
        thing.after_fork_in_child()


_LOCKED_AFTER_US = logging
"""It has registered before us, so that a fork locks it after us: who is waited for may want to log."""

os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
