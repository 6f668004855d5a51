"""The ledger, read back: sums that are exact, groups of every kind, and events one by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import event_of, line_of
from postgres import Server

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.event import encode
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.ledger.removing import Which, remove
from cmdrdata_transport.sinks import open_sink

SQLITE = "sqlite:///usage.db"


def write(home: Path, *events: dict[str, Any], url: str = SQLITE) -> None:
    """Store events in a ledger, by default that of `home`."""
    outlet = open_sink(url, home=home, environ={})
    outlet.send([encode(each) for each in events])
    outlet.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest) -> Callable[[], str]:
    """The URL of a ledger that is not there yet: every database reads back the same."""
    if request.param == "sqlite":
        return lambda: SQLITE
    server: Server = request.getfixturevalue("postgres_server")
    return lambda: server.url(server.new_database())


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """One such URL."""
    return new_url()


@pytest.fixture
def ledger(tmp_path: Path, url: str) -> Iterator[Ledger]:
    """A month of two customers."""
    write(
        tmp_path,
        event_of(1, timestamp="2026-11-01T00:00:00Z", metadata={"feature": "chat", "paid": True}),
        event_of(
            2, timestamp="2026-11-01T23:59:59.999999+00:00", model="gpt-5-mini", images=2, status_code=200
        ),
        event_of(3, timestamp="2026-11-02T01:00:00+02:00", customer_id="globex", provider_cost="0.1"),
        event_of(
            4, timestamp="2026-11-03T12:00:00", customer_id="globex", provider_cost="0.20", audio_seconds=1.5
        ),
        event_of(
            5,
            timestamp="2026-11-04T12:00:00Z",
            customer_id=None,
            outcome="error",
            usage_status="none",
            input_tokens=None,
            output_tokens=None,
            total_tokens=None,
            metadata={
                "feature": 'a"b.c',
                "paid": False,
                "tier": 3,
                "note": "x'); DROP TABLE usage_events; --",
                "deep": {"a": [1, None]},
                "off": None,
            },
            streaming=True,
        ),
        event_of(6, timestamp="2026-11-05T12:00:00Z", part=1, attempt=0, model="tool-model"),
        event_of(7, timestamp="2026-11-05T12:00:00Z", part=0, attempt=1),
        url=url,
    )
    with Ledger.open(url, home=tmp_path) as opened:
        yield opened


def test_a_report_sums_by_customer(ledger: Ledger) -> None:
    """Group, calls, attempts, events, errors, then the sums; every row has the same columns."""
    rows = ledger.report()
    assert rows == [
        {
            "customer_id": customer,
            "calls": calls,
            "attempts": attempts,
            "events": events,
            "errors": errors,
            "input_tokens": tokens * 10,
            "output_tokens": tokens * 2,
            "total_tokens": tokens * 12,
            "images": images,
            "audio_seconds": seconds,
            "provider_cost": cost,
        }
        for customer, calls, attempts, events, errors, tokens, images, seconds, cost in [
            (None, 1, 1, 1, 1, 0, 0, 0.0, "0"),
            ("acme", 2, 3, 4, 0, 4, 2, 0.0, "0"),
            ("globex", 2, 2, 2, 0, 2, 0, 1.5, "0.30"),
        ]
    ]
    assert list(rows[0])[:8] == [
        *("customer_id", "calls", "attempts", "events", "errors"),
        *("input_tokens", "output_tokens", "total_tokens"),
    ]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        (["day"], [("2026-11-01", 3), ("2026-11-03", 1), ("2026-11-04", 1), ("2026-11-05", 2)]),
        (["model"], [("gpt-5", 5), ("gpt-5-mini", 1), ("tool-model", 1)]),
        (["metadata.feature"], [(None, 5), ('a"b.c', 1), ("chat", 1)]),
        (["metadata.paid"], [(None, 5), ("false", 1), ("true", 1)]),
        (["metadata.tier"], [(None, 6), (3, 1)]),
        (["metadata.deep"], [(None, 6), ('{"a":[1,null]}', 1)]),
        (["metadata.off"], [(None, 7)]),
        (["metadata.no\0where"], [(None, 7)]),
        (["streaming"], [(None, 6), (1, 1)]),
        (['metadata.it\'s "odd" $.key'], [(None, 7)]),
        (["status_code"], [(None, 6), (200, 1)]),
        (["outcome", "customer_id"], [("error", None, 1), ("ok", "acme", 4), ("ok", "globex", 2)]),
        ([], [(7,)]),
    ],
    ids=str,
)
def test_a_report_is_by_any_field_day_or_metadata(
    ledger: Ledger, by: list[str], groups: list[tuple[Any, ...]]
) -> None:
    """In order, and None where an event has nothing to say."""
    rows = ledger.report(by)
    assert [(*(row[name] for name in by), row["events"]) for row in rows] == groups


@pytest.mark.parametrize(
    ("since", "until", "events"),
    [
        (None, None, 7),
        ("2026-11-02", None, 4),
        (None, "2026-11-02", 3),
        ("2026-11-01T23:00:00Z", "2026-11-02T00:00:00Z", 2),
        ("2026-11-01T23:00:00.000001Z", "2026-11-02", 1),
        (datetime(2026, 11, 4, 14, tzinfo=timezone(timedelta(hours=2))), None, 3),
        (datetime(2026, 11, 4, 12, tzinfo=UTC), datetime(2026, 11, 4, 12, 0, 1), 1),  # noqa: DTZ001 - it is in UTC
        ("2027-01-01", None, 0),
    ],
    ids=str,
)
def test_a_report_is_of_a_time(
    ledger: Ledger, since: str | datetime | None, until: str | datetime | None, events: int
) -> None:
    """From `since` on and before `until`, compared as times and not as text; nothing is no row."""
    rows = ledger.report([], since=since, until=until)
    assert [row["events"] for row in rows] == ([events] if events else [])
    assert len(list(ledger.events(since=since, until=until))) == events


@pytest.mark.parametrize(
    "name", ["nonsense", "event", "seq", "metadata.", "model; DROP TABLE usage_events", "1", ""]
)
def test_a_report_by_something_else_says_what_there_is(ledger: Ledger, name: str) -> None:
    """Nothing that a user types becomes SQL."""
    with pytest.raises(TrackingSetupError, match=r"metadata\.KEY"):
        ledger.report([name])


def test_a_time_that_is_none_says_what_to_write(ledger: Ledger) -> None:
    """Whether it is asked of a report or of events."""
    with pytest.raises(TrackingSetupError, match="2026-11-01"):
        ledger.report(since="last week")
    with pytest.raises(TrackingSetupError, match="2026-11-01"):
        ledger.events(until="soon")


def test_events_come_back_as_they_were(ledger: Ledger) -> None:
    """In the order in which they were stored, to the last field."""
    entries = list(ledger.events())
    assert [each.event.event_id for each in entries] == [f"event-{number}" for number in range(1, 8)]
    assert entries[1].event.to_dict() == event_of(
        2, timestamp="2026-11-01T23:59:59.999999+00:00", model="gpt-5-mini", images=2, status_code=200
    )


def test_a_tail_goes_on_where_it_was(tmp_path: Path, url: str, ledger: Ledger) -> None:
    """Only what is new, in pieces if there is much; and the newest are to be had without a position."""
    at = ledger.last()
    assert ledger.tail(at) == []
    write(tmp_path, *(event_of(number) for number in range(10, 15)), url=url)
    first = ledger.tail(at, most=3)
    assert [each.event.event_id for each in first] == ["event-10", "event-11", "event-12"]
    assert [each.event.event_id for each in ledger.tail(first[-1].position)] == ["event-13", "event-14"]
    assert [each.event.event_id for each in ledger.newest(2)] == ["event-13", "event-14"]
    assert len(ledger.newest(99)) == 12


def test_a_tail_goes_on_when_the_newest_are_removed(tmp_path: Path, url: str, ledger: Ledger) -> None:
    """What comes next may have a position that was there before."""
    write(tmp_path, *(event_of(number, customer_id="gone") for number in range(10, 15)), url=url)
    at = ledger.last()
    assert ledger.tail(at) == []
    assert remove(url, Which(customer="gone"), home=tmp_path) == 5
    assert ledger.tail(at) == []
    write(tmp_path, event_of(20), event_of(21), url=url)
    assert [each.event.event_id for each in ledger.tail(at)] == ["event-20", "event-21"]


def test_groups_are_in_one_order_everywhere(tmp_path: Path, url: str) -> None:
    """Nothing first, then numbers as they compare, then texts by their characters."""
    values = ["b", 10, "Z", None, "ä", 9.5, "a", "true", True]
    write(tmp_path, *(event_of(n, metadata={"key": value}) for n, value in enumerate(values)), url=url)
    with Ledger.open(url, home=tmp_path) as ledger:
        rows = ledger.report(["metadata.key"])
    assert [(row["metadata.key"], row["events"]) for row in rows] == [
        *((None, 1), (9.5, 1), (10, 1), ("Z", 1), ("a", 1), ("b", 1), ("true", 2), ("ä", 1)),
    ]


def test_an_empty_ledger_is_read_too(tmp_path: Path, url: str) -> None:
    """A report of nothing has no rows."""
    write(tmp_path, url=url)
    with Ledger.open(url, home=tmp_path) as ledger:
        assert ledger.newest(3) == []
        assert ledger.report() == []
        assert ledger.report([]) == []
        assert ledger.last() == 0


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 10**6), min_size=1, max_size=6),
    st.lists(st.decimals(0, 10**6, places=9), max_size=6),
)
def test_sums_are_exact(new_url: Callable[[], str], counts: Sequence[int], costs: Sequence[Decimal]) -> None:
    """Counts beyond what a database adds up, and money to the last digit."""
    counted = [line_of(number, input_tokens=count) for number, count in enumerate(counts)]
    priced = [line_of(100 + number, provider_cost=str(cost)) for number, cost in enumerate(costs)]
    url = new_url()
    with TemporaryDirectory() as home:
        outlet = open_sink(url, home=Path(home), environ={})
        outlet.send(counted + priced)
        outlet.close()
        with Ledger.open(url, home=Path(home)) as ledger:
            (row,) = ledger.report([])
    assert row["input_tokens"] == sum(counts) + 10 * len(costs)
    assert Decimal(row.get("provider_cost", "0")) == sum(costs)


def test_a_cost_that_is_none_is_left_out(tmp_path: Path, url: str) -> None:
    """Text that is no number, or a number that no bill can have, spoils no sum."""
    costs = ["0.1", "free", "NaN", "1e999", "-0.05"]
    write(tmp_path, *(event_of(number, provider_cost=cost) for number, cost in enumerate(costs)), url=url)
    with Ledger.open(url, home=tmp_path) as ledger:
        assert ledger.report([])[0]["provider_cost"] == "0.05"


def test_what_is_no_ledger_says_so(tmp_path: Path) -> None:
    """Nothing there, another file, another database, another scheme."""
    (tmp_path / "text").write_bytes(b"no database at all" * 100)
    (tmp_path / "directory").mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE other (id)")
    with closing(sqlite3.connect(tmp_path / "same-name.db")) as other:
        other.execute("CREATE TABLE usage_events (id)")
    for where, says in {
        "sqlite:///nowhere.db": "nothing has been delivered",
        "sqlite:///text": "cannot be read",
        "sqlite:///directory": "is a directory",
        str(tmp_path / "directory"): "is a directory",
        "sqlite:///other.db": "no table",
        "sqlite:///same-name.db": "another's",
        "mysql://host/db": "not mysql",
    }.items():
        with pytest.raises(TrackingSetupError, match=says):
            Ledger.open(where, home=tmp_path)
    with pytest.raises(TrackingSetupError, match="nothing has been delivered"):
        Ledger.open("nowhere.db")


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """A ledger is opened for reading only."""
    write(tmp_path, event_of(1))
    with Ledger.open(tmp_path / "usage.db") as ledger:
        reader: Any = ledger._reader
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM usage_events")


def test_an_older_ledger_is_read_as_it_is(tmp_path: Path) -> None:
    """Units that it has no column for are not in its report."""
    write(tmp_path, event_of(1, images=3))
    with closing(sqlite3.connect(tmp_path / "usage.db")) as connection:
        connection.execute("ALTER TABLE usage_events DROP COLUMN images")
        connection.commit()
    with Ledger.open(tmp_path / "usage.db") as ledger:
        (row,) = ledger.report()
        assert row["input_tokens"] == 10
        assert "images" not in row


def test_a_ledger_that_breaks_while_it_is_read_is_unavailable(tmp_path: Path) -> None:
    """The error names the trouble, and is one of ours."""
    write(tmp_path, event_of(1))
    with Ledger.open(tmp_path / "usage.db") as ledger:
        with closing(sqlite3.connect(tmp_path / "usage.db")) as connection:
            connection.execute("DROP TABLE usage_events")
            connection.commit()
        with pytest.raises(Unavailable, match="no such table"):
            ledger.report()


def test_how_long_attempts_took(tmp_path: Path, url: str) -> None:
    """Answers, errors and what was given up are told apart; parts and what is awaited are no attempts."""
    took: list[tuple[int, dict[str, Any]]] = [
        *((number, {"outcome": "ok"}) for number in range(1, 102)),
        *((number, {"outcome": "error", "usage_status": "none"}) for number in (5, 15)),
        (900, {"outcome": "unknown", "usage_status": "none"}),
        (7000, {"outcome": "ok", "usage_status": "none"}),
        (8000, {"outcome": "ok", "part": 1}),
        (3, {"model": "other"}),
    ]
    write(
        tmp_path,
        *(event_of(place, request_duration_ms=float(ms), **what) for place, (ms, what) in enumerate(took)),
        event_of(500),
        url=url,
    )
    with Ledger.open(url, home=tmp_path) as opened:
        first, second = opened.latency(by=("model",))
        assert opened.latency(by=(), since="2027-01-01") == []
        (by_metadata,) = opened.latency(by=("metadata.feature",))
    assert first == {
        "model": "gpt-5",
        "answered": 101,
        "answered_p50": 51.0,
        "answered_p95": 96.0,
        "answered_p99": pytest.approx(100.0),
        "errors": 2,
        "errors_p50": 10.0,
        "errors_p95": pytest.approx(14.5),
        "errors_p99": pytest.approx(14.9),
        "given_up": 1,
        "given_up_p50": 900.0,
        "given_up_p95": 900.0,
        "given_up_p99": 900.0,
    }
    assert (second["model"], second["answered"], second["errors"], second["errors_p50"]) == (
        "other",
        1,
        0,
        None,
    )
    assert by_metadata["answered"] == 102
