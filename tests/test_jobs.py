"""What is started by one call and told by others: once, whoever asks, for the customer who started it.

The calls of one story go through clients of all four ways, with a tracker and a home of their own; the
ledger is what counts. A second tracker on the same home stands for another process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from exchange import WAYS, Way

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport import Tracker, UsageEvent, customer_context
from cmdrdata_transport.jobs import Jobs
from cmdrdata_transport.ledger import Ledger

OPENAI = "https://api.openai.com/v1"
USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call, its answer, and in whose name it is made."""

    method: str
    url: str
    answer: Any
    asked: Any = None
    status: int = 200
    customer: str | None = None
    kind: str = "application/json"

    @property
    def content(self) -> bytes:
        """The answer's bytes."""
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()


def response(status: str, **more: Any) -> dict[str, Any]:
    """A response of OpenAI's that runs in the background."""
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5",
        "background": True,
        "status": status,
        "usage": None,
        "error": None,
        **more,
    }


START = Ask(
    method="POST",
    url=f"{OPENAI}/responses",
    asked={"model": "gpt-5", "background": True},
    answer=response("queued"),
    customer="acme",
)
POLL = Ask(method="GET", url=f"{OPENAI}/responses/resp_1", answer=response("in_progress"))
DONE = Ask(method="GET", url=f"{OPENAI}/responses/resp_1", answer=response("completed", usage=USAGE))


def events_of(sse: Sequence[dict[str, Any]]) -> bytes:
    """Server-sent events, as OpenAI's Responses are streamed."""
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in sse)


@dataclass(slots=True)
class Host:
    """One home, and the processes that use it."""

    home: Path
    trackers: list[Tracker] = field(default_factory=list[Tracker])

    def process(self, **options: Any) -> Tracker:
        """A process of its own, as far as this library can tell."""
        tracker = Tracker(["sqlite:///usage.db"], home=self.home, **options)
        self.trackers.append(tracker)
        return tracker

    def ledger(self) -> list[UsageEvent]:
        """What has been recorded, by all of them."""
        for tracker in self.trackers:
            assert tracker.flush(10)
        with Ledger.open("sqlite:///usage.db", home=self.home) as ledger:
            return [entry.event for entry in ledger.events()]

    def report(self) -> dict[str, Any]:
        """The sums of all of it."""
        for tracker in self.trackers:
            assert tracker.flush(10)
        with Ledger.open("sqlite:///usage.db", home=self.home) as ledger:
            (row,) = ledger.report(by=())
            return row


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A home of its own."""
    host = Host(tmp_path)
    yield host
    for tracker in host.trackers:
        tracker.close(5)


def make(way: Way, tracker: Tracker, asks: Sequence[Ask]) -> None:
    """Make the calls, one after the other, and read each answer whole."""
    library: Any = httpx if way.library == "httpx" else httpx2
    ours: Any = over_httpx if way.library == "httpx" else over_httpx2
    left = iter(asks)

    def answer(_: Any) -> Any:
        ask = next(left)
        return library.Response(ask.status, headers={"content-type": ask.kind}, content=ask.content)

    async def calls_async() -> None:
        transport = ours.AsyncTrackedTransport(library.MockTransport(answer), tracker=tracker)
        async with library.AsyncClient(transport=transport) as client:
            for ask in asks:
                with customer_context(ask.customer):
                    await client.request(ask.method, ask.url, json=ask.asked)

    if way.is_async:
        asyncio.run(calls_async())
        return
    transport = ours.TrackedTransport(library.MockTransport(answer), tracker=tracker)
    with library.Client(transport=transport) as client:
        for ask in asks:
            with customer_context(ask.customer):
                client.request(ask.method, ask.url, json=ask.asked)


def told(events: Sequence[UsageEvent]) -> list[tuple[str | None, str, int | None]]:
    """For whom, with what result, how much."""
    return [(each.customer_id, each.usage_status, each.usage.total_tokens) for each in events]


@every_way
def test_a_background_answer_counts_once_when_it_is_done(way: Way, host: Host) -> None:
    """Polls before the end are nothing; the end counts once, however often it is asked for."""
    make(way, host.process(), [START, POLL, POLL, DONE, DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]


@every_way
def test_another_process_that_asks_bills_the_one_who_started_it(way: Way, host: Host) -> None:
    """Any process of this host finds who that was, and the second one to ask adds nothing."""
    make(way, host.process(customer_id="nobody"), [START])
    make(way, host.process(customer_id="nobody"), [POLL, DONE])
    make(way, host.process(customer_id="nobody"), [DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]
    assert host.report()["calls"] == 1
