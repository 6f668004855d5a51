"""What gets into the ledger of a fleet, in a real PostgreSQL: each event once, as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import event_of, line_of, program, run
from postgres import Rows, until

from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import UNITS
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import Outlet
from cmdrdata_transport.sinks.postgresql.rows import columns_of, fields_of, rows_of, telling_in


def test_an_event_is_stored_once(outlet: Outlet, rows: Rows) -> None:
    """A second telling changes nothing, in the same batch or later, also when it states another time."""
    outlet.send([line_of(1, input_tokens=7), line_of(2), line_of(1, input_tokens=8)])
    outlet.send([line_of(1, timestamp="2026-12-24T12:00:00Z", input_tokens=9), line_of(3)])
    assert rows() == ["event-1", "event-2", "event-3"]
    assert rows("SELECT input_tokens FROM usage_events WHERE event_id = 'event-1'") == [7]
    assert rows("SELECT event FROM usage_events WHERE event_id = 'event-2'") == [event_of(2)]
    assert set(rows("SELECT attname FROM pg_attribute WHERE attrelid = 'usage_events'::regclass")) >= set(
        UNITS
    )


def test_a_later_telling_may_say_whose_it_was(outlet: Outlet, rows: Rows) -> None:
    """If the first did not know; the first that does counts."""
    outlet.send([line_of(1, customer_id=None), line_of(2, customer_id=None), line_of(3)])
    outlet.send(
        [line_of(1, customer_id="late", timestamp="2026-12-24T12:00:00Z"), line_of(3, customer_id="x")]
    )
    outlet.send([line_of(1, customer_id="later"), line_of(2, customer_id="a"), line_of(2, customer_id="b")])
    outlet.send([line_of(4, customer_id=None), line_of(4, customer_id="at once")])
    told = rows("SELECT customer_id, event->>'customer_id' FROM usage_events ORDER BY seq")
    assert told == [("late", "late"), ("a", "a"), ("acme", "acme"), ("at once", "at once")]


def test_a_batch_is_of_any_kind(outlet: Outlet, rows: Rows) -> None:
    """Months and fields begin anywhere in it; what is told again is there once; a refusal undoes it all."""
    outlet.send([line_of(number) for number in range(150)])
    mixed = [line_of(number, images=number) for number in range(100, 420)]
    mixed[220] = line_of(320, timestamp="2027-02-03T00:00:00Z", web_searches=7)
    mixed[310] = line_of(7, customer_id="another")
    for _ in range(2):
        outlet.send(mixed)
        assert sorted(rows()) == sorted(f"event-{number}" for number in range(420) if number != 410)
    with pytest.raises(Rejected, match="NumericValueOutOfRange"):
        outlet.send(
            [line_of(number, input_tokens=1 if number < 740 else 2**63) for number in range(500, 750)]
        )
    outlet.send([line_of(number, timestamp="2027-03-03T00:00:00Z") for number in range(410, 610)])
    assert len(rows()) == 610
    assert rows("SELECT sum(images), sum(web_searches), count(DISTINCT customer_id) FROM usage_events") == [
        (sum(range(150, 420)) - 320 - 410, 7, 1),
    ]


@given(
    st.lists(
        st.tuples(st.text(), st.none() | st.text(), st.integers(), st.none() | st.booleans()),
        min_size=1,
        max_size=3,
    )
)
def test_a_row_is_the_same_whatever_stands_beside_it(events: list[tuple[Any, ...]]) -> None:
    """Rows of plain values are written together and faster, but not otherwise."""
    names = ("model", "customer_id", "input_tokens", "streaming")
    plain = [
        telling_in(line_of(number, **dict(zip(names, values, strict=True))))
        for number, values in enumerate(events)
    ]
    awkward = telling_in(line_of(9, model="a,\\N\t{b}", input_tokens=5.0))
    columns = columns_of(fields_of([*plain, awkward]))
    together = rows_of([*plain, awkward], columns)
    assert together == b"".join(rows_of([each], columns) for each in [*plain, awkward])
    assert together.count(b"\n") == len(events) + 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "JSON"),
        (line_of(1, format="cmdrdata.usage/2"), "format"),
        (line_of(1, event_id="x" * 513), "event_id"),
        (line_of(1).replace(b"event-1", b"\\ud800"), "event_id"),
        (line_of(1, timestamp="yesterday"), "timestamp"),
        (line_of(1, timestamp="0001-01-01T00:00:00+05:00"), "timestamp"),
        (line_of(1, model={"name": "gpt"}), "cannot be stored: model"),
        (line_of(1).replace(b"gpt-5", b"\\ud800"), "cannot be stored"),
        (line_of(1, input_tokens=2**63), "cannot be stored: NumericValueOutOfRange"),
        (line_of(1, input_tokens=10**30), "cannot be stored: NumericValueOutOfRange"),
        (line_of(1, input_tokens=2.5), "cannot be stored: InvalidTextRepresentation"),
        (line_of(1, input_tokens="many"), "cannot be stored: InvalidTextRepresentation"),
        (line_of(1).replace(b'"acme"', b'"acme","raw_usage":NaN'), "cannot be stored: InvalidText"),
        (line_of(1).replace(b'"acme"', b'"acme","raw_usage":1e999999'), "cannot be stored: Numeric"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_refused_by_name(outlet: Outlet, rows: Rows, line: bytes, says: str) -> None:
    """It would fail again and again; nothing of its batch is stored, and the next batch is."""
    with pytest.raises(Rejected, match=says) as raised:
        outlet.send([line_of(0), line])
    assert "many" not in str(raised.value)
    outlet.send([line_of(2)])
    assert rows() == ["event-2"]


def test_any_text_is_stored(outlet: Outlet, database_url: str) -> None:
    """What COPY gives a meaning of its own comes back as it was; a NUL, which no database takes, does not."""
    texts = ["\\N", "\\.", "a\tb\r\nc\\d", "'; DROP TABLE usage_events; --", '"{}%s', "\U0001f600ü\u2028", ""]
    outlet.send([line_of(number, model=text) for number, text in enumerate(texts)])
    outlet.send([line_of(99, model="a\0b", raw_usage={"\0": ["\\u0000", "\0"]})])
    with Ledger.open(database_url) as ledger:
        told = [entry.event for entry in ledger.events()]
        groups = {row["model"] for row in ledger.report(["model"])}
    assert [event.model for event in told] == [*texts, "a\ufffdb"]
    assert told[-1].usage.raw_usage == {"\ufffd": ["\\u0000", "\ufffd"]}
    assert groups == {*texts, "a\ufffdb"}


def test_any_text_may_be_an_id(outlet: Outlet, rows: Rows) -> None:
    """A user's own: it is known again, alone and beside others."""
    texts = ["a\nb", 'c"d', "e\\f", "{g,h}", "\x7f\u200b\u2028", " ", "NULL", "\t\x1f", "fünf"]
    lines = [line_of(number, event_id=text) for number, text in enumerate(texts)]
    outlet.send(lines)
    outlet.send([*lines, line_of(99)])
    for line in lines:
        outlet.send([line])
    assert rows() == [*texts, "event-99"]
    assert sorted(rows("SELECT event_id FROM usage_event_ids")) == sorted([*texts, "event-99"])


