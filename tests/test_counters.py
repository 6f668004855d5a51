"""Counters: whoever counts, wherever, nothing is left out and nothing waits."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cmdrdata_transport import counters as counters_module
from cmdrdata_transport.counters import Counters, logger
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.tracker import Tracker


def test_a_child_starts_at_zero_and_keeps_what_it_counts() -> None:
    """What was counted before the fork is the parent's; what is counted after it, the child's."""
    counters = Counters()
    counters.count("events")
    child = os.fork()
    if not child:
        counters.count("delivered")
        os._exit(0 if counters.snapshot() == {"delivered": 1} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counters.snapshot() == {"events": 1}


def test_counts_that_nobody_settles_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are added up where they are counted, without a word; the log says them all when it can."""
    monkeypatch.setattr(counters_module, "UNSETTLED_LIMIT", 10)
    counters = Counters()
    with caplog.at_level(logging.WARNING, "cmdrdata_transport"):
        for _ in range(100):
            counters.count("unattributed")
        assert len(counters._arrived) <= 10
        assert caplog.messages == []
        assert counters.snapshot() == {"unattributed": 100}
    (message,) = caplog.messages
    assert message.startswith("unattributed: 100 more")


def test_a_line_names_each_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Two sinks that fail at different moments are both in the next line; of many, the last."""
    now = [0.0]
    counters = Counters(clock=lambda: now[0])
    for second, detail in (
        (0, "a: down"),
        (10, "b: down"),
        (20, "a: down"),
        (60, "a: slow"),
        (61, "b: slow"),
    ):
        now[0] = second
        counters.count("unavailable", detail)
        counters.settle()
    now[0] = 120.0
    for number in range(9):
        counters.count("unavailable", f"{number}: down")
    counters.settle()
    counters.settle()
    about = "a sink cannot be reached; its events wait in the journal"
    assert caplog.messages == [
        f"unavailable: 1 more, {about} (a: down)",
        f"unavailable: 3 more, {about} (b: down; a: down; a: slow)",
        f"unavailable: 10 more, {about} (5: down; 6: down; 7: down; 8: down)",
    ]


def test_somebody_is_there_to_log_that_every_call_is_left_out(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """`require_customer` and no customer anywhere: nothing is recorded, but a thread that logs it runs."""

    def never_called(_events: list[UsageEvent]) -> None: ...

    tracker = Tracker([never_called], home=tmp_path, require_customer=True)
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
    with httpx.Client(transport=TrackedTransport(answer, tracker=tracker)) as client:
        client.post("https://api.openai.com/v1/chat/completions", json={})
    assert "cmdrdata callable:never_called" in [each.name for each in started()]
    tracker.close()
    assert tracker.stats() == {"skipped_no_customer": 1}


def test_a_handler_of_logs_may_ask_for_the_counts() -> None:
    """It is called when nobody holds what it waits for, in whatever thread it asks."""
    counters = Counters()
    asked: list[dict[str, int]] = []

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=lambda: asked.append(counters.snapshot()))
            thread.start()
            thread.join()
            asked.append(counters.snapshot())

    handler = Asking()
    logger.addHandler(handler)
    try:
        counters.count("unavailable", "a")
        counters.settle()
        counters.count("torn", "b")
        counters.snapshot()
    finally:
        logger.removeHandler(handler)
    assert asked == [{"unavailable": 1}] * 2 + [{"unavailable": 1, "torn": 1}] * 2


def test_the_handler_of_a_signal_may_ask_for_the_counts() -> None:
    """Also where it interrupts the thread that adds up."""
    counters = Counters()
    asked: list[dict[str, int]] = []
    former = signal.signal(signal.SIGUSR1, lambda *_: asked.append(counters.snapshot()))
    try:
        counters.keep = lambda _: signal.raise_signal(signal.SIGUSR1)
        counters.count("events")
        counters.settle()
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert asked == [{"events": 1}]
