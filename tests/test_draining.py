"""With `on_early_close="drain"` the rest of a stream that was closed early is read, and counts whole."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import trio
from exchange import WAYS, Way

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport import (
    Tracker,
    TrackingSetupError,
    UsageEvent,
    customer_context,
    tracked_async_http_client,
    tracked_http_client,
)
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.draining import MOST_AT_ONCE

CHUNKS = [
    b'data: {"id":"chatcmpl-1","model":"gpt-5","choices":[{"delta":{"content":"SECRET"}}]}\n\n',
    b'data: {"id":"chatcmpl-1","model":"gpt-5","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n',
    b"data: [DONE]\n\n",
]
ASK = {"model": "gpt-5", "stream": True, "stream_options": {"include_usage": True}}
SSE = [("content-type", "text/event-stream")]

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


class Host:
    """A tracker that drains, its events, and the stats at the end."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.events: list[UsageEvent] = []
        options = {"on_early_close": "drain", "customer_id": "acme", **options}
        self.tracker = Tracker([self.keep], home=home, **options)

    def keep(self, events: list[UsageEvent]) -> None:
        """Take them."""
        self.events.extend(events)

    def told(self) -> list[tuple[str, str, int | None]]:
        """What was recorded, once there is something."""
        for _ in range(200):
            self.tracker.flush(50)
            if self.events:
                break
            time.sleep(0.05)
        return [(each.usage_status, each.outcome, each.usage.total_tokens) for each in self.events]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """One of them."""
    host = Host(tmp_path)
    yield host
    host.tracker.close(50)


def paced(release: threading.Event, patience: float = 10) -> Callable[[Call], Answer]:
    """A provider whose answers go on behind the first chunk when they are released."""

    def answer(_: Call) -> Answer:
        return Answer(headers=SSE, body=CHUNKS, before_chunk=lambda at: at and release.wait(patience))

    return answer


def client_of(way: Way, tracker: Tracker, max_connections: int = 100) -> Any:
    """A tracked client over real sockets, which waits for a provider as long as it takes."""
    library: Any = httpx if way.library == "httpx" else httpx2
    ours: Any = over_httpx if way.library == "httpx" else over_httpx2
    limits = library.Limits(max_connections=max_connections)
    timeout = library.Timeout(5, read=None)
    if way.is_async:
        inner = library.AsyncHTTPTransport(limits=limits)
        return library.AsyncClient(
            transport=ours.AsyncTrackedTransport(inner, tracker=tracker), timeout=timeout
        )
    inner = library.HTTPTransport(limits=limits)
    return library.Client(transport=ours.TrackedTransport(inner, tracker=tracker), timeout=timeout)


async def begin_and_close(way: Way, client: Any, url: str, *, read: int = 1) -> None:
    """Read so many chunks of a stream, and close it."""
    request = client.build_request("POST", f"{url}/v1/chat/completions", json=ASK)
    if way.is_async:
        response = await client.send(request, stream=True)
        chunks = response.aiter_raw()
        for _ in range(read):
            await anext(chunks)
        await response.aclose()
        await chunks.aclose()
    else:
        response = client.send(request, stream=True)
        chunks = response.iter_raw()
        for _ in range(read):
            next(chunks)
        response.close()


async def end(way: Way, client: Any) -> None:
    """Close a client."""
    if way.is_async:
        await client.aclose()
    else:
        client.close()


@every_way
def test_the_rest_is_read_and_the_caller_does_not_wait(way: Way, host: Host) -> None:
    """Closing returns at once, while the provider is still at it; its usage is known when it is done."""
    release = threading.Event()

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker)
        await begin_and_close(way, client, url)
        assert host.events == []
        release.set()  # so closing has not waited for this
        for _ in range(200):
            await asyncio.sleep(0.01)
            if host.tracker.stats().get("drained"):
                break
        await end(way, client)

    with Loopback(paced(release)) as server:
        asyncio.run(tell(server.url))
    assert host.told() == [("complete", "ok", 12)]
    assert host.tracker.stats()["drained"] == 1


@every_way
def test_the_connection_goes_back_to_its_pool(way: Way, host: Host) -> None:
    """When the rest has been read, the next call goes through the same connection."""
    release = threading.Event()
    release.set()

    async def tell(server: Loopback) -> None:
        client = client_of(way, host.tracker)
        for calls in (1, 2):
            await begin_and_close(way, client, server.url)
            for _ in range(200):
                await asyncio.sleep(0.01)
                if host.tracker.stats().get("drained") == calls:
                    break
            await asyncio.sleep(0.05)
        await end(way, client)

    with Loopback(paced(release)) as server:
        asyncio.run(tell(server))
        assert {call.connection for call in server.calls} == {1}
    assert [each[0] for each in host.told()] == ["complete", "complete"]


