"""Sinks that only a program's code names: the command line says that they are there, and what to type."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cmdrdata_transport import Tracker, UsageEvent
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.tallies import RECENT_SECONDS, Tallies, fold, tallies

OTHER = "sqlite:///other.db"


def typed(home: Path, *arguments: str, sinks: str = "") -> Result:
    """What comes of such a command."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": sinks, "COLUMNS": "300"}
    return CliRunner().invoke(app, arguments, env=environ)


def bill(events: list[UsageEvent]) -> None:
    """Takes them somewhere."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of a program with sinks of its own that has recorded a call of acme's."""
    tracker = Tracker([OTHER, bill], home=tmp_path)
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    assert tracker.flush(30)
    tracker.close()
    return tmp_path


def test_who_erases_is_told_of_them(home: Path) -> None:
    """Nothing is found where it looks, and that is no success: it is said where that was, and where not."""
    done = typed(home, "erase", "--customer", "acme", "--yes")
    assert done.exit_code == 1
    assert f"There is nothing of acme in {home}, sqlite:///usage.db." in done.output
    assert f"{OTHER} was not looked in: name it in CMDRDATA_SINKS" in done.output
    assert "What callable:bill was sent is there" in done.output
    assert typed(home, "erase", "--customer", "acme", "--yes", sinks=OTHER).exit_code == 0
    assert "was not looked in" in typed(home, "prune", "--before", "1d", "--yes").output


@pytest.mark.parametrize(
    ("command", "lines"),
    [(("erase", "--customer", "globex"), ", jsonl:///copy.jsonl"), (("prune", "--before", "9d"), "")],
)
def test_what_is_said_to_be_empty_was_looked_in(home: Path, command: tuple[str, ...], lines: str) -> None:
    """A receiver that nobody can look in from here is not named among the places that have nothing."""
    sinks = f"{OTHER} http://127.0.0.1:9/in jsonl:///copy.jsonl"
    assert f" in {home}, {OTHER}{lines}.\n" in typed(home, *command, "--yes", sinks=sinks).output


def test_who_reports_is_told_of_them(home: Path) -> None:
    """An empty report says where else programs record."""
    done = typed(home, "report")
    assert (done.exit_code, "nothing has been recorded in sqlite:///usage.db" in done.output) == (0, True)
    assert f"Programs here record in {OTHER}: type --ledger" in done.output
    assert "callable:bill" not in done.output


def test_a_file_that_is_gone_is_not_named(home: Path) -> None:
    """Somebody has put it away: there is nothing to look in."""
    for file in home.glob("other.db*"):
        file.unlink()
    done = typed(home, "erase", "--customer", "acme", "--yes")
    assert (done.exit_code, OTHER in done.output) == (0, False)


def test_sinks_are_remembered_when_counts_are_folded(tmp_path: Path) -> None:
    """Those of all processes; files of before that, which name none, count as well."""
    for sinks in ([OTHER], ["callable:bill"], []):
        Tallies(tmp_path, tracker="default", service=None, sinks=sinks).keep({"events": 1}, now=True)
    stats = tmp_path / "stats"
    for file in stats.iterdir():
        said = json.loads(file.read_bytes())
        if not said["sinks"]:
            del said["sinks"]
            file.write_text(json.dumps(said))
        long_ago = file.stat().st_mtime - 2 * RECENT_SECONDS
        os.utime(file, (long_ago, long_ago))
    fold(stats)
    (folded,) = tallies(tmp_path)
    assert (folded.counts, list(folded.sinks)) == ({"events": 3}, ["callable:bill", OTHER])
