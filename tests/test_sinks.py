"""Sinks: what each takes, what it refuses, and what it says when it cannot just now."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import Receiver, event_of, line_of, program, run

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.event import UNITS, UsageEvent
from cmdrdata_transport.sinks import Outlet, open_sink
from cmdrdata_transport.sinks import jsonl as jsonl_module
from cmdrdata_transport.sinks.columns import microseconds
from cmdrdata_transport.sinks.sqlite import MIGRATIONS, connect

KEY = "cmd-live-v1-secret"


# --- opening ----------------------------------------------------------------------------------------


class Sender:
    """A sink that is an object."""

    def __init__(self) -> None:
        self.got: list[UsageEvent] = []

    def send(self, events: list[UsageEvent]) -> None:
        """Keep them."""
        self.got += events


class Named(Sender):
    """One that says its name."""

    name = "billing"


def take(_events: list[UsageEvent]) -> None:
    """A sink that is a function."""


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        ("sqlite:///usage.db", "sqlite:///usage.db"),
        ("sqlite:////var/lib/usage.db", "sqlite:////var/lib/usage.db"),
        ("jsonl:///a/b.jsonl", "jsonl:///a/b.jsonl"),
        ("https://api.cmdrdata.ai/api/events", "https://api.cmdrdata.ai/api/events"),
        ("https://example.com:8443/in?timeout=5&token=hidden", "https://example.com:8443/in"),
        ("http://localhost:9/in", "http://localhost:9/in"),
        ("http://example.com/in?insecure=1", "http://example.com/in?insecure=1"),
        (take, "callable:take"),
        (Sender(), "callable:Sender"),
        (Named(), "callable:billing"),
        (Receiver(name="mine"), "callable:mine"),
    ],
)
def test_a_sink_has_an_identity_without_secrets(tmp_path: Path, spec: Any, identity: str) -> None:
    """What a journal calls a sink stays the same from run to run, opens it again, and shows no secret."""
    outlet = open_sink(spec, home=tmp_path, environ={"CMDRDATA_API_KEY": KEY})
    assert outlet.identity == identity
    assert list(tmp_path.iterdir()) == []
    if isinstance(spec, str):
        assert open_sink(identity, home=tmp_path, environ={"CMDRDATA_API_KEY": KEY}).identity == identity
    assert KEY not in repr(outlet) + repr(vars(outlet).get("_target"))


def test_a_function_may_be_given_a_name(tmp_path: Path) -> None:
    """For functions that have none."""
    assert open_sink(lambda _: None, home=tmp_path, environ={}, name="mine").identity == "callable:mine"


# --- functions and objects --------------------------------------------------------------------------


def test_an_object_is_given_events(tmp_path: Path) -> None:
    """A list of `UsageEvent`, as they were."""
    sender = Sender()
    outlet = open_sink(sender, home=tmp_path, environ={})
    outlet.send([line_of(1), line_of(2)])
    assert [each.to_dict() for each in sender.got] == [event_of(1), event_of(2)]
    outlet.forget()
    outlet.close()


# --- JSON lines -------------------------------------------------------------------------------------


def opened(spec: str, home: Path, **environ: str) -> Outlet:
    """An outlet with an environment of its own."""
    return open_sink(spec, home=home, environ=environ)


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    """One event, one line, readable by its owner only; the file may be moved away at any time."""
    outlet = opened("jsonl:///deep/usage.jsonl", tmp_path)
    path = tmp_path / "deep" / "usage.jsonl"
    outlet.send([line_of(1), line_of(2)])
    assert path.read_bytes() == line_of(1) + b"\n" + line_of(2) + b"\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.rename(path.with_suffix(".old"))
    outlet.send([line_of(3)])
    assert path.read_bytes() == line_of(3) + b"\n"
    outlet.forget()
    outlet.close()


def test_a_line_that_somebody_left_unfinished_spoils_no_other(tmp_path: Path) -> None:
    """The next one starts on a line of its own."""
    (tmp_path / "usage.jsonl").write_bytes(b'{"half":')
    opened("jsonl:///usage.jsonl", tmp_path).send([line_of(1)])
    assert (tmp_path / "usage.jsonl").read_bytes() == b'{"half":\n' + line_of(1) + b"\n"


def test_a_batch_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    """On a full disk the part that was written is taken back, so that the batch can come again."""
    printed = run(
        """
        import resource
        from cmdrdata_transport.errors import Unavailable
        outlet = open_sink("jsonl:///usage.jsonl", home=home, environ={})
        outlet.send([line_of(0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try: outlet.send([line_of(number) for number in range(1, 9)])
        except Unavailable as error: print(error)
        print((home / "usage.jsonl").read_bytes() == line_of(0) + b"\\n")
        """,
        tmp_path,
    )
    assert printed == "File too large\nTrue\n"


def test_a_file_that_somebody_holds_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never lets go does not hold the lane for ever."""
    monkeypatch.setattr(jsonl_module, "PATIENCE_SECONDS", 0.05)
    import fcntl  # noqa: PLC0415 - for this test only

    with (tmp_path / "usage.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="holds the file"):
            opened("jsonl:///usage.jsonl", tmp_path).send([line_of(1)])


# --- SQLite -----------------------------------------------------------------------------------------


def rows(path: Path, sql: str = "SELECT event_id FROM usage_events ORDER BY seq") -> list[Any]:
    """What a query finds."""
    with closing(sqlite3.connect(path)) as connection:
        return [each[0] if len(each) == 1 else each for each in connection.execute(sql)]


def test_an_event_is_stored_once(tmp_path: Path) -> None:
    """A second telling changes nothing; the event is there as it came, and every unit is a column."""
    outlet = opened("sqlite:///usage.db", tmp_path)
    outlet.send([line_of(1, input_tokens=7), line_of(2)])
    outlet.send([line_of(1, input_tokens=9), line_of(3)])
    path = tmp_path / "usage.db"
    assert rows(path) == ["event-1", "event-2", "event-3"]
    assert rows(path, "SELECT input_tokens, customer_id FROM usage_events WHERE event_id = 'event-1'") == [
        (7, "acme")
    ]
    assert rows(path, "SELECT event FROM usage_events WHERE seq = 2") == [line_of(2).decode()]
    assert {name for _, name, *_ in rows(path, "PRAGMA table_info(usage_events)")} >= set(UNITS)
    assert [stat.S_IMODE(each.stat().st_mode) for each in tmp_path.glob("usage.db*")] == [0o600] * 3
    outlet.close()
    outlet.close()
    assert rows(path, "PRAGMA journal_mode") == ["wal"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "JSON"),
        (b"[1]", "JSON object"),
        (b"\xff", "JSON"),
        (line_of(1, format="cmdrdata.usage/2"), "format"),
        (line_of(1, event_id=5), "event_id"),
        (line_of(1, outcome=None), "outcome"),
        (line_of(1, timestamp="yesterday"), "timestamp"),
        (line_of(1, timestamp=None), "timestamp"),
        (line_of(1, model={"name": "gpt"}), "cannot be stored"),
        (line_of(1).replace(b"gpt-5", b"\\ud800"), "cannot be stored"),
    ],
    ids=repr,
)
def test_what_cannot_be_stored_is_refused_by_name(tmp_path: Path, line: bytes, says: str) -> None:
    """It would fail again and again; and nothing of its batch is stored."""
    outlet = opened("sqlite:///usage.db", tmp_path)
    with pytest.raises(Rejected, match=says):
        outlet.send([line_of(0), line])
    outlet.send([line_of(2)])
    assert rows(tmp_path / "usage.db") == ["event-2"]
    outlet.close()


def test_a_count_beyond_64_bits_is_stored(tmp_path: Path) -> None:
    """As near as SQLite can; the event keeps all digits."""
    outlet = opened("sqlite:///usage.db", tmp_path)
    outlet.send([line_of(1, input_tokens=10**30), line_of(2)])
    assert rows(tmp_path / "usage.db", "SELECT input_tokens FROM usage_events") == [1e30, 10]
    (text, _) = rows(tmp_path / "usage.db", "SELECT event FROM usage_events")
    assert f'"input_tokens":{10**30},' in text
    outlet.close()


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5.5)))))
def test_times_compare_as_numbers(at: datetime) -> None:
    """However a time was written, its microseconds since 1970 say when it was."""
    assert microseconds(at) == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert microseconds(at.astimezone(UTC).replace(tzinfo=None)) == microseconds(at)


