"""The sink that posts: what a receiver is sent, what its answers do, and that it loses nothing."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import event_of, line_of, once, run, set_up
from receivers import Api, serving

from cmdrdata_transport import __version__
from cmdrdata_transport import lanes as lanes_module
from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.sinks import Outlet, Unauthorized, open_sink, posting
from cmdrdata_transport.sinks import http as http_module
from cmdrdata_transport.sinks.posting import judge, seconds_of
from cmdrdata_transport.sinks.remote import is_loopback

KEY = "cmd-live-v1-secret"


def opened(spec: str, home: Path, **environ: str) -> Outlet:
    """An outlet with an environment of its own."""
    return open_sink(spec, home=home, environ=environ)


@pytest.fixture
def api() -> Iterator[Api]:
    """A receiver that is up."""
    with serving(Api()) as server:
        yield server


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


def test_httpx_is_imported_where_the_sink_is_set_up(tmp_path: Path) -> None:
    """And not in a thread beside calls: an SDK that looks into `sys.modules` would find half of it."""
    printed = run(
        """
        assert "httpx" not in sys.modules
        set_up(home, "http://127.0.0.1:1/events")
        print(callable(sys.modules["httpx"].Timeout))
        """,
        tmp_path,
    )
    assert printed == "True\n"


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


def test_one_connection_does_for_one_event_after_the_other(tmp_path: Path, api: Api) -> None:
    """As in a quiet program: it is kept from batch to batch."""
    setup = set_up(tmp_path, api.url, mode="flush")
    for number in range(20):
        setup.append(1, number)
        assert setup.delivery.flush(30)
    assert api.taken == list(range(20))
    assert api.connections == 1
    setup.delivery.close(1)


@pytest.mark.parametrize("status", [401, 403])
def test_events_wait_for_the_right_key(
    tmp_path: Path, api: Api, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """None is a dead letter; one line says who refuses, and what waits."""
    api.always = (status, {})
    setup = set_up(tmp_path, api.url, mode="flush", environ={"CMDRDATA_API_KEY": KEY})
    setup.append(10)
    with caplog.at_level(logging.WARNING):
        assert not setup.delivery.flush(1.5)
    (record,) = caplog.records
    assert record.getMessage() == (
        "unauthorized: 1 more, a sink refused our key, our user or its rights; its events wait in the "
        f"journal ({api.url}: status {status})"
    )
    assert not (tmp_path / "dead").exists()
    assert sum(each.events for each in setup.delivery.backlog()) == 10
    setup.delivery.close(0)


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


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"metadata":{}}', b'{"event_id":5}'], ids=repr)
def test_what_is_no_event_is_not_posted(tmp_path: Path, api: Api, line: bytes) -> None:
    """The receiver is not asked about it."""
    outlet = opened(api.url, tmp_path)
    with pytest.raises(Rejected):
        outlet.send([line])
    assert api.calls == []
    outlet.close()


@pytest.mark.parametrize(
    ("event_id", "key"),
    [
        ("run 5/step:2", "run 5/step:2"),
        ("5%20", "5%2520"),
        (" 5", "%205"),
        ("5\n", "5%0A"),
        ("fünf", "f%C3%BCnf"),
        ("5" * 70_000, hashlib.sha256(b"5" * 70_000).hexdigest()),
    ],
    ids=["plain", "quoted", "blank", "line", "letters", "long"],
)
def test_any_text_may_be_an_id(tmp_path: Path, api: Api, event_id: str, key: str) -> None:
    """A user's own is in the body as it is; as a key it is what a header can carry, and holds up no other."""
    api.always = (409, {})  # whose ids are numbers
    outlet = opened(api.url, tmp_path)
    outlet.send([line_of(1, event_id=event_id)])
    ((_, headers, event),) = api.calls
    assert (headers["Idempotency-Key"], event["event_id"]) == (key, event_id)
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
    setup.delivery.close(50)


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
    (lane,) = setup.delivery._lanes
    assert any(not setup.delivery.flush(0.3) and "429" in str(lane.trouble) for _ in range(150))
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
        (opened(f"{api.url}?timeout=0.5", tmp_path), None),
        (opened(api.url, tmp_path), 0.5),
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
    later = {*range(100, 200), *range(300, 400), 408, 425, 429, *range(500, 1000)}
    later |= {401, 402, 403, 404, 405, 406, 407, 410, 411, 414, 415, 421, 426, 431, 451}
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
