"""`replay`: what a sink has refused is sent again, and a ledger to another sink; nothing is lost over it."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from journals import Receiver, event_of, ids_in, line_of, once, program, set_up
from typer.testing import CliRunner, Result

from cmdrdata_transport import Tracker
from cmdrdata_transport.adopting import drain
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.dead_letters import dead_letters, letter_box, write_dead_letter
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.errors import TrackingError
from cmdrdata_transport.event import decode
from cmdrdata_transport.housekeeping import old
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.replaying import letters, resend
from cmdrdata_transport.segments import backlog

LEDGER, OTHER = "sqlite:///usage.db", "sqlite:///other.db"
LINES = "jsonl:///usage.jsonl"


def typed(home: Path, *arguments: str, **options: str) -> Result:
    """What comes of `cmdrdata-transport replay`."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": LEDGER, "COLUMNS": "300"}
    return CliRunner().invoke(app, ["replay", *arguments], env=environ, **options)  # type: ignore[arg-type]


def refuse(home: Path, sink: str, *numbers: int, reason: str = "the table is too old") -> None:
    """Events that this sink has refused."""
    for number in numbers:
        write_dead_letter(home, sink, line_of(number), reason)


def stored(home: Path, ledger: str = LEDGER) -> Counter[int]:
    """The numbers of the events in a ledger."""
    with Ledger.open(ledger, home=home) as opened:
        return ids_in([each.event.to_json() for each in opened.events()])


def record(home: Path, number: int, *sinks: str) -> None:
    """So many events in these sinks; every second is of December."""
    setup = set_up(home, *sinks, mode="flush")
    for each in range(number):
        month = "12" if each % 2 else "11"
        setup.journal.append(line_of(each, timestamp=f"2026-{month}-21T12:00:00Z"))
    assert setup.delivery.close(30)


def test_refused_events_are_sent_again(tmp_path: Path) -> None:
    """It says first how many, of which sink, when and why; then they arrive, and the file is gone."""
    refuse(tmp_path, LEDGER, 1, 2)
    refuse(tmp_path, LEDGER, 3, reason="no [bold]such[/] column")
    refuse(tmp_path, LINES, 4)
    done = typed(tmp_path, "--yes")
    assert done.exit_code == 0, done.output
    assert f"{LEDGER}: 3 events, refused 20" in done.output
    assert "2: the table is too old" in done.output
    assert "1: no [bold]such[/] column" in done.output
    assert stored(tmp_path) == Counter([1, 2, 3])
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == Counter([4])
    assert list((tmp_path / "dead").iterdir()) == []
    assert typed(tmp_path, "--yes").output == "No sink has refused anything.\n"


def test_an_event_is_sent_again_as_it_was_to_the_last_digit(tmp_path: Path) -> None:
    """What no double holds, too; and a letter that somebody wrote anew is read all the same."""
    raw_usage = b',"raw_usage":{"tokens":123456789012345678901234567890,"cost":0.12345678901234567890}}'
    line = line_of(1).removesuffix(b"}") + raw_usage
    write_dead_letter(tmp_path, LINES, line, 'it says ,"event":{} and no more')
    (found,) = letters(tmp_path)
    by_hand = {"event": event_of(2), "sink": LINES, "reason": "?", "rejected_at": found.last}
    with found.path.open("a") as file:
        file.write(json.dumps(by_hand) + "\n")
    assert resend(tmp_path, found) == 2
    drain(tmp_path, environ={})
    first, second = (tmp_path / "usage.jsonl").read_bytes().splitlines()
    assert first == line.strip()
    assert decode(second)["event_id"] == event_of(2)["event_id"]


def test_only_those_of_one_sink(tmp_path: Path) -> None:
    """`--sink` leaves the others where they are."""
    refuse(tmp_path, LEDGER, 1)
    refuse(tmp_path, LINES, 2)
    refuse(tmp_path, "callable:mine", 3)
    assert typed(tmp_path, "--yes", "--sink", LINES).exit_code == 0
    assert typed(tmp_path, "--yes", "--sink", "callable:mine").exit_code == 1
    assert [each.sink for each in letters(tmp_path)] == [LEDGER]
    assert "has refused nothing" in typed(tmp_path, "--yes", "--sink", LINES).output


def test_nothing_is_done_unasked(tmp_path: Path) -> None:
    """Where nobody can be asked it is an error that says what to type."""
    refuse(tmp_path, LEDGER, 1)
    done = typed(tmp_path)
    assert done.exit_code == 2
    assert "Type --yes" in done.output
    assert [each.number for each in letters(tmp_path)] == [1]
    assert backlog(tmp_path / "journal") == []


