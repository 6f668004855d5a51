"""Functions that misbehave as sinks: the other sinks, the calls and the process do not notice."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import Receiver, application, once, run, set_up

from cmdrdata_transport import Tracker, lanes
from cmdrdata_transport.event import UsageEvent


class Unruly(BaseException):
    """What extensions written in other languages raise when they panic."""


ERRORS = [
    ValueError("a bug"),
    MemoryError(),
    RecursionError(),
    StopIteration(),
    GeneratorExit(),
    SystemExit(1),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    Unruly("panic"),
    ExceptionGroup("many", [ValueError()]),
]


def test_whatever_a_function_raises_it_is_given_the_events_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Callable[[], list[threading.Thread]]
) -> None:
    """Its thread lives on, also where it raises what ends one, and what it raised is counted."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE_SECONDS", 0.0)
    unruly, other = Receiver("unruly", raises=[*ERRORS]), Receiver("other")
    setup = set_up(tmp_path, unruly, other)
    setup.delivery.ensure_running()
    threads = started()
    setup.append(5)
    deadline = time.monotonic() + 60
    while not setup.delivery.flush(0.05) and time.monotonic() < deadline:
        assert all(each.is_alive() for each in threads)
    assert (unruly.got, other.got) == (once(5), once(5))
    assert setup.counters.snapshot() == {"unavailable": len(ERRORS), "delivered": 10}
    assert setup.delivery.close(30)
    assert setup.segments() == []


def test_on_event_is_a_function_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it raises neither reaches the call nor keeps the ledger from having it."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE_SECONDS", 0.01)
    raises: list[BaseException] = [KeyboardInterrupt(), SystemExit()]
    got: list[UsageEvent] = []

    def watch(events: list[UsageEvent]) -> None:
        if raises:
            raise raises.pop()
        got.extend(events)

    tracker = Tracker(["jsonl:///usage.jsonl"], home=tmp_path, on_event=watch)
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    assert tracker.flush(30)
    tracker.close(50)
    assert [each.customer_id for each in got] == ["acme"]
    assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 1


def test_a_function_may_do_with_its_list_what_it_likes(tmp_path: Path) -> None:
    """Another is given its own; and so is this one, when it fails after that."""
    seen: list[list[object]] = []

    def spoil(events: list[UsageEvent]) -> None:
        seen.append([(each.event_id, dict(each.metadata or {})) for each in events])
        for each in events:
            if isinstance(each.metadata, dict):
                each.metadata.clear()
        events.clear()
        if len(seen) == 1:
            raise ValueError

    given: list[UsageEvent] = []

    def other(events: list[UsageEvent]) -> None:
        given.extend(events)

    tracker = Tracker([spoil, other, "jsonl:///usage.jsonl"], home=tmp_path, delivery="flush")
    tracker.record(
        provider="x-ai", usage={"input_tokens": 1}, event_id="one", customer_id="acme", metadata={"a": "b"}
    )
    assert tracker.flush(30)
    tracker.close(50)
    assert seen == [[("one", {"a": "b"})]] * 2
    assert [(each.event_id, each.metadata) for each in given] == [("one", {"a": "b"})]
    assert b'"a":"b"' in (tmp_path / "usage.jsonl").read_bytes()


WAYS_TO_FORK = {
    "leaves": "pid = os.fork()\n    if pid == 0: os._exit(0)",
    "comes back": "pid = os.fork()\n    if pid == 0: return",
    "raises": "pid = os.fork()\n    if pid == 0: raise ValueError",
    "starts a program": "import subprocess; subprocess.run([sys.executable, '-c', ''], check=True)",
    "multiprocessing": "import multiprocessing as m; child = m.get_context('fork').Process(target=print)\n"
    "    child.start(); child.join()",
}


@pytest.mark.parametrize("way", WAYS_TO_FORK)
def test_a_function_may_fork(tmp_path: Path, way: str) -> None:
    """The child ends, whatever it does there, and delivers nothing of its parent's."""
    printed = run(
        f"""
def forking(events):
    {WAYS_TO_FORK[way]}
    with open(home / "taken", "a") as file:
        file.writelines(each.event_id + chr(10) for each in events)
    if {way in ("leaves", "comes back", "raises")}: os.waitpid(pid, 0)
setup = set_up(home, forking, "jsonl:///usage.jsonl")
setup.delivery.ensure_running()
setup.append(3)
print(setup.delivery.flush(30), setup.delivery.close(30), setup.segments())
""",
        tmp_path,
    )
    assert printed.strip() == "True True []"
    assert sorted((tmp_path / "taken").read_text().split()) == ["event-0", "event-1", "event-2"]
    assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 3


def test_a_log_handler_that_fails_ends_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what flushes: the warning is for it alone."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE_SECONDS", 0.01)

    class Broken(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise RuntimeError("no disk for logs")

    handler = Broken()
    logging.getLogger("cmdrdata_transport").addHandler(handler)
    try:
        receiver = Receiver(raises=[OSError()] * 2)
        setup = set_up(tmp_path, receiver)
        setup.delivery.ensure_running()
        setup.append(3)
        assert setup.delivery.flush(30)
        assert setup.delivery.close(30)
    finally:
        logging.getLogger("cmdrdata_transport").removeHandler(handler)
    assert receiver.got == once(3)
    assert setup.counters.snapshot() == {"unavailable": 2, "delivered": 3}


def test_the_keyboard_is_the_user_s_where_the_user_delivers(tmp_path: Path) -> None:
    """Ctrl-C in the thread that flushes ends the flush, as it would any call; the events wait."""
    setup = set_up(tmp_path, Receiver(raises=[KeyboardInterrupt()]), mode="flush")
    setup.append(3)
    with pytest.raises(KeyboardInterrupt):
        setup.delivery.flush(30)
    assert setup.delivery.flush(30)
    assert setup.delivery.close(30)


def test_a_function_that_calls_a_provider_is_metered_and_no_circle(tmp_path: Path) -> None:
    """Its own calls are events too, and it is given them; where it stops calling, that ends."""
    printed = application(
        """
        got = []
        def calls(events):
            got.extend(events)
            if len(got) < 5: call(client, 1)
        tracker = Tracker([calls], home=home)
        client = calling(tracker)
        call(client, 1)
        deadline = time.monotonic() + 30
        while len(got) < 5 and time.monotonic() < deadline: time.sleep(0.01)
        print(tracker.flush(30), len(got), len({each.event_id for each in got}))
        tracker.close(50)
        """,
        tmp_path,
    )
    assert printed == "True 5 5\n"
