"""`stats`: all processes of a home, what waits, how long, what was refused; as text that collectors read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from journals import Receiver, line_of, set_up
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_string_to_older_families
from typer.testing import CliRunner

from cmdrdata_transport import Tracker
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.cli.view import duration
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.dead_letters import write_dead_letter
from cmdrdata_transport.metrics import Metrics, Waiting, measure, openmetrics
from cmdrdata_transport.tallies import Tallies

LEDGER = "sqlite:///usage.db"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """What a collector understands: name and labels, and the value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def as_text_format(text: str) -> dict[tuple[str, ...], float]:
    """What a collector of files understands, which may know the older format only."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_older_families(text)
        for sample in family.samples
    }


def in_use(home: Path) -> None:
    """Two processes that have counted, a sink that is two hours behind, and one that refused an event."""
    for service, events in (("web", 3), ("jobs", 4), ("jobs", 5)):
        Tallies(home, tracker="default", service=service).keep({"events": events, "missing": 1}, now=True)
    setup = set_up(home, Receiver(raises=[OSError()] * 100), mode="flush")
    ago = datetime.now(UTC) - timedelta(hours=2)
    for number in range(3):
        setup.journal.append(line_of(number, timestamp=(ago + timedelta(minutes=number)).isoformat()))
    setup.delivery.close(0)
    write_dead_letter(home, LEDGER, line_of(9), "too old")


def typed(home: Path, *arguments: str) -> str:
    """What `stats` prints; it ends well."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": LEDGER, "COLUMNS": "200"}
    done = CliRunner().invoke(app, ["stats", *arguments], env=environ)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_collector_reads_it(tmp_path: Path) -> None:
    """Counters are summed by service, gauges are there for each sink, those with nothing to say too."""
    in_use(tmp_path)
    found = samples(typed(tmp_path, "--format", "openmetrics"))
    assert found["cmdrdata_events_total", "default", "web"] == 3
    assert found["cmdrdata_events_total", "default", "jobs"] == 9
    assert found["cmdrdata_missing_total", "default", "jobs"] == 2
    assert found["cmdrdata_processes",] == 3
    assert found["cmdrdata_pending_events", "callable:receiver"] == 3
    assert found["cmdrdata_pending_bytes", "callable:receiver"] > 300
    assert 7200 <= found["cmdrdata_lag_seconds", "callable:receiver"] < 7300
    assert found["cmdrdata_dead_letters", LEDGER] == 1
    assert found["cmdrdata_pending_events", LEDGER] == found["cmdrdata_lag_seconds", LEDGER] == 0


def test_what_has_not_happened_yet_is_nought(tmp_path: Path) -> None:
    """Who is to be woken by a loss sees the first one, too: its counter is there before."""
    in_use(tmp_path)
    found = samples(typed(tmp_path, "--format", "openmetrics"))
    assert {found[f"cmdrdata_{name}_total", "default", "web"] for name in WARNINGS} == {0, 1}


def test_a_collector_of_files_finds_a_whole_one(tmp_path: Path) -> None:
    """It is there or not, for other users to read, in a format that older collectors take as well."""
    in_use(tmp_path)
    file = tmp_path / "collected" / "cmdrdata.prom"
    file.parent.mkdir()
    for form in ("openmetrics", "json", "openmetrics"):
        assert typed(tmp_path, "--format", form, "--output", str(file)) == ""
        assert list(file.parent.iterdir()) == [file]
    assert as_text_format(file.read_text("utf-8")) == samples(file.read_text("utf-8"))
    assert file.stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--output", "x.prom"], "--format openmetrics"),
        (["--format", "json", "--output", "/no/x"], "/no/x cannot be written: No such"),
        (["--format", "json", "--output", "/"], "names no file"),
    ],
)
def test_a_file_that_cannot_be_is_said(tmp_path: Path, words: list[str], says: str) -> None:
    """In a line, as all that is wrong with the input."""
    done = CliRunner().invoke(
        app, ["stats", *words], env={"CMDRDATA_HOME": str(tmp_path), "CMDRDATA_SINKS": ""}
    )
    assert (done.exit_code, says in done.output) == (2, True)