def test_what_is_refused_once_more_is_kept_once_more(tmp_path: Path) -> None:
    """The cause is still there: the command says so, and the next one begins where this one did."""
    taking = [400] * 6

    def answer(_: Call) -> Answer:
        return Answer(status=taking.pop() if taking else 201)

    with Loopback(answer) as server:
        sink = f"{server.url}/events"
        refuse(tmp_path, sink, 1, 2, 3)
        done = typed(tmp_path, "--yes")
        assert done.exit_code == 1, done.output
        assert [each.number for each in letters(tmp_path)] == [3]
        taking.clear()
        assert typed(tmp_path, "--yes").exit_code == 0
    assert letters(tmp_path) == []


def test_events_of_a_function_are_sent_by_its_program(tmp_path: Path) -> None:
    """Nobody else can call it: they are in the journal again, where it looks."""
    receiver = Receiver("mine")
    refuse(tmp_path, "callable:mine", 1)
    done = typed(tmp_path, "--yes")
    assert done.exit_code == 1
    assert "which only its own program can call" in done.output
    setup = set_up(tmp_path, receiver)
    setup.delivery.ensure_running()
    for _ in range(200):
        if receiver.got:
            break
        threading.Event().wait(0.05)
    setup.delivery.close(50)
    assert receiver.got == Counter([1])


def test_what_is_no_event_stays(tmp_path: Path) -> None:
    """A letter that nobody can read is still there for whoever can."""
    refuse(tmp_path, LEDGER, 1)
    write_dead_letter(tmp_path, LEDGER, b"\xff not JSON", "the event is not a JSON object")
    with dead_letters(tmp_path, LEDGER).open("ab") as file:
        file.write(b"torn\n")
    before = dead_letters(tmp_path, LEDGER).read_bytes().splitlines()
    done = typed(tmp_path, "--yes")
    assert "2 are no events, and stay where they are" in done.output
    assert stored(tmp_path) == Counter([1])
    assert dead_letters(tmp_path, LEDGER).read_bytes().splitlines() == before[1:]


