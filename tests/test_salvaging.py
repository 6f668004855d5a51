"""`replay --torn`: the whole events of damaged pieces of the journal are sent, and the rest is kept."""

from __future__ import annotations

import fcntl
import signal
from collections import Counter
from pathlib import Path

import pytest
from journals import ids_in, journal_at, line_of, once, program
from typer.testing import CliRunner, Result

from cmdrdata_transport.cli.app import app
from cmdrdata_transport.demo.loopback import Answer, Loopback
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.salvaging import torn_pieces
from cmdrdata_transport.segments import backlog

LEDGER, LINES = "sqlite:///usage.db", "jsonl:///usage.jsonl"
SECRET = "Jane Doe GmbH"


def typed(home: Path, *arguments: str) -> Result:
    """What comes of such a command."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": LEDGER, "COLUMNS": "300"}
    return CliRunner().invoke(app, arguments, env=environ)


def stored(home: Path) -> Counter[int]:
    """The numbers of the events in the ledger."""
    with Ledger.open(LEDGER, home=home) as opened:
        return ids_in([each.event.to_json() for each in opened.events()])


def damaged(home: Path, number: int = 10) -> Path:
    """So many events that were set aside because their header is damaged; every second is SECRET's."""
    journal, _ = journal_at(home)
    for each in range(number):
        journal.append(line_of(each, customer_id=SECRET if each % 2 else "acme"))
    journal.close()
    (segment,) = (home / "journal").glob("*.seg")
    segment.write_bytes(segment.read_bytes().replace(b"cmdrdata.journal", b"cmdrdata.jou\0nal"))
    assert typed(home, "drain").exit_code == 1
    return segment.with_suffix(".torn")


def test_the_whole_events_of_a_damaged_file_arrive(tmp_path: Path) -> None:
    """All but those that are damaged themselves; these stay for somebody to look at, and doctor says so."""
    piece = damaged(tmp_path)
    piece.write_bytes(piece.read_bytes().replace(b"event-4", b"event-!"))
    assert [each.events for each in examine(tmp_path).torn] == [9]
    done = typed(tmp_path, "replay", "--torn", "--yes")
    assert done.exit_code == 0, done.output
    assert f"{piece}: 9 events can be read, for {LEDGER}" in done.output
    assert stored(tmp_path) == once(10) - Counter([4])
    assert [(each.path, each.events) for each in examine(tmp_path).torn] == [(piece, 0)]
    assert b"event-!" in piece.read_bytes()
    again = typed(tmp_path, "replay", "--torn", "--yes")
    assert (again.exit_code, "nothing can be read of it" in again.output) == (0, True)


def test_to_a_sink_of_ones_choice(tmp_path: Path) -> None:
    """`--sink` has them, and no other."""
    damaged(tmp_path)
    done = typed(tmp_path, "replay", "--torn", "--sink", LINES, "--yes")
    assert done.exit_code == 0, done.output
    assert ids_in((tmp_path / "usage.jsonl").read_bytes().splitlines()) == once(10)
    assert not (tmp_path / "usage.db").exists()


def test_a_header_that_can_be_read_says_for_whom(tmp_path: Path) -> None:
    """The sinks are those that it names; where nothing else is left, the piece goes."""
    journal, _ = journal_at(tmp_path)
    journal.append(line_of(1))
    journal.close()
    (segment,) = (tmp_path / "journal").glob("*.seg")
    piece = segment.rename(segment.with_suffix(".torn"))
    assert [each.sinks for each in torn_pieces(tmp_path)] == [(LEDGER,)]
    assert typed(tmp_path, "replay", "--torn", "--yes").exit_code == 0
    assert (stored(tmp_path), piece.exists()) == (Counter([1]), False)
    assert typed(tmp_path, "replay", "--torn").output == "Nothing of the journal is damaged.\n"


def test_nothing_is_done_unasked(tmp_path: Path) -> None:
    """Where nobody can be asked, and where another does it just now, all stays as it is."""
    piece = damaged(tmp_path)
    before = piece.read_bytes()
    done = typed(tmp_path, "replay", "--torn")
    assert (done.exit_code, "Type --yes" in done.output) == (2, True)
    with piece.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = typed(tmp_path, "replay", "--torn", "--yes")
    assert (done.exit_code, f"another process has {piece}" in done.output) == (2, True)
    assert piece.read_bytes() == before


def test_a_sink_that_takes_nothing_keeps_them_waiting(tmp_path: Path) -> None:
    """They are in the journal then, where any drain finds them; the code is 1."""
    damaged(tmp_path)
    with Loopback(lambda _: Answer(status=503)) as server:
        sink = f"{server.url}/events"
        done = typed(tmp_path, "replay", "--torn", "--sink", sink, "--yes", "--timeout", "0.1")
    assert done.exit_code == 1, done.output
    assert [(each.sink, each.events) for each in backlog(tmp_path / "journal")] == [(sink, 10)]


def test_who_was_erased_does_not_come_back(tmp_path: Path) -> None:
    """The customer's events are gone from the piece, and the others can still be read."""
    piece = damaged(tmp_path)
    assert typed(tmp_path, "erase", "--customer", SECRET, "--yes").exit_code == 0
    assert typed(tmp_path, "replay", "--torn", "--yes").exit_code == 0
    assert stored(tmp_path) == Counter([0, 2, 4, 6, 8])
    assert SECRET.encode() not in piece.read_bytes()


@pytest.mark.parametrize("moment", ["sync", "unlink"], ids=["written", "synced"])
def test_who_is_killed_over_it_loses_nothing(tmp_path: Path, moment: str) -> None:
    """Whoever types it again finds all of it; the ledger has each event once."""
    damaged(tmp_path)
    process = program(
        """
        from cmdrdata_transport import salvaging
        from cmdrdata_transport.journal import Journal
        def die(*_): os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[2] == "sync":
            Journal.sync = die
        else:
            salvaging.keep_only = die
        (piece,) = salvaging.torn_pieces(home)
        salvaging.salvage(home, piece, [SINK])
        """,
        tmp_path,
        moment,
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert typed(tmp_path, "replay", "--torn", "--yes").exit_code == 0
    assert stored(tmp_path) == once(10)


def test_one_thing_at_a_time(tmp_path: Path) -> None:
    """A damaged journal and a ledger are two sources."""
    done = typed(tmp_path, "replay", "--torn", "--from-ledger", "--sink", LINES)
    assert (done.exit_code, "type one after the other" in done.output) == (2, True)
