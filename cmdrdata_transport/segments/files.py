"""The files of a journal: segments, a mark beside them for each sink, and their locks.

Does not know what is in a segment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from hashlib import blake2b
from pathlib import Path

MARK_BYTES = 21
"""What a mark has: twenty digits and a line feed. What may follow it is not ours. Where the disk had no
room for that it has none of it, and is as long as the offset is."""


def segments(directory: Path) -> list[Path]:
    """The segments in `directory`, oldest first; none when it cannot be read."""
    return [directory / name for name in sorted(names_in(directory)) if name.endswith(".seg")]


def mark_of(segment: Path, sink: str) -> Path:
    """The file that says how far `sink` has taken `segment`."""
    return segment.with_name(f"{segment.stem}.{blake2b(sink.encode(), digest_size=6).hexdigest()}.mark")


def marked(segment: Path, sink: str) -> int:
    """The offset up to which `sink` has taken `segment`; 0 when it has not begun."""
    with contextlib.suppress(OSError), reading(mark_of(segment, sink)) as mark, reading(segment) as fd:
        return offset_in(mark, fd)
    return 0


def offset_in(mark: int, segment: int) -> int:
    """How far a mark says that a segment was taken; both are open."""
    # A mark that cannot be read, or cannot be of this segment, as when a machine failed and its disk has
    # lost the end, counts as none: rather a second telling than a lost one.
    said = os.pread(mark, MARK_BYTES, 0)
    offset = int(said) if said[:-1].isdigit() and said.endswith(b"\n") else 0
    if said == bytes(MARK_BYTES):  # nothing could be written: its length says it
        offset = os.fstat(mark).st_size
    beyond = offset > os.fstat(segment).st_size
    return 0 if beyond or os.pread(segment, 1, offset) not in (b"", b"\n") else offset


def open_file(path: Path) -> int:
    """A descriptor of the file at `path`, to read."""
    # Where a pipe is in its place, nobody waits for whoever will write to that.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


@contextlib.contextmanager
def reading(path: Path) -> Generator[int]:
    """A descriptor of the file at `path`, for as long as this lasts."""
    fd = open_file(path)
    try:
        yield fd
    finally:
        os.close(fd)


def try_lock(fd: int, how: int) -> bool:
    """Take a lock on an open file unless somebody else has it; whether we have it."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody writes the file at `path`, or delivers it."""
    with contextlib.suppress(OSError), reading(path) as fd:
        return not try_lock(fd, fcntl.LOCK_SH)
    return False


def names_in(directory: Path) -> list[str]:
    """What is in a directory; nothing where it cannot be read."""
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are all we need
    except OSError:
        return []