@pytest.mark.parametrize(
    "moment",
    ["replaying.Journal.spill", "replaying.Journal.sync", "replaying.drain", "Path.rename", "Path.unlink"],
)
def test_who_is_killed_over_it_loses_nothing(tmp_path: Path, moment: str) -> None:
    """At any moment: whoever types it again finishes it, and a sink that knows ids has each event once."""
    refuse(tmp_path, LEDGER, *range(20))
    process = program(
        f"""
        from cmdrdata_transport import replaying
        from cmdrdata_transport.cli.app import app
        def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
        os.environ["CMDRDATA_HOME"] = str(home)
        if {moment!r} == "replaying.drain":
            resend = replaying.resend
            [resend(home, each) for each in replaying.letters(home)]
            die()
        {moment} = die
        app(["replay", "--yes"])
        """,
        tmp_path,
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    refuse(tmp_path, LEDGER, 20)
    for _ in range(2):  # the file of the first comes before the one that has been begun since
        typed(tmp_path, "--yes")
    assert stored(tmp_path) == once(21)
    assert letters(tmp_path) == []


def test_what_is_refused_meanwhile_is_not_lost(tmp_path: Path) -> None:
    """Programs go on to write dead letters while they are sent again: each is sent, or still there."""
    writers = [
        threading.Thread(target=refuse, args=(tmp_path, LEDGER, *range(first, first + 200)))
        for first in (0, 200, 400)
    ]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        for found in letters(tmp_path):
            resend(tmp_path, found)
    for found in letters(tmp_path):
        resend(tmp_path, found)
    drain(tmp_path, environ={})
    assert stored(tmp_path) == once(600)


def test_two_do_not_send_the_same_again(tmp_path: Path) -> None:
    """The second is told that another is at it."""
    refuse(tmp_path, LEDGER, 1)
    (found,) = letters(tmp_path)
    halfway = found.path.with_name(found.path.name.replace(".jsonl", ".replaying.jsonl"))
    found.path.rename(halfway)
    (found,) = letters(tmp_path)
    with letter_box(halfway), pytest.raises(TrackingError, match="another process"):
        resend(tmp_path, found)
    assert resend(tmp_path, found) == 1


def test_what_has_been_sent_meanwhile_leaves_no_file(tmp_path: Path) -> None:
    """Neither for who had it listed to send it, nor for who had to prune it: others would use that."""
    refuse(tmp_path, LEDGER, 1)
    (found,) = letters(tmp_path)
    places = old(tmp_path, [], datetime(2027, 1, 1, tzinfo=UTC))
    assert sum(each.number for each in places) == 1
    assert resend(tmp_path, found) == 1
    with pytest.raises(TrackingError, match="another process has sent"):
        resend(tmp_path, found)
    assert sum(each.remove() for each in places) == 0
    assert list((tmp_path / "dead").iterdir()) == []


def test_a_new_sink_gets_what_a_ledger_has(tmp_path: Path) -> None:
    """From a moment on, if one is named; what the sink has already it does not have twice."""
    record(tmp_path, 20, LEDGER)
    done = typed(tmp_path, "--from-ledger", "--sink", OTHER, "--since", "2026-12-01", "--yes")
    assert done.exit_code == 0, done.output
    assert f"10 events since 2026-12-01 00:00:00Z of {LEDGER} go to {OTHER}" in done.output
    assert stored(tmp_path, OTHER) == Counter(range(1, 20, 2))
    assert typed(tmp_path, "--from-ledger", "--sink", OTHER, "--yes").exit_code == 0
    assert stored(tmp_path, OTHER) == once(20)
    with Ledger.open(LEDGER, home=tmp_path) as one, Ledger.open(OTHER, home=tmp_path) as other:
        assert one.report() == other.report()


def test_a_file_is_warned_of(tmp_path: Path) -> None:
    """It has no key by which it could know an event again."""
    record(tmp_path, 3, LEDGER)
    done = typed(tmp_path, "--from-ledger", "--sink", LINES, "--yes")
    assert "which has events twice that it has already" in done.output
    lines = (tmp_path / "usage.jsonl").read_bytes().splitlines()
    assert [decode(line) for line in lines] == [
        event_of(number, timestamp=f"2026-{'12' if number % 2 else '11'}-21T12:00:00Z") for number in range(3)
    ]


def test_a_sink_that_has_lost_its_events_gets_them_again(tmp_path: Path) -> None:
    """Though it was sent these ids before, by records that were written otherwise."""
    with closing(Tracker([LEDGER, LINES], home=tmp_path, delivery="flush")) as tracker:
        for number in range(5):
            tracker.record(provider="openai", usage={"input_tokens": 1}, event_id=f"event-{number}")
        assert tracker.flush(30)
    (tmp_path / "usage.jsonl").unlink()
    assert "5 sent" in typed(tmp_path, "--from-ledger", "--sink", LINES, "--yes").output
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == once(5)


def test_a_sink_that_takes_no_more_keeps_them_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the journal by then waits there; the command says how many it did not begin with."""
    monkeypatch.setattr("cmdrdata_transport.replaying.AT_ONCE", 5)
    record(tmp_path, 20, LEDGER)
    (tmp_path / "other.db").write_bytes(b"no ledger" * 100)
    done = typed(tmp_path, "--from-ledger", "--sink", OTHER, "--yes", "--timeout", "0.1")
    assert done.exit_code == 1
    assert "0 sent; 5 wait in the journal" in done.output
    assert "15 were not begun with" in done.output
    (tmp_path / "other.db").unlink()
    assert typed(tmp_path, "--from-ledger", "--sink", OTHER, "--yes").exit_code == 0
    assert stored(tmp_path, OTHER) == once(20)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from-ledger"], "--from-ledger needs --sink"),
        (["--from-ledger", "--sink", LEDGER], "has its own events already"),
        (["--since", "today"], "go with --from-ledger"),
        (["--sink", "ftp://host/x"], "no sink is known"),
        (["--from-ledger", "--sink", OTHER, "--ledger", "sqlite:///none.db"], "there is no ledger at"),
    ],
)
def test_what_cannot_be_says_what_to_type(tmp_path: Path, arguments: list[str], says: str) -> None:
    """In one line, with nothing done."""
    done = typed(tmp_path, *arguments, "--yes")
    assert done.exit_code == 2
    assert says in done.output


def test_without_room_for_it_nothing_is_taken_out(tmp_path: Path) -> None:
    """Where no file can be made the letters stay, under one name or the other."""
    refuse(tmp_path, LEDGER, 1)
    (tmp_path / "journal").write_text("in the way")
    assert typed(tmp_path, "--yes").exit_code == 2
    (tmp_path / "journal").unlink()
    assert typed(tmp_path, "--yes").exit_code == 0
    assert stored(tmp_path) == Counter([1])
