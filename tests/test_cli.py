"""The command line: what is typed, what is seen, and which code it ends with."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from cmdrdata_transport.cli.app import app
from cmdrdata_transport.cli.bars import bars, counts
from cmdrdata_transport.cli.view import event_line, printable, report_table
from cmdrdata_transport.cli.when import moment
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.event import UNITS, Usage, UsageEvent
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import backlog
from cmdrdata_transport.sinks import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.progress import Progress
    from typer.testing import Result

LEDGER = "sqlite:///usage.db"


def event(number: int, **fields: Any) -> UsageEvent:
    """An event, different for each number."""
    given: dict[str, Any] = {
        "event_id": f"event-{number}",
        "timestamp": f"2026-11-0{1 + number % 3}T12:00:00.000000Z",
        "provider": "openai",
        "usage_status": "complete",
        "outcome": "ok",
        "customer_id": ("acme", "globex")[number % 2],
        "metadata": {"feature": ("chat", "search")[number % 2]},
        "model": "gpt-5",
        "operation": "chat",
        "usage": Usage(input_tokens=number, output_tokens=1, total_tokens=number + 1),
        **fields,
    }
    return UsageEvent(**given)


EVENTS = [event(number) for number in range(6)]


def store(home: Path, events: Sequence[UsageEvent]) -> None:
    """Put events into the ledger of a home."""
    outlet = open_sink(LEDGER, home=home, environ={})
    outlet.send([each.to_json() for each in events])
    outlet.close()


@contextmanager
def journaled(home: Path, events: Sequence[UsageEvent], *sinks: str) -> Iterator[None]:
    """Events in the journal of a home, by a process at work; afterwards it is as if it had died."""
    journal = Journal(home, sinks=sinks or (LEDGER,), counters=Counters())
    for each in events:
        journal.append(each.to_json())
    yield
    journal.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for commands that are told of none."""
    for name in [name for name in os.environ if name.startswith("CMDRDATA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CMDRDATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "home"


def typed(*words: str) -> Result:
    """Run a command in this process; it must not end in an error that nobody foresaw."""
    result = CliRunner().invoke(app, words, prog_name="cmdrdata-transport")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def process(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Run a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "cmdrdata_transport", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# --- report -----------------------------------------------------------------------------------------


def test_report_as_json_is_what_the_ledger_says(home: Path) -> None:
    """A list of objects, with the group's keys first, equal to the ledger's own report."""
    store(home, EVENTS)
    result = typed("report", "--by", "customer_id,model", "--format", "json")
    rows = json.loads(result.stdout)
    with Ledger.open(LEDGER, home=home) as ledger:
        assert rows == ledger.report(by=("customer_id", "model"))
    assert list(rows[0])[:3] == ["customer_id", "model", "calls"]
    assert (result.exit_code, result.stderr) == (0, "")


def test_report_as_csv_has_the_same_numbers(home: Path) -> None:
    """A heading and a line for each group; nothing is empty but what an event does not have."""
    store(home, [*EVENTS, event(7, customer_id=None)])
    result = typed("report", "--by", "customer_id", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["customer_id"], row["input_tokens"]) for row in rows] == [
        ("", "7"),
        ("acme", "6"),
        ("globex", "9"),
    ]


def test_report_as_a_table_has_totals(home: Path) -> None:
    """A line for each group and one for all; a group's first key is not repeated."""
    store(home, EVENTS)
    lines = typed("report", "--by", "customer_id,day").stdout.splitlines()
    cells = [line.split() for line in lines]
    assert cells[0] == ["customer", "day", "calls", "input", "output", "total"]
    assert cells[2] == ["acme", "2026-11-01", "1", "0", "1", "1"]
    assert cells[3] == ["2026-11-02", "1", "4", "1", "5"]
    assert ["all", "6", "15", "6", "21"] in cells


def test_report_of_latency(home: Path) -> None:
    """Answers and errors have lines and percentiles of their own; as JSON they are what the ledger says."""
    failed = {"outcome": "error", "usage_status": "none", "request_duration_ms": 20.0}
    store(home, [event(1, request_duration_ms=10.0), event(2, request_duration_ms=30.0), event(3, **failed)])
    shown = typed("report", "--latency", "--by", "provider").stdout
    assert re.search(r"answered +2 +20 +29 +29\.8", shown)
    assert re.search(r"errors +1 +20 +20 +20", shown)
    assert "given up" not in shown
    with Ledger.open(LEDGER, home=home) as ledger:
        rows = ledger.latency(by=("provider",))
    assert json.loads(typed("report", "--latency", "--by", "provider", "--format", "json").stdout) == rows


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--by", "metadata.feature"], {"chat": 6, "search": 9}),
        (["--by", "day"], {"2026-11-01": 3, "2026-11-02": 5, "2026-11-03": 7}),
        (["--by", "provider", "--since", "2026-11-02"], {"openai": 12}),
        (["--by", "provider", "--since", "2026-11-02T12:00", "--until", "2026-11-03"], {"openai": 5}),
        (["--by", "provider", "--until", "2026-11-01T13:00+01:00"], {}),
        (["--by", "provider", "--since", "1s"], {}),
    ],
)
def test_report_by_anything_and_for_a_time(home: Path, words: list[str], expected: dict[str, int]) -> None:
    """Days, metadata keys and fields group; since is included, until is not, and zones count."""
    store(home, EVENTS)
    rows = json.loads(typed("report", "--format", "json", *words).stdout)
    assert {row[words[1]]: row["input_tokens"] for row in rows} == expected


