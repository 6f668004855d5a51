"""`prune` and `erase`: what is old, or a customer's, is counted first and then gone from everywhere."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from journals import Receiver, Setup, event_of, ids_in, line_of, program, set_up
from postgres import QUOTED_PASSWORD, Server
from typer.testing import CliRunner, Result

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.dead_letters import dead_letters, write_dead_letter
from cmdrdata_transport.event import UsageEvent, decode, encode
from cmdrdata_transport.jobs import Jobs
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.replaying import letters
from cmdrdata_transport.sinks import open_sink
from cmdrdata_transport.tallies import Tallies
from cmdrdata_transport.traces import blank_lines

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
    again = typed(tmp_path, "erase", "--customer", SECRET)
    assert again.output == f"There is nothing of {SECRET} in {tmp_path}, {LEDGER}.\n"


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
    assert setup.delivery.flush(50)
    setup.append(1, start=4)
    assert setup.delivery.close(50)
    assert sorted(receiver.got) == [0, 2, 4]
    assert typed(tmp_path, "erase", "--customer", SECRET, "--yes").exit_code == 0


def test_it_is_said_where_we_cannot_look(tmp_path: Path) -> None:
    """What others were sent is there, and that is said before anything is asked."""
    lived_in(tmp_path)
    others = ("https://example.com/in", "otlp+https://collector:4318", "kafka://broker/usage")
    done = typed(tmp_path, "erase", "--customer", SECRET, sinks=f"{LEDGER} {' '.join(others)}")
    assert done.exit_code == 2
    for each in others:
        assert f"What {each} was sent is there, and cannot be taken out from here." in done.output


def set_aside(home: Path, name: str = "usage.db.corrupt-20261101T000000Z") -> Path:
    """A ledger like that of the home, put beside it."""
    with closing(sqlite3.connect(home / "usage.db")) as ledger, closing(sqlite3.connect(home / name)) as copy:
        ledger.backup(copy)
    return home / name


def test_no_file_of_home_keeps_as_much_as_the_name(tmp_path: Path) -> None:
    """What was set aside as damaged, files of lines, and what a sink refused because it is no event."""
    lived_in(tmp_path)
    outlet = open_sink("jsonl:///usage.jsonl", home=tmp_path, environ={})
    outlet.send([line_of(number, customer_id=SECRET if number % 2 else "acme") for number in range(6)])
    set_aside(tmp_path)
    torn = tmp_path / "journal" / "1-2-3.torn"
    torn.write_bytes(b"\n0 " + line_of(1, customer_id=SECRET)[:150] + b"\n1 " + line_of(2)[:50])
    write_dead_letter(tmp_path, LEDGER, line_of(3, customer_id=SECRET)[:-1], "it is not an event")
    sinks = f"{LEDGER} jsonl:///usage.jsonl"
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=sinks)
    assert done.exit_code == 0, done.output
    for said in (
        f"3 events of {SECRET} in {tmp_path}/usage.jsonl",
        f"1 pieces of damaged records of {SECRET} in {torn}",
        f"2 rejected events of {SECRET} in",
        f"20 events of {SECRET} in sqlite:///{tmp_path}/usage.db.corrupt",
    ):
        assert said in done.output
    assert holding(tmp_path, SECRET) == []
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == Counter([0, 2, 4])
    assert line_of(2)[:50] in torn.read_bytes()


def test_what_others_removed_leaves_no_copy(tmp_path: Path) -> None:
    """SQLite leaves the bytes of a row that was removed, unless it is told not to."""
    lived_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / "usage.db")) as ledger, ledger:
        ledger.execute("PRAGMA secure_delete = OFF")
        ledger.execute("DELETE FROM usage_events WHERE customer_id = ?", (SECRET,))
    with closing(sqlite3.connect(tmp_path / "usage.db")) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert "usage.db" in holding(tmp_path, SECRET)
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    assert done.exit_code == 0, done.output
    assert f"1 left copies of events of {SECRET} in {LEDGER}" in done.output
    assert holding(tmp_path, SECRET) == []
    assert customers(tmp_path) == ["acme"] * 20


def test_a_ledger_that_is_too_damaged_is_named(tmp_path: Path) -> None:
    """As is a file that no sink is named for: with what to do, and the exit code tells."""
    lived_in(tmp_path)
    damaged = set_aside(tmp_path)
    data = damaged.read_bytes()
    damaged.write_bytes(data[:100] + b"\xff" * 3000 + data[3100:])
    unknown = tmp_path / "former.jsonl"
    unknown.write_bytes(line_of(1, customer_id=SECRET))
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    assert done.exit_code == 1
    assert f"{damaged} still has this customer: bring back what can be read of it" in done.output
    assert f"{unknown} still has this customer: it is of no sink that is named here" in done.output
    assert holding(tmp_path, SECRET) == [unknown.name, damaged.name]
    damaged.unlink()
    again = typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=f"{LEDGER} jsonl:///former.jsonl")
    assert (again.exit_code, holding(tmp_path, SECRET)) == (0, []), again.output


@pytest.mark.parametrize("customer", ["a", 'Jo"hn \\ Doe', "Zoë\n", "x" * 512])
def test_any_name_can_be_erased(tmp_path: Path, customer: str) -> None:
    """A short one, which is a part of others; one that JSON writes otherwise; the longest."""
    outlets = [open_sink(each, home=tmp_path, environ={}) for each in (LEDGER, "jsonl:///usage.jsonl")]
    for outlet in outlets:
        outlet.send([line_of(1, customer_id=customer), line_of(2, customer_id="another")])
        outlet.close()
    sinks = f"{LEDGER} jsonl:///usage.jsonl"
    done = typed(tmp_path, "erase", "--customer", customer, "--yes", sinks=sinks)
    assert done.exit_code == 0, done.output
    assert customers(tmp_path) == ["another"]
    written = encode({"customer_id": customer})[1:-1].decode()
    assert holding(tmp_path, written) == []


def test_a_customer_is_not_taken_for_another(tmp_path: Path) -> None:
    """Whose id begins as theirs does, or ends so, keeps everything, and nothing is said to be left."""
    others = ["customer-10", "old-customer-1", "customer-1.test"]
    outlets = [open_sink(each, home=tmp_path, environ={}) for each in (LEDGER, "jsonl:///usage.jsonl")]
    for outlet in outlets:
        outlet.send([line_of(place, customer_id=each) for place, each in enumerate(["customer-1", *others])])
        outlet.close()
    sinks = f"{LEDGER} jsonl:///usage.jsonl"
    done = typed(tmp_path, "erase", "--customer", "customer-1", "--yes", sinks=sinks)
    assert done.exit_code == 0, done.output
    assert customers(tmp_path) == others
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == Counter([1, 2, 3])


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("theirs", [(0,), (1, 2), (4,), (3, 4), (0, 4), (0, 1, 2, 3, 4), ()])
def test_lines_that_are_overwritten_are_missed_by_nobody(
    tmp_path: Path, theirs: tuple[int, ...], end: str
) -> None:
    """Each line that is left is JSON, and the file as long as it was; who appends begins a new line."""
    file = tmp_path / "usage.jsonl"
    lines = [line_of(number, customer_id=SECRET if number in theirs else "acme") for number in range(5)]
    file.write_bytes(b"\n".join(lines) + end.encode())
    size = file.stat().st_size
    assert blank_lines(file, lambda line: SECRET.encode() in line) == len(theirs)
    assert file.stat().st_size == (0 if len(theirs) == 5 else size)
    open_sink("jsonl:///usage.jsonl", home=tmp_path, environ={}).send([line_of(5)])
    assert ids_in(file.read_bytes().splitlines()) == Counter({*range(6)} - {*theirs})
    assert SECRET.encode() not in file.read_bytes()


@pytest.mark.slow
def test_who_reads_the_ledger_keeps_what_was_removed(tmp_path: Path) -> None:
    """It is still in the file beside it: the command says so, and the next one ends it."""
    lived_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM usage_events").fetchone()
        done = typed(tmp_path, "erase", "--customer", SECRET, "--yes")
        assert done.exit_code == 2
        assert "somebody reads the ledger: what was removed is still in the file beside it" in done.output
    assert typed(tmp_path, "erase", "--customer", SECRET, "--yes").exit_code == 0
    assert holding(tmp_path, SECRET) == []


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in (4, 12) else pytest.mark.slow) for step in range(1, 30)]
)
def test_who_is_killed_over_it_types_it_again(tmp_path: Path, step: int) -> None:
    """Wherever it was: then nothing is left of the one, and all of the other."""
    lived_in(tmp_path)
    open_sink("jsonl:///usage.jsonl", home=tmp_path, environ={}).send(
        [line_of(number, customer_id=SECRET if number % 2 else "acme") for number in range(6)]
    )
    code = f"""
    from cmdrdata_transport import housekeeping
    left = {step}
    def look(event, arguments):
        global left
        if event in ("os.rename", "os.remove", "open", "sqlite3.connect") and str(home) in str(arguments[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), 9)
    places = housekeeping.of_customer(home, ["{LEDGER}", "jsonl:///usage.jsonl"], "{SECRET}")
    sys.addaudithook(look)
    for each in places:
        each.remove()
    """
    program(code, tmp_path).communicate(timeout=60)
    sinks = f"{LEDGER} jsonl:///usage.jsonl"
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=sinks)
    assert done.exit_code == 0, done.output
    assert holding(tmp_path, SECRET) == []
    assert customers(tmp_path) == ["acme"] * 20
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == Counter([0, 2, 4])
    assert [each.number for each in letters(tmp_path)] == [1]


def test_an_application_that_writes_meanwhile_loses_nothing(tmp_path: Path) -> None:
    """It records for two customers; one is erased again and again; the other's events are all there, once."""
    sinks = f"{LEDGER} jsonl:///usage.jsonl"
    code = """
    setup = set_up(home, "sqlite:///usage.db", "jsonl:///usage.jsonl")
    setup.delivery.ensure_running()
    for number in range(200):
        setup.journal.append(line_of(number, customer_id=sys.argv[2] if number % 2 else "acme"))
        time.sleep(0.005)
    assert setup.delivery.close(30)
    """
    application = program(code, tmp_path, SECRET)
    while application.poll() is None:
        assert typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=sinks).exit_code in (0, 1)
    assert (application.communicate(timeout=60)[0], application.returncode) == ("", 0)
    done = typed(tmp_path, "erase", "--customer", SECRET, "--yes", sinks=sinks)
    assert (done.exit_code, holding(tmp_path, SECRET)) == (0, []), done.output
    evens = Counter(range(0, 200, 2))
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        assert ids_in([each.event.to_json() for each in ledger.events()]) == evens
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == evens


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
    assert "Rejected events were never delivered" in done.output
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