@every_way
def test_what_takes_too_long_is_partial(way: Way, tmp_path: Path) -> None:
    """Nobody waits longer than was asked for; then what is known counts, as it would have."""
    host = Host(tmp_path, drain_seconds=0.2)
    release = threading.Event()

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker)
        await begin_and_close(way, client, url)
        for _ in range(300):
            await asyncio.sleep(0.01)
            if host.tracker.stats().get("drain_given_up"):
                break
        release.set()
        await end(way, client)

    with Loopback(paced(release)) as server:
        asyncio.run(tell(server.url))
    assert host.told() == [("partial", "cancelled", None)]
    host.tracker.close(50)


@every_way
def test_a_stream_that_breaks_meanwhile_is_partial(way: Way, host: Host) -> None:
    """A connection that is lost while the rest is read raises nowhere."""

    def answer(_: Call) -> Answer:
        return Answer(headers=SSE, body=CHUNKS, close_after=2)

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker)
        await begin_and_close(way, client, url)
        for _ in range(200):
            await asyncio.sleep(0.01)
            if host.tracker.stats().get("drain_given_up"):
                break
        await end(way, client)

    with Loopback(answer) as server:
        asyncio.run(tell(server.url))
    assert host.told() == [("partial", "cancelled", None)]


@every_way
def test_a_stream_that_is_read_to_its_end_needs_no_draining(way: Way, host: Host) -> None:
    """Nothing is different where nothing is closed early."""
    release = threading.Event()
    release.set()

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker)
        await begin_and_close(way, client, url, read=len(CHUNKS))
        await end(way, client)

    with Loopback(paced(release)) as server:
        asyncio.run(tell(server.url))
    assert host.told() == [("complete", "ok", 12)]
    assert not {"drained", "drain_given_up"} & set(host.tracker.stats())


# The libraries leave generators of theirs to the collector, which trio warns of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_trio_it_is_partial(host: Host) -> None:
    """There is no task of ours on trio: the stream is closed, and counts as far as it came."""
    way = Way(library="httpx2", is_async=True)
    release = threading.Event()
    release.set()

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker)
        await begin_and_close(way, client, url)
        await end(way, client)

    with Loopback(paced(release)) as server:
        trio.run(tell, server.url)
    assert host.told() == [("partial", "cancelled", None)]


def test_a_client_that_is_closed_meanwhile_is_partial(host: Host) -> None:
    """Closing a client closes its connections, also those that are read on."""
    way = Way(library="httpx2", is_async=True)
    release = threading.Event()

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker)
        await begin_and_close(way, client, url)
        await asyncio.sleep(0)
        await end(way, client)
        release.set()
        await asyncio.sleep(0.1)

    with Loopback(paced(release)) as server:
        asyncio.run(tell(server.url))
    assert host.told() == [("partial", "cancelled", None)]


def test_a_stream_that_is_dropped_and_never_closed_is_partial(host: Host) -> None:
    """Garbage collection starts nothing: what is only dropped counts as far as it came."""
    release = threading.Event()
    release.set()
    with Loopback(paced(release)) as server, client_of(WAYS[0], host.tracker) as client:
        response = client.send(
            client.build_request("POST", f"{server.url}/v1/chat/completions", json=ASK), stream=True
        )
        chunks = response.iter_raw()
        next(chunks)
        del response, chunks
        gc.collect()
        assert host.told() == [("partial", "cancelled", None)]


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_the_sdks_streams_are_read_on_too(sdk: str, host: Host) -> None:
    """Breaking out of an SDK's stream and closing it gives the usage that the provider stated."""
    provider = Provider(seed=5)
    messages: Any = [{"role": "user", "content": "SECRET"}]

    def call(url: str) -> None:
        http = tracked_http_client(sdk, tracker=host.tracker, include_usage=True)
        if sdk == "openai":
            client: Any = openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http)
            stream = client.chat.completions.create(model="gpt-5", messages=messages, stream=True)
        else:
            client = anthropic.Anthropic(base_url=url, api_key="none", http_client=http)
            stream = client.messages.create(
                model="claude-haiku-4-5", max_tokens=9, messages=messages, stream=True
            )
        for _ in stream:
            break
        stream.close()
        host.told()
        client.close()

    async def call_async(url: str) -> None:
        http = tracked_async_http_client(sdk, tracker=host.tracker, include_usage=True)
        if sdk == "openai":
            client: Any = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", http_client=http)
            stream = await client.chat.completions.create(model="gpt-5", messages=messages, stream=True)
        else:
            client = anthropic.AsyncAnthropic(base_url=url, api_key="none", http_client=http)
            stream = await client.messages.create(
                model="claude-haiku-4-5", max_tokens=9, messages=messages, stream=True
            )
        async for _ in stream:
            break
        await stream.close()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if host.tracker.stats().get("drained") == 2:
                break
        await client.close()

    with Loopback(provider) as server:
        call(server.url)
        asyncio.run(call_async(server.url))
    host.tracker.flush(50)
    assert [each.usage_status for each in host.events] == ["complete", "complete"]
    assert [each.usage.output_tokens for each in host.events] == [
        each.units["output_tokens"] for each in provider.stated
    ]


