"""What bytes of a customer are in files, whatever these are; and lines of files, overwritten where they are.

A line is overwritten with blanks, its end too, so that it becomes a part of a neighbour, where JSON has
room for blanks: who reads the file finds one line less and nothing that is no JSON, and who follows it by
the offset is not disturbed. Does not know which files there are, or what else is in a line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from cmdrdata_transport.descriptors import lock, release
from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.event import encode

PATIENCE_SECONDS = 5.0
"""How long another writer may hold a file: it appends a batch and goes."""

TELLING = 8
"""So many bytes of an id are found by themselves; a shorter one may be a part of anything."""

_AT_ONCE = 1024 * 1024


def trace_of(customer: str, *, anywhere: bool = False) -> re.Pattern[bytes]:
    """How a customer stands in an event, a dead letter or a job, all of which are JSON.

    `anywhere`: also as a part of something longer, as in the pages of a database, where nothing parts one
    column from the next.
    """
    written = re.escape(encode({"": customer})[5:-2])
    named = rb'"(?:customer_id|told)"\s*:\s*"' + written + rb'"'
    if len(written) < TELLING:
        return re.compile(named)
    return re.compile(written if anywhere else rb"|".join([named, _APART % written]))


_APART = rb"(?<![\w.:@-])%b(?![\w.:@-])"
"""By itself: customer-1 is not in customer-10."""


def holding(files: Iterable[Path], trace: re.Pattern[bytes]) -> list[Path]:
    """Those of the files that have it. One that cannot be read may have it, and is among them."""
    return [file for file in files if _holds(file, trace)]


def count_lines(file: Path, unwanted: Callable[[bytes], bool]) -> int:
    """How many lines there are that are not wanted; none where there is no file."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as lines:
        return sum(map(unwanted, lines))
    return 0


def blank_lines(file: Path, unwanted: Callable[[bytes], bool]) -> int:
    """Overwrite the lines that are not wanted, under the file's lock; how many.

    Raises:
        Unavailable: somebody else holds the file.
        OSError: it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as lines, _alone(lines.fileno()):
        fd = lines.fileno()
        runs, number, size = _runs(lines, unwanted)
        for start, end in runs:
            if (start, end) == (0, size):
                os.ftruncate(fd, 0)
            elif end == size:  # the last one: its neighbour is the one before
                _blank(fd, start - 1, end - (os.pread(fd, 1, end - 1) == b"\n"))
            else:
                _blank(fd, start, end)
        if number:
            os.fsync(fd)
        return number
    return 0


def _runs(
    lines: Iterable[bytes], unwanted: Callable[[bytes], bool]
) -> tuple[list[tuple[int, int]], int, int]:
    """From where to where there is nothing that is wanted; the number of lines; the size of all."""
    runs: list[tuple[int, int]] = []
    number = offset = 0
    for line in lines:
        end = offset + len(line)
        if unwanted(line):
            number += 1
            start = runs.pop()[0] if runs and runs[-1][1] == offset else offset
            runs.append((start, end))
        offset = end
    return runs, number, offset


def _blank(fd: int, start: int, end: int) -> None:
    for offset in range(start, end, _AT_ONCE):
        os.pwrite(fd, b" " * min(_AT_ONCE, end - offset), offset)


def _holds(file: Path, trace: re.Pattern[bytes]) -> bool:
    try:
        with file.open("rb") as opened:
            return any(trace.search(each) for each in _overlapping(opened.read))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _overlapping(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Pieces of a file, each with the end of the one before, so that nothing is cut in two."""
    before = b""
    while piece := read(_AT_ONCE):
        yield before + piece
        before = piece[-_LONGEST:]


_LONGEST = 8 * 1024
"""Longer than any customer's id is written."""


@contextlib.contextmanager
def _alone(fd: int) -> Generator[None]:
    try:
        lock(fd, fcntl.LOCK_EX, PATIENCE_SECONDS)
    except BlockingIOError:
        raise Unavailable("another process holds the file") from None
    try:
        yield
    finally:
        release(fd)
