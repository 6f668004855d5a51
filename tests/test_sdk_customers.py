"""Real SDKs, many customers at once, a real journal and a real ledger: to each their own, to the token.

And what a user may rely on while it goes on: who wins when several say whose call it is, clients that are
not the plain one, and a call that succeeds whatever becomes of its event.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import openai
import pytest
from sdks import CONNECT, MESSAGES, Way, both, connected

from cmdrdata_transport import (
    Tracker,
    UsageEvent,
    customer_context,
    no_tracking,
    tracked_http_client,
    tracking_headers,
)
from cmdrdata_transport.demo.calls import CALLED_SDKS, CalledSdk, call, call_async
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import ACCOUNT_HEADER, Provider
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.testing import capture_usage

pytestmark = pytest.mark.usefixtures("one_certificate")

CUSTOMERS = (
    "acme",
    "org:42",
    "größe@example.com",
    "ft:gpt-4o-mini:acme::9x",
    "Robert'); DROP TABLE events;--",
    "<script>",
    "客户 🧾",
    "0",
    " leading space",
    "x" * 512,
)
"""Names that customers have; other meters refuse some of them."""

sdks = pytest.mark.parametrize("sdk", tuple(CONNECT))
colours = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


class Gathering:
    """The provider, which answers the first calls when so many of them wait: all are under way at once."""

    def __init__(self, provider: Provider, number: int) -> None:
        self._provider = provider
        self._first = iter(range(number))
        self._barrier = threading.Barrier(number)

    def __call__(self, call: Call) -> Answer:
        """The answer, when the others are there."""
        if next(self._first, None) is not None:
            self._barrier.wait(60)
        return self._provider(call)


Sums = dict[tuple[str, str], Counter[str]]
"""Tokens by customer and model."""


def stated_sums(provider: Provider) -> Sums:
    """What the provider stated."""
    sums: Sums = {}
    for each in provider.stated:
        assert each.account is not None
        sums.setdefault((CUSTOMERS[int(each.account)], each.model), Counter()).update(each.units)
    return sums


def recorded_sums(home: Path) -> Sums:
    """What the ledger holds, without attempts that used nothing."""
    with Ledger.open(home / "usage.db") as ledger:
        rows = ledger.report(by=("customer_id", "model"))
    return {
        (row["customer_id"], row["model"]): Counter(
            # Gemini says of which kind its tokens are; the provider's account does not.
            {name: row[name] for name in row if name.endswith("_tokens") and name != "input_text_tokens"}
        )
        for row in rows
        if row["total_tokens"]
    }


def assert_each_has_what_was_stated(home: Path, provider: Provider) -> None:
    """To the token, and nobody else has anything."""
    recorded, stated = recorded_sums(home), stated_sums(provider)
    assert {key: +counts for key, counts in recorded.items()} == stated
    assert {customer for customer, _ in recorded} == set(CUSTOMERS)


def test_many_customers_in_tasks(tmp_path: Path) -> None:
    """Tasks of all customers use the same async clients at once; the ledger has each one's sums."""
    provider = Provider(seed=5, refusals=0.1)

    async def serve(sdk: CalledSdk, client: Any, number: int) -> None:
        for what in sdk.calls:
            with customer_context(CUSTOMERS[number], metadata={"number": number}):
                await call_async(client, what, {ACCOUNT_HEADER: str(number)})

    async def go(url: str, tracker: Tracker) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for sdk in CALLED_SDKS:
                client = await stack.enter_async_context(
                    connected(sdk.name, url, "given client", asynchronous=True, tracker=tracker)
                )
                for number in range(len(CUSTOMERS)):
                    tasks.create_task(serve(sdk, client, number))

    with Loopback(Gathering(provider, len(CUSTOMERS) * len(CALLED_SDKS))) as server:
        tracker = Tracker(home=tmp_path)
        asyncio.run(go(server.url, tracker))
        assert tracker.flush(60)
        tracker.close()
    assert_each_has_what_was_stated(tmp_path, provider)


def test_many_customers_in_threads(tmp_path: Path) -> None:
    """Threads of all customers use the same sync clients at once; the ledger has each one's sums."""
    provider = Provider(seed=6, refusals=0.1)

    async def go(url: str, tracker: Tracker) -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    connected(sdk.name, url, "track", asynchronous=False, tracker=tracker)
                )
                for sdk in CALLED_SDKS
            ]

            def serve(number: int) -> None:
                with customer_context(CUSTOMERS[number]):
                    for sdk, client in zip(CALLED_SDKS, clients, strict=True):
                        for what in sdk.calls:
                            call(client, what, {ACCOUNT_HEADER: str(number)})

            with ThreadPoolExecutor(len(CUSTOMERS)) as pool:
                await asyncio.to_thread(list, pool.map(serve, range(len(CUSTOMERS))))

    with Loopback(Gathering(provider, len(CUSTOMERS))) as server:
        tracker = Tracker(home=tmp_path)
        asyncio.run(go(server.url, tracker))
        assert tracker.flush(60)
        tracker.close()
    assert_each_has_what_was_stated(tmp_path, provider)


# --- who wins ---


async def ask(sdk: str, client: Any, headers: dict[str, str]) -> None:
    """One plain call, with these headers."""
    what = next(row for row in CALLED_SDKS if row.name == sdk).calls[0]
    await both(what.make(client, headers))


Block = Callable[[], AbstractContextManager[None]]