def test_what_is_being_read_when_the_process_ends_is_partial(tmp_path: Path) -> None:
    """The end of the process waits for no provider."""
    release = threading.Event()
    with Loopback(paced(release)) as server:
        subprocess.run([sys.executable, "-c", AT_EXIT, str(tmp_path), server.url], check=True, timeout=30)
        release.set()
    (segment,) = tmp_path.rglob("*.seg")
    assert segment.read_bytes().count(b'"usage_status":"partial"') == 1


def test_a_task_whose_event_loop_is_gone_is_partial(host: Host) -> None:
    """Nobody will ever go on with it: the next stream that is closed, or the end, has it counted."""
    release = threading.Event()
    with Loopback(paced(release)) as server:
        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(begin_and_close(WAYS[1], client_of(WAYS[1], host.tracker), server.url))
            loop.run_until_complete(asyncio.sleep(0.05))  # generators of httpx's own are closed by a task
            loop.close()
        release.set()
    assert host.told() == [("partial", "cancelled", None)]
    assert host.tracker.stats()["drain_given_up"] == 1


def test_what_an_event_loop_left_behind_counts_when_the_process_ends(tmp_path: Path) -> None:
    """The sinks are told of it, too: the trackers are closed after that."""
    release = threading.Event()
    with Loopback(paced(release)) as server:
        ended = subprocess.run(
            [sys.executable, "-c", LOOP_GONE, str(tmp_path), server.url],
            check=True,
            timeout=30,
            capture_output=True,
        )
        release.set()
    assert b"told partial" in ended.stdout


LOOP_GONE = """
import asyncio, sys, httpx
from cmdrdata_transport.httpx import AsyncTrackedTransport
from cmdrdata_transport.tracker import Tracker

def tell(events):
    for event in events:
        print("told", event.usage_status)

tracker = Tracker([tell], home=sys.argv[1], on_early_close="drain", customer_id="acme")

async def main():
    client = httpx.AsyncClient(transport=AsyncTrackedTransport(httpx.AsyncHTTPTransport(), tracker=tracker))
    request = client.build_request("POST", sys.argv[2] + "/v1/chat/completions", json={"model": "gpt-5"})
    response = await client.send(request, stream=True)
    await anext(response.aiter_raw())
    await response.aclose()

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
"""


