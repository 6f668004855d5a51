"""Applications see through their SDKs what they would see without us, though usage was asked for.

Each SDK streams from the scripted provider twice, with a bare client and with one that asks for usage where
nobody did; every object that it gives is compared, and the event is what the provider stated. `run.py`
beside this file runs it where these SDKs are; `CMDRDATA_TEST_SDKS` then names those installed there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from cmdrdata_transport import tracked_async_http_client, tracked_http_client
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from random import Random

NAMED = (os.environ.get("CMDRDATA_TEST_SDKS") or "openai groq").split()
SEEDS = range(12)

ASK: dict[str, Any] = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}


async def both(value: Any) -> Any:
    """A value, awaited where it has to be."""
    return await value if hasattr(value, "__await__") else value


async def items(value: Any) -> AsyncIterator[Any]:
    """What a stream of either colour holds."""
    if hasattr(value, "__aiter__"):
        async for item in value:
            yield item
    else:
        for item in value:
            yield item


class Unmoved(Provider):
    """The same text to the same question, whether it asks for usage or not."""

    def _random(self, call: Call, account: str | None) -> Random:
        body = json.loads(call.body)
        body.pop("stream_options", None)
        return super()._random(replace(call, body=json.dumps(body).encode()), account)


def shown(value: Any) -> Any:
    """What an application can see of an object of an SDK, without members `usage` that are null."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items() if key != "usage" or each is not None}
    return [shown(each) for each in value] if isinstance(value, list) else value


async def chunks(client: Any) -> list[Any]:
    """The stream that `create` gives."""
    stream = await both(client.chat.completions.create(**ASK, stream=True))
    return [shown(chunk) async for chunk in items(stream)]


async def raw(client: Any) -> list[Any]:
    """The raw response, and the stream that it is parsed to."""
    response = await both(client.chat.completions.with_raw_response.create(**ASK, stream=True))
    seen = [response.status_code, sorted(set(response.headers) - {"content-encoding", "vary"})]
    return seen + [shown(chunk) async for chunk in items(await both(response.parse()))]


async def lines(client: Any) -> list[Any]:
    """The lines of the response, as bytes."""
    async with AsyncExitStack() as stack:
        response = await entered(
            stack, client.chat.completions.with_streaming_response.create(**ASK, stream=True)
        )
        read = b"".join([chunk async for chunk in items(response.iter_bytes())]).decode().split("\n")
    return [shown(json.loads(line[6:])) if line.startswith("data: {") else line for line in read]


async def helper(client: Any) -> list[Any]:
    """The events of `.stream()`, and the completion that it puts together."""
    async with AsyncExitStack() as stack:
        stream = await entered(stack, client.chat.completions.stream(**ASK))
        seen = [
            shown(vars(event) if not hasattr(event, "model_dump") else event) async for event in items(stream)
        ]
        return [*seen, shown(await both(stream.get_final_completion()))]


async def mistral(client: Any) -> list[Any]:
    """The events of Mistral's stream."""
    chat = client.chat
    stream = chat.stream_async if hasattr(client, "_asking_async") else chat.stream
    async with AsyncExitStack() as stack:
        events = await entered(stack, await both(stream(**ASK)))
        return [shown(event) async for event in items(events)]


async def langchain(client: Any) -> list[Any]:
    """The messages that LangChain makes of a stream."""
    streamed = client.astream("Hello") if hasattr(client, "_asking_async") else client.stream("Hello")
    read = [shown(message) async for message in items(streamed)]
    for message in read:
        message.pop("id", None)  # its own, of each run
    return read


async def entered(stack: AsyncExitStack, manager: Any) -> Any:
    """A context manager of either colour."""
    if hasattr(manager, "__aenter__"):
        return await stack.enter_async_context(manager)
    return stack.enter_context(manager)


Make = Callable[[str, Any, bool], Any]
"""The SDK's object: for the server's URL and an HTTP client, which is async or not."""


def openai(url: str, http: Any, asynchronous: bool) -> Any:  # noqa: FBT001
    """OpenAI."""
    module = importlib.import_module("openai")
    kind = module.AsyncOpenAI if asynchronous else module.OpenAI
    return kind(api_key="none", base_url=f"{url}/v1", http_client=http)


def groq(url: str, http: Any, asynchronous: bool) -> Any:  # noqa: FBT001
    """Groq."""
    module = importlib.import_module("groq")
    return (module.AsyncGroq if asynchronous else module.Groq)(api_key="none", base_url=url, http_client=http)


