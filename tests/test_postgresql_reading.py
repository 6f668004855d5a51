"""The ledger in PostgreSQL is read back, followed, and reported by the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from journals import line_of, run
from postgres import PASSWORD, Server, opened

from cmdrdata_transport.doctor import examine
from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.ledger.postgresql import _reading
from cmdrdata_transport.sinks import Outlet
from cmdrdata_transport.sinks.postgresql.writing import AHEAD


def test_who_follows_misses_nothing_that_is_late(
    postgres_server: Server, database: str, database_url: str, outlet: Outlet
) -> None:
    """A batch that has its positions and is not there yet holds the tail back, but no report."""
    outlet.send([line_of(1)])
    with Ledger.open(database_url) as ledger, postgres_server.connect(database) as late:
        start = ledger.last()
        with late.transaction():
            late.execute(AHEAD)
            late.execute(
                "INSERT INTO usage_events (event_id, at, event) VALUES ('event-2', '2026-11-21', %s)",
                [line_of(2).decode()],
            )
            outlet.send([line_of(3)])
            assert ledger.last() >= start
            assert ledger.tail(start) == []
            assert [entry.event.event_id for entry in ledger.newest(9)] == ["event-1"]
            assert ledger.report([])[0]["events"] == 2
        assert [entry.event.event_id for entry in ledger.tail(start)] == ["event-2", "event-3"]
        late.execute("SELECT setval('usage_events_seq', %s)", [2**31 * 3 - 2])
        with late.transaction():
            late.execute(AHEAD)
            outlet.send([line_of(4), line_of(5)])
            assert len(ledger.newest(9)) == 3
        assert len(ledger.newest(9)) == 5


def test_reading_says_what_is_not_there(postgres_server: Server, database: str, database_url: str) -> None:
    """No ledger yet is for whoever set it up, no server is for later; and a reader changes nothing."""
    with pytest.raises(TrackingSetupError, match="nothing has been delivered") as raised:
        Ledger.open(database_url)
    assert PASSWORD not in str(raised.value)
    with pytest.raises(Unavailable, match="does not exist"):
        Ledger.open(postgres_server.url("nowhere"))
    opened(database_url).send([line_of(1)])
    with Ledger.open(database_url) as ledger:
        reader: Any = ledger._reader
        with pytest.raises(Unavailable, match="read-only"), _reading(reader._connection):
            reader._connection.execute("DELETE FROM usage_events")
        with postgres_server.connect(database) as connection:
            connection.execute("DROP TABLE usage_events")
        with pytest.raises(Unavailable, match="usage_events"):
            ledger.report()
        with pytest.raises(Unavailable, match="usage_events"):
            ledger.tail()


def command(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a home, with nothing of this machine's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CMDRDATA_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", "cmdrdata_transport", *arguments],
        env={**kept, "CMDRDATA_HOME": str(home), "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_read_it(tmp_path: Path, database_url: str) -> None:
    """Named or as the first sink; what dead processes left is delivered first; no password is shown."""
    run(
        """
        setup = set_up(home, sys.argv[2])
        setup.append(3)
        os._exit(0)
        """,
        tmp_path,
        database_url,
    )
    named = command(tmp_path, "report", "--by", "model", "--format", "json", "--ledger", database_url)
    assert (named.returncode, named.stderr) == (0, "")
    assert [(row["model"], row["events"]) for row in json.loads(named.stdout)] == [("gpt-5", 3)]
    listed = command(
        tmp_path, "report", "--format", "json", CMDRDATA_SINKS=f"jsonl:///x.jsonl {database_url}"
    )
    assert (listed.returncode, listed.stderr) == (0, "")
    assert json.loads(listed.stdout)[0]["events"] == 3
    shown = command(tmp_path, "tail", "--once", "--json", "-n", "2", "--ledger", database_url)
    assert [json.loads(line)["event_id"] for line in shown.stdout.splitlines()] == ["event-1", "event-2"]


def test_the_commands_say_what_is_wrong(tmp_path: Path, postgres_server: Server, database_url: str) -> None:
    """In one line without a password; a ledger that nothing has been delivered to is no error."""
    empty = command(tmp_path, "report", "--format", "json", CMDRDATA_SINKS=database_url)
    assert (empty.returncode, json.loads(empty.stdout)) == (0, [])
    assert "nothing has been delivered" in empty.stderr
    for place, says in {
        postgres_server.url("nowhere"): "does not exist",
        "postgresql://ann:secret@db.example.com/usage?sslmode=prefer": "insecure=1",
    }.items():
        told = command(tmp_path, "report", "--ledger", place)
        assert told.returncode == 2
        assert says in told.stderr
        assert len(told.stderr.splitlines()) == 1
        assert "secret" not in told.stderr
        assert "s3cret" not in told.stderr


def test_the_doctor_reads_it(
    tmp_path: Path, postgres_server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many events it has, as of a file; before the first it is no problem, and what cannot be read is."""
    monkeypatch.setenv("CMDRDATA_SINKS", database_url)
    before = examine(tmp_path)
    assert (before.problems, before.recorded) == ((), {})
    opened(database_url).send([line_of(1), line_of(2)])
    after = examine(tmp_path)
    assert (after.problems, after.recorded) == ((), {"complete": 2})
    monkeypatch.setenv("CMDRDATA_SINKS", postgres_server.url("nowhere"))
    (problem,) = examine(tmp_path).problems
    assert "cannot be read: " in problem
    assert "does not exist" in problem
    assert "s3cret" not in problem
