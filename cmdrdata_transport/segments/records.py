"""The bytes of a segment: records, of which the first is the header, and reading them from an open file.

Does not know where the file is, or who reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from cmdrdata_transport.event import decode, encode

FORMAT = "cmdrdata.journal/1"

EXTERNAL = "external"

READ_BYTES = 1024 * 1024
"""What is read at once: some thousand events, so that a backlog of any size takes little memory."""

HEADER_BYTES = 16 * 1024
"""Enough for a header with any sensible number of sinks; more is read when it is not."""

BEFORE_LINE = 9
"""What stands before the line of a record, behind the line feed: checksum and space."""


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
            lines.append(found[BEFORE_LINE:])
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


def header_of(fd: int) -> tuple[Header, int] | None:
    """The header of an open segment and the offset after it; None for another format.

    Raises:
        ValueError: the segment does not begin with a whole record.
    """
    found, _, _ = read_on(fd, 0, finished=True, size=HEADER_BYTES)
    if not found.lines or (found.torn and found.torn[0][0] < found.ends[0]):
        raise ValueError("a segment without a header")
    header = Header.from_line(found.lines[0])
    return (header, found.ends[0]) if header else None


def read_on(fd: int, offset: int, *, finished: bool, size: int = READ_BYTES) -> tuple[Records, bytes, bool]:
    """The records from `offset` on, the bytes they were in, and whether these reach the end of the file."""
    while True:
        data = os.pread(fd, size, offset)
        whole = len(data) < size
        found = parse(data, final=finished and whole)
        if found.used or whole:
            return found, data, whole
        size *= 2  # a record larger than what was read


def lines_between(fd: int, offset: int, end: int) -> Iterator[bytes]:
    """The lines of an open segment between two offsets."""
    whole = False
    while offset < end and not whole:
        found, _, whole = read_on(fd, offset, finished=True)
        yield from (
            line for line, after in zip(found.lines, found.ends, strict=True) if offset + after <= end
        )
        offset += found.used


def count_after(fd: int, offset: int) -> tuple[int, int, bytes]:
    """What stands in an open segment behind an offset: how many events, their size, and the first."""
    events = size = 0
    oldest = b""
    whole = False
    while not whole:
        found, _, whole = read_on(fd, offset, finished=True)
        oldest = oldest or next(iter(found.lines), b"")
        events += len(found.lines)
        size += sum(map(len, found.lines))
        offset += found.used
    return events, size, oldest
