"""What is in a journal, and waits for whom.

Changes nothing, and has nobody wait: what it says may be over already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmdrdata_transport.segments.files import is_locked, marked, names_in, reading, segments, try_lock
from cmdrdata_transport.segments.records import Header, count_after, header_of, lines_between


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
        with contextlib.suppress(OSError, ValueError), reading(segment) as fd:
            found = header_of(fd)
            if found and sink in found[0].sinks:
                yield from lines_between(fd, found[1], marked(segment, sink))


def lines_of(segment: Path) -> Iterator[bytes]:
    """All events that are still in a segment, delivered ones too; none where it cannot be read."""
    with contextlib.suppress(OSError, ValueError), reading(segment) as fd:
        if found := header_of(fd):
            yield from lines_between(fd, found[1], os.fstat(fd).st_size)


def in_use(directory: Path) -> bool:
    """Whether a process writes one of the segments in `directory`, or delivers one."""
    names = (each for each in names_in(directory) if each.endswith((".seg", ".mark")))
    return any(is_locked(directory / each) for each in names)


def sinks_awaited(directory: Path) -> set[str]:
    """The sinks of all segments but those whose writers are at work and deliver them. Reads headers only."""
    sinks: set[str] = set()
    for segment in segments(directory):
        with contextlib.suppress(OSError, ValueError), reading(segment) as fd:
            found = header_of(fd)
            if found and not _delivers_itself(fd, found[0]):
                sinks.update(found[0].sinks)
    return sinks


def _delivers_itself(fd: int, header: Header) -> bool:
    """Whether a segment's writer is at work, and delivers it."""
    return not header.external and not try_lock(fd, fcntl.LOCK_SH)


def _backlog_of(segment: Path) -> Iterator[Backlog]:
    with contextlib.suppress(OSError, ValueError), reading(segment) as fd:
        found = header_of(fd)
        header, start = found or (None, 0)
        live = header is not None and _delivers_itself(fd, header)
        for sink in header.sinks if header else ():
            events, size, oldest = count_after(fd, max(start, marked(segment, sink)))
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
        with reading(segment) as fd:
            return header_of(fd) is None
    except (FileNotFoundError, ValueError):  # it has been delivered, or will be set aside
        return False
    except OSError:
        return True
