"""`prune` and `erase`: what is old, or a customer's, is counted first and then gone from everywhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from journals import Receiver, Setup, event_of, line_of, set_up
from postgres import QUOTED_PASSWORD, Server
from typer.testing import CliRunner, Result

from cmdrdata_transport.cli.app import app
from cmdrdata_transport.delivery import drain
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.jobs import Jobs
from cmdrdata_transport.lanes import dead_letters, write_dead_letter
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.tallies import Tallies

LEDGER = "sqlite:///usage.db"
SECRET = "Jane Doe GmbH"


def typed(home: Path, *arguments: str, sinks: str = LEDGER) -> Result:
    """What comes of a command."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": sinks, "COLUMNS": "300"}
    return CliRunner().invoke(app, list(arguments), env=environ)


def nothing(*_: object) -> None:
    """Counts nothing."""


def lived_in(home: Path) -> Setup:
    """A home with two customers and two months, delivered, rejected, started and counted."""
    setup = set_up(home, LEDGER, mode="flush")
    for number in range(40):
        setup.journal.append(
            line_of(
                number,
                customer_id=SECRET if number % 2 else "acme",
                timestamp=f"2026-{10 + number % 4 // 2}-21T12:00:00Z",
            )
        )
    assert setup.delivery.close(30)
    for number in (40, 41):
        write_dead_letter(home, LEDGER, line_of(number, customer_id="acme" if number % 2 else SECRET), "no")
    jobs = Jobs(home, nothing)
    jobs.remember("https://api.openai.com", "resp_1", {"customer_id": SECRET, "metadata": {}})
    jobs.finish("https://api.openai.com", "resp_1", SECRET, {"input_tokens": 1})
    jobs.remember("https://api.openai.com", "resp_2", {"customer_id": "acme", "metadata": {}})
    Tallies(home, tracker="default", service=None).keep({"events": 42}, now=True)
    return setup


def customers(home: Path) -> list[str | None]:
    """Whose the events of the ledger are."""
    with Ledger.open(LEDGER, home=home) as ledger:
        return [each.event.customer_id for each in ledger.events()]


def holding(home: Path, text: str) -> list[str]:
    """The files that have this in them."""
    return sorted(
        path.name for path in home.rglob("*") if path.is_file() and text.encode() in path.read_bytes()
    )


def test_a_customer_is_gone_from_everywhere(tmp_path: Path) -> None:
    """Each place is named with a number; afterwards no file has as much as the name; others' are there."""
    lived_in(tmp_path)
    assert len(holding(tmp_path, SECRET)) == 4
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    assert done.exit_code == 0, done.output
    assert f"20 events of {SECRET} in {LEDGER}" in done.output
    assert f"1 rejected events of {SECRET} in" in done.output
    assert f"2 jobs that were started of {SECRET} in" in done.output
    assert f"removed 20 events from {LEDGER}" in done.output
    assert holding(tmp_path, SECRET) == []
    assert customers(tmp_path) == ["acme"] * 20
    (letter,) = dead_letters(tmp_path, LEDGER).read_bytes().splitlines()
    assert decode(letter)["event"]["customer_id"] == "acme"
    assert len(list((tmp_path / "jobs").iterdir())) == 1
    assert f"There is nothing of {SECRET}." in typed(tmp_path, "erase", "--customer", SECRET).output


def test_what_waits_is_not_sent_to_anybody_later(tmp_path: Path) -> None:
    """Events that no sink has taken yet are overwritten where they are; those of others are delivered."""
    receiver = Receiver(raises=[OSError()] * 3)
    first = set_up(tmp_path, receiver, mode="flush")
    for number in range(20):
        first.journal.append(line_of(number, customer_id=SECRET if number % 4 < 2 else "acme"))
    assert not first.delivery.flush(0.01)
    first.journal.close()
    # It has read them already, and may deliver them.
    assert "type this again" in typed(tmp_path, "erase", "--customer", "globex", "--yes").output
    first.delivery.close(0)
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    assert done.exit_code == 0, done.output
    assert f"10 events of {SECRET} in {tmp_path / 'journal'}" in done.output
    assert holding(tmp_path, SECRET) == []
    receiver.raises.clear()
    (drained,) = drain(tmp_path, [receiver])
    assert (drained.delivered, drained.pending) == (10, 0)
    assert sorted(receiver.got) == [number for number in range(20) if number % 4 > 1]
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_process_at_work_goes_on(tmp_path: Path) -> None:
    """Its journal is overwritten under it, to the last event; it writes on, delivers, and can be flushed."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver, mode="flush")
    for number in range(4):
        setup.journal.append(line_of(number, customer_id=SECRET if number % 2 else "acme"))
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    assert done.exit_code == 1
    assert "type this again in a minute" in done.output
    assert setup.delivery.flush(5)
    setup.append(1, start=4)
    assert setup.delivery.close(5)
    assert sorted(receiver.got) == [0, 2, 4]
    assert typed(tmp_path, "erase", "--customer", SECRET, "--yes").exit_code == 0


def test_it_is_said_where_we_cannot_look(tmp_path: Path) -> None:
    """Other sinks, and files that were set aside, are somebody else's to look into."""
    lived_in(tmp_path)
    (tmp_path / "usage.db.corrupt-20261101T000000Z").touch()
    (tmp_path / "journal" / "1-2-3.torn").touch()
    sinks = f"{LEDGER} jsonl:///usage.jsonl"
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=sinks)
    for each in ("jsonl:///usage.jsonl", "usage.db.corrupt-20261101T000000Z", "1-2-3.torn"):
        assert f"Not looked into: {each}" in done.output.replace(f"{tmp_path}/journal/", "").replace(
            f"{tmp_path}/", ""
        )


