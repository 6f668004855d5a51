"""What a sink has been sent already, for events that may be told a second time.

Most ids are random and come once. An id that follows from a resource's own (a background answer, a line
of a batch) comes again when the resource is asked for again, by this process or another, next week too.
A sink with a key of its own drops the second; for the others it is looked up here, below home.

The same record may have to be sent again, after a crash or a failure. So the first record that came for
an id keeps it: what is kept beside the id is a checksum of the record.

A file that turns out to be damaged is put beside, and another begun: what it knew is not known any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from time import time
from zlib import crc32

from cmdrdata_transport import forks
from cmdrdata_transport.databases import make_private_file
from cmdrdata_transport.descriptors import locked
from cmdrdata_transport.event import decode
from cmdrdata_transport.greenlets import apart
from cmdrdata_transport.identity import is_derived

KEPT_SECONDS = 400 * 24 * 3600
"""How long an id is known: a year of invoices, and a month."""

PATIENCE_SECONDS = 5.0

_START = re.compile(rb'\{"format":"[^"\\]*","event_id":"([^"\\]+)"')
"""How an event begins, as a rule. Any other is read: what its metadata calls an id is none of its own."""

_EVERY = 1000
"""Of how many calls one forgets what is old."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_Keyed = dict[int, tuple[str, int]]
"""Of lines that may come again, by their place: the id, and what the record is known by."""

_Question = Callable[[_Keyed, str], set[int]]


class Seen:
    """The ids that sinks of this home have been sent. Used by delivery threads; opens nothing before."""

    def __init__(self, home: Path, count: Callable[..., None]) -> None:
        self._path = home / "seen.db"
        self._count = count
        self._in_use = threading.Lock()
        self._at_rest = False
        self._unsafe = False
        self._calls = 0
        self._opened: os.stat_result | None = None
        forks.register_to_settle(self)

    def again(self, lines: Sequence[bytes], sink: str) -> set[int]:
        """Which of the lines, by their place, tell what `sink` was told by another record before.

        Where that cannot be found out none does: a second telling has the first one's id, and a
        missing one would be lost.
        """
        return self._ask(self._look_up, lines, sink)

    def anew(self, lines: Sequence[bytes], sink: str) -> None:
        """Have these sent to `sink` once more, as somebody asks for that: they are the first from now on."""
        self._ask(self._replace, lines, sink)

    def _ask(self, how: _Question, lines: Sequence[bytes], sink: str) -> set[int]:
        ids = ((place, _id_of(line)) for place, line in enumerate(lines))
        keyed = {place: (each, crc32(lines[place])) for place, each in ids if each and is_derived(each)}
        if not keyed or self._unsafe:
            return set()
        with self._in_use:
            try:
                return apart(self._sound, how, keyed, sink)
            except (sqlite3.Error, OSError) as error:
                self._count("seen_unknown", type(error).__name__)
                return set()

    def _sound(self, how: _Question, keyed: _Keyed, sink: str) -> set[int]:
        try:
            return how(keyed, sink)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _DAMAGE:
                raise
            self._count("seen_unknown", "it was damaged, and is begun anew")
            self._put_beside()
        return how(keyed, sink)

    def _put_beside(self) -> None:
        beside = self._path.with_name(f"{self._path.name}.corrupt")
        with (
            locked(self._path.parent, fcntl.LOCK_EX, PATIENCE_SECONDS),
            contextlib.suppress(FileNotFoundError),
        ):
            if self._opened is None or not os.path.samestat(self._path.stat(), self._opened):
                return  # another process has done it
            for suffix in ("-journal", ""):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").replace(f"{beside}{suffix}")

    def _replace(self, keyed: _Keyed, sink: str) -> set[int]:
        rows = [(event_id, sink, record, int(time())) for event_id, record in keyed.values()]
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        return set()

    def _look_up(self, keyed: _Keyed, sink: str) -> set[int]:
        again: set[int] = set()
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for place, (event_id, record) in keyed.items():
                connection.execute(
                    "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (event_id, sink, record, int(time()))
                )
                first = connection.execute(
                    "SELECT record FROM seen WHERE event_id = ? AND sink = ?", (event_id, sink)
                )
                if first.fetchone()[0] != record:
                    again.add(place)
            self._calls += 1
            if self._calls % _EVERY == 1:
                connection.execute("DELETE FROM seen WHERE at < ?", (int(time()) - KEPT_SECONDS,))
            connection.execute("COMMIT")
        return again

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        home = self._path.parent
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever puts the file beside waits for us. Else we might open the old one, take the journal of
        # the new one for its own, as their names are one, and roll it back: the new one would forget.
        with locked(home, fcntl.LOCK_SH, PATIENCE_SECONDS):
            make_private_file(self._path)
            self._opened = self._path.stat()
            connection = sqlite3.connect(self._path, timeout=PATIENCE_SECONDS, isolation_level=None)
            with closing(connection):
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS seen (event_id TEXT, sink TEXT, record INTEGER NOT NULL, "
                    "at INTEGER NOT NULL, PRIMARY KEY (event_id, sink)) WITHOUT ROWID"
                )
                yield connection

    def before_fork(self) -> None:
        """Wait until nothing is open: a child that inherits SQLite's locks believes it has them."""
        self._at_rest = self._in_use.acquire(timeout=forks.PATIENCE_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._at_rest:
            self._at_rest = False
            self._in_use.release()

    def after_fork_in_child(self) -> None:
        """Go on, or never use the file in this process, if the parent was in the middle of it."""
        busy = not self._at_rest and self._in_use.locked()
        self._unsafe = self._unsafe or busy
        self._in_use = threading.Lock()
        self._at_rest = False


def _id_of(line: bytes) -> str | None:
    if (start := _START.match(line)) is not None:
        return start[1].decode("utf-8", "replace")
    try:
        said = decode(line)
    except ValueError:
        return None
    event_id = said.get("event_id") if isinstance(said, dict) else None
    return event_id if isinstance(event_id, str) else None
