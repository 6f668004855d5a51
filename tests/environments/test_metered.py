"""Each installed SDK, of whatever release, is metered to the token: in this environment and in others.

`run.py` beside this file runs it against other releases; `CMDRDATA_TEST_SDKS` then names those that
are installed there. It needs pytest and the SDK, nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cmdrdata_transport import customer_context, track, tracked_async_http_client, tracked_http_client
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ALL = "openai anthropic groq google-genai"
SDKS = (os.environ.get("CMDRDATA_TEST_SDKS") or ALL).split()

MESSAGES = [{"role": "user", "content": "Hello"}]


def openai_chat(client: Any, *, streaming: bool) -> Any:
    """OpenAI's chat completions, whose streams state usage when asked."""
    options = {"stream": True, "stream_options": {"include_usage": True}} if streaming else {}
    return client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, **options)


def groq_chat(client: Any, *, streaming: bool) -> Any:
    """Groq's chat completions, whose streams always do."""
    return client.chat.completions.create(model="openai/gpt-oss-20b", messages=MESSAGES, stream=streaming)


def message(client: Any, *, streaming: bool) -> Any:
    """Anthropic's messages."""
    return client.messages.create(
        model="claude-haiku-4-5", max_tokens=64, messages=MESSAGES, stream=streaming
    )


def generate(client: Any, *, streaming: bool) -> Any:
    """Gemini's generateContent."""
    models = client.models
    return (models.generate_content_stream if streaming else models.generate_content)(
        model="gemini-2.5-flash", contents="Hello"
    )


CALLS: dict[str, Callable[..., Any]] = {
    "openai": openai_chat,
    "groq": groq_chat,
    "anthropic": message,
    "google-genai": generate,
}
CLASSES = {
    "openai": ("OpenAI", "AsyncOpenAI"),
    "groq": ("Groq", "AsyncGroq"),
    "anthropic": ("Anthropic", "AsyncAnthropic"),
}


def readable(answer: Answer) -> Answer:
    """An answer without U+2028, at which google-genai before 3 cuts an event in two, and fails."""
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    body = body.replace("\u2028".encode(), b" ")
    return replace(answer, body=[body[at : at + 61] for at in range(0, len(body), 61)], chunked=True)


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


def close_later(stack: AsyncExitStack, closeable: Any) -> None:
    """Close a client of either colour when the stack ends."""

    async def close() -> None:
        await both(closeable.aclose() if hasattr(closeable, "aclose") else closeable.close())

    stack.push_async_callback(close)


def google_client(stack: AsyncExitStack, url: str, way: str) -> Any:
    """genai.Client, tracked in one of the two ways."""
    genai = importlib.import_module("google.genai")
    options: dict[str, Any] = {"base_url": url}
    if way == "given client":
        options["httpx_client"] = tracked_http_client("google-genai")
        options["httpx_async_client"] = tracked_async_http_client("google-genai")
    client = genai.Client(api_key="none", http_options=options)
    if way == "track":
        assert track(client) is client
    close_later(stack, client._api_client._httpx_client)
    close_later(stack, client._api_client._async_httpx_client)
    return client


def sdk_client(stack: AsyncExitStack, sdk: str, url: str, way: str, *, asynchronous: bool) -> Any:
    """The SDK's object, tracked in one of the two ways, that talks to the loopback provider."""
    if sdk == "google-genai":
        client = google_client(stack, url, way)
        return client.aio if asynchronous else client
    kind = getattr(importlib.import_module(sdk), CLASSES[sdk][asynchronous])
    options: dict[str, Any] = {"api_key": "none", "base_url": f"{url}/v1" if sdk == "openai" else url}
    if way == "given client":
        make = tracked_async_http_client if asynchronous else tracked_http_client
        options["http_client"] = make(kind)
    client = kind(**options)
    if way == "track":
        assert track(client) is client
    close_later(stack, client)
    return client


@pytest.mark.parametrize("way", ["given client", "track"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("sdk", SDKS)
def test_what_the_provider_states_is_what_is_recorded(
    sdk: str, way: str, *, asynchronous: bool, streaming: bool
) -> None:
    """Every call of the SDK gives one event with exactly the tokens that the provider stated."""
    provider = Provider(seed=7)

    def handler(call: Call) -> Answer:
        return readable(provider(call))

    async def run(url: str) -> None:
        async with AsyncExitStack() as stack:
            client = sdk_client(stack, sdk, url, way, asynchronous=asynchronous)
            for customer in ("acme", "globex"):
                with customer_context(customer):
                    answer = await both(CALLS[sdk](client, streaming=streaming))
                    if streaming:
                        assert [item async for item in items(answer)]

    with Loopback(handler) as server, capture_usage() as events:
        asyncio.run(run(server.url))

    assert [event.customer_id for event in events] == ["acme", "globex"]
    assert len(provider.stated) == 2
    for event, stated in zip(events, provider.stated, strict=True):
        recorded = {unit: getattr(event.usage, unit) for unit in stated.units}
        assert recorded == dict(stated.units)
        assert (event.usage_status, event.outcome, event.streaming) == ("complete", "ok", streaming)
        assert event.model == stated.model


@pytest.mark.skipif("google-genai" not in SDKS, reason="google-genai is not installed here")
def test_where_google_takes_no_client_track_is_named() -> None:
    """Releases before 1.42 or so have no option for an HTTP client; asking for one says what to do."""
    options = importlib.import_module("google.genai.types").HttpOptions
    if "httpx_client" in options.model_fields:
        tracked_http_client("google-genai").close()
    else:
        with pytest.raises(TrackingSetupError, match=r"call track\(\) on it"):
            tracked_http_client("google-genai")
