"""What commands deliver, and lose over it, is counted for `stats`, said, and in the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from journals import journal_at, line_of, set_up
from typer.testing import CliRunner, Result

from cmdrdata_transport.cli.app import app
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.dead_letters import write_dead_letter
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.metrics import measure

LEDGER = "sqlite:///usage.db"


def typed(home: Path, *arguments: str) -> Result:
    """What comes of such a command."""
    environ = {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": LEDGER, "COLUMNS": "300"}
    return CliRunner().invoke(app, arguments, env=environ)


def counted(home: Path, command: str) -> dict[str, int]:
    """What has been counted under the name of this command."""
    return dict(measure(home).counts.get((command, ""), {}))


def leave(home: Path, number: int, sink: str = LEDGER) -> None:
    """So many events of a process that has ended."""
    journal = Journal(home, sinks=[sink], counters=Counters())
    for each in range(number):
        journal.append(line_of(each))
    journal.close()


@pytest.fixture
def refusing() -> Loopback:
    """A server that takes nothing, ever."""

    def answer(_: Call) -> Answer:
        return Answer(status=400)

    return Loopback(answer)


def test_what_is_delivered_is_counted(tmp_path: Path) -> None:
    """By `drain`, and by `report` where it comes first; an idle one counts nothing."""
    leave(tmp_path, 3)
    assert typed(tmp_path, "drain").exit_code == 0
    assert typed(tmp_path, "drain").exit_code == 0
    leave(tmp_path, 2)
    assert typed(tmp_path, "report").exit_code == 0
    assert (counted(tmp_path, "drain"), counted(tmp_path, "report")) == (
        {"delivered": 3},
        {"delivered": 2},
    )


def test_what_is_refused_is_counted_and_no_success(tmp_path: Path, refusing: Loopback) -> None:
    """`drain` says so and ends with 1, and so does who sends it again in vain."""
    sample = 'cmdrdata_rejected_total{tracker="drain",service=""}'
    assert f"{sample} 0\n" in typed(tmp_path, "stats", "--format", "openmetrics").output
    with refusing as server:
        leave(tmp_path, 2, f"{server.url}/events")
        done = typed(tmp_path, "drain", "--timeout", "5")
        assert f"{sample} 2\n" in typed(tmp_path, "stats", "--format", "openmetrics").output
        assert done.exit_code == 1
        assert "0 delivered, 2 rejected (they are kept in dead/)" in done.output
        assert counted(tmp_path, "drain") == {"rejected": 2}
        assert typed(tmp_path, "replay", "--yes", "--timeout", "5").exit_code == 1
    assert counted(tmp_path, "replay") == {"rejected": 2}


def test_what_is_sent_again_is_counted(tmp_path: Path) -> None:
    """Under the name of `replay`."""
    write_dead_letter(tmp_path, LEDGER, line_of(1), "the table is too old")
    assert typed(tmp_path, "replay", "--yes").exit_code == 0
    assert counted(tmp_path, "replay") == {"delivered": 1}


def test_a_ledger_that_is_sent_and_refused_is_no_success(tmp_path: Path, refusing: Loopback) -> None:
    """What the new sink has not taken is said, counted, and in the code."""
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.append(3)
    assert setup.delivery.close(30)
    with refusing as server:
        done = typed(tmp_path, "replay", "--from-ledger", "--sink", f"{server.url}/events", "--yes")
    assert (done.exit_code, counted(tmp_path, "replay")) == (1, {"rejected": 3})
    assert "3 rejected (they are kept in dead/)" in done.output


def test_what_is_set_aside_is_counted_and_no_success(tmp_path: Path) -> None:
    """A damaged record in the middle: the others arrive, and it is said what became of that one."""
    journal, _ = journal_at(tmp_path)
    for each in range(3):
        journal.append(line_of(each))
    journal.close()
    (segment,) = (tmp_path / "journal").glob("*.seg")
    segment.write_bytes(segment.read_bytes().replace(b"event-1", b"event-!"))
    done = typed(tmp_path, "drain")
    assert done.exit_code == 1
    assert f"{LEDGER}: 2 delivered" in done.output
    assert "damaged pieces of the journal, set aside: 1; see cmdrdata-transport doctor" in done.output
    assert counted(tmp_path, "drain") == {"delivered": 2, "torn": 1}