def test_what_took_too_long_is_not_counted_as_read_too(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """A stream that was given up is given up, also when its provider goes on after that."""
    release = threading.Event()
    host = Host(tmp_path, drain_seconds=0.05)
    with Loopback(paced(release)) as server, client_of(WAYS[0], host.tracker) as client:
        asyncio.run(begin_and_close(WAYS[0], client, server.url))
        assert host.told() == [("partial", "cancelled", None)]
        release.set()
        for reader in readers(started()):
            reader.join(50)
    stats = host.tracker.stats()
    host.tracker.close(50)
    assert (stats["drain_given_up"], stats.get("drained")) == (1, None)


@every_way
def test_a_provider_that_falls_silent_holds_no_connection(way: Way, tmp_path: Path) -> None:
    """The next call of a pool that has no room for two goes out while that provider is silent still."""
    release = threading.Event()
    host = Host(tmp_path, drain_seconds=0.05)

    async def tell(url: str) -> None:
        client = client_of(way, host.tracker, max_connections=1)
        for _ in range(2):
            await begin_and_close(way, client, url)
        assert not release.is_set()
        await end(way, client)

    with Loopback(paced(release, patience=60)) as server:
        asyncio.run(tell(server.url))
        release.set()
    host.tracker.close(50)
    assert {each[0] for each in host.told()} == {"partial"}


def test_no_more_are_read_at_once_than_may_be(
    host: Host, started: Callable[[], list[threading.Thread]]
) -> None:
    """However fast they are closed; the others are closed as ever."""
    release = threading.Event()
    with Loopback(paced(release)) as server, client_of(WAYS[0], host.tracker) as client:
        for _ in range(MOST_AT_ONCE + 6):
            asyncio.run(begin_and_close(WAYS[0], client, server.url))
        held = readers(started())
        release.set()
        for reader in held:
            reader.join(50)
        host.tracker.close(50)
    assert len(held) <= MOST_AT_ONCE
    assert Counter(each.usage_status for each in host.events) == {"complete": MOST_AT_ONCE, "partial": 6}


def test_where_no_thread_can_be_started_it_is_partial(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is read, if there is room by then."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if threading.current_thread().name == "cmdrdata drain":
            raise RuntimeError("can't start new thread")
        start(thread)

    release = threading.Event()
    with Loopback(paced(release)) as server, client_of(WAYS[0], host.tracker) as client:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        asyncio.run(begin_and_close(WAYS[0], client, server.url))
        assert host.told() == [("partial", "cancelled", None)]
        monkeypatch.undo()
        host.events.clear()
        release.set()
        asyncio.run(begin_and_close(WAYS[0], client, server.url))
        assert host.told() == [("complete", "ok", 12)]


def readers(threads: list[threading.Thread]) -> list[threading.Thread]:
    """The threads that read on, without the one that waits for streams."""
    return [each for each in threads if each.name == "cmdrdata drain reading"]


AT_EXIT = """
import sys, httpx
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.tracker import Tracker

def refuse(events):
    raise ConnectionError

tracker = Tracker([refuse], home=sys.argv[1], on_early_close="drain", exit_timeout=0.1, customer_id="acme")
client = httpx.Client(transport=TrackedTransport(httpx.HTTPTransport(), tracker=tracker))
request = client.build_request("POST", sys.argv[2] + "/v1/chat/completions", json={"model": "gpt-5"})
response = client.send(request, stream=True)
next(response.iter_raw())
response.close()
"""


@pytest.mark.parametrize(
    "options",
    [{"on_early_close": "wait"}, {"drain_seconds": 0}, {"drain_seconds": True}, {"drain_seconds": "1"}],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """The error names the option."""
    with pytest.raises(TrackingSetupError, match=f"{next(iter(options))}= takes"):
        Tracker([], **options)


def test_many_at_once(host: Host) -> None:
    """Each of many streams that are closed at once is read to its end by itself."""
    release = threading.Event()
    with Loopback(paced(release)) as server, client_of(WAYS[0], host.tracker) as client:
        for number in range(20):
            with customer_context(f"c{number}"):
                asyncio.run(begin_and_close(WAYS[0], client, server.url))
        release.set()
        for _ in range(200):
            host.tracker.flush(50)
            if len(host.events) == 20:
                break
            time.sleep(0.02)
    assert {each.usage_status for each in host.events} == {"complete"}
    assert {each.customer_id for each in host.events} == {f"c{number}" for number in range(20)}


def test_the_ledger_has_what_the_provider_bills_however_streams_are_left(host: Host) -> None:
    """A provider bills what it generates, read or not; with draining the sums are the same, to the token."""
    provider = Provider(seed=11)
    messages: Any = [{"role": "user", "content": "SECRET"}]
    with Loopback(provider) as server:
        http = tracked_http_client("openai", tracker=host.tracker, include_usage=True)
        claude_http = tracked_http_client("anthropic", tracker=host.tracker)
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=http) as gpt,
            anthropic.Anthropic(base_url=server.url, api_key="none", http_client=claude_http) as claude,
        ):
            for number in range(24):
                stream: Any = (
                    gpt.chat.completions.create(model="gpt-5", messages=messages, stream=True, seed=number)
                    if number % 2
                    else claude.messages.create(
                        model="claude-haiku-4-5", max_tokens=9 + number, messages=messages, stream=True
                    )
                )
                for place, _ in enumerate(stream):
                    if place == number % 5:
                        break
                stream.close()
            for _ in range(300):
                host.tracker.flush(50)
                if len(host.events) == 24:
                    break
                time.sleep(0.02)
    for unit in ("input_tokens", "output_tokens"):
        assert sum(getattr(each.usage, unit) or 0 for each in host.events) == provider.total(unit)
    assert {each.usage_status for each in host.events} == {"complete"}
