"""Sinks: what each takes, what it refuses, and what it says when it cannot just now."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import Receiver, event_of, line_of, once, program, run, set_up

from cmdrdata_transport import __version__
from cmdrdata_transport import lanes as lanes_module
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import UNITS, UsageEvent, decode
from cmdrdata_transport.sinks import Outlet, Unauthorized, open_sink, posting
from cmdrdata_transport.sinks import http as http_module
from cmdrdata_transport.sinks import jsonl as jsonl_module
from cmdrdata_transport.sinks.columns import microseconds
from cmdrdata_transport.sinks.posting import judge, seconds_of
from cmdrdata_transport.sinks.remote import is_loopback
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


async def wait(_events: list[UsageEvent]) -> None:
    """No sink: it would have to be awaited."""


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("usage.db", "sqlite:///usage.db"),
        ("gopher://x", "gopher"),
        ("https://user:secret@[::1/in", "a host or a port"),
        ("https://example.com:secret/in", "a host or a port"),
        ("https://example.com:99999/in", "a host or a port"),
        ("", "scheme"),
        ("sqlite://usage.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:///usage.db?mode=rw", "three slashes"),
        ("jsonl://", "three slashes"),
        ("https:///path", "no host"),
        ("https://user:secret-1@example.com/in", "CMDRDATA_API_KEY"),
        ("http://example.com/in", "insecure=1"),
        ("https://example.com/in?timeout=soon", "timeout=5"),
        ("https://example.com/in?timeout=0", "timeout=5"),
        ("https://example.com/in?timeout=100000", "timeout=5"),
        (wait, "event loop"),
        (lambda _: None, "name"),
        (Named, "not a class"),
        (7, "not int"),
    ],
)
def test_a_sink_that_cannot_be_says_what_to_write(tmp_path: Path, spec: Any, says: str) -> None:
    """The error is raised where the sink is configured, and shows no secret."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        open_sink(spec, home=tmp_path, environ={})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "says"),
    [({}, "set CMDRDATA_API_KEY"), ({"CMDRDATA_API_KEY": "secret\nsecret"}, "copy it once more")],
    ids=["none", "two lines"],
)
def test_the_api_needs_a_key_that_can_be_one(tmp_path: Path, environ: dict[str, str], says: str) -> None:
    """Without one, or with something else in its place, it cannot work: it says so at once."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        open_sink("https://api.cmdrdata.ai/api/events", home=tmp_path, environ=environ)
    assert "secret" not in str(raised.value)


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
    (tmp_path / "directory").mkdir()
    with pytest.raises(Unavailable, match="Is a directory"):
        opened("sqlite:///directory", tmp_path).send([line_of(1)])
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


# --- the cmdrdata API -------------------------------------------------------------------------------


class Api(ThreadingHTTPServer):
    """The receiving side, on this machine: answers what it is told to, and keeps what it is sent."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.url = f"http://127.0.0.1:{self.server_port}/api/events"
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.always: tuple[int, dict[str, str]] = (200, {})
        self.refuse_if: Callable[[dict[str, Any]], int | None] = lambda _: None
        self.calls: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.taken: list[int] = []
        self.connections = 0
        self.hang = threading.Event()
        self.hang.set()


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        event = decode(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append((self.path, dict(self.headers.items()), event))
        self.server.hang.wait()
        status, headers = self.server.answers.popleft() if self.server.answers else self.server.always
        status = self.server.refuse_if(event) or status
        if 200 <= status < 300:
            self.server.taken.append(int(event["event_id"].removeprefix("event-")))
        self.send_response(status)
        body = b"" if status == 204 else b'{"error":"answer-secret"}'
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    """A receiver that is up."""
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.hang.set()
        server.shutdown()
        thread.join()


def test_an_event_is_posted_as_the_api_expects_it(tmp_path: Path, api: Api) -> None:
    """One event a POST, with key and idempotency key, and what readers of the cmdrdata packages look for."""
    outlet = opened(api.url, tmp_path, CMDRDATA_API_KEY=KEY)
    sent = event_of(
        1, response_id="resp_1", finish_reason="stop", metadata={"feature": "chat"}, input_tokens=None
    )
    outlet.send(
        [
            line_of(
                1, response_id="resp_1", finish_reason="stop", metadata={"feature": "chat"}, input_tokens=None
            )
        ]
    )
    ((path, headers, event),) = api.calls
    assert path == "/api/events"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == f"cmdrdata-transport/{__version__}"
    assert headers["Idempotency-Key"] == "event-1"
    assert event == sent | {
        "input_tokens": 0,
        "error_occurred": False,
        "metadata": {"feature": "chat", "response_id": "resp_1", "finish_reason": "stop"},
    }
    outlet.close()


def test_what_a_user_says_in_metadata_stands(tmp_path: Path, api: Api) -> None:
    """Their `response_id` is not ours to replace; an event that failed says so."""
    outlet = opened(api.url, tmp_path)
    outlet.send([line_of(1, response_id="ours", metadata={"response_id": "theirs"}, outcome="error")])
    ((_, headers, event),) = api.calls
    assert event["metadata"] == {"response_id": "theirs"}
    assert event["error_occurred"] is True
    assert "Authorization" not in headers
    outlet.close()


def test_connections_are_kept(tmp_path: Path, api: Api) -> None:
    """Many events take few connections, and a closed outlet opens new ones."""
    outlet = opened(api.url, tmp_path)
    for number in range(0, 80, 8):
        outlet.send([line_of(each) for each in range(number, number + 8)])
    assert sorted(api.taken) == list(range(80))
    assert api.connections <= outlet.batch
    outlet.close()
    outlet.close()
    outlet.send([line_of(80)])
    assert len(api.taken) == 81
    outlet.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_every_success_is_one_and_a_conflict_is_too(tmp_path: Path, api: Api, status: int) -> None:
    """A conflict says that the event is there already."""
    api.always = (status, {})
    outlet = opened(api.url, tmp_path)
    outlet.send([line_of(1), line_of(2)])
    outlet.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Rejected),
        (413, Rejected),
        (422, Rejected),
        (301, Unavailable),
        (404, Unavailable),
        (405, Unavailable),
        (408, Unavailable),
        (425, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (401, Unauthorized),
        (403, Unauthorized),
    ],
)
def test_a_failure_is_told_by_its_status(
    tmp_path: Path, api: Api, status: int, error: type[Exception]
) -> None:
    """What speaks of the event is final; what speaks of time, key or address is not."""
    api.always = (status, {})
    outlet = opened(api.url, tmp_path, CMDRDATA_API_KEY=KEY)
    with pytest.raises(error, match=str(status)) as raised:
        outlet.send([line_of(1)])
    assert isinstance(raised.value, Rejected if error is Rejected else Unavailable)
    assert "secret" not in str(raised.value)
    outlet.close()


