"""The embedded ledger: events in an SQLite file, each once.

Any number of processes write one file, in WAL mode; `event_id` is unique, so an event that is told
twice is there once. `synchronous=FULL`: what is committed the disk has, because the journal forgets it then.
`ledger.py` reads the file back.

What is a column is in `columns.py`; one that an event does not fill takes one byte.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import SplitResult

from cmdrdata_transport import forks
from cmdrdata_transport.databases import make_private_file
from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.event import FRACTIONAL_UNITS, UNITS
from cmdrdata_transport.greenlets import apart
from cmdrdata_transport.sinks import Damaged, file_of
from cmdrdata_transport.sinks.columns import NUMBERS, TEXTS, event_in, microseconds, moment_of
from cmdrdata_transport.sinks.damage import is_damage, opening, renew

PATIENCE_SECONDS = 5.0
"""How long a batch waits for another process's transaction; commits take milliseconds."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE usage_events (
            seq INTEGER PRIMARY KEY,
            event_id TEXT NOT NULL UNIQUE,
            at INTEGER NOT NULL,
            event TEXT NOT NULL,
            timestamp TEXT NOT NULL,
            customer_id TEXT,
            service TEXT,
            provider TEXT,
            model TEXT,
            request_model TEXT,
            operation TEXT,
            api TEXT,
            host TEXT,
            response_id TEXT,
            request_id TEXT,
            finish_reason TEXT,
            service_tier TEXT,
            usage_status TEXT,
            usage_source TEXT,
            outcome TEXT,
            error_type TEXT,
            error_code TEXT,
            provider_cost TEXT,
            part INTEGER,
            attempt INTEGER,
            streaming INTEGER,
            status_code INTEGER,
            request_duration_ms REAL,
            time_to_first_byte_ms REAL
        )
        """,
        "CREATE INDEX usage_events_at ON usage_events (at)",
    ),
)
"""What makes the schema, in order; a released entry is never changed, only followed by another.

The units are not here: `_add_units` gives each unit of the format its column, also the ones of later
versions. `at` is the timestamp in microseconds since 1970, UTC, so that times compare, however they
were written.
"""

_FIELDS = (*TEXTS, *NUMBERS)
_COLUMNS = ("event_id", "at", "event", *_FIELDS)
_INSERT = (
    f"INSERT INTO usage_events ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608 - our own names
    "ON CONFLICT (event_id) DO UPDATE SET customer_id = excluded.customer_id, "
    "event = json_set(event, '$.customer_id', excluded.customer_id) "
    "WHERE customer_id IS NULL AND excluded.customer_id IS NOT NULL"
)
"""The first telling counts; a later one may say whose it was, if the first did not know."""
_UNSTORABLE = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    UnicodeEncodeError,
)
_LARGEST = 2**63 - 1


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> SqliteOutlet:  # noqa: ARG001
    """The outlet of `sqlite:///usage.db`."""
    return SqliteOutlet(file_of(url, home), f"sqlite://{url.path}")


class SqliteOutlet:
    """Writes to the ledger at `path`, which is made, for this user alone, when it is not there."""

    batch = 500
    keyed = True

    def __init__(self, path: Path, identity: str) -> None:
        self.identity = identity
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._in_use = threading.Lock()
        self._at_rest = False
        forks.register_to_settle(self)

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Write the events in one transaction.

        Raises:
            Rejected: one of them cannot be stored; none is.
            Unavailable: the file is locked, cannot be written, or is no ledger of ours.
            Damaged: it is a ledger, and damaged.
        """
        rows = [row_of(line) for line in lines]
        patience = PATIENCE_SECONDS if timeout is None else min(timeout, PATIENCE_SECONDS)
        if self._path in _UNSAFE:
            raise Unavailable(
                "its files were closed, or this process forked, while it was in use; another will deliver"
            )
        with self._in_use:
            try:
                apart(self._insert, rows, patience)
            except _UNSTORABLE as error:
                raise Rejected(f"it cannot be stored: {type(error).__name__}") from None
            except (sqlite3.Error, OSError) as error:
                self.close()
                if is_damage(error, self._path):
                    raise Damaged(_words(error), self._renew) from None
                raise Unavailable(_words(error)) from None

    def close(self) -> None:
        """Close the file. The next `send` opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def forget(self) -> None:
        """Where it is open still, never use the file in this process again; `before_fork` has closed it."""
        if self._connection is not None:
            _leave_alone(self._path, self._connection)
            self._connection = None

    def before_fork(self) -> None:
        """Close the file.

        SQLite keeps in memory what this process has locked, and a child that inherits that believes
        it: it waits for ever, or writes where it has no lock (https://sqlite.org/howtocorrupt.html, 2.6).
        """
        self._at_rest = self._in_use.acquire(timeout=forks.PATIENCE_SECONDS)
        if self._at_rest:
            self.close()

    def after_fork_in_parent(self) -> None:
        """Let the next batch in."""
        if self._at_rest:
            self._at_rest = False
            self._in_use.release()

    def after_fork_in_child(self) -> None:
        """Use the file as if never used before; or never, when a batch was still under way."""
        in_use, self._in_use = self._in_use, threading.Lock()
        if not self._at_rest and (self._connection is not None or in_use.locked()):
            _leave_alone(self._path, self._connection)
            self._connection = None

    def _insert(self, rows: Sequence[tuple[Any, ...]], patience: float) -> None:
        connection = self._connected(patience)
        with _transaction(connection):
            try:
                connection.executemany(_INSERT, rows)
            except OverflowError:
                connection.executemany(_INSERT, map(_storable, rows))

    def _renew(self, taken: Callable[[], Iterable[bytes]]) -> str:
        with self._in_use:
            try:
                return renew(self._path, damaged=self._file, connect=connect, fill=_fill, taken=taken)
            except (sqlite3.Error, OSError) as error:
                raise Unavailable(_words(error)) from None

    def _connected(self, patience: float) -> sqlite3.Connection:
        # A ledger that somebody has moved away would take events that nobody ever sees.
        if self._connection is not None and _identity(self._path) != self._file:
            self.close()
        if self._connection is None:
            with opening(self._path, patience=patience):
                self._file = _identity(self._path)
                self._connection = connect(self._path, patience)
                self._file = _identity(self._path)
        self._connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        return self._connection


_PARENTS: list[sqlite3.Connection | None] = []
_UNSAFE: set[Path] = set()


def _leave_alone(path: Path, connection: sqlite3.Connection | None) -> None:
    """Never use the file in this process again: SQLite would go by locks that it remembers, and has not."""
    _UNSAFE.add(path)
    _PARENTS.append(connection)  # and is never closed


def connect(path: Path, patience: float = PATIENCE_SECONDS) -> sqlite3.Connection:
    """A connection that may write to the ledger at `path`, made and brought to this version if need be.

    Raises:
        sqlite3.Error, OSError: it cannot be opened.
        Unavailable: a newer version of this library made it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would make it readable for everybody; what it puts beside it takes the mode of this one.
    make_private_file(path)
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection, patience)
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _fill(connection: sqlite3.Connection, lines: Iterable[bytes]) -> None:
    with _transaction(connection):
        for line in lines:
            with contextlib.suppress(Rejected):  # as it was when it came
                connection.execute(_INSERT, _storable(row_of(line)))


