"""The ledger's tables in PostgreSQL, and how they come about.

`usage_events` has a partition for each month of the event's time, so that an old month is dropped in
no time: `DROP TABLE usage_events_2026_01`. A key of a partitioned table would have to hold the time as
well, and an event that is told twice may state two times; so its id stands in `usage_event_ids`, which
is not partitioned and is written in the same transaction. Ids of a dropped month may stay: what is
told again is then still known; or be deleted: `DELETE FROM usage_event_ids WHERE at < '2026-02-01'`.

Any number of processes may find the schema missing or old at the same moment: one makes it, the others
wait for that. Who makes it owns it, and so must be, or be a member of, the role that makes the months.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, LiteralString

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.event import FRACTIONAL_UNITS, UNITS
from cmdrdata_transport.sinks.postgresql.target import (
    RIGHTS,
    NotAllowed,
    beginning,
    refusal_of,
    transaction,
)

if TYPE_CHECKING:
    import psycopg

MIGRATIONS: tuple[tuple[LiteralString, ...], ...] = (
    (
        "CREATE SEQUENCE usage_events_seq",
        """
        CREATE TABLE usage_event_ids (
            event_id text COLLATE "C" PRIMARY KEY,
            at timestamptz NOT NULL
        )
        """,
        """
        CREATE TABLE usage_events (
            seq bigint NOT NULL DEFAULT nextval('usage_events_seq'),
            event_id text COLLATE "C" NOT NULL,
            at timestamptz NOT NULL,
            event jsonb NOT NULL,
            customer_id text,
            service text,
            provider text,
            model text,
            request_model text,
            operation text,
            api text,
            host text,
            response_id text,
            request_id text,
            finish_reason text,
            service_tier text,
            usage_status text,
            usage_source text,
            outcome text,
            error_type text,
            error_code text,
            provider_cost numeric,
            part integer,
            attempt integer,
            streaming boolean,
            status_code integer,
            request_duration_ms double precision,
            time_to_first_byte_ms double precision
        ) PARTITION BY RANGE (at)
        """,
        "CREATE INDEX usage_events_by_at ON usage_events (at)",
        "CREATE INDEX usage_events_by_seq ON usage_events (seq)",
    ),
)
"""What makes the schema, in order; a released entry is never changed, only followed by another.

The units are not here: `statements` gives each unit of the format its column, also the ones of later
versions. `at` is the time that the event states. `provider_cost` is empty where it is no number.
"""

_FITS = {
    "bigint": "@ >= -9223372036854775808 && @ <= 9223372036854775807 && @.floor() == @",
    "double precision": "@ >= -1e308 && @ <= 1e308",
}
"""Which numbers of JSON a column can hold, in SQL/JSON's words."""

