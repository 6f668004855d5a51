"""Journal segments: the file format, and reading them back, each record once for each sink.

A segment is a file of records, written by one process. A record is

    a line feed, the CRC-32 of the line in eight hexadecimal digits, a space, the line

and is appended by one `write`. It starts with the line feed, instead of ending with it, so that a
record after one that was cut short (a full disk, a power failure) can always be read, whichever
thread wrote either. The checksum alone says that a record is whole. The first record is the header:
format, tracker, service, the sinks that must have every record, and the time of creation.

Beside a segment lies one mark for each sink: the offset up to which the sink has taken the records.
Three locks (`flock`, never pid files: containers share volumes but not pids) keep it straight. The
writer holds an exclusive one on the segment for as long as it writes, so a segment whose lock is free
is finished for ever. Whoever delivers holds one on the mark. All of them end with their process.
A segment is removed when it is finished and every sink of its header has marked its end.

Knows files. Does not know how records are made, what a sink is, or when to deliver.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from hashlib import blake2b
from pathlib import Path
from time import time
from zlib import crc32

from cmdrdata_transport import forks
from cmdrdata_transport.descriptors import identity, release
from cmdrdata_transport.event import decode, encode

FORMAT = "cmdrdata.journal/1"

EXTERNAL = "external"

READ_BYTES = 1024 * 1024
"""What is read at once: some thousand events, so that a backlog of any size takes little memory."""

HEADER_BYTES = 16 * 1024
"""Enough for a header with any sensible number of sinks; more is read when it is not."""

MARK_BYTES = 21
"""What a mark has: twenty digits and a line feed. What may follow it is not ours. Where the disk had no
room for that it has none of it, and is as long as the offset is."""

LITTER_SECONDS = 3600.0
"""Age at which a half-made file is nobody's any more: making one takes milliseconds."""

_BEFORE_LINE = 9
"""What stands before the line of a record, behind the line feed: checksum and space."""

Count = Callable[[str, str], None]
"""Told of a loss: its name, and sizes or kinds for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a segment says of itself. `created` is in seconds since 1970, UTC.

    `external`: its process delivers nothing; another may while it is still being written.
    """

    tracker: str
    service: str | None
    sinks: tuple[str, ...]
    created: float
    external: bool = False

    def to_line(self) -> bytes:
        """The header as the line of the first record."""
        named = {
            "tracker": self.tracker,
            "service": self.service,
            "sinks": self.sinks,
            "created": self.created,
        }
        return encode({"format": FORMAT, **named, **({"delivery": EXTERNAL} if self.external else {})})

    @classmethod
    def from_line(cls, line: bytes) -> Header | None:
        """The header behind `to_line`; None for another format. Raises `ValueError` for what is not JSON."""
        match decode(line):
            case {
                "format": "cmdrdata.journal/1",
                "tracker": str(tracker),
                "service": None | str() as service,
                "sinks": [*sinks],
                "created": int() | float() as created,
                **others,
            }:
                return cls(
                    tracker=tracker,
                    service=service,
                    sinks=tuple(str(each) for each in sinks),
                    created=float(created),
                    external=others.get("delivery") == EXTERNAL,
                )
            case _:
                return None


