"""A ledger in a PostgreSQL that somebody looks after: their settings, and tables that they have changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from time import sleep

import pytest
from journals import line_of
from postgres import Rows, Server, opened, until

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import Outlet

NEXT_MONTH = "2026-12-05T12:00:00Z"

TO_DETACH = "ALTER TABLE usage_events DETACH PARTITION usage_events_2026_11"
TO_TRIGGER = """
    CREATE FUNCTION as_it_is() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER as_it_is BEFORE INSERT ON usage_events FOR EACH ROW EXECUTE FUNCTION as_it_is()
"""


@pytest.mark.parametrize(
    "change",
    [
        "ADD COLUMN day date GENERATED ALWAYS AS ((at AT TIME ZONE 'UTC')::date) STORED",
        "ADD CONSTRAINT no_debt CHECK (input_tokens >= 0)",
        "ADD COLUMN team text NOT NULL DEFAULT 'ours'",
        "ADD PRIMARY KEY (event_id, at)",
        "ADD COLUMN whose text; CREATE INDEX ON usage_events (customer_id, at)",
        "REPLICA IDENTITY FULL; CREATE PUBLICATION usage FOR TABLE usage_events",
        f"REPLICA IDENTITY FULL; {TO_TRIGGER}",
    ],
)
def test_what_users_add_to_the_table_stops_no_month(outlet: Outlet, rows: Rows, change: str) -> None:
    """Columns, constraints, indexes: the next month has them as well, and nothing waits at its border."""
    outlet.send([line_of(1)])
    rows(f"ALTER TABLE usage_events {change}")
    outlet.send([line_of(2), line_of(3, timestamp=NEXT_MONTH)])
    assert rows() == ["event-1", "event-2", "event-3"]
    assert rows("SELECT DISTINCT tableoid::regclass::text FROM usage_events ORDER BY 1") == [
        "usage_events_2026_11",
        "usage_events_2026_12",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "CREATE SCHEMA archive; ALTER TABLE usage_events_2026_11 SET SCHEMA archive",
        "ALTER TABLE usage_events_2026_11 RENAME TO november",
        """
        DROP TABLE usage_events_2026_11;
        CREATE TABLE years PARTITION OF usage_events FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')
        """,
    ],
    ids=["moved", "renamed", "of-a-year"],
)
def test_any_table_that_has_the_month_will_do(
    database_url: str, outlet: Outlet, rows: Rows, change: str
) -> None:
    """Its name and schema are the administrator's to change, and it may have more than a month."""
    outlet.send([line_of(1)])
    rows(change)
    with closing(opened(database_url)) as another:
        another.send([line_of(2)])
    assert rows()[-1] == "event-2"


def test_a_month_that_was_detached_takes_no_more(outlet: Outlet, rows: Rows) -> None:
    """What comes late for it is refused, and the reason says why; other months go on."""
    outlet.send([line_of(1)])
    rows(TO_DETACH)
    with pytest.raises(Rejected, match=r"usage_events_2026_11, .* is no part of usage_events any more"):
        outlet.send([line_of(2)])
    outlet.send([line_of(3, timestamp=NEXT_MONTH)])
    assert rows() == ["event-3"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (
            "TRUNCATE usage_events; ALTER TABLE usage_events ADD COLUMN team text NOT NULL",
            "ALTER TABLE usage_events ALTER COLUMN team DROP NOT NULL",
        ),
        (
            f"""
            {TO_DETACH};
            CREATE TABLE others PARTITION OF usage_events DEFAULT;
            INSERT INTO usage_events SELECT * FROM usage_events_2026_11;
            DROP TABLE usage_events_2026_11
            """,
            "DROP TABLE others",
        ),
    ],
    ids=["a column that nobody fills", "a table for the rest that has some of the month"],
)
def test_no_event_is_to_blame_for_the_table(
    database_url: str, outlet: Outlet, rows: Rows, wrong: str, right: str
) -> None:
    """They wait until somebody puts it right, and are no dead letters."""
    outlet.send([line_of(1)])
    rows(wrong)
    with closing(opened(database_url)) as another:
        with pytest.raises(Unavailable, match=r"team|others"):
            another.send([line_of(2)])
        rows(right)
        another.send([line_of(2)])
    assert "event-2" in rows()


@pytest.mark.parametrize("rule", ["ALTER COLUMN model SET NOT NULL", "ADD CHECK (model IS NOT NULL)"])
def test_a_rule_of_the_table_refuses_who_breaks_it(outlet: Outlet, rows: Rows, rule: str) -> None:
    """Of fields that events have some lack one: they are refused, and the others go on."""
    outlet.send([line_of(1)])
    rows(f"ALTER TABLE usage_events {rule}")
    with pytest.raises(Rejected, match="Violation"):
        outlet.send([line_of(2, model=None)])
    outlet.send([line_of(3)])
    assert rows() == ["event-1", "event-3"]