def test_numbers_are_stored_as_what_they_are(outlet: Outlet, rows: Rows) -> None:
    """A whole number may have come as a fraction or a text; money is exact; no cost is none."""
    outlet.send([line_of(1, input_tokens=5.0, output_tokens="7", audio_seconds=0.1, provider_cost="0.10")])
    outlet.send([line_of(2, provider_cost="free"), line_of(3, provider_cost="1E-3", part=0, streaming=False)])
    assert [
        tuple(map(str, row))
        for row in rows(
            "SELECT input_tokens, output_tokens, audio_seconds, provider_cost, streaming "
            "FROM usage_events ORDER BY seq"
        )
    ] == [
        ("5", "7", "0.1", "0.10", "None"),
        ("10", "2", "None", "None", "None"),
        ("10", "2", "None", "0.001", "False"),
    ]


def test_a_forked_child_has_a_connection_of_its_own(tmp_path: Path, database_url: str, rows: Rows) -> None:
    """It leaves the parent's alone, also when it ends; both deliver, before and after."""
    printed = run(
        """
        setup = set_up(home, sys.argv[2])
        setup.append(10)
        setup.delivery.ensure_running()
        assert setup.delivery.flush(30)
        children = []
        for child in range(3):
            setup.append(5, 10 + child * 5)
            if not (pid := os.fork()):
                setup.append(10, 100 + child * 10)
                setup.delivery.ensure_running()
                assert setup.delivery.close(30)
                sys.exit(0)
            children.append(pid)
        setup.append(10, 200)
        assert setup.delivery.flush(30)
        print([os.waitpid(pid, 0)[1] for pid in children])
        setup.append(1, 300)
        print(setup.delivery.close(30), "unavailable" in setup.counters.snapshot())
        """,
        tmp_path,
        database_url,
    )
    assert printed == "[0, 0, 0]\nTrue False\n"
    expected = [*range(25), *range(100, 130), *range(200, 210), 300]
    assert sorted(int(each.removeprefix("event-")) for each in rows()) == expected


