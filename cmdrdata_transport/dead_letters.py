"""What sinks refuse for ever, kept in a file for each: JSON lines with the reason, in `dead/` in home.

Knows how such a file is named, that an event stands in a letter as it was written, to the byte, and how
several processes write to one file and take it out. Does not know why a sink refuses, or what becomes of
the letters (`replaying.py`, `housekeeping.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

from cmdrdata_transport.appending import append
from cmdrdata_transport.descriptors import release
from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.home import make_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A refused event: of which sink, why, and when (ISO 8601); and the letter, as it is `written`."""

    sink: str
    reason: str
    rejected_at: str
    event: Mapping[str, Any]
    written: bytes

    @property
    def line(self) -> bytes:
        """The event's line, every digit of it."""
        # No string has these bytes in it: they would be escaped there.
        line = self.written.partition(_EVENT)[2].rstrip().removesuffix(b"}")
        with contextlib.suppress(ValueError):
            if decode(line) == self.event:
                return line
        return encode(self.event)  # somebody has written the letter anew


def dead_letters(home: Path, sink: str) -> Path:
    """The file of what `sink` has refused, as JSON lines: `sink`, `reason`, `rejected_at`, `event`."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", sink).strip("-.")[:80]
    return home / "dead" / f"{readable}-{crc32(sink.encode()):08x}.jsonl"


def write_dead_letter(home: Path, sink: str, line: bytes, reason: str) -> None:
    """Keep a refused event. Raises `OSError` when it cannot be kept: then it is not done with."""
    head = {"rejected_at": datetime.now(UTC).isoformat(), "sink": sink, "reason": reason}
    try:
        decode(line)
    except ValueError:
        letter = encode({**head, "event": line.decode("utf-8", "replace")})
    else:
        letter = encode(head).removesuffix(b"}") + _EVENT + line + b"}"
    path = dead_letters(home, sink)
    with letter_box(path) as fd:
        append(fd, letter + b"\n", path)


def read_letter(letter: bytes) -> Letter | None:
    """What a line of such a file says; None where it has no event."""
    try:
        said = decode(letter)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(event := said.get("event"), dict):
        return None
    sink, reason, rejected_at = (str(said.get(each, "")) for each in ("sink", "reason", "rejected_at"))
    return Letter(sink=sink, reason=reason, rejected_at=rejected_at, event=event, written=letter)


_EVENT = b',"event":'


@contextlib.contextmanager
def letter_box(path: Path, *, wait: bool = True, make: bool = True) -> Generator[int]:
    """The dead-letter file at `path`, to append to, for us alone; made if need be, unless we only read it.

    Raises:
        OSError: it cannot be opened, or, unless we `wait`, somebody else has it.
    """
    make_private(path.parent)
    while True:
        fd = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(fd, path):
                continue  # it has been taken out to be sent again
            yield fd
            return
        finally:
            release(fd)
            os.close(fd)


def _is_still(fd: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False
