"""Under httpx2-pytest, which can't be installed beside pytest-httpx2: what it answers is metered.

Not collected with the others, because it needs that plugin; `run.py` beside this file runs it.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest

from cmdrdata_transport import customer_context, tracked_async_http_client, tracked_http_client

if TYPE_CHECKING:
    from cmdrdata_transport import UsageEvent

CHAT = '"id":"c1","created":1,"model":"gpt-5","choices":[]'
USAGE = '"usage":{"prompt_tokens":21,"completion_tokens":5,"total_tokens":26}'
WHOLE = f'{{"object":"chat.completion",{CHAT},{USAGE}}}'
EVENTS = [
    f'data: {{"object":"chat.completion.chunk",{CHAT}}}\n\n'.encode(),
    f'data: {{"object":"chat.completion.chunk",{CHAT},{USAGE}}}\n\n'.encode(),
    b"data: [DONE]\n\n",
]

# The module of this name that is installed for development is the other plugin's, and lacks it.
IteratorStream: Any = importlib.import_module("pytest_httpx2").IteratorStream

colours = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


async def chat(*, asynchronous: bool, **options: Any) -> None:
    """One chat, read to its end."""
    options |= {"model": "gpt-5", "messages": []}
    with customer_context("acme"):
        if asynchronous:
            http = tracked_async_http_client("openai")
            async with openai.AsyncOpenAI(api_key="none", http_client=http, max_retries=0) as client:
                answer = await client.chat.completions.create(**options)
                if "stream" in options:
                    assert len([chunk async for chunk in answer]) == 2
        else:
            http = tracked_http_client("openai")
            with openai.OpenAI(api_key="none", http_client=http, max_retries=0) as client:
                answer = client.chat.completions.create(**options)
                if "stream" in options:
                    assert len(list(answer)) == 2


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@colours
def test_a_mocked_answer_is_metered(
    httpx2_mock: Any, cmdrdata_usage: list[UsageEvent], *, asynchronous: bool, streaming: bool
) -> None:
    """What the plugin answers is recorded as the provider's own answer would be."""
    if streaming:
        httpx2_mock.add_response(headers={"content-type": "text/event-stream"}, stream=IteratorStream(EVENTS))
    else:
        httpx2_mock.add_response(headers={"content-type": "application/json"}, text=WHOLE)
    asked = {"stream": True, "stream_options": {"include_usage": True}} if streaming else {}
    asyncio.run(chat(asynchronous=asynchronous, **asked))
    [event] = cmdrdata_usage
    assert (event.customer_id, event.provider, event.usage_status) == ("acme", "openai", "complete")
    assert (event.usage.input_tokens, event.usage.output_tokens) == (21, 5)


@colours
def test_a_mocked_failure_is_a_failure(
    httpx2_mock: Any, cmdrdata_usage: list[UsageEvent], *, asynchronous: bool
) -> None:
    """A timeout that the plugin raises reaches the application, and is an attempt of unknown outcome."""
    httpx2_mock.add_exception(httpx2.ReadTimeout("too slow"))
    with pytest.raises(openai.APITimeoutError):
        asyncio.run(chat(asynchronous=asynchronous))
    [event] = cmdrdata_usage
    assert (event.outcome, event.usage_status) == ("unknown", "none")
