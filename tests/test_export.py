"""`export`: every event of a ledger, as it was published or in columns; what is missing is said."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from journals import event_of, line_of, set_up
from typer.testing import CliRunner, Result

from cmdrdata_transport.cli.app import app
from cmdrdata_transport.cli.export import COLUMNS
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import open_sink

if TYPE_CHECKING:
    from collections.abc import Sequence

LEDGER = "sqlite:///usage.db"

LINES = [
    line_of(1),
    line_of(2, timestamp="2026-11-22T00:00:00Z", streaming=True, request_duration_ms=1.5, input_tokens=0),
    line_of(3, customer_id='a, "b"\nc', metadata={"feature": "ché", "n": 1}, raw_usage={"a": [1, None]}),
    line_of(
        4, timestamp="2026-11-23T00:00:00Z", customer_id=None, provider_cost="0.10", of_a_later_version=7
    ),
]


def store(home: Path, lines: Sequence[bytes], ledger: str = LEDGER) -> None:
    """Put events into a ledger."""
    with closing(open_sink(ledger, home=home, environ={})) as outlet:
        outlet.send(lines)


def typed(home: Path, *words: str, ledger: str = LEDGER) -> Result:
    """What comes of `cmdrdata-transport export`."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": ledger}
    return CliRunner().invoke(app, ["export", *words], env=environ)


def events(text: str) -> list[UsageEvent]:
    """The events of JSON lines."""
    return [UsageEvent.from_json(line.encode()) for line in text.splitlines()]


def cells(text: str) -> list[dict[str, Any]]:
    """The lines of a CSV file below its heading, without what is empty."""
    rows = csv.DictReader(io.StringIO(text))
    assert rows.fieldnames == list(COLUMNS)
    return [{name: value for name, value in row.items() if value} for row in rows]


def test_json_lines_are_the_published_events(tmp_path: Path) -> None:
    """One a line in the order in which they were stored, with what a later version has added."""
    store(tmp_path, LINES)
    done = typed(tmp_path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert events(done.stdout) == [UsageEvent.from_json(line) for line in LINES]
    assert [decode(line.encode()) for line in done.stdout.splitlines()] == [decode(line) for line in LINES]


def test_csv_has_a_column_for_each_field(tmp_path: Path) -> None:
    """Numbers and text as they are, the rest in JSON; zero is zero, and what is not known is empty."""
    store(tmp_path, LINES)
    first, second, third, fourth = cells(typed(tmp_path, "--format", "csv").stdout)
    assert first == {name: str(value) for name, value in event_of(1).items()}
    assert (second["streaming"], second["request_duration_ms"], second["input_tokens"]) == (
        "true",
        "1.5",
        "0",
    )
    assert third["customer_id"] == 'a, "b"\nc'
    assert (third["metadata"], third["raw_usage"]) == ('{"feature": "ché", "n": 1}', '{"a": [1, null]}')
    assert (fourth.get("customer_id"), fourth["provider_cost"]) == (None, "0.10")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--since", "2026-11-22"], [2, 4]),
        (["--until", "2026-11-22"], [1, 3]),
        (["--since", "2026-11-22", "--until", "2026-11-23"], [2]),
    ],
)
def test_a_time_can_be_named(tmp_path: Path, words: list[str], expected: list[int]) -> None:
    """From a moment on, up to another one, itself left out."""
    store(tmp_path, LINES)
    found = [decode(line.encode())["event_id"] for line in typed(tmp_path, *words).stdout.splitlines()]
    assert found == [f"event-{number}" for number in expected]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """It takes the place of the one before when it is whole; how many events it has is said."""
    store(tmp_path, LINES)
    file = tmp_path / "november.jsonl"
    file.write_text("of october")
    done = typed(tmp_path, "--output", str(file))
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"4 events in {file}\n", "")
    assert len(file.read_bytes().splitlines()) == 4
    assert [each.name for each in tmp_path.iterdir() if "november" in each.name] == ["november.jsonl"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """It is named, with what is in the way, and nothing is left of it."""
    store(tmp_path, LINES)
    done = typed(tmp_path, "--output", str(tmp_path / "usage.db" / "out.csv"))
    assert done.exit_code == 2
    assert f"{tmp_path / 'usage.db' / 'out.csv'} cannot be written: Not a directory" in done.stderr
    done = typed(tmp_path, "--output", str(tmp_path))
    assert (done.exit_code, "cannot be written: Is a directory" in done.stderr) == (2, True)


def test_what_dead_processes_left_is_there_too(tmp_path: Path) -> None:
    """As in a report: it is delivered first."""
    set_up(tmp_path, LEDGER, mode="flush").append(3)
    assert len(typed(tmp_path).stdout.splitlines()) == 3


def test_before_the_first_event_there_is_nothing(tmp_path: Path) -> None:
    """That is no error, and no file is made of it."""
    done = typed(tmp_path / "home", "--output", str(tmp_path / "out.csv"), "--format", "csv")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing has been recorded" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_of_a_damaged_ledger_there_is_what_can_be_read(tmp_path: Path) -> None:
    """It says that this is not all, and ends with 1."""
    store(tmp_path, [line_of(number) for number in range(2000)])
    with closing(sqlite3.connect(tmp_path / "usage.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "usage.db").open("r+b") as file:
        file.seek(file.read().index(line_of(1000)))
        file.write(b"\xa5" * 50_000)
    output = tmp_path / "out.jsonl"
    done = typed(tmp_path, "-o", str(output))
    assert done.exit_code == 1
    assert "Not all of the ledger can be read" in done.stderr
    found = [
        int(decode(line)["event_id"].removeprefix("event-")) for line in output.read_bytes().splitlines()
    ]
    assert {*range(900), *range(1200, 2000)} <= {*found} <= {*range(2000)} - {1000}
    assert len(found) == len({*found})


def test_a_ledger_in_postgresql_gives_the_same(tmp_path: Path, database_url: str) -> None:
    """Event for event, in both formats."""
    store(tmp_path, LINES)
    store(tmp_path, LINES, database_url)
    for form in ("jsonl", "csv"):
        here, there = (typed(tmp_path, "--format", form, ledger=each) for each in (LEDGER, database_url))
        assert here.exit_code == there.exit_code == 0
        read = cells if form == "csv" else events
        assert read(there.stdout) == read(here.stdout)


def test_the_file_is_as_private_as_others_that_this_user_makes(tmp_path: Path) -> None:
    """It is for whoever is to have it: by the user's own mask, and not by ours."""
    store(tmp_path, LINES)
    before = os.umask(0o027)
    try:
        typed(tmp_path, "-o", str(tmp_path / "out.csv"), "--format", "csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        assert len(cells((tmp_path / "out.csv").read_text())) == len([*ledger.events()])