def test_a_month_that_has_been_moved_is_no_older_for_that(tmp_path: Path, postgres_server: Server) -> None:
    """An operator may keep some in another schema, whose name says nothing of their time."""
    database = postgres_server.new_database()
    url = postgres_server.url(database)
    setup = set_up(tmp_path, url, mode="flush")
    for month in range(1, 6):
        setup.journal.append(line_of(month, timestamp=f"2026-{month:02}-15T12:00:00Z"))
    assert setup.delivery.close(30)
    with postgres_server.connect(database) as connection:
        connection.execute("CREATE SCHEMA archive")
        for month in (1, 4):
            connection.execute(f"ALTER TABLE usage_events_2026_{month:02} SET SCHEMA archive".encode())
    done = typed(tmp_path, "prune", "--before", "2026-03-01", "--yes", sinks=url)
    assert done.exit_code == 0, done.output
    with Ledger.open(url) as ledger:
        assert sorted(each.event.event_id for each in ledger.events()) == ["event-3", "event-4", "event-5"]


def test_events_are_as_they_were(tmp_path: Path) -> None:
    """What stays is not written anew: the same event, and the same place in the ledger."""
    lived_in(tmp_path)
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        before = [each for each in ledger.events() if each.event.customer_id == "acme"]
    typed(tmp_path, "erase", "--customer", SECRET, "--yes")
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        assert list(ledger.events()) == before
    assert UsageEvent.from_json(line_of(1)).to_dict() == event_of(1)