def test_a_counter_never_falls(tmp_path: Path) -> None:
    """Processes end, and their files with time; what they have counted stays in the sums."""
    seen: list[float] = []
    for number in range(5):
        Tallies(tmp_path, tracker="default", service="web").keep({"events": 1}, now=True)
        seen.append(
            samples(typed(tmp_path, "--format", "openmetrics"))["cmdrdata_events_total", "default", "web"]
        )
        for path in (tmp_path / "stats").iterdir():
            os.utime(path, (0, 0))
        assert seen == list(range(1, number + 2))


def test_sums_of_a_home_are_of_no_process(tmp_path: Path) -> None:
    """What is folded is not taken for a process that was heard of just now."""
    for _ in range(3):
        Tallies(tmp_path, tracker="default", service="web").keep({"events": 1}, now=True)
        for path in (tmp_path / "stats").iterdir():
            os.utime(path, (0, 0))
    found = measure(tmp_path)
    assert (found.processes, found.counts["default", "web"]["events"]) == (1, 3)


@pytest.mark.parametrize("text", ['a"b', "a\\", "a\nb", "ü", "{}", "a,b=c"])
def test_any_name_is_a_label(text: str) -> None:
    """Services and sinks are called what people like, and come out as that."""
    waiting = Waiting(sink=text, events=1, size=2, lag_seconds=0.5, dead_letters=0)
    made = Metrics(counts={(text, text): {"events": 1}}, processes=1, events_per_second=0, sinks=[waiting])
    found = samples(openmetrics(made))
    assert found["cmdrdata_events_total", text, text] == 1
    assert found["cmdrdata_lag_seconds", text] == 0.5


@pytest.mark.parametrize("form", ["openmetrics", "json", "table"])
def test_any_name_is_printed_anywhere(tmp_path: Path, form: str) -> None:
    """Programs read UTF-8, whatever the encoding of a terminal is; a table escapes what that lacks."""
    Tallies(tmp_path, tracker="default", service="Zoë").keep({"events": 3}, now=True)
    done = subprocess.run(
        [sys.executable, "-m", "cmdrdata_transport", "stats", "--format", form, "--home", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "CMDRDATA_SINKS": LEDGER},
        capture_output=True,
        check=True,
    )
    assert ("Zo\\xeb" if form == "table" else "Zoë").encode() in done.stdout


def test_a_home_without_anything(tmp_path: Path) -> None:
    """It is valid text too, and a table without rows; nothing is made."""
    assert samples(typed(tmp_path / "new", "--format", "openmetrics"))["cmdrdata_processes",] == 0
    assert LEDGER in typed(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_people_and_programs_see_the_same(tmp_path: Path) -> None:
    """The table says what a count means where it is bad."""
    in_use(tmp_path)
    told = json.loads(typed(tmp_path, "--format", "json"))
    assert told["processes"] == 3
    assert {(each["service"], each["events"]) for each in told["counts"]} == {("web", 3), ("jobs", 9)}
    assert {each["sink"]: each["pending_events"] for each in told["sinks"]} == {
        "callable:receiver": 3,
        LEDGER: 0,
    }
    shown = typed(tmp_path)
    assert "jobs missing" in shown
    assert "an answer carried no usage" in shown
    assert "2 h ago" in shown or "120 min ago" in shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7200, "2 h"), (259_200, "3 days")],
)
def test_how_long_is_said_in_the_unit_that_tells_most(seconds: float, said: str) -> None:
    """Nobody counts the seconds of a day."""
    assert duration(seconds) == said


def test_the_rate_is_of_those_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was heard of lately: what it has counted since its start."""
    tracker = Tracker([LEDGER], home=tmp_path)
    for _ in range(10):
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    tracker.close(50)
    found = measure(tmp_path)
    assert found.processes == 1
    assert 0 < found.events_per_second <= 10
    later = time.time() + 120
    monkeypatch.setattr("cmdrdata_transport.metrics.time", lambda: later)
    found = measure(tmp_path)
    assert (found.processes, found.events_per_second) == (0, 0)
    assert found.counts["default", ""]["delivered"] == 10


def test_what_is_no_event_is_as_old_as_its_file(tmp_path: Path) -> None:
    """A line without a time that waits has waited since its segment was begun, at most."""
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.journal.append(b"[]")
    (found,) = measure(tmp_path).sinks
    assert 0 <= found.lag_seconds < 60
    setup.delivery.close(50)