def record(line: bytes) -> bytes:
    """The bytes to append for `line`, which holds no line feed."""
    return b"\n%08x %b" % (crc32(line), line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What a stretch of a segment holds; all offsets count from the start of the stretch.

    `ends` has the offset after each line. `torn` are the stretches that are no record. `used` is the
    offset from which to read on: what follows it may still be growing.
    """

    lines: list[bytes]
    ends: list[int]
    torn: list[tuple[int, int]]
    used: int


def parse(data: bytes, *, final: bool) -> Records:
    """The records in `data`, which starts where a record ended; `final` says that nothing will follow."""
    lines: list[bytes] = []
    ends: list[int] = []
    torn: list[tuple[int, int]] = []
    position = used = 0
    pieces = data.split(b"\n")
    for number, piece in enumerate(pieces):
        start, end = position, position + len(piece)
        position = end + 1
        whole = _is_record(piece)
        if not whole and piece and not final and number == len(pieces) - 1:
            break
        found = piece if whole else _before_zeros(piece)
        if found is not None:
            lines.append(found[_BEFORE_LINE:])
            ends.append(start + len(found))
            if len(found) < len(piece):
                torn.append((ends[-1], end))
        elif piece and torn and torn[-1][1] == start - 1:
            torn[-1] = (torn[-1][0], end)
        elif piece:
            torn.append((start, end))
        used = end
    return Records(lines=lines, ends=ends, torn=torn, used=used)


def _before_zeros(piece: bytes) -> bytes | None:
    """The record that a piece begins with; None where there is none.

    A file may be longer than what its disk has of it, if the power failed: there are zeros from there on.
    """
    begin = piece.partition(b"\0")[0]
    return begin if _is_record(begin) else None


def _is_record(piece: bytes) -> bool:
    return piece[8:9] == b" " and piece[:8] == b"%08x" % crc32(piece[9:])


def segments(directory: Path) -> list[Path]:
    """The segments in `directory`, oldest first; none when it cannot be read."""
    return [directory / name for name in sorted(_names(directory)) if name.endswith(".seg")]


def mark_of(segment: Path, sink: str) -> Path:
    """The file that says how far `sink` has taken `segment`."""
    return segment.with_name(f"{segment.stem}.{blake2b(sink.encode(), digest_size=6).hexdigest()}.mark")


def marked(segment: Path, sink: str) -> int:
    """The offset up to which `sink` has taken `segment`; 0 when it has not begun."""
    with contextlib.suppress(OSError), _reading(mark_of(segment, sink)) as mark, _reading(segment) as fd:
        return _offset(mark, fd)
    return 0


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
        found, data, whole = _read_on(self._segment_fd, self._read_to, finished=finished)
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
            fd = _open(segment)
        except FileNotFoundError:
            return Refusal.GONE
        opened.callback(os.close, fd)
        live = finished is None and not _lock(fd, fcntl.LOCK_SH)
        start = _start_for(sink, segment, fd, count, live=live)
        if isinstance(start, Refusal):
            return start
        if live:
            finished = partial(_lock, fd, fcntl.LOCK_SH)
        mark = mark_of(segment, sink)
        mark_fd = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, mark_fd)
        if not _lock(mark_fd, fcntl.LOCK_EX):
            return Refusal.TAKEN
        # `remove_if_delivered` removes the segment first, then its marks: when the segment is still
        # there now, we hold the mark that tells its story, and not a new one.
        if not segment.exists():
            mark.unlink(missing_ok=True)
            return Refusal.GONE
        offset = max(start, _offset(mark_fd, fd))
        finished = finished or _yes
        made = Claim(segment, fds=(fd, mark_fd), offset=offset, finished=finished, count=count, live=live)
        forks.register(made)
        opened.pop_all()
        return made


def _start_for(sink: str, segment: Path, fd: int, count: Count, *, live: bool) -> int | Refusal:
    try:
        found = _header(fd)
    except ValueError:
        if live:
            return Refusal.LIVE
        segment.rename(segment.with_suffix(".torn"))
        count("torn", "a whole segment")
        return Refusal.UNREADABLE
    if not found or sink not in found[0].sinks:
        return Refusal.LIVE if live else Refusal.FOREIGN
    return Refusal.LIVE if live and not found[0].external else found[1]


def remove_if_delivered(segment: Path) -> bool:
    """Remove a finished segment when every sink it names has taken all of it; say whether it is gone.

    Raises:
        OSError: it cannot be read or removed.
    """
    try:
        with _reading(segment) as fd:
            found = _header(fd)
            size = os.fstat(fd).st_size
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    if found is None:
        return False
    header, start = found
    if size > start and any(marked(segment, sink) < size for sink in header.sinks):
        return False
    segment.unlink(missing_ok=True)
    for sink in header.sinks:
        mark_of(segment, sink).unlink(missing_ok=True)
    return True


def clear_delivered(directory: Path) -> None:
    """Remove what is finished and delivered: whoever delivered its last event may have been killed then."""
    for segment in segments(directory):
        with contextlib.suppress(OSError):
            if not _is_locked(segment):
                remove_if_delivered(segment)


def clear_litter(directory: Path) -> None:
    """Remove what processes that died in the middle of making or removing a segment left behind."""
    names = _names(directory)
    stems = {name.removesuffix(".seg") for name in names if name.endswith(".seg")}
    for name in names:
        half_made = name.endswith(".new")
        orphan = name.endswith(".mark") and name.split(".")[0] not in stems
        if half_made or orphan:
            with contextlib.suppress(OSError):
                path = directory / name
                if time() - path.stat().st_mtime > LITTER_SECONDS:
                    path.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What one sink has not taken yet of one segment.

    `live` says that the segment's writer is at work, and delivers it itself. `oldest` is the first of
    these events, as it stands in the journal.
    """

    segment: Path
    tracker: str
    service: str | None
    created: float
    sink: str
    events: int
    size: int
    live: bool
    oldest: bytes = b""


def backlog(directory: Path) -> list[Backlog]:
    """All that sinks have not taken yet of the segments in `directory`, oldest first. Changes nothing."""
    return [each for segment in segments(directory) for each in _backlog_of(segment)]


def taken(directory: Path, sink: str) -> Iterator[bytes]:
    """The lines that `sink` has taken and that are still there, oldest first. Changes nothing."""
    for segment in segments(directory):
        with contextlib.suppress(OSError, ValueError), _reading(segment) as fd:
            found = _header(fd)
            if found and sink in found[0].sinks:
                yield from _lines_between(fd, found[1], marked(segment, sink))


def lines_of(segment: Path) -> Iterator[bytes]:
    """All events that are still in a segment, delivered ones too; none where it cannot be read."""
    with contextlib.suppress(OSError, ValueError), _reading(segment) as fd:
        if found := _header(fd):
            yield from _lines_between(fd, found[1], os.fstat(fd).st_size)


def in_use(directory: Path) -> bool:
    """Whether a process writes one of the segments in `directory`, or delivers one."""
    return any(_is_locked(directory / name) for name in _names(directory) if name.endswith((".seg", ".mark")))


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(OSError), _reading(path) as fd:
        return not _lock(fd, fcntl.LOCK_SH)
    return False


def blank(segment: Path, unwanted: Callable[[bytes], bool]) -> int:
    """Overwrite the events that are not wanted with line feeds, which no reader minds; how many.

    Everything else stays where it is, so writers and readers need not know. Raises `OSError`.
    """
    blanked = 0
    with contextlib.suppress(FileNotFoundError, ValueError), segment.open("r+b", buffering=0) as file:
        fd = file.fileno()
        found = _header(fd)
        offset, whole = (found[1], False) if found else (0, True)
        while not whole:
            records, _, whole = _read_on(fd, offset, finished=True)
            for line, end in zip(records.lines, records.ends, strict=True):
                if unwanted(line):
                    size = len(line) + _BEFORE_LINE
                    os.pwrite(fd, b"\n" * size, offset + end - size)
                    blanked += 1
            offset += records.used
        if blanked:
            os.fsync(fd)
    return blanked


def _lines_between(fd: int, offset: int, end: int) -> Iterator[bytes]:
    whole = False
    while offset < end and not whole:
        found, _, whole = _read_on(fd, offset, finished=True)
        yield from (
            line for line, after in zip(found.lines, found.ends, strict=True) if offset + after <= end
        )
        offset += found.used


def sinks_awaited(directory: Path) -> set[str]:
    """The sinks of all segments but those whose writers are at work and deliver them. Reads headers only."""
    sinks: set[str] = set()
    for segment in segments(directory):
        with contextlib.suppress(OSError, ValueError), _reading(segment) as fd:
            found = _header(fd)
            if found and not _delivers_itself(fd, found[0]):
                sinks.update(found[0].sinks)
    return sinks


def set_aside_headless(directory: Path, count: Count) -> None:
    """Set aside segments whose header is damaged: no sink that they name would find them. Counts them."""
    for segment in segments(directory):
        with contextlib.suppress(OSError):
            claim(segment, "", count=count)  # which none is called


def _delivers_itself(fd: int, header: Header) -> bool:
    """Whether a segment's writer is at work, and delivers it."""
    return not header.external and not _lock(fd, fcntl.LOCK_SH)


def _backlog_of(segment: Path) -> Iterator[Backlog]:
    with contextlib.suppress(OSError, ValueError), _reading(segment) as fd:
        found = _header(fd)
        header, start = found or (None, 0)
        live = header is not None and _delivers_itself(fd, header)
        for sink in header.sinks if header else ():
            events, size, oldest = _count_after(fd, max(start, marked(segment, sink)))
            if events and header:
                yield Backlog(
                    segment=segment,
                    tracker=header.tracker,
                    service=header.service,
                    created=header.created,
                    sink=sink,
                    events=events,
                    size=size,
                    live=live,
                    oldest=oldest,
                )


def foreign(directory: Path) -> list[Path]:
    """The segments in `directory` that wait for somebody else: of a later format, or not ours to read."""
    return [segment for segment in segments(directory) if _is_foreign(segment)]


def _is_foreign(segment: Path) -> bool:
    try:
        with _reading(segment) as fd:
            return _header(fd) is None
    except (FileNotFoundError, ValueError):  # it has been delivered, or will be set aside
        return False
    except OSError:
        return True


def _count_after(fd: int, offset: int) -> tuple[int, int, bytes]:
    events = size = 0
    oldest = b""
    whole = False
    while not whole:
        found, _, whole = _read_on(fd, offset, finished=True)
        oldest = oldest or next(iter(found.lines), b"")
        events += len(found.lines)
        size += sum(map(len, found.lines))
        offset += found.used
    return events, size, oldest


def _read_on(fd: int, offset: int, *, finished: bool, size: int = READ_BYTES) -> tuple[Records, bytes, bool]:
    """The records from `offset` on, the bytes they were in, and whether these reach the end of the file."""
    while True:
        data = os.pread(fd, size, offset)
        whole = len(data) < size
        found = parse(data, final=finished and whole)
        if found.used or whole:
            return found, data, whole
        size *= 2  # a record larger than what was read


def _header(fd: int) -> tuple[Header, int] | None:
    """The header of an open segment and the offset after it; None for another format.

    Raises:
        ValueError: the segment does not begin with a whole record.
    """
    found, _, _ = _read_on(fd, 0, finished=True, size=HEADER_BYTES)
    if not found.lines or (found.torn and found.torn[0][0] < found.ends[0]):
        raise ValueError("a segment without a header")
    header = Header.from_line(found.lines[0])
    return (header, found.ends[0]) if header else None


def _offset(mark: int, segment: int) -> int:
    # A mark that cannot be read, or cannot be of this segment, as when a machine failed and its disk has
    # lost the end, counts as none: rather a second telling than a lost one.
    said = os.pread(mark, MARK_BYTES, 0)
    offset = int(said) if said[:-1].isdigit() and said.endswith(b"\n") else 0
    if said == bytes(MARK_BYTES):  # nothing could be written: its length says it
        offset = os.fstat(mark).st_size
    beyond = offset > os.fstat(segment).st_size
    return 0 if beyond or os.pread(segment, 1, offset) not in (b"", b"\n") else offset


def _open(path: Path) -> int:
    # Where a pipe is in its place, nobody waits for whoever will write to that.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


@contextlib.contextmanager
def _reading(path: Path) -> Generator[int]:
    """A descriptor of the file at `path`, for as long as this lasts."""
    fd = _open(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - names are all we need
    except OSError:
        return []


def _yes() -> bool:
    return True