SAID: tuple[tuple[str, dict[str, str], Block, str | None], ...] = (
    ("nothing", {}, nullcontext, "of the client"),
    ("context", {}, lambda: customer_context("of the context"), "of the context"),
    ("header", tracking_headers("of the call"), lambda: customer_context("of the context"), "of the call"),
    ("nobody", {}, lambda: customer_context(None), ""),
    ("not tracked by header", tracking_headers(track=False), nullcontext, None),
    ("not tracked by context", {}, no_tracking, None),
)
"""What is said, its headers and block, and whose call it is: "" nobody's, None not recorded at all."""


@pytest.mark.parametrize(
    ("headers", "block", "whose"), [row[1:] for row in SAID], ids=[row[0] for row in SAID]
)
@sdks
@colours
def test_who_wins(
    sdk: str, headers: dict[str, str], block: Block, whose: str | None, *, asynchronous: bool
) -> None:
    """A header wins over the context, the context over the client; and a call can be left out."""

    async def go(url: str) -> None:
        async with connected(
            sdk, url, "given client", asynchronous=asynchronous, customer_id="of the client"
        ) as client:
            with block():
                await ask(sdk, client, headers)

    with Loopback(Provider()) as server, capture_usage() as events:
        asyncio.run(go(server.url))
    assert [event.customer_id or "" for event in events] == ([] if whose is None else [whose])
    assert not [name for each in server.calls for name, _ in each.headers if b"cmdrdata" in name]


# --- a call is a call, whatever becomes of its event ---


def deaf(events: list[UsageEvent]) -> None:
    """A sink that always fails."""
    raise RuntimeError("no")


def in_a_file(home: Path) -> Path:
    """A home that cannot be one."""
    home.mkdir(exist_ok=True)
    (home / "file").write_text("here is something else", "utf-8")
    return home / "file" / "home"


TROUBLES: dict[str, Callable[[Path], Tracker]] = {
    "the sink fails": lambda home: Tracker([deaf], home=home),
    "nothing listens at the API": lambda home: Tracker(["http://127.0.0.1:1/api/events"], home=home),
    "the home is no directory": lambda home: Tracker(home=in_a_file(home)),
    "tracking is disabled": lambda home: Tracker(home=home, disabled=True),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@sdks
@colours
def test_a_call_succeeds_whatever_becomes_of_its_event(
    sdk: str, trouble: str, tmp_path: Path, *, asynchronous: bool
) -> None:
    """No sink, no disk, no tracking: the SDK shows what it shows without us, and sends no header of ours."""
    what = next(row for row in CALLED_SDKS if row.name == sdk).calls[0]

    async def go(way: Way | None, url: str, headers: dict[str, str], **tracking: Any) -> Any:
        async with connected(sdk, url, way, asynchronous=asynchronous, **tracking) as client:
            return await both(what.make(client, headers))

    with Loopback(Provider(seed=2)) as server:
        bare = asyncio.run(go(None, server.url, {}))
    with Loopback(Provider(seed=2)) as server:
        tracker = TROUBLES[trouble](tmp_path)
        tracked = asyncio.run(go("given client", server.url, tracking_headers("acme"), tracker=tracker))
        tracker.close(timeout=0)
    assert tracked == bare
    assert not [name for each in server.calls for name, _ in each.headers if b"cmdrdata" in name]


# --- clients that are not the plain one ---


def test_azure() -> None:
    """AzureOpenAI names a deployment in its path; told whose it is, the events say so."""
    provider = Provider(seed=4)
    with Loopback(provider) as server, capture_usage() as events:
        client = openai.AzureOpenAI(
            azure_endpoint=server.url,
            api_key="none",
            api_version="2026-05-01",
            http_client=tracked_http_client("openai", provider="azure"),
        )
        with client, customer_context("acme"):
            client.chat.completions.create(model="our-deployment", messages=MESSAGES)
            client.responses.create(model="our-deployment", input="The bill?")
            client.embeddings.create(model="our-deployment", input="The bill?")
    assert [(event.provider, event.customer_id, event.api) for event in events] == [
        ("azure", "acme", "openai.chat_completions"),
        ("azure", "acme", "openai.responses"),
        ("azure", "acme", "openai.embeddings"),
    ]
    for event, stated in zip(events, provider.stated, strict=True):
        assert {unit: getattr(event.usage, unit) for unit in stated.units} == dict(stated.units)


def test_the_module_as_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """`openai.chat…`, without a client object, is tracked through `openai.http_client`."""
    with Loopback(Provider()) as server, capture_usage() as events:
        monkeypatch.setattr(openai, "base_url", f"{server.url}/v1/")
        monkeypatch.setattr(openai, "api_key", "none")
        with tracked_http_client("openai") as http:
            monkeypatch.setattr(openai, "http_client", http)
            monkeypatch.setattr(openai, "_client", None)
            with customer_context("acme"):
                openai.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert [(event.customer_id, event.usage_status) for event in events] == [("acme", "complete")]


def test_the_providers_own_metadata_stays_its_own() -> None:
    """`metadata=` of OpenAI and Anthropic goes to them; ours goes to the event."""
    with Loopback(Provider()) as server, capture_usage() as events:
        client = openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", http_client=tracked_http_client("openai")
        )
        with client, customer_context("acme", metadata={"ours": 1}):
            client.chat.completions.create(
                model="gpt-5", messages=MESSAGES, store=True, metadata={"theirs": "2"}
            )
    assert server.calls[0].json()["metadata"] == {"theirs": "2"}
    assert events[0].metadata == {"ours": 1}


def test_free_calls_are_not_usage() -> None:
    """Listing models and counting tokens pass, and are not recorded."""
    with Loopback(Provider()) as server, capture_usage() as events:
        client = openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", http_client=tracked_http_client("openai")
        )
        with client:
            assert [model.id for model in client.models.list()] == ["gpt-5"]
            assert client.responses.input_tokens.count(model="gpt-5", input="The bill?").input_tokens
    assert events == []
