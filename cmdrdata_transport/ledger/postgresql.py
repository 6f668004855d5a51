"""Reading the ledger of a fleet, the database that `sinks/postgresql` writes.

Events get their positions before their transaction ends, and transactions end in any order. So that
who follows the ledger misses none, it is read up to a horizon: no event below it can still come, since
a batch under way holds an advisory lock on a number below all of its positions. (A standby does not
show these locks: follow the primary. Reports are right on both.)
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.ledger.query import COLUMNS, Bounds, NotBegun, Words, between, durations, sums
from cmdrdata_transport.sinks.postgresql.rows import storable
from cmdrdata_transport.sinks.postgresql.schema import columns
from cmdrdata_transport.sinks.postgresql.target import Target, connect, refusal_of, transaction

if TYPE_CHECKING:
    import psycopg

FETCHED = 500

_WORDS = Words(
    bound="%s",
    moment="timestamptz '1970-01-01 00:00:00+00' + %s * interval '1 microsecond'",
    day="to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    metadata=(
        "(SELECT CASE jsonb_typeof(value) WHEN 'null' THEN NULL WHEN 'boolean' THEN to_jsonb(value::text) "
        "ELSE value END FROM (SELECT event->'metadata'->%s::text AS value) AS metadata)"
    ),
    streaming="streaming::integer",
    exact_sum="sum",
    percentile="percentile_cont({share}) WITHIN GROUP (ORDER BY request_duration_ms)",
)

_ENTRIES = "SELECT seq, event::text FROM usage_events"

_HORIZON = """
    SELECT coalesce(max(seq), 0),
           (SELECT array_agg(objid::bigint) FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 2
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND classid = 'usage_events_seq'::regclass::oid)
    FROM usage_events
"""
"""The newest position that is there, and the numbers (modulo 2^31) of the batches that are under way.
The positions are of the moment when the statement began, and the locks are looked at after that."""

_TURN = 2**31

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL extra_float_digits = 1"
"""Whatever the database is set to: a standby knows no stricter isolation, and numbers come whole."""


class PostgresReader:
    """A database, open for reading."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = connect(target, target.timeout)
        with ExitStack() as undo:
            undo.callback(self.close)
            known = self.columns()
            if not known:
                raise NotBegun(
                    f"there is no ledger in {target.identity}: nothing has been delivered to it yet"
                )
            if not known.issuperset(COLUMNS):
                raise TrackingSetupError(
                    f"{target.identity} is not a ledger of ours: its table usage_events is another's"
                )
            undo.pop_all()

    def columns(self) -> set[str]:
        """The names of the ledger's columns. Raises `Unavailable`, as all of these do."""
        with _reading(self._connection):
            return columns(self._connection)

    def sums(self, by: Sequence[str], units: Sequence[str], bounds: Bounds) -> list[tuple[Any, ...]]:
        """What `query.sums` asks for."""
        return self._rows(by, *sums(_WORDS, by, units, bounds))

    def durations(self, by: Sequence[str], bounds: Bounds) -> list[tuple[Any, ...]]:
        """What `query.durations` asks for."""
        return self._rows(by, *durations(_WORDS, by, bounds))

    def entries(self, bounds: Bounds) -> Iterator[tuple[int, str]]:
        """Position and JSON of the events of a time, in order; over a connection of its own."""
        where, values = between(_WORDS, bounds)
        statement = f"{_ENTRIES} WHERE {where} ORDER BY seq"
        with (
            connect(self._target, self._target.timeout) as connection,
            _reading(connection),
            connection.cursor(name="usage_events") as cursor,
        ):
            cursor.itersize = FETCHED
            cursor.execute(statement.encode(), values)
            yield from cursor

    def after(self, position: int, most: int) -> list[tuple[int, str]]:
        """The first so many behind a position, up to the horizon."""
        return self._entries(
            "WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s", position, self.last(), most
        )

    def newest(self, most: int) -> list[tuple[int, str]]:
        """The last so many before the horizon, in order."""
        return self._entries("WHERE seq <= %s ORDER BY seq DESC LIMIT %s", self.last(), most)[::-1]

    def last(self) -> int:
        """The horizon: the greatest position such that no event can come before it any more."""
        with _reading(self._connection):
            row = self._connection.execute(_HORIZON).fetchone()
        newest, numbers = row or (0, None)
        # A number is a little below or above the newest position, whatever the turn.
        ahead = [(number - newest + _TURN // 2) % _TURN - _TURN // 2 for number in numbers or ()]
        return int(newest + min(0, *ahead)) if ahead else int(newest)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, by: Sequence[str], sql: str, values: list[str | int]) -> list[tuple[Any, ...]]:
        with _reading(self._connection):
            rows = self._connection.execute(sql.encode(), storable(values)).fetchall()
        return [(*map(_plain, row[: len(by)]), *row[len(by) :]) for row in rows]

    def _entries(self, rest: LiteralString, *values: int) -> list[tuple[int, str]]:
        with _reading(self._connection):
            return self._connection.execute(f"{_ENTRIES} {rest}", values).fetchall()


@contextmanager
def _reading(connection: psycopg.Connection[Any]) -> Generator[None]:
    """A transaction that changes nothing; the driver's errors as one of ours."""
    import psycopg  # noqa: PLC0415 - the driver is imported where it is used

    try:
        with transaction(connection, _BEGIN):
            yield
    except psycopg.Error as error:
        refusal = refusal_of(error)
        raise Unavailable(str(refusal)) from None


def _plain(value: Any) -> Any:
    """A value of the metadata as SQLite shows it."""
    return (
        json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if isinstance(value, dict | list)
        else value
    )
