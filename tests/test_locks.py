"""SQLite's locks belong to a process, and any descriptor that is closed drops them: we close none."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from journals import SINK, Receiver, line_of, once, program, set_up

from cmdrdata_transport import seen
from cmdrdata_transport.delivery import Mode
from cmdrdata_transport.identity import derived_event_id
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.seen import Seen

LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
try:
    connection.execute(sys.argv[2])
    print("done")
except sqlite3.OperationalError as error:
    print(error)
connection.close()
"""


def from_outside(path: Path, statement: str) -> str:
    """What another process is told that does this to a database, and closes it."""
    asked = [sys.executable, "-c", LOOK, str(path), statement]
    return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_two_trackers_of_a_process_do_not_lose_what_they_write_to_one_ledger(tmp_path: Path) -> None:
    """Another process that looks and goes takes no log away that they go on to write, and are killed over."""
    process = program(
        """
        outlets = [open_sink("sqlite:///usage.db", home=home, environ={}) for _ in range(3)]
        for number, outlet in enumerate(outlets):
            outlet.send([line_of(number)])
        print(flush=True)
        sys.stdin.readline()
        for number, outlet in enumerate(outlets, 3):
            outlet.send([line_of(number)])
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert from_outside(tmp_path / "usage.db", "SELECT count(*) FROM usage_events") == "done"
    process.communicate("\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    with Ledger.open(tmp_path / "usage.db") as ledger:
        assert sorted(each.event.event_id for each in ledger.events()) == [f"event-{n}" for n in range(6)]


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("mode", ["background", "flush"])
@pytest.mark.parametrize("made", [True, False], ids=["a ledger", "an empty file"])
def test_a_ledger_that_another_process_holds_delays_nobody(tmp_path: Path, mode: Mode, *, made: bool) -> None:
    """For as long as it likes: others have the events, `flush` is back in its time, and then it has them."""
    path, other = tmp_path / "usage.db", Receiver("other")
    if made:
        first = set_up(tmp_path, SINK, mode="flush")
        first.append(5)
        assert first.delivery.close(30)
    setup = set_up(tmp_path, SINK, other, mode=mode)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        setup.delivery.ensure_running()
        setup.append(5, 5)
        began = time.monotonic()
        assert not setup.delivery.flush(0.4)
        assert time.monotonic() - began < 15
        assert other.got == once(5, 5)
        holder.communicate("\n")
    assert setup.delivery.flush(60)
    assert setup.delivery.close(30)
    with Ledger.open(path) as ledger:
        found = sorted(int(each.event.event_id.removeprefix("event-")) for each in ledger.events())
    assert found == [*range(0 if made else 5, 10)]
    assert setup.segments() == []


def test_what_was_seen_stays_locked_while_another_tracker_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of this process is still alone with the file afterwards."""
    monkeypatch.setattr(seen, "PATIENCE_SECONDS", 0.01)
    lines = [line_of(1, event_id=derived_event_id("api.example", "job-1"))]
    path = tmp_path / "seen.db"
    assert Seen(tmp_path, lambda *_: None).again(lines, "a") == set()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=Seen(tmp_path, lambda *_: None).again, args=(lines, "a"))
        thread.start()
        thread.join()
        assert from_outside(path, "BEGIN IMMEDIATE") == "database is locked"