def test_what_got_through_is_not_sent_again(tmp_path: Path, api: Api) -> None:
    """Of a batch in which one event fails, only what did not get through is posted once more."""
    failing = {"event-3"}
    api.refuse_if = lambda event: 503 if event["event_id"] in failing else None
    outlet = opened(api.url, tmp_path)
    lines = [line_of(number) for number in range(8)]
    with pytest.raises(Unavailable) as raised:
        outlet.send(lines)
    assert raised.value.taken == 3
    failing.clear()
    outlet.send(lines[3:])
    assert sorted(api.taken) == list(range(8))
    outlet.close()


def test_one_refused_event_does_not_send_the_others_twice(tmp_path: Path, api: Api) -> None:
    """Delivery asks for each by itself then: the answers are known."""
    api.refuse_if = lambda event: 422 if event["event_id"] == "event-2" else None
    setup = set_up(tmp_path, api.url, mode="flush")
    setup.append(8)
    assert setup.delivery.flush(60)
    assert len(api.calls) == 8
    assert sorted(api.taken) == [0, 1, 3, 4, 5, 6, 7]
    assert setup.counters.snapshot() == {"delivered": 7, "rejected": 1}
    setup.delivery.close(1)


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[]", b'{"event_id":"\xc3\xa9"}', b'{"event_id":5}'], ids=repr
)
def test_what_is_no_event_is_not_posted(tmp_path: Path, api: Api, line: bytes) -> None:
    """The receiver is not asked about it."""
    outlet = opened(api.url, tmp_path)
    with pytest.raises(Rejected):
        outlet.send([line])
    assert api.calls == []
    outlet.close()


