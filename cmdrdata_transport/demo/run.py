"""The demo itself: three customers, four SDKs, sync and async, streaming and not; then the accounts compared.

Knows how to make the calls and how to hold the ledger against what the provider says it stated. Draws
nothing: whoever shows the demo is given each event and the outcome.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmdrdata_transport.attribution import customer_context
from cmdrdata_transport.demo.calls import (
    CALLED_SDKS,
    CalledSdk,
    call,
    call_async,
    connected,
    connected_async,
)
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import ACCOUNT_HEADER, Provider
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from cmdrdata_transport.event import UsageEvent

CUSTOMERS = ("acme", "globex", "initech")

FEATURES = {"openai": "assistant", "anthropic": "review", "google-genai": "search", "groq": "completion"}
"""The `feature` in the metadata of each SDK's calls."""

COMPARED = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_reasoning_tokens",
)

GROUP = ("customer_id", "provider", "model")

_DELIVERY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One sum that the ledger and the provider do not agree on."""

    customer_id: str | None
    provider: str
    model: str
    unit: str
    stated: int
    recorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a demo.

    `delivered` says whether every event reached the ledger in time; `stated` are the provider's sums
    over everything.
    """

    ledger: Path
    answers: int
    refused: int
    delivered: bool
    stated: Mapping[str, int]
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether the ledger is what the provider says, to the token."""
        return self.delivered and not self.differences


def installed_sdks() -> list[CalledSdk]:
    """The SDKs of the table that can be imported."""
    return [sdk for sdk in CALLED_SDKS if sdk.installed]


def run(
    home: Path, *, provider: Provider, on_event: Callable[[list[UsageEvent]], object] | None = None
) -> Outcome:
    """Make every call for every customer, and compare.

    `home` gets the journal and the ledger. `on_event` is called with events as they land, on the
    delivery's thread.
    """
    sdks = installed_sdks()
    with Loopback(provider) as server:
        tracker = Tracker(["sqlite:///usage.db"], home=home, name="demo", on_event=on_event)
        try:
            _call_sync(sdks, server.url, tracker)
            asyncio.run(_call_async(sdks, server.url, tracker))
            delivered = tracker.flush(_DELIVERY_SECONDS)
        finally:
            tracker.close()
    path = home / "usage.db"
    with Ledger.open(path) as ledger:
        rows = ledger.report(by=GROUP)
    return Outcome(
        ledger=path,
        answers=len(provider.stated),
        refused=provider.refused,
        delivered=delivered,
        stated={unit: provider.total(unit) for unit in COMPARED},
        differences=tuple(_differences(provider, rows)),
    )


def _call_sync(sdks: Iterable[CalledSdk], url: str, tracker: Tracker) -> None:
    """One client for each SDK, shared by a thread for each customer."""
    with ExitStack() as stack:
        clients = [
            (sdk, stack.enter_context(connected(sdk, url, tracker=tracker, provider=sdk.provider)))
            for sdk in sdks
        ]

        def serve(customer: str) -> None:
            for sdk, client in clients:
                with customer_context(customer, metadata={"feature": FEATURES[sdk.name]}):
                    for what in sdk.calls:
                        call(client, what, {ACCOUNT_HEADER: customer})

        with ThreadPoolExecutor(len(CUSTOMERS)) as pool:
            list(pool.map(serve, CUSTOMERS))


async def _call_async(sdks: Iterable[CalledSdk], url: str, tracker: Tracker) -> None:
    """One client for each SDK, shared by a task for each customer and SDK."""
    async with AsyncExitStack() as stack:

        async def serve(sdk: CalledSdk, client: Any, customer: str) -> None:
            with customer_context(customer, metadata={"feature": FEATURES[sdk.name]}):
                for what in sdk.calls:
                    await call_async(client, what, {ACCOUNT_HEADER: customer})

        async with asyncio.TaskGroup() as tasks:
            for sdk in sdks:
                tracked = connected_async(sdk, url, tracker=tracker, provider=sdk.provider)
                client = await stack.enter_async_context(tracked)
                for customer in CUSTOMERS:
                    tasks.create_task(serve(sdk, client, customer))


def _differences(provider: Provider, rows: Iterable[Mapping[str, Any]]) -> Iterable[Difference]:
    """Where the sums of any customer, provider and model differ, in either account."""
    stated: Counter[tuple[Any, ...]] = Counter()
    for each in provider.stated:
        for unit in COMPARED:
            stated[each.account, each.provider, each.model, unit] += each.units[unit]
    recorded = Counter(
        {(*(row[key] for key in GROUP), unit): row.get(unit) or 0 for row in rows for unit in COMPARED}
    )
    for key in sorted(stated.keys() | recorded.keys(), key=repr):
        if stated[key] != recorded[key]:
            customer, name, model, unit = key
            yield Difference(
                customer_id=customer,
                provider=name,
                model=model,
                unit=unit,
                stated=stated[key],
                recorded=recorded[key],
            )
