"""The ledger of a fleet: events in a PostgreSQL database, each once.

Any number of processes and hosts write one database, and nothing of ours coordinates them but event
ids. A batch is one transaction: its ids go to `usage_event_ids`, which says which of them are new; the
new events follow by COPY. A connection that is lost before the answer to COMMIT leaves open whether
the batch is there: it comes again, and its ids tell. `schema.py` says what the tables are, `target.py`
what a URL means; `ledger/postgresql.py` reads the events back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.sinks.postgresql.rows import Telling, columns_of, rows_of, telling_in
from cmdrdata_transport.sinks.postgresql.schema import (
    PATIENCE_SECONDS,
    is_current,
    make_months,
    migrate,
)
from cmdrdata_transport.sinks.postgresql.target import (
    Target,
    connect,
    limited,
    refusal_of,
    target_of,
    transaction,
)

if TYPE_CHECKING:
    import psycopg

_BEGIN = """
    SELECT set_config('statement_timeout', %(most)s, true),
           set_config('lock_timeout', %(most)s, true),
           set_config('idle_in_transaction_session_timeout', %(most)s, true),
           pg_advisory_xact_lock(
               'usage_events_seq'::regclass::oid::integer,
               (nextval('usage_events_seq') %% 2147483648)::integer
           )
"""
"""Until the transaction ends, the lock says which events are not there yet: none below its number.
Who follows the ledger looks at it (`ledger/postgresql.py`)."""

_KEYS = r"""
    INSERT INTO usage_event_ids (event_id, at)
    SELECT * FROM unnest(string_to_array(%s, E'\n'), string_to_array(%s, E'\n')::timestamptz[])
    ON CONFLICT DO NOTHING
"""

_FRESH = r"""
    SELECT event_id FROM usage_event_ids
    WHERE event_id = ANY (string_to_array(%s, E'\n')) AND xmin = pg_current_xact_id()::xid
"""
"""Which of the ids this transaction has inserted."""

_PIECE = 100
"""Events that are written at once."""

_CUSTOMERS = """
    UPDATE usage_events AS known
    SET customer_id = told.customer_id,
        event = known.event || jsonb_build_object('customer_id', told.customer_id)
    FROM unnest(%s::text[], %s::text[]) AS told (event_id, customer_id)
    JOIN usage_event_ids AS ids ON ids.event_id = told.event_id
    WHERE known.event_id = ids.event_id AND known.at = ids.at AND known.customer_id IS NULL
"""
"""The first telling counts; a later one may say whose it was, if the first did not know."""


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> PostgresOutlet:  # noqa: ARG001
    """The outlet of `postgresql://user@host/database`."""
    return PostgresOutlet(target_of(url, environ))


class PostgresOutlet:
    """Writes to the ledger in one database, and makes it where it is not there yet."""

    batch = 1000
    keyed = True

    def __init__(self, target: Target) -> None:
        self.identity = target.identity
        self._target = target
        self._connection: psycopg.Connection[Any] | None = None
        self._months: set[tuple[int, int]] = set()

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Write the events in one transaction.

        Raises:
            Rejected: one of them cannot be stored; none is.
            Unavailable: the server is not there, is busy, or does not let us.
        """
        import psycopg  # noqa: PLC0415 - the driver is imported where it is used

        tellings = [telling_in(line) for line in lines]
        patience = self._target.timeout if timeout is None else min(timeout, self._target.timeout)
        try:
            self._insert(tellings, patience)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded) as error:
            # Its message may quote the event: the kind must do.
            raise Rejected(f"it cannot be stored: {type(error).__name__}") from None
        except psycopg.Error as error:
            self.close()
            raise refusal_of(error) from None
        except Unavailable:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. The next `send` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def forget(self) -> None:
        """The connection is the parent's: it is kept, unused, since closing it would end the session."""
        if self._connection is not None:
            _PARENTS.append(self._connection)
            self._connection = None

    def _insert(self, tellings: Sequence[Telling], patience: float) -> None:
        import psycopg  # noqa: PLC0415 - see `send`

        connection = self._connected(patience)
        with limited(connection, patience):
            self._make_months(connection, tellings)
            try:
                _write(connection, tellings, patience)
            except psycopg.errors.CheckViolation:
                # No partition takes one: somebody has dropped a month that was there.
                self._months.clear()
                self._make_months(connection, tellings)
                _write(connection, tellings, patience)

    def _connected(self, patience: float) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._months.clear()
            self._connection = connect(self._target, patience)
            with limited(self._connection, patience):
                current = is_current(self._connection)
            if not current:
                with limited(self._connection, PATIENCE_SECONDS):
                    migrate(self._connection)
        return self._connection

    def _make_months(self, connection: psycopg.Connection[Any], tellings: Iterable[Telling]) -> None:
        if missing := {each.month for each in tellings} - self._months:
            make_months(connection, missing)
            self._months |= missing


_PARENTS: list[psycopg.Connection[Any]] = []


def _write(connection: psycopg.Connection[Any], tellings: Sequence[Telling], patience: float) -> None:
    firsts: dict[str, Telling] = {}
    for each in tellings:
        firsts.setdefault(each.event_id, each)
    # In one order everywhere: two processes that tell the same events never wait for each other.
    keys = sorted(firsts)
    with transaction(connection), connection.cursor() as cursor:
        cursor.execute(_BEGIN, {"most": str(max(1, int(patience * 1000)))})
        ids = "\n".join(keys)
        cursor.execute(_KEYS, [ids, "\n".join([firsts[key].at for key in keys])])
        stored = list(firsts.values())
        if cursor.rowcount < len(keys):
            fresh = {key for (key,) in cursor.execute(_FRESH, [ids])}
            stored = [each for each in stored if each.event_id in fresh]
        if stored:
            _copy(cursor, stored)
        if len(stored) < len(tellings):
            _add_customers(cursor, tellings, stored)


def _copy(cursor: psycopg.Cursor[Any], stored: Sequence[Telling]) -> None:
    columns = columns_of(stored)
    statement = f"COPY usage_events ({', '.join(columns)}) FROM STDIN"
    with cursor.copy(statement.encode()) as copy:
        # Piece by piece, so that the server reads the one while we write the next.
        for start in range(0, len(stored), _PIECE):
            copy.write(rows_of(stored[start : start + _PIECE], columns))


def _add_customers(
    cursor: psycopg.Cursor[Any], tellings: Sequence[Telling], stored: Sequence[Telling]
) -> None:
    done = set(map(id, stored))
    customers: dict[str, str] = {}
    for each in tellings:
        if each.customer is not None and id(each) not in done:
            customers.setdefault(each.event_id, each.customer)
    if customers:
        cursor.execute(_CUSTOMERS, [list(customers), list(customers.values())])
