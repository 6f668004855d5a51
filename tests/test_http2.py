"""Over HTTP/2, where many streams share a connection and the SDKs end them differently."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from http2_server import Http2Server

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport import Tracker, UsageEvent

MESSAGES: Any = [{"role": "user", "content": "SECRET"}]
ASK: Any = {"model": "gpt-5", "messages": MESSAGES, "stream": True}


def chunk(**more: Any) -> bytes:
    """One event of a chat completion's stream."""
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-5", "created": 1, **more}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


CHUNKS = [
    chunk(choices=[{"index": 0, "delta": {"content": "SECRET"}}]),
    chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
    chunk(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
    b"data: [DONE]\n\n",
]


class Kept:
    """A tracker, and what it has recorded."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.events: list[UsageEvent] = []
        self.tracker = Tracker([self.keep], home=home, customer_id="acme", include_usage=True, **options)

    def keep(self, events: list[UsageEvent]) -> None:
        """Take them."""
        self.events.extend(events)

    def told(self) -> list[tuple[str, str, int | None]]:
        """What was recorded."""
        assert self.tracker.flush(50)
        return [(each.usage_status, each.outcome, each.usage.total_tokens) for each in self.events]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """One of them."""
    made = Kept(tmp_path)
    yield made
    made.tracker.close(50)


@contextmanager
def client_of(library: Any, kept: Kept, url: str) -> Iterator[openai.OpenAI]:
    """The SDK's sync client, over HTTP/2 and nothing else."""
    ours: Any = over_httpx if library is httpx else over_httpx2
    below = library.HTTPTransport(http1=False, http2=True)
    with (
        library.Client(transport=ours.TrackedTransport(below, tracker=kept.tracker)) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http, max_retries=0) as client,
    ):
        yield client


@asynccontextmanager
async def async_client_of(library: Any, kept: Kept, url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The same, async."""
    ours: Any = over_httpx if library is httpx else over_httpx2
    below = library.AsyncHTTPTransport(http1=False, http2=True)
    async with (
        library.AsyncClient(transport=ours.AsyncTrackedTransport(below, tracker=kept.tracker)) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http, max_retries=0) as client,
    ):
        yield client


libraries = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@libraries
def test_read_to_the_end(library: Any, kept: Kept) -> None:
    """The event is whole, and the application sees what it would without us: two chunks, and no usage."""

    async def read(url: str) -> None:
        async with async_client_of(library, kept, url) as client:
            stream = await client.chat.completions.create(**ASK)
            assert [each.usage async for each in stream] == [None, None]

    with Http2Server(CHUNKS) as server:
        with client_of(library, kept, server.url) as client:
            assert [each.usage for each in client.chat.completions.create(**ASK)] == [None, None]
        asyncio.run(read(server.url))
    assert kept.told() == [("complete", "ok", 12)] * 2


@libraries
def test_many_streams_on_one_connection(library: Any, kept: Kept) -> None:
    """Streams that come at the same time are told apart."""

    async def read(client: openai.AsyncOpenAI) -> None:
        async for _ in await client.chat.completions.create(**ASK):
            pass

    async def read_all(url: str) -> None:
        async with async_client_of(library, kept, url) as client:
            await read(client)
            await asyncio.gather(*(read(client) for _ in range(9)))

    with Http2Server(CHUNKS) as server:
        asyncio.run(read_all(server.url))
        assert server.connections == 1
    assert kept.told() == [("complete", "ok", 12)] * 10


@libraries
@pytest.mark.parametrize("end", ["close", "cancel"])
def test_left_early(library: Any, end: str, kept: Kept) -> None:
    """A stream that is closed or cancelled is partial; its connection goes on."""
    gate = threading.Event()

    async def leave(url: str) -> None:
        async with async_client_of(library, kept, url) as client:
            stream = await client.chat.completions.create(**ASK)
            await anext(stream)
            if end == "close":
                await stream.close()
            else:
                waiting = asyncio.create_task(anext(stream))
                await asyncio.sleep(0.05)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await stream.close()
            gate.set()
            async for _ in await client.chat.completions.create(**ASK):
                pass

    with Http2Server(CHUNKS, gate) as server:
        asyncio.run(leave(server.url))
    assert kept.told() == [("partial", "cancelled", None), ("complete", "ok", 12)]


@libraries
def test_the_rest_is_read_where_that_is_asked_for(library: Any, tmp_path: Path) -> None:
    """A stream that was closed early is read to its end beside the others on its connection."""
    gate = threading.Event()
    kept = Kept(tmp_path, on_early_close="drain")

    async def leave(url: str) -> None:
        async with async_client_of(library, kept, url) as client:
            stream = await client.chat.completions.create(**ASK)
            await anext(stream)
            await stream.close()
            gate.set()
            for _ in range(300):
                await asyncio.sleep(0.01)
                if kept.tracker.stats().get("drained"):
                    break

    with Http2Server(CHUNKS, gate) as server:
        asyncio.run(leave(server.url))
        assert server.resets == 0
    assert kept.told() == [("complete", "ok", 12)]
    kept.tracker.close(50)
