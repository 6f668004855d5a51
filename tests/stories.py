"""Stories of several calls, told to clients of all four ways, with a home and a ledger that count.

Knows how to make one call after the other, each with its scripted answer and in somebody's name, and how
to have several trackers on one home, which stand for several processes of a host.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import httpx2
from exchange import Way

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport import Tracker, UsageEvent, customer_context
from cmdrdata_transport.ledger import Ledger


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


@dataclass(slots=True)
class Host:
    """One home, and the processes that use it."""

    home: Path
    trackers: list[Tracker] = field(default_factory=list[Tracker])

    def process(self, **options: Any) -> Tracker:
        """A process of its own, as far as this library can tell, that begins when the others have delivered.

        Each delivers when it likes, and what the ledger is told first counts.
        """
        self._flush()
        tracker = Tracker(["sqlite:///usage.db"], home=self.home, **options)
        self.trackers.append(tracker)
        return tracker

    def ledger(self) -> list[UsageEvent]:
        """What has been recorded, by all of them, in the order of the calls."""
        self._flush()
        if not (self.home / "usage.db").exists():
            return []  # it is made for the first event
        with Ledger.open("sqlite:///usage.db", home=self.home) as ledger:
            return sorted((entry.event for entry in ledger.events()), key=lambda event: event.timestamp)

    def report(self) -> dict[str, Any]:
        """The sums of all of it."""
        self._flush()
        with Ledger.open("sqlite:///usage.db", home=self.home) as ledger:
            (row,) = ledger.report(by=())
            return row

    def _flush(self) -> None:
        for tracker in self.trackers:
            assert tracker.flush(50)


@contextmanager
def hosted(home: Path) -> Iterator[Host]:
    """A host, whose processes end with the block."""
    host = Host(home)
    yield host
    for tracker in host.trackers:
        tracker.close(50)


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
