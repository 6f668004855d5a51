"""The journal: each event is in a file before the application sees the end of its answer.

Knows how to append one line to this process's own segment (`segments` has the format), how to start
a segment, and what to do when no file takes it. `append` is called where an answer ends: in any
thread, in an event loop, in a finaliser that garbage collection runs in the middle of anything, at
interpreter exit. So it takes no lock, logs nothing, never raises and does one `write`.

What keeps it right without a lock:

- The right to write to a segment is an object, the pen. A thread that writes holds it. To start a new
  segment, another pen is put in its place; the old one closes its file when the last thread lets go,
  which no sooner can be noticed by whoever reads. Two threads may both start a segment: one more file.
- A segment gets its name when it is locked and has its header, so nobody meets it half-made.
- The descriptor is a high number: a program that closes all files it does not know, to become a
  daemon, then opens its own on low numbers, and our next write fails instead of ending up in there.

A line that is written survives the process. `sync` has the disk take it too: `syncing.py` says when.

Does not know what is in a line, who delivers it, or when.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from os import write
from pathlib import Path
from time import monotonic, time, time_ns
from zlib import crc32

from cmdrdata_transport import forks
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.descriptors import identity, release
from cmdrdata_transport.disk import keep_name
from cmdrdata_transport.home import make_private, private_home
from cmdrdata_transport.segments import Header, record, segments

SEGMENT_BYTES = 8 * 1024 * 1024
"""Size at which a new segment is started: some 10,000 events, so that space is free soon after delivery."""

HELD_EVENTS = 10_000
"""How many events wait in memory when no file takes them: minutes of a busy process, some 10 MB."""

HELD_BYTES = 32 * 1024 * 1024
"""The same in bytes, for events with large metadata."""

RETRY_SECONDS = 1.0
"""Pause between two attempts to start a segment on a disk that refuses; each costs some 100 µs."""

LEAST_JOURNAL_BYTES = 1024 * 1024
"""The least that a journal may be bounded to: some thousand events."""

HIGH_DESCRIPTOR = 512
"""Descriptors from here on are used, if the process may have that many: half of its limit otherwise."""

_FULL = "as much waits as max_journal_bytes allows"

_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR})
"""Errors that say that a directory is not for us. A full disk is not among them: it may have space again."""


class OwnSegment:
    """A segment that this process writes or has written."""

    __slots__ = ("_pen", "path", "sinks", "start", "synced")

    def __init__(self, path: Path, sinks: tuple[str, ...], start: int, pen: _Pen) -> None:
        self.path = path
        self.sinks = sinks
        self.start = start
        """Where the first event begins."""
        self.synced = 0
        """Up to here the disk has it."""
        self._pen = weakref.ref(pen)

    def finished(self) -> bool:
        """Whether nothing can be appended to it any more."""
        return self._pen() is None

    def sync(self) -> None:
        """Have the disk take what has been appended so far. Raises `OSError` when it does not."""
        pen = self._pen()  # which nobody closes as long as we hold it
        if pen is not None:
            self._sync(pen.fd)
            return
        with forks.opening("read"):
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return  # it has been delivered
            try:
                self._sync(fd)
            finally:
                os.close(fd)

    def _sync(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size > self.synced:
            os.fsync(fd)
            if not self.synced:
                keep_name(self.path)
            self.synced = size


class Journal:
    """The segments that one tracker of one process writes.

    `home` is the directory in which `journal/` lies; nothing is touched before the first use. `sinks`
    are the identities of the sinks that must have every event. What cannot be written to a file is
    held in memory, bounded, and counted; `recover` writes it as soon as it can be written. `external`: it is
    another process that delivers, also while this one writes.

    `max_bytes` bounds the segments of this home, of all its processes together; None is as much as the
    disk takes. At the bound it is as if the disk were full: what is written stays, and what comes is
    held in memory, bounded, or lost, and counted. So what is missing in the end is one stretch of time,
    whose begin is logged. An invoice can say that; it could not if what had been safe were given up.
    It is looked at where a segment is started, so that each process may go over it by one segment.
    """

    def __init__(
        self,
        home: Path,
        *,
        tracker: str = "default",
        service: str | None = None,
        sinks: Sequence[str],
        counters: Counters,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int | None = None,
        external: bool = False,
    ) -> None:
        self.home = home
        """Where the files are: as given, or a private temporary directory once that cannot be written."""
        self._wanted = home
        self._tracker, self._service, self._sinks = tracker, service, tuple(sinks)
        self._counters = counters
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes if max_bytes is None else min(segment_bytes, max_bytes // 8)
        self._external = external
        self._pen: _Pen | None = None
        self._own: list[OwnSegment] = []
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._try_again = 0.0
        self._trouble = ""
        self._recovering = threading.RLock()  # a handler of a signal may flush in the middle
        forks.register(self)

    @property
    def directory(self) -> Path:
        """Where the segments are."""
        return self.home / "journal"

    def append(self, line: bytes) -> None:
        """Write `line`, JSON without a line feed, so that it survives this process.

        For any thread and any finaliser; never blocks on a lock and never raises.
        """
        try:
            pen = self._pen
            if pen is not None:
                data = b"\n%08x %b" % (crc32(line), line)
                if write(pen.fd, data) == len(data):
                    pen.size += len(data)
                    if pen.size >= self._segment_bytes:
                        self._drop(pen)
                    return
        except Exception:  # noqa: S110 - it is tried again, and the reason noted, below
            pass
        try:
            try:
                written = self._write(line)
            except Exception as error:
                self._trouble, written = type(error).__name__, False
            if not written:
                self._hold(line)
        except Exception:  # noqa: S110 - nobody can be told: an interpreter that is going down
            pass

    def prepare(self) -> None:
        """Start a segment if there is none, so that the end of an answer need not; never raises."""
        if self._pen is None:
            with contextlib.suppress(Exception):
                self._start()

    def close(self) -> None:
        """Finish the segment. A later `append` starts another, so no event is ever refused."""
        self._pen = None

    def own(self) -> list[OwnSegment]:
        """The segments that this process has written and that are not yet removed, oldest first."""
        return self._own.copy()

    def forget(self, path: Path) -> None:
        """Leave out of `own()` a segment that has been removed."""
        for own in self.own():
            if own.path == path:
                with contextlib.suppress(ValueError):  # another thread was first
                    self._own.remove(own)

    def replace(self, own: OwnSegment) -> None:
        """Write no more to this segment: somebody has removed its file."""
        pen = self._pen
        if pen is not None and pen.path == own.path:
            self._drop(pen)

    def miss(self, own: OwnSegment) -> None:
        """Count it, and begin another, if somebody has removed the file of this segment under its writer.

        A segment that was delivered has no writer any more when it goes: so what was in this one, and was
        not being delivered already, is lost.
        """
        if not own.finished() and not own.path.exists():
            self._counters.count("segment_removed")
            self.replace(own)
            self.forget(own.path)

    def sync(self) -> None:
        """Have the disk take all that has been appended so far. For threads that may wait for a disk."""
        for own in self.own():
            try:
                own.sync()
            except OSError as error:
                # What the disk did not take now it may say to have later: rather begin anew.
                self._counters.count("sync_failed", _words(error))
                self.replace(own)

    @property
    def held(self) -> int:
        """How many events wait in memory because no file took them."""
        return len(self._held)

    def recover(self) -> bool:
        """Write what is held in memory; False when no file takes it still. For delivery threads."""
        with self._recovering:
            while self._held:
                line, written = self._held.popleft(), False
                try:
                    written = self._write(line)
                finally:
                    if not written:
                        self._held.appendleft(line)
                if not written:
                    return False
            self._held_bytes = 0
            return True

    def take_held(self) -> list[bytes]:
        """What is held in memory, which now is the caller's to deliver. For delivery threads."""
        taken: list[bytes] = []
        with self._recovering, contextlib.suppress(IndexError):
            while True:
                taken.append(self._held.popleft())
        self._held_bytes = 0
        return taken

    def spill(self, lines: Sequence[bytes], sink: str) -> bool:
        """Write `lines` to a finished segment of their own, for one sink only; False when it cannot be."""
        try:
            if self._is_full():
                return False
            pen = self._create((sink,))
            try:
                _write_whole(pen.fd, b"".join(map(record, lines)))
            except OSError:
                os.ftruncate(pen.fd, pen.size)
                return False
        except OSError:
            return False
        return True

    def after_fork_in_child(self) -> None:
        """The child writes a segment of its own. What the parent wrote or holds is the parent's."""
        self._pen = None
        self._own = []
        self._held = deque()
        self._held_bytes = 0
        self._try_again = 0.0
        self._recovering = threading.RLock()

    def _write(self, line: bytes) -> bool:
        """Write with what `append` has no time for: no segment yet, a short write, a full disk.

        The record goes once more, whole, to the segment at hand, then to a new one.
        """
        data = record(line)
        for _ in range(2):
            pen = self._pen or self._start()
            if pen is None:
                return False
            try:
                if write(pen.fd, data) == len(data):
                    pen.size += len(data)
                    return True
                self._trouble = "a short write"
            except OSError as error:
                self._trouble = _words(error)
            self._drop(pen)
        self._try_again = monotonic() + RETRY_SECONDS
        return False

    def _hold(self, line: bytes) -> None:
        name = "journal_full" if self._trouble == _FULL else "journal_failed"
        self._counters.count(name, self._trouble)
        if len(self._held) >= HELD_EVENTS or self._held_bytes + len(line) > HELD_BYTES:
            self._counters.count("memory_dropped", f"{len(line)} bytes")
            return
        # The sum may be off by what threads add at once; it is exact again when memory is empty.
        self._held_bytes += len(line)
        self._held.append(line)
        self._counters.count("memory_journal")

    def _drop(self, pen: _Pen) -> None:
        if self._pen is pen:
            self._pen = None

    def _start(self) -> _Pen | None:
        if monotonic() < self._try_again:
            return None
        if self._is_full():
            self._trouble = _FULL
            self._try_again = monotonic() + RETRY_SECONDS
            return None
        try:
            try:
                pen = self._create(self._sinks)
            except OSError as error:
                if error.errno not in _NOT_OURS or self.home != self._wanted:
                    raise
                self.home = private_home(self._wanted)
                self._counters.count("temporary_home", _words(error))
                pen = self._create(self._sinks)
        except OSError as error:
            self._trouble = _words(error)
            self._try_again = monotonic() + RETRY_SECONDS
            return None
        self._pen = pen
        return pen

    def _is_full(self) -> bool:
        if self._max_bytes is None:
            return False
        taken = 0
        for segment in segments(self.directory):
            with contextlib.suppress(OSError):  # it has been delivered meanwhile
                taken += segment.stat().st_size
        return taken >= self._max_bytes

    def _create(self, sinks: tuple[str, ...]) -> _Pen:
        directory = self.directory
        make_private(directory)
        name = f"{time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}"
        half_made, path = directory / f".{name}.new", directory / f"{name}.seg"
        named = Header(
            tracker=self._tracker,
            service=self._service,
            sinks=sinks,
            created=time(),
            external=self._external,
        )
        data = record(named.to_line())
        with forks.opening("write"):
            pen = _Pen(path, _open(half_made))
            own = OwnSegment(path, sinks, len(data), pen)
            try:
                fcntl.flock(pen.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write_whole(pen.fd, data)
                pen.size = len(data)
                half_made.rename(path)
            except OSError:
                half_made.unlink(missing_ok=True)
                raise
            forks.register(pen)
            if self._external:  # nobody here notices that others have removed what they delivered
                self._own = [each for each in self._own if each.path.exists()]
            self._own.append(own)
        return pen


class _Pen:
    """The right to write to one segment. When the last thread lets go of it, the segment is finished."""

    __slots__ = ("__weakref__", "_file", "_pid", "fd", "path", "size")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = 0
        self._pid = os.getpid()
        self._file = identity(fd)

    def after_fork_in_child(self) -> None:
        """The file is the parent's, and so is its lock: close it here, and do not unlock it."""
        self._close(unlock=False)

    def _close(self, *, unlock: bool) -> None:
        # A program may have closed all its files, and have another by this number now.
        if self.fd >= 0 and identity(self.fd) == self._file:
            if unlock:
                release(self.fd)
            os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._close(unlock=self._pid == os.getpid())


def _open(path: Path) -> int:
    low = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    from_here = HIGH_DESCRIPTOR if limit == resource.RLIM_INFINITY else min(HIGH_DESCRIPTOR, limit // 2)
    try:
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, from_here)
    except OSError:
        return low
    os.close(low)
    return high


def _write_whole(fd: int, data: bytes) -> None:
    if write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