@pytest.mark.parametrize("ledger", [[], ["--ledger", "{home}/usage.db"], ["--ledger", LEDGER]])
def test_report_delivers_what_dead_processes_left(home: Path, ledger: list[str]) -> None:
    """Events in the journal of a process that ended are in the report, and only once."""
    store(home, EVENTS[:2])
    with journaled(home, EVENTS[1:]):
        pass
    for _ in range(2):
        words = [word.format(home=home) for word in ledger]
        result = typed("report", "--by", "provider", "--format", "json", *words)
        assert [row["events"] for row in json.loads(result.stdout)] == [6]
        assert result.stderr == ""
    assert backlog(home / "journal") == []


def test_report_says_what_is_still_pending(home: Path) -> None:
    """What a process at work has not delivered yet is said on standard error, not waited for."""
    store(home, EVENTS[:2])
    with journaled(home, EVENTS[2:]):
        result = typed("report", "--by", "provider", "--format", "json")
    assert [row["events"] for row in json.loads(result.stdout)] == [2]
    assert result.stderr == f"4 events of processes at work are on their way to {LEDGER}\n"


@pytest.mark.parametrize(("form", "empty"), [("json", "[]\n"), ("csv", "model\n"), ("table", "No events.\n")])
def test_report_before_the_first_event(home: Path, form: str, empty: str) -> None:
    """Where nothing has been recorded yet a report is empty, says so, and is no error."""
    result = typed("report", "--by", "model", "--format", form)
    assert (result.exit_code, result.stdout) == (0, empty)
    assert "nothing has been recorded" in result.stderr
    assert not home.exists()


def test_report_by_nothing_that_there_is_before_the_first_event(home: Path) -> None:
    """A key that means nothing is the same error whether or not there is a ledger yet."""
    result = typed("report", "--by", "model,colour")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a report cannot be by 'colour'" in result.stderr
    assert not home.exists()


def test_report_shows_values_as_text(home: Path) -> None:
    """Neither markup nor control codes in a customer's name reach the terminal as such."""
    store(home, [event(1, customer_id="[red]a[/red]\x1b[2J\r\nb")])
    shown = typed("report", "--by", "customer_id").stdout
    assert "[red]a[/red]\\x1b[2J\\r\\nb" in shown
    assert "\x1b" not in shown


