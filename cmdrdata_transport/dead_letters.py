"""What sinks refuse for ever, kept in a file for each: JSON lines with the reason, in `dead/` in home.

Knows how such a file is named, and how several processes write to one and take it out. Does not know why
a sink refuses, or what becomes of the letters (`replaying.py`, `housekeeping.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

from cmdrdata_transport.appending import append
from cmdrdata_transport.descriptors import release
from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.home import make_private


def dead_letters(home: Path, sink: str) -> Path:
    """The file of what `sink` has refused, as JSON lines: `sink`, `reason`, `rejected_at`, `event`."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", sink).strip("-.")[:80]
    return home / "dead" / f"{readable}-{crc32(sink.encode()):08x}.jsonl"


def write_dead_letter(home: Path, sink: str, line: bytes, reason: str) -> None:
    """Keep a refused event. Raises `OSError` when it cannot be kept: then it is not done with."""
    try:
        event = decode(line)
    except ValueError:
        event = line.decode("utf-8", "replace")
    when = datetime.now(UTC).isoformat()
    letter = encode({"rejected_at": when, "sink": sink, "reason": reason, "event": event}) + b"\n"
    with letter_box(dead_letters(home, sink)) as fd:
        append(fd, letter)


@contextlib.contextmanager
def letter_box(path: Path, *, wait: bool = True) -> Generator[int]:
    """The dead-letter file at `path`, to append to, for us alone, made if need be.

    Raises:
        OSError: it cannot be opened, or, unless we `wait`, somebody else has it.
    """
    make_private(path.parent)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
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
