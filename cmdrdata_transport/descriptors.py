"""Files that somebody else closes: a program that becomes a daemon closes all that are open, ours too.

What it opens then has the numbers that ours had. So whoever keeps a file open for long looks whose it is
before it is written or closed (`identity`). Where a driver keeps files and sockets whose numbers nobody
tells us, a descriptor of ours stands for them (`Watch`): nothing closes it but what closes all.

Does not know what was open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from time import monotonic, sleep


def identity(fd: int) -> tuple[int, int] | None:
    """What tells one open file from all others, whatever their numbers; None if it is not open."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def lock(fd: int, how: int, patience: float) -> None:
    """Take a lock on an open file (`fcntl.LOCK_EX` or `LOCK_SH`), or wait for it.

    Raises:
        BlockingIOError: others have had it for `patience` seconds.
        OSError: the file system knows no locks.
    """
    deadline = monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                raise
        else:
            return
        sleep(_BETWEEN_SECONDS)


_BETWEEN_SECONDS = 0.01


@contextlib.contextmanager
def locked(directory: Path, how: int, patience: float) -> Generator[None]:
    """While this lasts we have a lock on a directory (`fcntl.LOCK_EX` or `LOCK_SH`).

    Raises:
        OSError: it cannot be opened, or as `lock` says.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(fd, how, patience)
        yield
    finally:
        release(fd)
        os.close(fd)


def release(fd: int) -> None:
    """Let go of the lock on a file that is to be closed: a child that was forked just now has the file too.

    Never raises: a file system without locks has no unlocking either, and files are to be closed there, too.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)


class Watch:
    """A descriptor that is nobody's and is used for nothing, from the first look on."""

    def __init__(self) -> None:
        self._fd = -1
        self._file: tuple[int, int] | None = None

    def is_lost(self) -> bool:
        """Whether somebody has closed it since the last look; from then on another one is watched."""
        if self._file is not None and identity(self._fd) == self._file:
            return False
        lost = self._file is not None
        with contextlib.suppress(OSError):  # there are as many as there may be
            # No other file is this one: of what has a name another may be opened, `/dev/null` say.
            self._fd, other = os.pipe()
            os.close(other)
            self._file = identity(self._fd)
        return lost

    def close(self) -> None:
        """Close it, if it is still there. The next look begins anew."""
        if self._file is not None and identity(self._fd) == self._file:
            os.close(self._fd)
        self._file = None