def test_a_locked_ledger_is_unavailable(tmp_path: Path) -> None:
    """Another program's long transaction is waited for, not for ever, and costs nothing but time."""
    outlet = opened("sqlite:///usage.db", tmp_path)
    outlet.send([line_of(1)])
    with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            outlet.send([line_of(2)], timeout=0.05)
        other.execute("COMMIT")
    outlet.send([line_of(2)])
    assert rows(tmp_path / "usage.db") == ["event-1", "event-2"]
    outlet.close()


def test_a_ledger_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    """A directory in its place, another kind of file, or a newer schema: it says which, and waits."""
    outlet = opened("sqlite:///directory", tmp_path)
    (tmp_path / "directory").mkdir()
    with pytest.raises(Unavailable, match="Is a directory"):
        outlet.send([line_of(1)])
    (tmp_path / "text").write_bytes(b"no ledger at all" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        opened("sqlite:///text", tmp_path).send([line_of(1)])
    with closing(connect(tmp_path / "newer")) as connection:
        connection.execute("INSERT INTO usage_migrations VALUES (99, 'tomorrow')")
    with pytest.raises(Unavailable, match="upgrade"):
        opened("sqlite:///newer", tmp_path).send([line_of(1)])


def test_a_ledger_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    """Events never go to a file that has no name any more."""
    outlet = opened("sqlite:///usage.db", tmp_path)
    outlet.send([line_of(1)])
    for each in tmp_path.glob("usage.db*"):
        each.rename(tmp_path / each.name.replace("usage", "old"))
    outlet.send([line_of(2)])
    outlet.close()
    assert rows(tmp_path / "usage.db") == ["event-2"]
    assert rows(tmp_path / "old.db") == ["event-1"]


def test_a_unit_that_a_later_version_knows_is_filled_from_the_events(tmp_path: Path) -> None:
    """A ledger of an older version gets a column for each new unit, and what was stored counts."""
    path = tmp_path / "usage.db"
    with closing(connect(path)) as connection:
        for unit in ("images", "audio_seconds"):
            connection.execute(f"ALTER TABLE usage_events DROP COLUMN {unit}")
        connection.execute(
            "INSERT INTO usage_events (event_id, at, timestamp, event) VALUES ('old', 0, '', ?)",
            [line_of(1, images=3).decode()],
        )
    outlet = opened("sqlite:///usage.db", tmp_path)
    outlet.send([line_of(2, images=4, audio_seconds=1.5)])
    outlet.close()
    assert rows(path, "SELECT images, audio_seconds FROM usage_events") == [(3, None), (4, 1.5)]
    assert rows(path, "SELECT version FROM usage_migrations") == list(range(1, len(MIGRATIONS) + 1))


def test_many_processes_may_make_the_same_ledger(tmp_path: Path) -> None:
    """Eight programs that open a new file at the same moment all write to it."""
    code = """
    outlet = open_sink("sqlite:///usage.db", home=home, environ={})
    while not home.joinpath("go").exists(): pass
    first = int(sys.argv[2])
    outlet.send([line_of(number) for number in range(first, first + 50)])
    """
    programs = [program(code, tmp_path, str(first * 50)) for first in range(8)]
    (tmp_path / "go").touch()
    for each in programs:
        each.communicate(timeout=60)
    assert [each.returncode for each in programs] == [0] * 8
    assert sorted(rows(tmp_path / "usage.db")) == sorted(f"event-{number}" for number in range(400))


def test_a_child_forked_in_the_middle_of_a_batch_leaves_the_ledger_alone(tmp_path: Path) -> None:
    """SQLite would believe in the child what its parent had locked: the events wait for another process."""
    printed = run(
        """
        import sqlite3
        from cmdrdata_transport.errors import Unavailable
        setup = set_up(home, "sqlite:///usage.db")
        setup.delivery.ensure_running()
        setup.append(1)
        setup.delivery.flush(60)
        other = sqlite3.connect(home / "usage.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        setup.append(1, 1)
        time.sleep(1)
        pid = os.fork()
        if pid == 0:
            setup.append(1, 2)
            os._exit(0 if not setup.delivery.flush(0.5) and setup.delivery.backlog()[-1].events == 1 else 1)
        print(os.waitpid(pid, 0)[1])
        other.execute("COMMIT")
        other.close()
        print(setup.delivery.close(60), [each.delivered for each in drain(home)])
        """,
        tmp_path,
    )
    assert printed == "0\nTrue [1]\n"
    assert len(rows(tmp_path / "usage.db")) == 3
