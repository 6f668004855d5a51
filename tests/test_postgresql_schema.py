"""The ledger's tables in PostgreSQL: how they come about, change, and are refused when they are not ours."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from journals import line_of, program
from postgres import Rows, Server, opened

from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import Outlet


def test_ten_processes_start_together(tmp_path: Path, database_url: str, rows: Rows) -> None:
    """One makes the tables; all deliver, what several tell is there once, and nobody fails."""
    code = """
        outlet = open_sink(sys.argv[2], home=home, environ={})
        number = int(sys.argv[3])
        sys.stdin.readline()
        own = [line_of(each) for each in range(1000 + number * 100, 1100 + number * 100)]
        shared = [line_of(each) for each in range(50)][:: 1 if number % 2 else -1]
        outlet.send(own[:50] + shared + own[50:])
        print("done")
    """
    started = [program(code, tmp_path, database_url, str(each), stdin=subprocess.PIPE) for each in range(10)]
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    assert [each.communicate(timeout=60)[0] for each in started] == ["done\n"] * 10
    assert len(rows()) == len(set(rows())) == 1050
    assert rows("SELECT version FROM usage_migrations") == [1]


def test_a_unit_that_a_later_version_knows_is_filled_from_the_events(
    database_url: str, outlet: Outlet, rows: Rows
) -> None:
    """A ledger of an older version gets a column for each new unit, and what was stored counts."""
    outlet.send([line_of(1, images=3, audio_seconds=1.5), line_of(2)])
    outlet.close()
    rows("ALTER TABLE usage_events DROP COLUMN images, DROP COLUMN audio_seconds")
    with Ledger.open(database_url) as ledger:
        assert "images" not in ledger.report([])[0]
    outlet.send([line_of(3, images=4)])
    assert rows("SELECT images, audio_seconds FROM usage_events ORDER BY seq") == [
        (3, 1.5),
        (None, None),
        (4, None),
    ]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("INSERT INTO usage_migrations (version) VALUES (99)", "upgrade"),
        ("DROP TABLE usage_events, usage_migrations; CREATE TABLE usage_events (id int)", "already exists"),
        ("ALTER TABLE usage_events RENAME COLUMN model TO modell", 'column "model"'),
    ],
    ids=["newer", "foreign", "changed"],
)
def test_a_schema_that_is_not_ours_is_unavailable(
    postgres_server: Server, database: str, outlet: Outlet, made: str, says: str
) -> None:
    """It says which it is, and the events wait."""
    outlet.send([line_of(1)])
    outlet.close()
    with postgres_server.connect(database) as connection:
        connection.execute(made.encode())
    with pytest.raises(Unavailable, match=says):
        outlet.send([line_of(2)])


def test_tables_that_are_gone_are_made_anew(outlet: Outlet, rows: Rows) -> None:
    """At the next try: the first one says what is missing."""
    outlet.send([line_of(1)])
    rows("DROP TABLE usage_events, usage_event_ids, usage_migrations; DROP SEQUENCE usage_events_seq")
    with pytest.raises(Unavailable, match="usage_events"):
        outlet.send([line_of(2)])
    outlet.send([line_of(2)])
    assert rows() == ["event-2"]


def test_a_month_is_dropped_at_once(outlet: Outlet, rows: Rows) -> None:
    """Each has a table of its own. What was in it stays known; what comes late makes it anew."""
    ends = ["2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-12-31T23:00:00-02:00"]
    outlet.send([line_of(number, timestamp=end) for number, end in enumerate(ends)])
    tables = "SELECT tableoid::regclass::text, event_id FROM usage_events ORDER BY seq"
    assert rows(tables) == [
        ("usage_events_2026_01", "event-0"),
        ("usage_events_2026_02", "event-1"),
        ("usage_events_2027_01", "event-2"),
    ]
    rows("DROP TABLE usage_events_2026_01")
    outlet.send([line_of(0, timestamp=ends[0]), line_of(3, timestamp="2026-01-15T00:00:00Z")])
    assert rows("SELECT event_id FROM usage_events_2026_01") == ["event-3"]
    assert len(rows()) == 3


def test_the_first_and_the_last_month_there_are(outlet: Outlet, rows: Rows) -> None:
    """A clock that is far off stops nothing."""
    outlet.send([line_of(1, timestamp="0001-01-01T00:00:00Z"), line_of(2, timestamp="9999-12-31T23:59:59Z")])
    assert rows("SELECT tableoid::regclass::text FROM usage_events ORDER BY at") == [
        *("usage_events_0001_01", "usage_events_9999_12"),
    ]


def test_a_ledger_has_its_place_in_a_schema(
    postgres_server: Server, database: str, database_url: str
) -> None:
    """Two in one database, by libpq's own `options`."""
    with postgres_server.connect(database) as connection:
        connection.execute("CREATE SCHEMA one; CREATE SCHEMA two")
    for schema, events in (("one", 1), ("two", 2)):
        place = f"{database_url}?options=-csearch_path%3D{schema}"
        with closing(opened(place)) as outlet:
            outlet.send([line_of(number) for number in range(events)])
        with Ledger.open(place) as ledger:
            assert ledger.report([])[0]["events"] == events
            assert ledger.last() > 0