MIGRATIONS_TABLE: LiteralString = """
    CREATE TABLE IF NOT EXISTS usage_migrations (
        version integer PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
"""Which of them have been applied."""

PATIENCE_SECONDS = 600.0
"""How long bringing an older schema to this version may take: a new unit is looked for in every event."""

_LOCK = 0x636D6472
"""Whoever changes the schema holds this advisory lock (with the schema's own number beside it)."""


_TO_WRITE = "GRANT SELECT ON usage_migrations TO {user}, and the rights of a writer"
_TO_MAKE_TABLES = (
    "GRANT CREATE ON SCHEMA {schema} TO {user}, or have an administrator run "
    "what `python -m cmdrdata_transport.sinks.postgresql` prints"
)
_TO_MAKE_A_MONTH = (
    "each month of events has a table, made by {owner}, who owns usage_events, or a member of it"
)


def is_current(connection: psycopg.Connection[Any], patience: float) -> bool:
    """Whether there is nothing to do. A statement of it may take `patience` seconds.

    Raises `NotAllowed` where this user may not look, `Unavailable` when a newer library made the schema.
    """
    with _granted(connection, _TO_WRITE), transaction(connection, beginning(patience)):
        return _version(connection) == len(MIGRATIONS) and columns(connection).issuperset(UNITS)


def migrate(connection: psycopg.Connection[Any]) -> None:
    """Make the schema, or bring it to this version. Raises as `is_current` does."""
    with _granted(connection, _TO_MAKE_TABLES), transaction(connection, beginning(PATIENCE_SECONDS)):
        _lock(connection)
        # What others have made while we waited for the lock is seen from here on. It may be in another schema
        # than new tables come to: somebody has since made one that is called as the user is, say.
        if not _is_there(connection, "usage_migrations"):
            connection.execute(MIGRATIONS_TABLE)
        for statement in statements(_version(connection), columns(connection)):
            _run(connection, statement)


def statements(done: int = 0, known: AbstractSet[str] = frozenset()) -> Iterator[str]:
    """The SQL that makes the schema, or brings one of version `done` with these columns to this version."""
    for version in range(done, len(MIGRATIONS)):
        yield from MIGRATIONS[version]
        yield f"INSERT INTO usage_migrations (version) VALUES ({version + 1})"  # noqa: S608 - our own number
    for unit in sorted(set(UNITS) - known):
        kind = "double precision" if unit in FRACTIONAL_UNITS else "bigint"
        yield f"ALTER TABLE usage_events ADD COLUMN {unit} {kind}"
        if done:
            # An older version may have stored events with units that it did not know: they are in the JSON,
            # and it has not asked whether the column could hold them.
            told = f"jsonb_path_query_first(event, '$.{unit} ? ({_FITS[kind]})')::numeric::{kind}"
            yield f"UPDATE usage_events SET {unit} = {told} WHERE event ? '{unit}'"  # noqa: S608 - our own names


def make_months(
    connection: psycopg.Connection[Any], months: Iterable[tuple[int, int]], patience: float
) -> None:
    """Make the partitions of these months (year, month) that are not there yet.

    A statement of it may take `patience` seconds.

    Raises:
        NotAllowed: this user may not.
        Rejected: a month's table is there, and has been detached.
    """
    import psycopg  # noqa: PLC0415 - the driver is imported where it is used

    for year, month in sorted(months):
        # One that covers the month under another name, or from another schema, will do.
        with (
            suppress(psycopg.errors.InvalidObjectDefinition),
            _granted(connection, _TO_MAKE_A_MONTH),
            transaction(connection, beginning(patience)),
        ):
            _lock(connection)
            _make_month(connection, year, month)


def _make_month(connection: psycopg.Connection[Any], year: int, month: int) -> None:
    row = connection.execute(_PLACE, [name := f"usage_events_{year:04d}_{month:02d}"]).fetchone()
    place, is_partition = row or (name, None)
    if is_partition is None:
        later = (year, month + 1) if month < 12 else (year + 1, 1)  # noqa: PLR2004 - months of a year
        first, last = (f"{y:04d}-{m:02d}-01 00:00:00+00" for y, m in ((year, month), later))
        _run(connection, f"CREATE TABLE {place} (LIKE usage_events {_INCLUDED})")
        # To make it as a partition at once would wait for every reader, and hold up every writer.
        _run(
            connection,
            f"ALTER TABLE usage_events ATTACH PARTITION {place} FOR VALUES FROM ('{first}') TO ('{last}')",
        )
    elif not is_partition:
        raise Rejected(
            f"{name}, the table of its month, is no part of usage_events any more: "
            "attach it, or give it another name"
        )


_INCLUDED = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS"
"""What a table has in common with the ledger to become a part of it, also of what users have added."""

_PLACE = """
    SELECT place, (SELECT relispartition FROM pg_class WHERE oid = to_regclass(place))
    FROM (SELECT relnamespace::regnamespace || '.' || %s::text AS place
          FROM pg_class WHERE oid = 'usage_events'::regclass) AS places
"""
"""A month's table, beside the ledger's own, wherever that is; whether it is part of it; NULL if not there."""


def columns(connection: psycopg.Connection[Any]) -> set[str]:
    """The names of the ledger's columns; none when there is no ledger."""
    found = connection.execute(
        "SELECT attname FROM pg_attribute "
        "WHERE attrelid = to_regclass('usage_events') AND attnum > 0 AND NOT attisdropped"
    )
    return {name for (name,) in found}


@contextmanager
def _granted(connection: psycopg.Connection[Any], needs: str) -> Generator[None]:
    """Say what is to be granted, where something is not allowed; and blame no event for the rest."""
    import psycopg  # noqa: PLC0415 - the driver is imported where it is used

    try:
        yield
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise refusal_of(error) from None
    except psycopg.errors.InsufficientPrivilege as error:
        names = connection.execute(_NAMES).fetchone() or ("?", "?", "?")
        user, schema, owner = names
        told = needs.format(user=user, schema=schema, owner=owner)
        raise NotAllowed(f"{error.diag.message_primary}: {told}; {RIGHTS}") from None


_NAMES = """
    SELECT quote_ident(current_user), quote_ident(current_schema()),
           (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class
            WHERE oid = to_regclass('usage_events'))
"""


def _lock(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(current_schema()))", [_LOCK])


def _version(connection: psycopg.Connection[Any]) -> int:
    if not _is_there(connection, "usage_migrations"):
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM usage_migrations").fetchone()
    done = int(row[0]) if row else 0
    if done > len(MIGRATIONS):
        raise Unavailable(
            f"the ledger has schema {done}, and this library knows {len(MIGRATIONS)}: upgrade it"
        )
    return done


def _is_there(connection: psycopg.Connection[Any], table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,)


def _run(connection: psycopg.Connection[Any], statement: str) -> None:
    """A statement of our own words, where a name cannot be bound."""
    connection.execute(statement.encode())
