"""The right to deliver a segment to a sink: who has it reads the records, and notes what the sink has.

Does not know what a sink is, or when to deliver.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path

from cmdrdata_transport import forks
from cmdrdata_transport.descriptors import identity, release
from cmdrdata_transport.segments.files import mark_of, offset_in, open_file, segments, try_lock
from cmdrdata_transport.segments.records import header_of, read_on

Count = Callable[[str, str], None]
"""Told of a loss: its name, and sizes or kinds for the log."""


class Refusal(Enum):
    """Why a segment cannot be claimed."""

    GONE = "it has been removed"
    LIVE = "its writer is at work"
    TAKEN = "another process or thread is delivering it"
    FOREIGN = "it is not for this sink, or not of this format"
    UNREADABLE = "its header is damaged; it has been set aside"


class Claim:
    """One segment's records for one sink. While it is held, nobody else delivers them.

    Made by `claim`. `count` is told of damage, by name.
    """

    def __init__(
        self,
        segment: Path,
        *,
        fds: tuple[int, int],
        offset: int,
        finished: Callable[[], bool],
        count: Count,
        live: bool = False,
    ) -> None:
        self.segment = segment
        self.live = live
        """Another process was writing it when it was claimed."""
        self.offset = offset
        """Up to here the sink has taken the records."""
        self.done = False
        """The writer is gone and the sink has taken everything."""
        self._segment_fd, self._mark_fd = fds
        self._files = (identity(self._segment_fd), identity(self._mark_fd))
        self._finished = finished
        self._count = count
        self._read_to = self._marked = offset
        self._ahead: deque[tuple[bytes, int]] = deque()

    def take(self, most: int, most_bytes: int) -> list[bytes]:
        """The next lines for the sink, at least one if there is one; the same ones until `advance`."""
        if not self._ahead:
            self._read()
        lines: list[bytes] = []
        size = 0
        for line, _ in self._ahead:
            size += len(line)
            if lines and (len(lines) == most or size > most_bytes):
                break
            lines.append(line)
        return lines

    def advance(self, taken: int) -> None:
        """Note that the sink has the next `taken` lines.

        A mark that cannot be written is no error, and is tried again: whoever comes before that may tell the
        sink again.
        """
        for _ in range(taken):
            _, self.offset = self._ahead.popleft()
        if taken:
            self._mark()
        if not self._ahead:
            self._read()

    def is_orphan(self) -> bool:
        """Whether the segment was removed under its writer, whose records only we can still read."""
        return os.fstat(self._segment_fd).st_nlink == 0

    def close(self) -> None:
        """Let others have it."""
        self._close(unlock=True)

    def after_fork_in_child(self) -> None:
        """The claim is the parent's: what is closed here stays open, and locked, there."""
        self._close(unlock=False)

    def _close(self, *, unlock: bool) -> None:
        with forks.opening("read"):
            if unlock and self._is_ours():
                release(self._mark_fd)
            for fd, file in zip((self._segment_fd, self._mark_fd), self._files, strict=True):
                if identity(fd) == file is not None:
                    os.close(fd)
            self._segment_fd = self._mark_fd = -1

    def _read(self) -> None:
        # Ask first, then read: so what was written before the writer went is seen.
        finished = self._finished()
        found, data, whole = read_on(self._segment_fd, self._read_to, finished=finished)
        for first, last in found.torn:
            self._set_aside(self._read_to + first, data[first:last])
        self._ahead.extend(zip(found.lines, (self._read_to + end for end in found.ends), strict=True))
        self._read_to += found.used
        if not self._ahead:
            self.offset = self._read_to
        if self.offset != self._marked:
            self._mark()
        self.done = finished and whole and not self._ahead

    def _mark(self) -> None:
        with contextlib.suppress(OSError):
            if self._is_ours():
                try:
                    os.pwrite(self._mark_fd, b"%020d\n" % self.offset, 0)
                except OSError:
                    # A disk that our own segments have filled has no room for a mark, and without marks none
                    # of them would go: a length takes no room.
                    os.ftruncate(self._mark_fd, self.offset)
                self._marked = self.offset

    def _is_ours(self) -> bool:
        # A program may have closed all its files, and have another by this number now.
        return identity(self._mark_fd) == self._files[1] is not None

    def _set_aside(self, offset: int, data: bytes) -> None:
        # The name keeps it to one copy and one count, however many sinks and processes pass here.
        path = self.segment.with_name(f"{self.segment.stem}-{offset}.torn")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        except OSError:
            self._count("torn", f"{len(data)} bytes")
            return
        self._count("torn", f"{len(data)} bytes")
        try:
            with contextlib.suppress(OSError):
                os.write(fd, data)
        finally:
            os.close(fd)


def claim(
    segment: Path, sink: str, *, count: Count, finished: Callable[[], bool] | None = None
) -> Claim | Refusal:
    """Claim `segment` for `sink`.

    `finished` is what the segment's own process knows of its writer; without it the writer's lock is
    asked, and a segment that is being written is refused, unless its writer leaves delivery to others.

    Raises:
        OSError: a file cannot be opened or made, for another reason than that the segment is gone.
    """
    with forks.opening("read"), contextlib.ExitStack() as opened:
        try:
            fd = open_file(segment)
        except FileNotFoundError:
            return Refusal.GONE
        opened.callback(os.close, fd)
        live = finished is None and not try_lock(fd, fcntl.LOCK_SH)
        start = _start_for(sink, segment, fd, count, live=live)
        if isinstance(start, Refusal):
            return start
        if live:
            finished = partial(try_lock, fd, fcntl.LOCK_SH)
        mark = mark_of(segment, sink)
        mark_fd = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, mark_fd)
        if not try_lock(mark_fd, fcntl.LOCK_EX):
            return Refusal.TAKEN
        # `remove_if_delivered` removes the segment first, then its marks: when the segment is still
        # there now, we hold the mark that tells its story, and not a new one.
        if not segment.exists():
            mark.unlink(missing_ok=True)
            return Refusal.GONE
        offset = max(start, offset_in(mark_fd, fd))
        finished = finished or _yes
        made = Claim(segment, fds=(fd, mark_fd), offset=offset, finished=finished, count=count, live=live)
        forks.register(made)
        opened.pop_all()
        return made


def _start_for(sink: str, segment: Path, fd: int, count: Count, *, live: bool) -> int | Refusal:
    try:
        found = header_of(fd)
    except ValueError:
        if live:
            return Refusal.LIVE
        segment.rename(segment.with_suffix(".torn"))
        count("torn", "a whole segment")
        return Refusal.UNREADABLE
    if not found or sink not in found[0].sinks:
        return Refusal.LIVE if live else Refusal.FOREIGN
    return Refusal.LIVE if live and not found[0].external else found[1]


def set_aside_headless(directory: Path, count: Count) -> None:
    """Set aside segments whose header is damaged: no sink that they name would find them. Counts them."""
    for segment in segments(directory):
        with contextlib.suppress(OSError):
            claim(segment, "", count=count)  # which none is called


def _yes() -> bool:
    return True