def together(url: str, http: Any, asynchronous: bool) -> Any:  # noqa: FBT001
    """Together's, at a server of one's own."""
    module = importlib.import_module("together")
    kind = module.AsyncTogether if asynchronous else module.Together
    return kind(api_key="none", base_url=f"{url}/v1", http_client=http)


def mistralai(url: str, http: Any, asynchronous: bool) -> Any:  # noqa: FBT001
    """Mistral's, at a server of one's own."""
    kind = importlib.import_module("mistralai.client" if _is_new_mistral() else "mistralai").Mistral
    client = kind(api_key="none", server_url=url, **{"async_client" if asynchronous else "client": http})
    if asynchronous:
        client._asking_async = True
    return client


def _is_new_mistral() -> bool:
    return not hasattr(importlib.import_module("mistralai"), "Mistral")


def langchain_openai(url: str, http: Any, asynchronous: bool) -> Any:  # noqa: FBT001
    """LangChain's."""
    kind = importlib.import_module("langchain_openai").ChatOpenAI
    client = kind(
        model="gpt-5-mini",
        api_key="none",
        base_url=f"{url}/v1",
        stream_usage=False,
        **{"http_async_client" if asynchronous else "http_client": http},
    )
    if asynchronous:
        object.__setattr__(client, "_asking_async", True)
    return client


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """One SDK: how it is made, the ways to look at a stream, and whose client it takes."""

    make: Make
    looks: tuple[Callable[[Any], Awaitable[list[Any]]], ...]
    client_of: str
    provider: str | None = None
    asked: bool = True


SDKS = {
    "openai": Sdk(make=openai, looks=(chunks, raw, lines, helper), client_of="openai"),
    # Its streams state usage anyway, so that it is not asked.
    "groq": Sdk(make=groq, looks=(chunks, raw, lines), client_of="groq", provider="groq", asked=False),
    "together": Sdk(make=together, looks=(chunks, raw, lines), client_of="together"),
    "mistralai": Sdk(make=mistralai, looks=(mistral,), client_of="mistralai"),
    "langchain-openai": Sdk(make=langchain_openai, looks=(langchain,), client_of="openai"),
}

EVERY_LOOK = [
    pytest.param(SDKS[name], look, id=f"{name} {look.__name__}")
    for name in NAMED
    if name in SDKS
    for look in SDKS[name].looks
]


@pytest.mark.parametrize("coding", [None, pytest.param("gzip", marks=pytest.mark.slow)])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sdk", "look"), EVERY_LOOK)
def test_an_application_sees_what_it_would_see_without_us(
    sdk: Sdk, look: Callable[[Any], Awaitable[list[Any]]], coding: str | None, *, asynchronous: bool
) -> None:
    """For every seed: the same objects, but for `usage: null`; and one event with what was stated."""
    for seed in SEEDS:
        runs: dict[bool, list[Any]] = {}
        for tracked in (False, True):
            provider = Unmoved(seed=seed, gzipped=0.0)

            def handler(call: Call, provider: Provider = provider) -> Answer:
                return replace(provider(call), coding=coding)

            with Loopback(handler) as server, capture_usage() as events:
                runs[tracked] = asyncio.run(
                    _looked(sdk, look, server.url, tracked=tracked, asynchronous=asynchronous)
                )
            assert [b"include_usage" in call.body for call in server.calls] == [sdk.asked and tracked]
            if tracked:
                [event], [stated] = events, provider.stated
                assert {unit: getattr(event.usage, unit) for unit in stated.units} == dict(stated.units)
                assert (event.usage_status, event.outcome) == ("complete", "ok")
                assert event.model == stated.model
        assert runs[True] == runs[False]
        assert len(runs[False]) > 1


async def _looked(
    sdk: Sdk,
    look: Callable[[Any], Awaitable[list[Any]]],
    url: str,
    *,
    tracked: bool,
    asynchronous: bool,
) -> list[Any]:
    async with AsyncExitStack() as stack:
        make = tracked_async_http_client if asynchronous else tracked_http_client
        http = make(sdk.client_of, include_usage=True, provider=sdk.provider)
        if not tracked:
            http._transport = http._transport.unwrapped
        await entered(stack, http)
        return await look(sdk.make(url, http, asynchronous))
