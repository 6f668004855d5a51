"""Each call of each SDK that we know is recorded as its provider stated it, however the SDK is tracked.

`run.py` beside this file runs it where these SDKs are; `CMDRDATA_TEST_SDKS` then names those that are
installed there. It needs pytest and the SDKs, nothing else.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from accounts import counted, told

from cmdrdata_transport import Tracker, customer_context, instrument, tracking_headers, uninstrument
from cmdrdata_transport.demo.calls import (
    EVERY_SDK,
    CalledSdk,
    SdkCall,
    Way,
    call,
    call_async,
    connected,
    connected_async,
)
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.doctor import installed_sdks, prove
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cmdrdata_transport.event import UsageEvent

NAMED = (os.environ.get("CMDRDATA_TEST_SDKS") or "openai anthropic groq google-genai").split()
CALLED = [sdk for sdk in EVERY_SDK if (sdk.sdk or sdk.name) in NAMED]
OUT_OF_REACH = {"xai-sdk", "voyageai"}

CUSTOMERS = ("acme", "globex")

colours = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
every_way = pytest.mark.parametrize(
    ("sdk", "way"), [pytest.param(sdk, way, id=f"{sdk.name}, {way}") for sdk in CALLED for way in sdk.ways]
)


def every_call(*, of: Callable[[SdkCall], bool], without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """A test for each of these calls, without those of some SDKs."""
    return pytest.mark.parametrize(
        ("sdk", "what"),
        [
            pytest.param(sdk, what, id=f"{sdk.name} {what.name}")
            for sdk in CALLED
            for what in sdk.calls
            if of(what) and sdk.name not in without
        ],
    )


def metered(
    sdk: CalledSdk,
    use: Callable[[Any], Awaitable[None]],
    *,
    asynchronous: bool,
    way: Way | None = None,
    **tracking: Any,
) -> tuple[list[UsageEvent], Provider]:
    """What is recorded, and the provider, when the SDK's client is used so."""
    provider = Provider(seed=7, refusals=0.3)
    tables = [replace(each, hosts=("127.0.0.1",)) for each in PROVIDERS if each.id == sdk.provider]
    tracking["provider"] = sdk.provider

    async def run(url: str) -> None:
        if asynchronous:
            async with connected_async(sdk, url, way=way, **tracking) as client:
                await use(client)
        else:
            with connected(sdk, url, way=way, **tracking) as client:
                await use(client)

    with Loopback(provider) as server, capture_usage() as events:
        if way == "instrument":
            instrument(tracker=Tracker(providers=tables))
        try:
            asyncio.run(run(server.url))
        finally:
            uninstrument()
    return events, provider


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_tried(name: str) -> None:
    """Every SDK that is said to be here has calls that can be made, or is known to be out of reach."""
    rows = [sdk for sdk in CALLED if name == (sdk.sdk or sdk.name)]
    assert all(sdk.installed for sdk in rows)
    assert bool(rows) is (name not in OUT_OF_REACH)


@colours
@every_way
def test_what_is_stated_is_what_is_recorded(sdk: CalledSdk, way: Way, *, asynchronous: bool) -> None:
    """Every call of either customer's is one event with usage, to the unit, however often it is told.

    Attempts that were refused, and calls that only start what others tell of, are events of no usage.
    """

    async def use(client: Any) -> None:
        for customer in CUSTOMERS:
            for what in sdk.calls:
                headers = tracking_headers(customer) if what.elsewhere else {}
                with customer_context(customer):
                    if asynchronous:
                        await call_async(client, what, headers)
                    else:
                        call(client, what, headers)

    events, provider = metered(sdk, use, asynchronous=asynchronous, way=way)

    # Results that are fetched again bear the same id, by which sinks know them.
    told_once = {event.event_id: event for event in events if event.usage_status != "none"}
    answered = list(told_once.values())
    assert [event.customer_id for event in answered] == [each for each in CUSTOMERS for _ in sdk.calls]
    assert sum(event.outcome == "error" for event in events) == provider.refused
    for event, stated in zip(answered, provider.stated, strict=True):
        assert counted(event) == told(stated)
        said = (event.provider, event.model, event.response_id or "", event.streaming)
        assert said == (stated.provider, stated.model, stated.response_id, stated.streaming)
        assert event.usage_status == "complete"


async def made_inside_and_read_outside(
    client: Any, what: SdkCall, headers: dict[str, str], *, asynchronous: bool
) -> None:
    """A call in a customer's context, whose answer is read when that is over."""
    with customer_context("of the call"):
        answer = ((what.make_async if asynchronous else None) or what.make)(client, headers)
        if hasattr(answer, "__await__"):
            answer = await answer
    if not what.streaming:
        return
    with customer_context("of the reader"):
        if asynchronous:
            async for _ in answer:
                pass
        else:
            for _ in answer:
                pass


@colours
@every_call(of=lambda what: what.streaming)
def test_whose_an_answer_is_that_is_read_elsewhere(
    sdk: CalledSdk, what: SdkCall, *, asynchronous: bool
) -> None:
    """A request that leaves with the call is the caller's; one that waits for a reader is the reader's."""

    async def use(client: Any) -> None:
        await made_inside_and_read_outside(client, what, {}, asynchronous=asynchronous)

    events, _ = metered(sdk, use, asynchronous=asynchronous)

    assert {event.customer_id for event in events} == {"of the reader" if what.later else "of the call"}


@colours
@every_call(of=lambda what: what.later or what.elsewhere, without=("ollama",))
def test_a_header_names_the_customer_wherever_a_request_leaves(
    sdk: CalledSdk, what: SdkCall, *, asynchronous: bool
) -> None:
    """Headers of the call are kept until it is sent, in whatever context; ollama's calls take none."""

    async def use(client: Any) -> None:
        headers = tracking_headers("of the header")
        await made_inside_and_read_outside(client, what, headers, asynchronous=asynchronous)

    events, _ = metered(sdk, use, asynchronous=asynchronous)

    assert {event.customer_id for event in events} == {"of the header"}


@every_call(of=lambda what: what.elsewhere)
def test_a_thread_of_the_sdks_own_knows_the_clients_customer_only(sdk: CalledSdk, what: SdkCall) -> None:
    """A request from an SDK's own thread has no context; the client's customer is what is left."""

    async def use(client: Any) -> None:
        await made_inside_and_read_outside(client, what, {}, asynchronous=False)

    nobody, _ = metered(sdk, use, asynchronous=False)
    own, _ = metered(sdk, use, asynchronous=False, customer_id="of the client")

    assert [event.customer_id for event in nobody] == [None]
    assert [event.customer_id for event in own] == ["of the client"]


def test_the_doctor_proves_them(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor calls each of them, and names those that it cannot reach."""
    monkeypatch.setenv("CMDRDATA_HOME", str(tmp_path))
    proofs = prove()
    assert [each for each in proofs.calls if not each.metered] == []
    assert {each.sdk for each in proofs.calls} >= {sdk.name for sdk in CALLED}
    assert {each.name for each in installed_sdks() if each.library is None} == OUT_OF_REACH & {*NAMED}