def test_a_thread_that_delivers_imports_nothing(tmp_path: Path, database_url: str, rows: Rows) -> None:
    """A child that is forked in the middle of an import has half of the module, and could never deliver."""
    printed = run(
        """
        outlet = open_sink(sys.argv[2], home=home, environ={})
        before = set(sys.modules)
        outlet.send([line_of(0)])
        print([name for name in sys.modules if name not in before])
        """,
        tmp_path,
        database_url,
    )
    assert printed == "[]\n"
    assert rows() == ["event-0"]


def test_a_driver_that_does_not_work_is_an_error_where_the_sink_is_named(tmp_path: Path) -> None:
    """It is installed, and finds no libpq: that is said at once, and not once a minute."""
    printed = run(
        """
        sys.modules["psycopg.pq"] = None
        try: open_sink("postgresql://127.0.0.1/usage", home=home, environ={})
        except Exception as error: print(type(error).__name__, error)
        """,
        tmp_path,
    )
    assert printed.startswith("TrackingSetupError postgresql: the driver psycopg fails (")
    assert "pip install 'cmdrdata-transport[postgres]'" in printed


def test_a_program_that_becomes_another_leaves_no_session(
    tmp_path: Path, database_url: str, rows: Rows
) -> None:
    """After exec the connection is gone, and so is the session at the server."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cmdrdata-transport'"
    sessions += " AND datname = current_database()"
    process = program(
        """
        outlet = open_sink(sys.argv[2], home=home, environ={})
        outlet.send([line_of(1)])
        os.execv(sys.executable, [sys.executable, "-c", "print('here', flush=True); input()"])
        """,
        tmp_path,
        database_url,
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    until(lambda: rows(sessions) == [0])
    process.communicate("\n", timeout=60)
    assert rows() == ["event-1"]


FLEET_EVENTS = 1_000_000
"""All processes together."""

FLEET_PROCESSES = 8

MEMORY_GROWTH_KIB = 24 * 1024
"""What a process may hold at its end beyond what it held after a tenth of its events."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux tells it")
def test_a_fleet_writes_one_database(
    tmp_path: Path, database_url: str, record_property: Callable[[str, object], None]
) -> None:
    """Trackers of many processes, coordinated by nothing but ids: sums are exact, memory is flat."""
    code = """
        from cmdrdata_transport import Tracker
        def peak():  # of this program alone: what `resource` tells began in the one that started it
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0])
        number, events = int(sys.argv[3]), int(sys.argv[4])
        tracker = Tracker([sys.argv[2]], home=home / str(number))
        for each in range(events):
            tracker.record(
                provider="openai", model="gpt-5", operation="chat", customer_id=f"customer-{each % 50}",
                usage={"input_tokens": each + number, "output_tokens": 1},
            )
            if each == events // 10:
                early = peak()
        whole = tracker.flush(600)
        tracker.close()
        refused = [tracker.stats().get(name, 0) for name in ("rejected", "unauthorized", "internal_errors")]
        print(whole, peak() - early, sum(refused))
    """
    share = FLEET_EVENTS // FLEET_PROCESSES
    began = monotonic()
    started = [
        program(code, tmp_path, database_url, str(number), str(share)) for number in range(FLEET_PROCESSES)
    ]
    told = [each.communicate(timeout=3000)[0].split() for each in started]
    seconds = monotonic() - began
    assert [(whole, refused) for whole, _, refused in told] == [("True", "0")] * FLEET_PROCESSES
    growth = max(int(kib) for _, kib, _ in told)
    with Ledger.open(database_url) as ledger:
        (row,) = ledger.report([])
        customers = ledger.report()
    assert row["events"] == share * FLEET_PROCESSES
    assert row["input_tokens"] == sum(sum(range(number, number + share)) for number in range(FLEET_PROCESSES))
    assert [each["events"] for each in customers] == [share * FLEET_PROCESSES // 50] * 50
    record_property("says", f"{row['events'] / seconds:,.0f} events/s; memory grew by {growth:,} KiB at most")
    assert growth < MEMORY_GROWTH_KIB