@pytest.mark.parametrize(
    ("unit", "stated", "found"),
    [
        ("images", "3.0", 3),
        ("images", "1e30", None),
        ("images", '"3"', None),
        ("audio_seconds", "1.5", 1.5),
        ("audio_seconds", "1e400", None),
    ],
)
def test_a_ledger_becomes_newer_whatever_it_has(  # noqa: PLR0917 - fixtures
    database_url: str, outlet: Outlet, rows: Rows, unit: str, stated: str, found: float | None
) -> None:
    """An older version keeps a unit that it does not know as it was; what no column can hold stays there."""
    outlet.send([line_of(1)])
    outlet.close()
    rows(f"ALTER TABLE usage_events DROP COLUMN {unit}")
    rows(f"UPDATE usage_events SET event = event || '{{\"{unit}\": {stated}}}'")
    outlet.send([line_of(2, **{unit: 2})])
    assert rows(f"SELECT {unit} FROM usage_events ORDER BY seq") == [found, 2]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_stricter_isolation_by_default_fails_nobody(
    postgres_server: Server, database: str, database_url: str, rows: Rows, level: str
) -> None:
    """Many that start together, and tell the same events, wait for each other as they do elsewhere."""
    rows(f"ALTER DATABASE {database} SET default_transaction_isolation = '{level}'")
    assert rows("SELECT 1") == [1]
    together = Barrier(5)

    def deliver(number: int) -> None:
        with closing(opened(database_url)) as one:
            together.wait(50)
            for start in range(0, 50, 10):
                one.send([line_of(number + each) for each in range(start, start + 20)])

    with ThreadPoolExecutor(5) as several:
        list(several.map(deliver, range(5)))
    assert len(rows()) == len(set(rows())) == 64
    with Ledger.open(database_url) as ledger:
        assert ledger.report([])[0]["events"] == 64


def test_a_session_that_was_ended_for_idleness_is_no_failure(
    postgres_server: Server, database: str, outlet: Outlet, rows: Rows
) -> None:
    """An administrator, or a pooler, ends those that have nothing to do: a quiet application just goes on."""
    outlet.send([line_of(1)])
    sessions = f"FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    rows(f"SELECT pg_terminate_backend(pid) {sessions}")
    until(lambda: rows(f"SELECT count(*) {sessions}") == [0])
    outlet.send([line_of(2)])
    assert rows() == ["event-1", "event-2"]


SLOW_TABLES = """
    CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); END';
    CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION slowly()
"""
SLOW_EVENTS = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.2); RETURN null; END';
    CREATE TRIGGER slow BEFORE INSERT ON usage_events FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""


def test_timeouts_of_the_database_hold_for_others(database: str, outlet: Outlet, rows: Rows) -> None:
    """What queries may take there is short; the schema, a month and a batch take as long as they have to."""
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        rows(f"ALTER DATABASE {database} SET {name} = '100ms'")
    rows(SLOW_TABLES)
    outlet.send([line_of(1)])
    rows(SLOW_EVENTS)
    outlet.send([line_of(2, timestamp=NEXT_MONTH)])
    outlet.close()
    rows("ALTER TABLE usage_events DROP COLUMN images")
    rows("BEGIN; LOCK usage_migrations")
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(outlet.send, [line_of(3)])
        sleep(0.3)
        rows("COMMIT")
        sent.result(50)
    assert rows() == ["event-1", "event-2", "event-3"]


def test_a_schema_that_comes_later_takes_nothing_over(database_url: str, outlet: Outlet, rows: Rows) -> None:
    """One called as the user comes first in the search path: what is new is made where the ledger is."""
    outlet.send([line_of(1)])
    outlet.close()
    rows("CREATE SCHEMA postgres; ALTER TABLE usage_events DROP COLUMN images")
    outlet.send([line_of(2, timestamp=NEXT_MONTH)])
    assert rows() == ["event-1", "event-2"]
    schemas = (
        "SELECT DISTINCT relnamespace::regnamespace::text FROM pg_class WHERE relname LIKE 'usage_events%'"
    )
    assert rows(schemas) == ["public"]


@pytest.mark.parametrize(
    "settings",
    [
        {"standard_conforming_strings": "off", "datestyle": "'SQL, DMY'", "timezone": "'Asia/Kathmandu'"},
        {"intervalstyle": "sql_standard", "extra_float_digits": "-15", "client_encoding": "LATIN1"},
    ],
    ids=["how times and texts are written", "how numbers are"],
)
def test_a_database_may_write_its_values_in_its_own_way(
    database: str, database_url: str, outlet: Outlet, rows: Rows, settings: dict[str, str]
) -> None:
    """Events have their time, month and text all the same, and a report is the same."""
    for name, value in settings.items():
        rows(f"ALTER DATABASE {database} SET {name} = {value}")
    outlet.send([line_of(1, customer_id="Ü\\'n", timestamp="2026-11-30T23:59:59Z", audio_seconds=1.25)])
    with Ledger.open(database_url) as ledger:
        (found,) = ledger.report(["customer_id"], since="2026-11-30", until="2026-12-01")
    assert (found["customer_id"], found["audio_seconds"]) == ("Ü\\'n", 1.25)
    assert rows("SELECT tableoid::regclass::text FROM usage_events") == ["usage_events_2026_11"]
