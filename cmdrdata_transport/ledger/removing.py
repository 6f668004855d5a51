"""Taking events out of a ledger: those before a moment, or those of a customer.

Knows how to count them first, and how to remove them without keeping those who write waiting: in pieces,
and, in PostgreSQL, whole months at once. In SQLite what is removed is overwritten; its file does not
shrink, and what is recorded next takes the room, unless it has to be written anew for copies to go that
SQLite has made of a row.

Does not know where else such events are.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.remedies import of_damaged_ledger
from cmdrdata_transport.sinks import file_of
from cmdrdata_transport.sinks.columns import microseconds
from cmdrdata_transport.sinks.damage import is_damage
from cmdrdata_transport.sinks.sqlite import connect
from cmdrdata_transport.traces import holding, trace_of

if TYPE_CHECKING:
    import psycopg

PIECE = 5000
"""Rows of one transaction: some tens of milliseconds."""


_MONTHS = r"""
    SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'usage_events'::regclass
      AND relname ~ '^usage_events_\d{4}_\d\d$' AND relname < %s
"""
"""The tables of the months before one, in whatever schema they have been moved to; those of nobody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """The events of this customer, or those before this moment."""

    customer: str | None = None
    before: datetime | None = None


def count(ledger: str, which: Which, *, home: Path) -> int:
    """How many of them a ledger has; 0 where there is none.

    Raises `TrackingSetupError` for a URL that means no ledger, `Unavailable` where it cannot be read.
    """
    return _do(ledger, which, home, os.environ, remove=False)


def remove(ledger: str, which: Which, *, home: Path) -> int:
    """Remove them; how many there were. Raises as `count` does; type it again then."""
    return _do(ledger, which, home, os.environ, remove=True)


def _do(ledger: str, which: Which, home: Path, environ: Mapping[str, str], *, remove: bool) -> int:
    url = urlsplit(ledger)
    if url.scheme in ("postgresql", "postgres"):
        return _in_postgresql(ledger, which, environ, remove=remove)
    if url.scheme != "sqlite":
        raise TrackingSetupError(f"{ledger} is no ledger; one is sqlite:///usage.db, or postgresql://…")
    path = file_of(url, home)
    if not path.exists():
        return 0
    try:
        with closing(connect(path)) as connection:
            return _in_sqlite(connection, path, which, remove=remove)
    except sqlite3.Error as error:
        damaged = is_damage(error, path)
        raise Unavailable(
            of_damaged_ledger(path, ledger, error) if damaged else f"{ledger}: {error}"
        ) from None


def _in_sqlite(connection: sqlite3.Connection, path: Path, which: Which, *, remove: bool) -> int:
    condition = "customer_id = ?" if which.before is None else "at < ?"
    value = which.customer if which.before is None else microseconds(which.before)
    if not remove:
        found = connection.execute(f"SELECT count(*) FROM usage_events WHERE {condition}", [value])  # noqa: S608 - our own words
        return int(found.fetchone()[0])
    connection.execute("PRAGMA secure_delete = ON")
    # Each piece is looked for where the one before ended, and before anybody has to wait for it.
    some = f"SELECT seq FROM usage_events WHERE {condition} AND seq > ? ORDER BY seq LIMIT {PIECE}"  # noqa: S608 - see above
    removed = last = 0
    while piece := [seq for (seq,) in connection.execute(some, [value, last])]:
        last = piece[-1]
        gone = "DELETE FROM usage_events WHERE seq IN (SELECT value FROM json_each(?))"
        removed += connection.execute(gone, [str(piece)]).rowcount
    emptied = _checkpoint(connection)
    if which.customer is not None:
        if holding([path], trace_of(which.customer, anywhere=True)):
            connection.execute("VACUUM")  # where rows were moved, SQLite has left copies of them
            emptied = _checkpoint(connection)
        if not emptied:
            raise Unavailable("somebody reads the ledger: what was removed is still in the file beside it")
    return removed


def _checkpoint(connection: sqlite3.Connection) -> bool:
    """Have the file beside the ledger emptied, which has what was there before; whether it is."""
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _in_postgresql(ledger: str, which: Which, environ: Mapping[str, str], *, remove: bool) -> int:
    import psycopg  # noqa: PLC0415 - the driver is imported where it is used

    from cmdrdata_transport.sinks.postgresql.schema import columns  # noqa: PLC0415 - see above
    from cmdrdata_transport.sinks.postgresql.target import connect, refusal_of, target_of  # noqa: PLC0415

    target = target_of(urlsplit(ledger), environ)
    try:
        with closing(connect(target, target.timeout)) as connection:
            if not columns(connection):
                return 0
            if which.before is None:
                return _customer(connection, which.customer, remove=remove)
            return _months(connection, which.before, remove=remove)
    except psycopg.Error as error:
        raise refusal_of(error) from None


def _customer(connection: psycopg.Connection[Any], customer: str | None, *, remove: bool) -> int:
    # Its id is kept: what is told again is then still known, and not stored again.
    if remove:
        return connection.execute("DELETE FROM usage_events WHERE customer_id = %s", [customer]).rowcount
    found = connection.execute("SELECT count(*) FROM usage_events WHERE customer_id = %s", [customer])
    return int((found.fetchone() or [0])[0])


def _months(connection: psycopg.Connection[Any], before: datetime, *, remove: bool) -> int:
    found = connection.execute("SELECT count(*) FROM usage_events WHERE at < %s", [before])
    number = int((found.fetchone() or [0])[0])
    if remove and number:
        with connection.transaction():
            connection.execute("DELETE FROM usage_event_ids WHERE at < %s", [before])
            whole = f"usage_events_{before:%Y_%m}"
            for (month,) in connection.execute(_MONTHS, [whole]).fetchall():
                connection.execute(f"DROP TABLE {month}".encode())
            connection.execute("DELETE FROM usage_events WHERE at < %s", [before])
    return number
