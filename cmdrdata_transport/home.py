"""Home: the directory that has all files of ours, and what stands in for it where it cannot be written.

Knows whose a directory has to be for us to use it. Does not know what is in the files.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from zlib import crc32

from cmdrdata_transport.counters import Counters
from cmdrdata_transport.segments import Backlog, backlog

_EFFECTIVE = os.access in os.supports_effective_ids


def find_home(wanted: Path, counters: Counters) -> Path:
    """`wanted`, or a private temporary directory, counted, when that cannot be written.

    `wanted` too where nothing at all can be written: then the journal is in memory.
    """
    in_the_way = obstacle(wanted)
    if in_the_way is None:
        return wanted
    try:
        stand_in = private_home(wanted)
    except OSError:
        return wanted
    counters.count("temporary_home", f"{in_the_way} cannot be written")
    return stand_in


def obstacle(wanted: Path) -> Path | None:
    """What keeps this user from writing or making `wanted`, itself or one above it; None if nothing does."""
    # `Path.exists` would raise below a directory that this user may not enter.
    there = next(each for each in (wanted, *wanted.absolute().parents) if os.path.exists(each))  # noqa: PTH110
    usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE)
    return None if usable else there


def journals(home: Path) -> list[Path]:
    """Where the segments of this home are: in it, and where they went while it could not be written."""
    with contextlib.suppress(OSError):
        stand_in = _stand_in(home)
        if _is_ours_alone(stand_in):
            return [home / "journal", stand_in / "journal"]
    return [home / "journal"]


def backlog_of(home: Path) -> list[Backlog]:
    """What is in the journal of this home and not delivered yet, by any process."""
    return [each for directory in journals(home) for each in backlog(directory)]


def private_home(wanted: Path) -> Path:
    """The directory that stands in for `wanted`: ours alone, and the same for the next process of this user.

    So the next process delivers what this one leaves. A place that somebody else has prepared is not used.
    """
    steady = _stand_in(wanted)
    with contextlib.suppress(OSError):
        steady.mkdir(mode=0o700, exist_ok=True)
        if _is_ours_alone(steady):
            return steady
    return Path(tempfile.mkdtemp(prefix="cmdrdata-"))


def _stand_in(wanted: Path) -> Path:
    return Path(tempfile.gettempdir()) / f"cmdrdata-{os.geteuid()}-{crc32(os.fsencode(wanted)):08x}"


def _is_ours_alone(directory: Path) -> bool:
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def make_private(directory: Path) -> None:
    """Make `directory` and the one above it, for this user alone, unless they are there."""
    if not directory.is_dir():
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
