"""A damaged ledger: set aside, and begun anew with what the journal still has.

Nothing is thrown away: the damaged file stays beside the new one, under a name that says since when, with
what SQLite keeps beside it. Any number of processes may find the damage at once; one of them does it.

Does not know how a ledger is made or what a row is: whoever asks says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from glob import escape
from pathlib import Path

from cmdrdata_transport.databases import only_to_read
from cmdrdata_transport.descriptors import locked, release
from cmdrdata_transport.errors import Unavailable

_MAGIC = b"SQLite format 3\0"
_BESIDE = ("-wal", "-shm")

PATIENCE_SECONDS = 5.0
"""How long another process may be at it: to exchange the files takes milliseconds."""


def aside_from(path: Path) -> list[Path]:
    """The damaged ledgers that were set aside from here, the oldest first, without the files beside them."""
    found = path.parent.glob(f"{escape(path.name)}.corrupt-*")
    return sorted(each for each in found if not each.name.endswith(_BESIDE))


def is_damage(error: Exception, path: Path) -> bool:
    """Whether this error says that the ledger at `path` is damaged, and not that something else is there."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        with contextlib.suppress(OSError), path.open("rb") as file:
            begin = file.read(len(_MAGIC))
            return begin == _MAGIC or not any(begin)
    return code == sqlite3.SQLITE_CORRUPT


def renew(
    path: Path,
    *,
    damaged: tuple[int, int] | None,
    connect: Callable[[Path], sqlite3.Connection],
    fill: Callable[[sqlite3.Connection, Iterable[bytes]], None],
    taken: Callable[[], Iterable[bytes]],
) -> str:
    """Set the ledger at `path` aside, if it is still the `damaged` one, and make another of what is `taken`.

    Returns what is to be told of it, nothing where somebody else has done it.

    Raises:
        Unavailable: another process is at it.
        OSError, sqlite3.Error: it cannot be done now; nothing has changed then.
    """
    with _alone(path, damaged) as found:
        if found is None or found != damaged:
            return ""
        aside = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        fresh = path.with_name(f"{path.name}.new")
        for each in (fresh, *_beside(fresh)):
            each.unlink(missing_ok=True)
        with closing(connect(fresh)) as made:
            fill(made, taken())
        with opening(path, fcntl.LOCK_EX):
            os.link(path, aside)
            for old, new in zip(_beside(path), _beside(aside), strict=True):
                with contextlib.suppress(FileNotFoundError):
                    old.rename(new)
            fresh.rename(path)
        with closing(connect(path)) as made:
            fill(made, taken())  # what somebody has stored in the old one meanwhile
            return f"{aside} has {_only_in(aside, made)}"


@contextmanager
def opening(path: Path, how: int = fcntl.LOCK_SH, *, patience: float = PATIENCE_SECONDS) -> Generator[None]:
    """The file at `path` and those beside it are of one ledger, for as long as this lasts.

    Raises `Unavailable` when another process has it for more than `patience` seconds.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path.parent, how, patience))
        except BlockingIOError:
            raise Unavailable("another process sets the ledger aside, or holds its directory") from None
        yield


@contextmanager
def _alone(path: Path, damaged: tuple[int, int] | None) -> Generator[tuple[int, int] | None]:
    """The identity of the file at `path`, if it is the `damaged` one; nobody else sets it aside meanwhile."""
    if _identity(path) != damaged:  # and is not to be opened but by SQLite: see `databases.py`
        yield None
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, there = os.fstat(fd), path.stat()
        same = (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)
        yield (found.st_dev, found.st_ino) if same else None
    except BlockingIOError:
        raise Unavailable("the ledger is damaged, and another process sets it aside") from None
    finally:
        release(fd)
        os.close(fd)


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _BESIDE]


def _only_in(aside: Path, ledger: sqlite3.Connection) -> str:
    """How many events, of which time, can be read in the file set aside and are not in the new one."""
    known = "SELECT 1 FROM usage_events WHERE event_id = ?"
    number, first, last, cut = 0, "", "", ""
    with closing(sqlite3.connect(only_to_read(aside), uri=True)) as old:
        try:
            for event_id, timestamp in old.execute("SELECT event_id, timestamp FROM usage_events"):
                if ledger.execute(known, (event_id,)).fetchone() is None:
                    number += 1
                    first, last = min(first or timestamp, timestamp), max(last, timestamp)
        except sqlite3.Error:
            cut = ", and what cannot be read"
    between = f" of {first} to {last}" if number else ""
    return f"{number} events{between} that are nowhere else{cut}"