# --- wrong input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["report", "--by", "colour"], {}, "a report cannot be by 'colour'"),
        (["report", "--since", "soon"], {}, "'soon' is no time"),
        (["report", "--until", "2026-13-01"], {}, "'2026-13-01' is no time"),
        (["report", "--since", "999999w"], {}, "'999999w' is no time"),
        (["report", "--format", "xml"], {}, "'xml'"),
        (["report", "--ledger", "sqlite:///not-there.db"], {}, "there is no ledger at"),
        (["report", "--ledger", "sqlite:///notes.txt"], {}, "cannot be read as a ledger"),
        (["report", "--ledger", "mysql://host/db"], {}, "mysql"),
        (["report"], {"CMDRDATA_SINKS": "jsonl:///usage.jsonl"}, "none of the sinks can be read back"),
        (["report"], {"CMDRDATA_SINKS": "carrier-pigeon://loft"}, "carrier-pigeon"),
        (["report"], {"CMDRDATA_METADATA": "region=eu"}, "CMDRDATA_METADATA is not a JSON object"),
        (["tail", "--once", "--ledger", "not-there.db"], {}, "there is no ledger at"),
        (["tail", "--lines", "-1"], {}, "Invalid value for '--lines'"),
        (["doctor"], {"CMDRDATA_METADATA": "[]"}, "CMDRDATA_METADATA is not a JSON object"),
        (["drain", "--timeout", "soon"], {}, "Invalid value for '--timeout'"),
        (["drain", "--forget", LEDGER, "--follow"], {}, "--forget and --follow are two things"),
        (["erase", "--customer", "", "--yes"], {}, "--customer is empty"),
        (["report", "--since", "2026-11-02", "--until", "2026-11-01"], {}, "is not after --since 2026-11-02"),
        (["dance"], {}, "'dance'"),
    ],
)
def test_wrong_input_is_said_and_ends_with_2(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    """One clear message on standard error, nothing on standard output, no traceback."""
    store(home, EVENTS)
    (home / "notes.txt").write_text("not a database, but long enough to look like one " * 4)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = typed(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


def test_without_the_extra_the_message_names_it() -> None:
    """Where typer is not installed, one line says what to install."""
    code = "import sys; sys.modules['typer'] = None\nfrom cmdrdata_transport.__main__ import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "The command line needs typer: pip install 'cmdrdata-transport[cli]'\n"


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    """When the other end of a pipe is closed, as by `head`, nothing is said."""
    store(home, [event(number, customer_id=f"customer {number}") for number in range(3000)])
    with process("report", "--by", "customer_id", "--format", "csv") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith("customer_id,calls")
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 1


# --- tail -------------------------------------------------------------------------------------------


def test_tail_shows_the_last_events(home: Path) -> None:
    """So many lines as asked for, the newest last, below what the columns are."""
    store(home, EVENTS)
    head, *lines = typed("tail", "--once", "--lines", "2").stdout.splitlines()
    assert head.split() == ["time", "customer", "provider", "model", "operation", "input", "output"]
    assert [line.split()[1:] for line in lines] == [
        ["acme", "openai", "gpt-5", "chat", "4", "1"],
        ["globex", "openai", "gpt-5", "chat", "5", "1"],
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lines", "0"], []),
        (["--lines", "100"], EVENTS),
        (["--since", "2026-11-02"], [each for each in EVENTS if each.timestamp > "2026-11-02"]),
    ],
)
def test_tail_as_json_gives_the_published_events(
    home: Path, words: list[str], expected: list[UsageEvent]
) -> None:
    """One JSON object a line, each an event whole."""
    store(home, EVENTS)
    lines = typed("tail", "--once", "--json", *words).stdout.splitlines()
    assert [UsageEvent.from_json(line.encode()) for line in lines] == expected


def test_tail_before_the_first_event(home: Path) -> None:
    """Where nothing has been recorded yet there is nothing to show, and that is no error, as for a report."""
    result = typed("tail", "--once")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing has been recorded" in result.stderr
    assert not home.exists()


def test_tail_follows_until_it_is_interrupted(home: Path) -> None:
    """It waits for a ledger that is not there yet, shows events as they land, and ends well on Ctrl-C."""
    with process("tail", "--json") as running:
        assert running.stdout is not None
        for each in EVENTS[:2]:
            store(home, [each])
            assert UsageEvent.from_json(running.stdout.readline().encode()) == each
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (0, "")


# --- drain ------------------------------------------------------------------------------------------


def test_drain_delivers_what_dead_processes_left(home: Path) -> None:
    """Every sink that can be opened here gets its events, and nothing waits afterwards."""
    with journaled(home, EVENTS, LEDGER, "jsonl:///usage.jsonl"):
        pass
    result = typed("drain")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["jsonl:///usage.jsonl: 6 delivered", f"{LEDGER}: 6 delivered"]
    assert len((home / "usage.jsonl").read_text().splitlines()) == 6
    assert typed("drain").stdout == "Nothing waits.\n"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    ("make", "says"), [(bars, "12000/34000"), (partial(counts, done="delivered"), "12,000 delivered")]
)
def test_what_moves_is_seen_beside_any_name(
    width: int, make: Callable[[Console], Progress], says: str
) -> None:
    """The name of a sink gives way to the numbers; its beginning tells it from others."""
    out = Console(width=width, file=io.StringIO(), force_terminal=True)
    with make(out) as shown:
        shown.update(shown.add_task(f"kafka://{'broker,' * 30}/usage", total=34_000), completed=12_000)
    assert says in out.file.getvalue()  # type: ignore[attr-defined]
    assert "kafka://broker" in out.file.getvalue()  # type: ignore[attr-defined]


def test_drain_says_what_waits_still(home: Path) -> None:
    """A function of another program can't be opened: its events wait, it is said, and the code is 1."""
    with journaled(home, EVENTS, LEDGER, "callable:bill"):
        pass
    result = typed("drain", "--timeout", "0.1")
    assert result.exit_code == 1
    assert "callable:bill: 0 delivered, 6 waiting (a function, which" in result.stdout
    assert f"{LEDGER}: 6 delivered" in result.stdout