def test_an_outage_delays_and_loses_nothing(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors, a pause that the receiver asks for, a wrong key put right: every event arrives, each once."""
    monkeypatch.setattr(lanes_module, "FIRST_PAUSE_SECONDS", 0.01)
    api.answers.extend([(500, {}), (429, {"Retry-After": "0.01"}), (503, {}), (401, {})])
    setup = set_up(tmp_path, api.url, environ={"CMDRDATA_API_KEY": KEY})
    setup.append(1)
    assert setup.delivery.flush(60)
    setup.append(29, 1)
    assert setup.delivery.flush(60)
    assert sorted(api.taken) == list(range(30))
    assert setup.counters.snapshot() == {"delivered": 30, "unavailable": 3, "unauthorized": 1}
    setup.delivery.close(10)


def test_of_many_troubles_the_one_that_says_most_is_told(tmp_path: Path, api: Api) -> None:
    """Events side by side may fail in several ways: the longest pause that is asked for is kept."""
    api.answers.extend([(500, {}), (429, {"Retry-After": "60"}), (503, {"Retry-After": "5"})])
    together = threading.Barrier(3, timeout=30)
    api.refuse_if = lambda _: together.wait() and None
    outlet = opened(api.url, tmp_path)
    with pytest.raises(Unavailable, match="429") as raised:
        outlet.send([line_of(number) for number in range(3)])
    assert raised.value.retry_after == 60
    outlet.close()


def test_a_pause_that_was_asked_for_is_kept(tmp_path: Path, api: Api) -> None:
    """After 429 with `Retry-After`, nothing is sent before its time, however one flushes."""
    api.always = (429, {"Retry-After": "300"})
    setup = set_up(tmp_path, api.url, mode="flush")
    setup.append(3)
    assert not setup.delivery.flush(0.3)
    asked = len(api.calls)
    assert not setup.delivery.flush(0.3)
    assert len(api.calls) == asked
    setup.delivery.close(0)


def test_a_receiver_that_hangs_holds_no_exit(tmp_path: Path, api: Api) -> None:
    """`close` returns in its time though the POST is still out; nothing is lost."""
    api.hang.clear()
    setup = set_up(tmp_path, api.url)
    setup.delivery.ensure_running()
    setup.append(5)
    assert not setup.delivery.close(0.3)
    assert not api.hang.is_set()
    assert sum(each.events for each in setup.delivery.backlog()) == 5
    api.hang.set()


def test_a_receiver_that_hangs_is_given_up(tmp_path: Path, api: Api) -> None:
    """`?timeout=` bounds a POST, and so does the caller's time."""
    api.hang.clear()
    for outlet, timeout in (
        (opened(f"{api.url}?timeout=0.1", tmp_path), None),
        (opened(api.url, tmp_path), 0.1),
    ):
        with pytest.raises(Unavailable, match="ReadTimeout"):
            outlet.send([line_of(1)], timeout)
        outlet.close()
    assert [path for path, _, _ in api.calls] == ["/api/events"] * 2


def test_a_receiver_that_is_down_is_unavailable(tmp_path: Path) -> None:
    """The reason is the kind of error: the URL may hold what is secret."""
    outlet = opened("http://127.0.0.1:1/in?token=secret", tmp_path)
    with pytest.raises(Unavailable, match=r"^ConnectError$"):
        outlet.send([line_of(1)])
    outlet.close()


def test_our_own_parameters_are_not_sent_and_others_are(tmp_path: Path, api: Api) -> None:
    """`timeout` and `insecure` are for us."""
    outlet = opened(f"{api.url}?timeout=5&insecure=1&tenant=a%20b", tmp_path)
    outlet.send([line_of(1)])
    assert api.calls[0][0] == "/api/events?tenant=a+b"
    outlet.close()


def test_a_key_never_travels_in_the_open(tmp_path: Path) -> None:
    """Over plain HTTP to another machine there is none, even if there is one."""
    outlet: Any = opened("http://example.com/in?insecure=1", tmp_path, CMDRDATA_API_KEY=KEY)
    assert KEY not in repr(vars(outlet))
    outlet = opened("https://example.com/in", tmp_path, CMDRDATA_API_KEY=KEY)
    assert outlet._headers["Authorization"] == f"Bearer {KEY}"


def test_a_proxy_is_used_except_for_this_machine(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's proxy takes what goes out, and nothing that stays here."""
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{api.server_port}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{api.server_port}")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    outlet = opened("http://example.invalid/in?insecure=1", tmp_path)
    outlet.send([line_of(1)])
    assert api.calls[0][0] == "http://example.invalid/in"
    outlet.close()
    outlet = opened("http://127.0.0.1:1/in", tmp_path)
    with pytest.raises(Unavailable, match="ConnectError"):
        outlet.send([line_of(1)])
    outlet.close()
    outlet = opened("http://internal.example/in?insecure=1", tmp_path)
    with pytest.raises(Unavailable):
        outlet.send([line_of(1)])
    assert len(api.calls) == 1
    outlet.close()


def test_a_long_answer_is_not_read_to_its_end(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status says all: an answer of any size is taken, and its connection let go."""
    monkeypatch.setattr(posting, "ANSWER_BYTES", 3)
    outlet = opened(api.url, tmp_path)
    outlet.send([line_of(1)])
    outlet.send([line_of(2)])
    assert api.taken == [1, 2]
    outlet.close()


def test_outcomes_are_not_remembered_for_ever(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is never asked for again takes no memory; it may then be posted once more, with its key."""
    monkeypatch.setattr(http_module, "REMEMBERED", 2)
    api.refuse_if = lambda event: 503 if event["event_id"] == "event-0" else None
    outlet: Any = opened(api.url, tmp_path)
    for first in range(1, 40, 5):
        with pytest.raises(Unavailable):
            outlet.send([line_of(0), *(line_of(number) for number in range(first, first + 5))])
        assert len(outlet._settled) <= 7
    outlet.close()


def test_posts_go_one_after_the_other_where_no_thread_starts(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At interpreter exit, say."""
    monkeypatch.setattr("cmdrdata_transport.sinks.http.Thread", Unstartable)
    outlet = opened(api.url, tmp_path)
    outlet.send([line_of(number) for number in range(8)])
    assert api.taken == list(range(8))
    outlet.close()


class Unstartable(threading.Thread):
    """A thread of an interpreter that is going down."""

    def start(self) -> None:
        """Say what the interpreter says then."""
        raise RuntimeError("can't create new thread at interpreter shutdown")


def test_parent_and_child_do_not_share_connections(tmp_path: Path, api: Api) -> None:
    """A forked child opens its own, and the parent's go on."""
    run(
        """
        setup = set_up(home, sys.argv[2])
        setup.delivery.ensure_running()
        setup.append(20)
        assert setup.delivery.flush(60)
        pid = os.fork()
        if pid == 0:
            setup.delivery.ensure_running()
            setup.append(20, 20)
            os._exit(0 if setup.delivery.close(60) else 1)
        setup.append(20, 40)
        assert setup.delivery.close(60) and os.waitpid(pid, 0)[1] == 0
        """,
        tmp_path,
        api.url,
    )
    assert sorted(api.taken) == sorted(once(60))


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        ("Sun, 99 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """RFC 9110, 10.2.3; what is neither asks for nothing."""
    assert seconds_of(header, NOW.timestamp()) == seconds


@settings(deadline=None)
@given(st.integers(100, 999), st.text(max_size=20))
def test_any_status_has_a_meaning(status: int, header: str) -> None:
    """Taken, refused, or not now: there is no fourth."""
    later = {*range(100, 200), *range(300, 400), 401, 403, 404, 405, 407, 408, 425, 429, *range(500, 1000)}
    told: list[Rejected | Unavailable | None] = []
    try:
        told.append(judge(status, header, now=0.0))
    except Unavailable as error:
        told.append(error)
    assert isinstance(told[0], Unavailable) is (status in later)
    assert isinstance(told[0], Rejected) is (400 <= status < 500 and status not in {*later, 409})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("api.localhost", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_what_this_machine_is_called(host: str, *, loopback: bool) -> None:
    """Only such a host is sent a key in the open."""
    assert is_loopback(host) is loopback


def test_an_outlet_forgets_what_it_has_and_goes_on(tmp_path: Path, api: Api) -> None:
    """What a child leaves alone is kept open; to fork before the first event is no special case."""
    outlet = opened(api.url, tmp_path)
    outlet.forget()
    outlet.send([line_of(1)])
    kept = list(posting._PARENTS)
    outlet.forget()
    outlet.send([line_of(2)])
    assert api.taken == [1, 2]
    outlet.close()
    (parents,) = (each for each in posting._PARENTS if each not in kept)
    posting._PARENTS.remove(parents)
    parents.close()
