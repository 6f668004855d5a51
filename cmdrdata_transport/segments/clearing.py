"""What goes from a journal: segments that are delivered, files that were left half-made, single events.

Does not know who asks for that, or why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from time import time

from cmdrdata_transport.segments.files import is_locked, mark_of, marked, names_in, reading, segments
from cmdrdata_transport.segments.records import BEFORE_LINE, header_of, read_on

LITTER_SECONDS = 3600.0
"""Age at which a half-made file is nobody's any more: making one takes milliseconds."""


def remove_if_delivered(segment: Path) -> bool:
    """Remove a finished segment when every sink it names has taken all of it; say whether it is gone.

    Raises:
        OSError: it cannot be read or removed.
    """
    try:
        with reading(segment) as fd:
            found = header_of(fd)
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
            if not is_locked(segment):
                remove_if_delivered(segment)


def clear_litter(directory: Path) -> None:
    """Remove what processes that died in the middle of making or removing a segment left behind."""
    names = names_in(directory)
    stems = {name.removesuffix(".seg") for name in names if name.endswith(".seg")}
    for name in names:
        half_made = name.endswith(".new")
        orphan = name.endswith(".mark") and name.split(".")[0] not in stems
        if half_made or orphan:
            with contextlib.suppress(OSError):
                path = directory / name
                if time() - path.stat().st_mtime > LITTER_SECONDS:
                    path.unlink()


def blank(segment: Path, unwanted: Callable[[bytes], bool]) -> int:
    """Overwrite the events that are not wanted with line feeds, which no reader minds; how many.

    Everything else stays where it is, so writers and readers need not know. Raises `OSError`.
    """
    blanked = 0
    with contextlib.suppress(FileNotFoundError, ValueError), segment.open("r+b", buffering=0) as file:
        fd = file.fileno()
        found = header_of(fd)
        offset, whole = (found[1], False) if found else (0, True)
        while not whole:
            records, _, whole = read_on(fd, offset, finished=True)
            for line, end in zip(records.lines, records.ends, strict=True):
                if unwanted(line):
                    size = len(line) + BEFORE_LINE
                    os.pwrite(fd, b"\n" * size, offset + end - size)
                    blanked += 1
            offset += records.used
        if blanked:
            os.fsync(fd)
    return blanked
