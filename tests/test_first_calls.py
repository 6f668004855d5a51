"""The first calls of a process, made by several threads at the same moment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cmdrdata_transport import Tracker, configure, customer_context, default_tracker
from cmdrdata_transport import tracker as tracker_module
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.ledger import Ledger

THREADS = 8
TRIES = 12

URL = "https://api.openai.com/v1/chat/completions"
ANSWER = {"id": "c1", "model": "gpt-5", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


@pytest.fixture(autouse=True)
def threads_take_turns() -> Iterator[None]:
    """Threads are switched as often as Python can, so that they meet where they should not."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def client(tracker: Tracker | None) -> httpx.Client:
    """A tracked client that answers itself."""
    mock = httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))
    return httpx.Client(transport=TrackedTransport(mock, tracker=tracker))


def at_once(do: Callable[[int], object]) -> None:
    """Do it in as many threads, which all begin together."""
    ready = threading.Barrier(THREADS)

    def begin(number: int) -> None:
        ready.wait(20)
        do(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(begin, range(THREADS)):
            pass


def customers(home: Path) -> list[str]:
    """Whose events are in the ledger."""
    with Ledger.open(home / "usage.db") as ledger:
        return sorted(str(entry.event.customer_id) for entry in ledger.events())


EVERYBODY = [str(number) for number in range(THREADS)]


def test_the_first_calls_of_a_tracker(tmp_path: Path) -> None:
    """Whichever thread comes first, `flush` answers for the events of all."""
    for number in range(TRIES):
        home = tmp_path / str(number)
        tracker = Tracker(home=home)
        with client(tracker) as http:

            def call(number: int, http: httpx.Client = http) -> None:
                with customer_context(str(number)):
                    http.post(URL, json={"model": "gpt-5"})

            at_once(call)
        assert tracker.flush(30)
        tracker.close()
        assert customers(home) == EVERYBODY


def test_the_first_clients_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that are made at the same moment share one default tracker."""
    for name in [name for name in os.environ if name.startswith("CMDRDATA_")]:
        monkeypatch.delenv(name)
    for number in range(TRIES):
        home = tmp_path / str(number)
        monkeypatch.setenv("CMDRDATA_HOME", str(home))
        monkeypatch.setattr(tracker_module, "_default", None)

        def call(number: int) -> None:
            with client(None) as http, customer_context(str(number)):
                http.post(URL, json={"model": "gpt-5"})

        at_once(call)
        tracker = default_tracker()
        assert tracker.flush(30)
        tracker.close()
        assert customers(home) == EVERYBODY


def test_a_new_default_counts_from_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `configure` has returned, no thread's call goes to the former default tracker."""
    monkeypatch.setattr(tracker_module, "_default", None)
    with_former = configure(home=tmp_path / "former")
    with client(None) as http:
        new = configure(home=tmp_path / "new")

        def call(number: int) -> None:
            with customer_context(str(number)):
                http.post(URL, json={"model": "gpt-5"})

        at_once(call)
        assert new.flush(30)
        new.close()
    with_former.close()
    assert customers(tmp_path / "new") == EVERYBODY
    assert not (tmp_path / "former").exists()
