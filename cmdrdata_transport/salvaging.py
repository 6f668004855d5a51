"""What can be read of damaged pieces of the journal, and sending it after all.

A segment whose begin is damaged is set aside whole, and may hold a thousand events that are not: each has a
checksum of its own. They go through the journal like dead letters; the piece keeps what is damaged, until
somebody has looked at it. Whoever is killed before that finds all of it again, and what he had written
already is told twice: not to a sink that knows ids.

Does not know how a sink is delivered to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from cmdrdata_transport.appending import keep_only
from cmdrdata_transport.descriptors import release
from cmdrdata_transport.errors import TrackingError
from cmdrdata_transport.event import FORMAT, decode
from cmdrdata_transport.home import journals
from cmdrdata_transport.replaying import Again, in_portions
from cmdrdata_transport.segments import Header, parse
from cmdrdata_transport.segments.files import reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Torn:
    """A piece of the journal that was set aside; `events` of it are whole, and can be sent.

    `sinks` were to have them, if that can be read too.
    """

    path: Path
    events: int
    sinks: tuple[str, ...]


def torn_pieces(home: Path) -> list[Torn]:
    """What was set aside as damaged, oldest first. Changes nothing."""
    return [
        _read(path)
        for directory in journals(home)
        for path in sorted(directory.glob("*.torn"))
        if path.is_file()
    ]


def salvage(home: Path, torn: Torn, sinks: Sequence[str]) -> int:
    """Write what is whole to the journal again, for these sinks, and keep the rest; how many events.

    Raises:
        TrackingError: another process is at it, or the journal takes nothing; nothing is lost.
        OSError: the piece cannot be read, or the rest not be written.
    """
    again = Again(home)
    events = 0
    with _alone(torn.path) as fd:
        for some in in_portions(line for _, line in _lines(fd) if _is_event(line)):
            for sink in sinks:
                again.write(some, sink)
            events += len(some)
        again.settle(torn.path)
        keep_only(torn.path, _rest(fd))
    return events


def _read(path: Path) -> Torn:
    events = 0
    sinks: tuple[str, ...] = ()
    with contextlib.suppress(OSError), reading(path) as fd:
        for _, line in _lines(fd):
            if _is_event(line):
                events += 1
            elif header := _header(line):
                sinks = header.sinks
    return Torn(path=path, events=events, sinks=sinks)


def _lines(fd: int) -> Iterator[tuple[bytes, bytes | None]]:
    """Each piece between line feeds, and the line that it is a record of; None if it is none."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        for piece in file:
            found = parse(piece.strip(), final=True)  # a line that `erase` took out may have left blanks
            yield piece, found.lines[0] if found.lines else None


def _is_event(line: bytes | None) -> TypeGuard[bytes]:
    if line is None:
        return False
    said = decode(line)
    return isinstance(said, dict) and said.get("format") == FORMAT


def _header(line: bytes | None) -> Header | None:
    return None if line is None else Header.from_line(line)


def _rest(fd: int) -> Iterator[bytes]:
    """All of a piece but what is whole in it."""
    return (
        piece for piece, line in _lines(fd) if piece.strip() and not _is_event(line) and not _header(line)
    )


@contextmanager
def _alone(path: Path) -> Generator[int]:
    """The piece, for us alone."""
    with reading(path) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrackingError(f"another process has {path}") from None
        try:
            if not path.exists() or not os.path.samestat(os.fstat(fd), path.stat()):
                raise TrackingError(f"another process has sent what {path} had")
            yield fd
        finally:
            release(fd)