def test_drain_leaves_processes_at_work_alone(home: Path) -> None:
    """The events of a process at work are its own to deliver, and no reason for concern."""
    with journaled(home, EVENTS):
        result = typed("drain")
    assert result.exit_code == 0
    assert result.stdout == f"{LEDGER}: 0 delivered, 6 of processes at work, which deliver them\n"


def test_a_sidecar_says_that_home_is_not_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new volume may be root's: it says so at once, for it would see nothing and be silent."""
    home.write_text("a file")
    monkeypatch.setenv("CMDRDATA_HOME", str(home / "below"))
    with process("drain", "--follow") as running:
        assert running.stderr is not None
        said = running.stderr.readline()
        running.kill()
    assert said.startswith(f"{home / 'below'} cannot be written: this user delivers nothing")


def test_drain_forgets_a_sink(home: Path) -> None:
    """What waits for a sink that will never come is given up; the others still get theirs."""
    with journaled(home, EVENTS, LEDGER, "callable:bill"):
        pass
    assert typed("drain", "--forget", "callable:bill").stdout == "callable:bill: 6 events given up\n"
    assert {each.sink for each in backlog(home / "journal")} == {LEDGER}
    assert typed("drain").exit_code == 0
    assert backlog(home / "journal") == []


def test_drain_forgets_a_sink_however_it_was_typed(home: Path) -> None:
    """With its password, as it stands in the environment: the journal does not know that, nor is it shown."""
    with journaled(home, EVENTS, "postgresql://u@h/db"):
        pass
    result = typed("drain", "--forget", "postgres://u:s3cret@h/db?timeout=5")
    assert (result.exit_code, result.stdout) == (0, "postgresql://u@h/db: 6 events given up\n")
    assert backlog(home / "journal") == []


def test_drain_forgets_nothing_of_a_misspelt_sink(home: Path) -> None:
    """For a sink of another name nothing is given up; the names that there are, are told."""
    with journaled(home, EVENTS, "callable:bill"):
        pass
    result = typed("drain", "--forget", "callable:bil")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "callable:bil: 0 events given up",
        "Events wait for: callable:bill",
    ]


# --- the rest ---------------------------------------------------------------------------------------


def test_help_and_version() -> None:
    """Without a command the commands are told; --version is one line."""
    assert re.findall(r"^│ (\w+) ", typed().output, re.MULTILINE) == [
        "demo",
        "report",
        "tail",
        "export",
        "doctor",
        "drain",
        "replay",
        "prune",
        "erase",
        "stats",
    ]
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", typed("--version").stdout)


NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T09:30", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01T09:30+01:00", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
        ("2026-11-01T09:30:15.5Z", datetime(2026, 11, 1, 9, 30, 15, 500_000, tzinfo=UTC)),
        ("today", datetime(2026, 11, 21, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 20, tzinfo=UTC)),
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        (" 36h ", NOW - timedelta(hours=36)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(days=14)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    """Dates, times with and without zones, and how long ago, all in UTC."""
    assert moment(text, NOW) == expected


@given(st.text() | st.from_regex(r"[0-9]{1,7}[smhdw]"))
def test_any_text_is_a_moment_or_a_clear_error(text: str) -> None:
    """No text ends in another error than the one that shows examples."""
    try:
        assert moment(text, NOW).tzinfo is UTC
    except ValueError as error:
        assert "These are: 2026-11-01" in str(error)  # noqa: PT017 - either is right


ANYTHING = st.text(max_size=80)


@given(
    customer=ANYTHING, model=ANYTHING, kind=ANYTHING, width=st.integers(60, 200), tokens=st.integers(0, 10**7)
)
def test_an_event_keeps_to_its_line(customer: str, model: str, kind: str, width: int, tokens: int) -> None:
    """Whatever names an event has, its line is one line, no wider than the terminal, and moves no cursor."""
    usage = Usage(input_tokens=tokens, output_tokens=tokens, cache_read_tokens=tokens)
    for outcome in ("ok", "error"):
        shown = replace(
            event(1, customer_id=customer, model=model, usage=usage), outcome=outcome, error_type=kind
        )
        line = event_line(shown, width).plain
        assert cell_len(line) <= width
        assert line == printable(line)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_report_keeps_to_its_width(width: int) -> None:
    """As many sums as fit, none cut off; those that don't fit are named below."""
    row = {"customer_id": "acme", "calls": 12_345} | dict.fromkeys(UNITS, 123456789)
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(report_table([row, row], ["customer_id"], width))
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert "Also counted: " in shown
    for named in ("input", "cache read", "images"):
        assert named in shown
