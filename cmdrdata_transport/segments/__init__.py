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

    records    the bytes: records and the header
    files      segments, marks, locks
    claims     the right to deliver, and how far that is
    looking    what is there, and waits for whom
    clearing   what goes

Knows files. Does not know how records are made, what a sink is, or when to deliver.
"""

from __future__ import annotations

from cmdrdata_transport.segments.claims import Claim, Refusal, claim, set_aside_headless
from cmdrdata_transport.segments.clearing import blank, clear_delivered, clear_litter, remove_if_delivered
from cmdrdata_transport.segments.files import mark_of, marked, segments
from cmdrdata_transport.segments.looking import (
    Backlog,
    backlog,
    foreign,
    in_use,
    lines_of,
    sinks_awaited,
    taken,
)
from cmdrdata_transport.segments.records import FORMAT, Header, parse, record

__all__ = [
    "FORMAT",
    "Backlog",
    "Claim",
    "Header",
    "Refusal",
    "backlog",
    "blank",
    "claim",
    "clear_delivered",
    "clear_litter",
    "foreign",
    "in_use",
    "lines_of",
    "mark_of",
    "marked",
    "parse",
    "record",
    "remove_if_delivered",
    "segments",
    "set_aside_headless",
    "sinks_awaited",
    "taken",
]