def row_of(line: bytes) -> tuple[Any, ...]:
    """The event of a line, as `_INSERT` wants it. Raises `Rejected`, naming what is missing."""
    event = event_in(line)
    at = microseconds(moment_of(event.get("timestamp")))
    return (event["event_id"], at, line.decode(), *map(event.get, _FIELDS))


def _storable(row: tuple[Any, ...]) -> list[Any]:
    # SQLite has no larger integers; the JSON keeps all digits.
    return [float(each) if isinstance(each, int) and abs(each) > _LARGEST else each for each in row]


def _use_wal(connection: sqlite3.Connection, patience: float) -> None:
    # Switching needs the file for itself, and SQLite does not wait for that, whatever its timeout:
    # of several processes that open a new ledger at once, some would fail.
    deadline = monotonic() + patience
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if monotonic() > deadline:
                raise
            sleep(0.02)


def columns(connection: sqlite3.Connection) -> set[str]:
    """The names of the ledger's columns; none when there is no ledger."""
    return {name for _, name, *_ in connection.execute("PRAGMA table_info(usage_events)")}


def _migrate(connection: sqlite3.Connection) -> None:
    if _version(connection) == len(MIGRATIONS) and columns(connection).issuperset(UNITS):
        return
    with _transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS usage_migrations "
            "(version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)"
        )
        done = _version(connection)
        if done > len(MIGRATIONS):
            raise Unavailable(
                f"the ledger has schema {done}, and this library knows {len(MIGRATIONS)}: upgrade it"
            )
        for version in range(done, len(MIGRATIONS)):
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO usage_migrations VALUES (?, ?)", (version + 1, datetime.now(UTC).isoformat())
            )
        _add_units(connection)


def _add_units(connection: sqlite3.Connection) -> None:
    # An older version may have stored events with units that it did not know: they are in the JSON.
    for unit in sorted(set(UNITS) - columns(connection)):
        kind = "REAL" if unit in FRACTIONAL_UNITS else "INTEGER"
        connection.execute(f"ALTER TABLE usage_events ADD COLUMN {unit} {kind}")
        connection.execute(
            f"UPDATE usage_events SET {unit} = json_extract(event, '$.{unit}') "  # noqa: S608 - our own names
            f"WHERE json_extract(event, '$.{unit}') IS NOT NULL"
        )


def _version(connection: sqlite3.Connection) -> int:
    known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'usage_migrations'"
    if connection.execute(known).fetchone() is None:
        return 0
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM usage_migrations").fetchone()[0])


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