def test_what_is_old_is_gone(tmp_path: Path) -> None:
    """Events by the time of the call, jobs by the age of their files; newer ones stay, and all counts."""
    lived_in(tmp_path)
    (job, *_) = sorted((tmp_path / "jobs").iterdir())
    (count,) = (tmp_path / "stats").iterdir()
    for each in (job, count):
        os.utime(each, (0, 0))
    done = typed(tmp_path, "prune", "--before", "2026-11-01", "--yes")
    assert done.exit_code == 0, done.output
    assert f"20 events before 2026-11-01 00:00:00Z in {LEDGER}" in done.output
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        assert {each.event.timestamp[:7] for each in ledger.events()} == {"2026-11"}
    assert len(dead_letters(tmp_path, LEDGER).read_bytes().splitlines()) == 2
    assert not job.exists()
    assert count.exists()
    assert len(list((tmp_path / "jobs").iterdir())) == 2
    done = typed(tmp_path, "prune", "--before", "2026-12-01", "--yes")
    assert "20 events" in done.output
    assert "2 rejected events" in done.output
    assert list((tmp_path / "dead").iterdir()) == []


def test_what_waits_is_left_to_be_delivered(tmp_path: Path) -> None:
    """However old it is: it has been billed nowhere yet."""
    setup = set_up(tmp_path, Receiver(raises=[OSError()] * 100), mode="flush")
    setup.append(3)
    done = typed(tmp_path, "prune", "--before", "2027-01-01", "--yes")
    assert done.exit_code == 0
    assert "3 deliveries wait in the journal, whose events stay" in done.output
    assert len(setup.segments()) == 1
    setup.delivery.close(0)


@pytest.mark.parametrize("command", [["prune", "--before", "2027-01-01"], ["erase", "--customer", SECRET]])
def test_nothing_is_removed_unasked(tmp_path: Path, command: list[str]) -> None:
    """Where nobody can be asked it says what to type, and what it would have done."""
    lived_in(tmp_path)
    done = typed(tmp_path, *command)
    assert done.exit_code == 2
    assert "nothing has been done" in done.output
    assert "0 events" in done.output
    assert len(customers(tmp_path)) == 40


@pytest.mark.parametrize(("answer", "left", "code"), [("n", 40, 1), ("y", 20, 0)])
def test_in_a_terminal_it_asks(tmp_path: Path, answer: str, left: int, code: int) -> None:
    """It says what it will do, and does it only if that is wanted."""
    lived_in(tmp_path)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "cmdrdata_transport", "erase", "--customer", SECRET, "--home", str(tmp_path)],
        env={**os.environ, "CMDRDATA_SINKS": LEDGER},
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert f"20 events of {SECRET} in {LEDGER}" in done.stdout
    assert "Remove them for good? [y/N]" in done.stderr
    assert ("Nothing has been done." in done.stderr) is bool(code)
    assert (len(customers(tmp_path)), done.returncode) == (left, code)


def test_a_time_that_is_none_is_wrong_input(tmp_path: Path) -> None:
    """It names some that are."""
    done = typed(tmp_path, "prune", "--before", "whenever", "--yes")
    assert done.exit_code == 2
    assert "is no time" in done.output


def test_a_database_is_tidied_too(tmp_path: Path, postgres_server: Server) -> None:
    """Whole months are dropped, the rest removed; a customer is gone, and does not come back."""
    url = postgres_server.url(postgres_server.new_database())
    setup = set_up(tmp_path, url, mode="flush")
    lines = [
        line_of(
            number, customer_id=SECRET if number % 2 else "acme", timestamp=f"2026-{month:02}-15T12:00:00Z"
        )
        for number, month in enumerate((8, 8, 9, 9, 10, 10, 11, 11))
    ]
    for line in lines:
        setup.journal.append(line)
    assert setup.delivery.close(30)

    def left() -> list[tuple[str | None, str]]:
        with Ledger.open(url) as ledger:
            return sorted((each.event.customer_id, each.event.timestamp[5:7]) for each in ledger.events())

    done = typed(tmp_path, "prune", "--before", "2026-10-16", "--yes", sinks=url)
    assert done.exit_code == 0, done.output
    assert "6 events before" in done.output
    assert QUOTED_PASSWORD not in done.output
    assert left() == [(SECRET, "11"), ("acme", "11")]
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=url)
    assert f"1 events of {SECRET}" in done.output
    setup.journal.append(lines[-1])
    assert setup.delivery.close(30)
    assert left() == [("acme", "11")]


def test_events_are_as_they_were(tmp_path: Path) -> None:
    """What stays is not written anew: the same event, and the same place in the ledger."""
    lived_in(tmp_path)
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        before = [each for each in ledger.events() if each.event.customer_id == "acme"]
    typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        assert list(ledger.events()) == before
    assert UsageEvent.from_json(line_of(1)).to_dict() == event_of(1)
