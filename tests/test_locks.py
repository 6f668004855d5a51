"""SQLite's locks belong to a process, and any descriptor that is closed drops them: we close none."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from journals import line_of, program

from cmdrdata_transport import seen
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
