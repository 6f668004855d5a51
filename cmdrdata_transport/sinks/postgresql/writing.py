"""Batches of events, each written in one transaction, each event once.

As a rule every event of a batch is new. So they go to `usage_events` at once, by COPY, and the server
reads the first while the last are still being made into rows here; their ids follow, to
`usage_event_ids`. Only where one of them is there already all is undone, and done the other way round:
ids first, which say what is new. A batch after such a one starts with its ids, since it may well be
another that is told again.

Knows one connection, and which months have a table there. Does not know how long anything may take, or
what becomes of errors.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from cmdrdata_transport.sinks.postgresql.rows import (
    Telling,
    array_of,
    columns_of,
    fields_of,
    rows_of,
    telling_in,
)
from cmdrdata_transport.sinks.postgresql.schema import make_months
from cmdrdata_transport.sinks.postgresql.target import beginning, transaction

if TYPE_CHECKING:
    import psycopg

AHEAD = """
    SELECT pg_advisory_xact_lock(
        'usage_events_seq'::regclass::oid::integer, (nextval('usage_events_seq') % 2147483648)::integer
    )
"""
"""Until the transaction ends, the lock says which events are not there yet: none below its number.
Who follows the ledger looks at it (`ledger/postgresql.py`)."""

_IDS = """
    INSERT INTO usage_event_ids (event_id, at)
    SELECT * FROM unnest(%s::text[], %s::timestamptz[]) ON CONFLICT DO NOTHING
"""

_NEW = """
    SELECT event_id FROM usage_event_ids
    WHERE event_id = ANY (%s::text[]) AND xmin = pg_current_xact_id()::xid
"""
"""Which of the ids this transaction has inserted."""

_CUSTOMERS = """
    UPDATE usage_events AS known
    SET customer_id = told.customer_id,
        event = known.event || jsonb_build_object('customer_id', told.customer_id)
    FROM unnest(%s::text[], %s::text[]) AS told (event_id, customer_id)
    JOIN usage_event_ids AS ids ON ids.event_id = told.event_id
    WHERE known.event_id = ids.event_id AND known.at = ids.at AND known.customer_id IS NULL
"""
"""The first telling counts; a later one may say whose it was, if the first did not know."""

_PIECE = 100
"""Events that are written at once."""

T = TypeVar("T")


class Writer:
    """Writes batches over one connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._months: set[tuple[int, int]] = set()
        self._fields: set[str] = set()
        """All that events have filled so far."""
        self._told_before = False
        """Whether the last batch had events that were there."""

    def write(self, lines: Sequence[bytes], patience: float) -> None:
        """Write the events; a statement of it may take `patience` seconds.

        Raises:
            Rejected, psycopg.Error: nothing has been written.
        """
        import psycopg  # noqa: PLC0415 - the driver is imported where it is used

        try:
            self._write(lines, patience)
        except (_NoMonthError, psycopg.errors.CheckViolation):
            # It is new, or somebody has dropped one that was there.
            self._months = _months_of(map(telling_in, lines))
            make_months(self.connection, self._months, patience)
            self._write(lines, patience)

    def _write(self, lines: Sequence[bytes], patience: float) -> None:
        batch = _Batch(lines, self._months)
        if not self._told_before:
            try:
                self._write_events_first(batch, patience)
            except _ToldBeforeError:
                pass
            else:
                return
        self._write_ids_first(batch, patience)

    def _write_events_first(self, batch: _Batch, patience: float) -> None:
        with self._transaction(patience) as cursor:
            self._copy(cursor, batch.firsts())
            if _insert_ids(cursor, batch.by_id) < len(batch.by_id):
                raise _ToldBeforeError
            _add_customers(cursor, batch, batch.by_id.values())

    def _write_ids_first(self, batch: _Batch, patience: float) -> None:
        for _ in batch.firsts():
            pass  # what has not been read yet
        with self._transaction(patience) as cursor:
            self._told_before = _insert_ids(cursor, batch.by_id) < len(batch.by_id)
            new = list(batch.by_id.values())
            if self._told_before:
                inserted = {key for (key,) in cursor.execute(_NEW, [array_of(list(batch.by_id))])}
                new = [each for each in new if each.event_id in inserted]
            self._copy(cursor, _pieces(new))
            _add_customers(cursor, batch, new)

    @contextmanager
    def _transaction(self, patience: float) -> Generator[psycopg.Cursor[Any]]:
        begin = beginning(patience) + AHEAD.encode()
        with transaction(self.connection, begin), self.connection.cursor() as cursor:
            yield cursor

    def _copy(self, cursor: psycopg.Cursor[Any], pieces: Iterator[Sequence[Telling]]) -> None:
        piece = next(pieces, None)
        while piece is not None:
            self._fields |= fields_of(piece)
            columns = columns_of(self._fields)
            with cursor.copy(f"COPY usage_events ({', '.join(columns)}) FROM STDIN".encode()) as copy:
                while piece is not None and self._fields.issuperset(fields_of(piece)):
                    copy.write(rows_of(piece, columns))
                    piece = next(pieces, None)


class _Batch:
    """What some lines tell: read as far as somebody has asked, and kept."""

    def __init__(self, lines: Sequence[bytes], months: set[tuple[int, int]]) -> None:
        self.tellings: list[Telling] = []
        self.by_id: dict[str, Telling] = {}
        """The first telling of each event."""
        self._lines = lines
        self._months = months

    def firsts(self) -> Iterator[list[Telling]]:
        """Read on; the first telling of each event, piece by piece.

        Raises `Rejected`, and `_NoMonthError` for a month that is none of those.
        """
        for piece in _pieces(self._lines[len(self.tellings) :]):
            tellings = [telling_in(line) for line in piece]
            if not self._months >= _months_of(tellings):
                raise _NoMonthError
            self.tellings += tellings
            if firsts := [each for each in tellings if self.by_id.setdefault(each.event_id, each) is each]:
                yield firsts


class _NoMonthError(Exception):
    """The month of an event has no table yet, as far as we know."""


class _ToldBeforeError(Exception):
    """An event of the batch was there."""


def _pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _PIECE] for start in range(0, len(items), _PIECE))


def _months_of(tellings: Iterable[Telling]) -> set[tuple[int, int]]:
    return {(each.at.year, each.at.month) for each in tellings}


def _insert_ids(cursor: psycopg.Cursor[Any], tellings: Mapping[str, Telling]) -> int:
    """How many were not there."""
    # In one order everywhere: two processes that tell the same events never wait for each other.
    ids = sorted(tellings)
    cursor.execute(_IDS, [array_of(ids), array_of([tellings[each].at for each in ids])])
    return cursor.rowcount


def _add_customers(cursor: psycopg.Cursor[Any], batch: _Batch, written: Collection[Telling]) -> None:
    if len(written) == len(batch.tellings):
        return
    done = set(map(id, written))
    customers: dict[str, str] = {}
    for each in batch.tellings:
        if each.customer is not None and id(each) not in done:
            customers.setdefault(each.event_id, each.customer)
    if customers:
        cursor.execute(_CUSTOMERS, [list(customers), list(customers.values())])
