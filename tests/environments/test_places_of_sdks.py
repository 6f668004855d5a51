"""`track` and `untrack` for SDKs that take no HTTP client, or make theirs when they call.

`run.py` beside this file runs it where such SDKs are installed; `CMDRDATA_TEST_SDKS` names them. It needs
pytest and the SDKs, nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

import pytest
from client_facts import installed_sdks, is_tracked, transports

from cmdrdata_transport import customer_context, track, untrack
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALLED = (os.environ.get("CMDRDATA_TEST_SDKS") or " ".join(installed_sdks())).split()


def needs(sdk: str) -> pytest.MarkDecorator:
    """A mark for the tests of one SDK."""
    return pytest.mark.skipif(sdk not in INSTALLED, reason=f"{sdk} is not installed here")


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
}
OLLAMA = {
    "model": "llama",
    "created_at": "2026-11-01T00:00:00Z",
    "message": {"role": "assistant", "content": "Hi"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 3,
    "eval_count": 5,
}


def answer(call: Call) -> Answer:
    """The answer of a chat, in the words of whoever asks."""
    return Answer.json(OLLAMA if call.path.startswith("/api/") else COMPLETION)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A provider of one answer."""
    with Loopback(answer) as loopback:
        yield loopback


def all_tracked(client: Any) -> bool:
    """Whether every transport of an HTTP client is tracked."""
    return all(is_tracked(each) for each in transports(client).values() if each is not None)


def none_tracked(client: Any) -> bool:
    """Whether no transport of an HTTP client is tracked."""
    return not any(is_tracked(each) for each in transports(client).values())


# ollama


@needs("ollama")
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_ollama_is_metered_until_it_is_untracked(server: Loopback, *, asynchronous: bool) -> None:
    """Client and AsyncClient are tracked in place."""
    ollama = importlib.import_module("ollama")
    client = (ollama.AsyncClient if asynchronous else ollama.Client)(host=server.url)
    messages = [{"role": "user", "content": "Hello"}]

    async def chat() -> None:
        answered = client.chat(model="llama", messages=messages)
        if asynchronous:
            await answered

    async def run() -> None:
        track(client, customer_id="acme")
        await chat()
        untrack(client)
        await chat()
        if asynchronous:
            await client._client.aclose()
        else:
            client._client.close()

    with capture_usage() as events:
        asyncio.run(run())

    assert [(event.customer_id, event.usage.total_tokens) for event in events] == [("acme", 8)]


@needs("ollama")
def test_ollamas_functions_are_metered_when_the_module_is_tracked(server: Loopback) -> None:
    """`ollama.chat` goes through a client of the module's, which `track(ollama)` finds."""
    ollama = importlib.import_module("ollama")
    ollama._client._client.base_url = server.url
    chat = ollama.chat

    with capture_usage() as events:
        assert track(ollama) is ollama
        chat(model="llama", messages=[{"role": "user", "content": "Hello"}])
        untrack(ollama)
        chat(model="llama", messages=[{"role": "user", "content": "Hello"}])
    ollama._client._client.close()

    assert [event.usage.total_tokens for event in events] == [8]


# replicate


def replicate_client(**options: Any) -> Any:
    """replicate.Client, of which no HTTP client has been made yet."""
    return importlib.import_module("replicate").Client(**options)


@needs("replicate")
def test_replicate_is_tracked_below_its_retries(server: Loopback) -> None:
    """Both its clients are made, and each attempt is seen: its retry transport stays above ours."""
    client = track(replicate_client(api_token="t", base_url=server.url))

    for http in (client._client, client._async_client):
        assert type(http._transport).__name__ == "RetryTransport"
        assert is_tracked(http._transport._wrapped_transport)

    async def run() -> None:
        async with client._async_client as http:
            await http.post("/v1/chat/completions", json={"model": "m"})

    with capture_usage() as events:
        asyncio.run(run())
        client._client.post("/v1/chat/completions", json={"model": "m"})
    assert [event.usage.total_tokens for event in events] == [8, 8]

    http = client._client
    http.close()
    untrack(client)
    assert client._client is http
    assert not is_tracked(http._transport._wrapped_transport)


@needs("replicate")
def test_a_transport_of_ones_own_below_replicates_is_tracked() -> None:
    """What was given as `transport=` is below ours, and back in its place when untracked."""
    httpx = importlib.import_module("httpx")
    mine = httpx.MockTransport(lambda _: httpx.Response(200, json=COMPLETION))
    client = track(replicate_client(api_token="t", transport=mine))

    assert client._client._transport._wrapped_transport.unwrapped is mine
    untrack(client)
    assert client._client._transport._wrapped_transport is mine


@needs("replicate")
def test_replicate_without_a_token_is_refused_and_may_have_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made without its token the client would fail at its first call: track() says so, and makes none."""
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    client = replicate_client()

    with pytest.raises(TrackingSetupError, match="set REPLICATE_API_TOKEN before track"):
        track(client)

    monkeypatch.setenv("REPLICATE_API_TOKEN", "t")
    assert track(client)._client.headers["authorization"] == "Bearer t"


@needs("replicate")
def test_replicates_functions_are_tracked_by_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """`replicate.run` goes through a client of the module's, which `track(replicate)` finds."""
    replicate = importlib.import_module("replicate")
    monkeypatch.setenv("REPLICATE_API_TOKEN", "t")

    track(replicate)

    assert is_tracked(replicate.default_client._client._transport._wrapped_transport)
    untrack(replicate)
    assert not is_tracked(replicate.default_client._client._transport._wrapped_transport)


# assemblyai


@needs("assemblyai")
def test_assemblyai_stays_tracked_when_its_settings_change() -> None:
    """A change of settings makes a new default client; it and every other new one are tracked."""
    assemblyai = importlib.import_module("assemblyai")
    assemblyai.settings.api_key = "k"
    first = assemblyai.Client.get_default()

    track(assemblyai)
    track(assemblyai)
    assemblyai.settings.http_timeout = 77.0
    second = assemblyai.Client.get_default()
    own = assemblyai.Transcriber(api_key="another")._client
    own_async = assemblyai.AsyncTranscriber(api_key="another")._client

    assert second is not first
    clients = [each.http_client for each in (first, second, own, own_async)]
    assert all(map(all_tracked, clients))
    with pytest.raises(TrackingSetupError, match=r"untrack\(assemblyai\) first"):
        track(assemblyai, customer_id="acme")
    untrack(assemblyai)
    assert all(map(none_tracked, [*clients[1:], assemblyai.Client(api_key="k").http_client]))
    assert not hasattr(assemblyai.Client.__init__, "__wrapped__")


@needs("assemblyai")
def test_an_object_of_assemblyais_is_tracked_by_itself() -> None:
    """A client, and a transcriber that holds one, are tracked in place."""
    assemblyai = importlib.import_module("assemblyai")
    client = track(assemblyai.Client(api_key="k"))
    transcriber = track(assemblyai.Transcriber(api_key="k"))

    assert all_tracked(client.http_client)
    assert all_tracked(transcriber._client.http_client)
    assert none_tracked(assemblyai.Client(api_key="k").http_client)


# huggingface_hub


@needs("huggingface-hub")
def test_huggingface_stays_tracked_whatever_closes_its_session() -> None:
    """The session in use, the next one after `close_session()` or a fork, and every async one."""
    hub = importlib.import_module("huggingface_hub")
    session = hub.get_session()

    assert track(track(hub)) is hub

    assert hub.get_session() is session
    assert all_tracked(session)
    hub.close_session()
    assert hub.get_session() is not session
    assert all_tracked(hub.get_session())
    assert all_tracked(hub.get_async_session())
    child = os.fork()
    if not child:
        os._exit(0 if all_tracked(hub.get_session()) and all_tracked(hub.get_async_session()) else 1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(TrackingSetupError, match=r"untrack\(huggingface_hub\) first"):
        track(hub, customer_id="acme")

    session = hub.get_session()
    untrack(hub)
    assert hub.get_session() is session
    assert none_tracked(session)
    hub.close_session()
    assert none_tracked(hub.get_session())
    assert none_tracked(hub.get_async_session())


@needs("huggingface-hub")
def test_huggingfaces_calls_are_metered_when_the_module_is_tracked(server: Loopback) -> None:
    """An InferenceClient sends through the session of the process, before and after it is closed."""
    hub = importlib.import_module("huggingface_hub")
    client = hub.InferenceClient(base_url=server.url, api_key="k")
    track(hub)

    with capture_usage() as events:
        for _ in range(2):
            with customer_context("acme"):
                client.chat_completion([{"role": "user", "content": "Hello"}], model="m")
            hub.close_session()
    untrack(hub)

    assert [event.customer_id for event in events] == ["acme", "acme"]


@needs("huggingface-hub")
def test_an_async_client_of_huggingfaces_is_tracked_before_its_first_call(server: Loopback) -> None:
    """Each has a client of its own, which is made when it first calls; closing it is still its affair."""
    hub = importlib.import_module("huggingface_hub")
    client = track(hub.AsyncInferenceClient(base_url=server.url, api_key="k"))
    http = client._async_client

    async def run() -> None:
        await client.chat_completion([{"role": "user", "content": "Hello"}], model="m")
        await client.close()

    with capture_usage() as events:
        asyncio.run(run())

    assert [event.usage.total_tokens for event in events] == [8]
    assert http.is_closed


@needs("huggingface-hub")
def test_a_factory_of_ones_own_may_track_what_it_makes() -> None:
    """A client that is made while another is being tracked may be tracked by its maker."""
    hub = importlib.import_module("huggingface_hub")
    make = importlib.import_module("huggingface_hub.utils._http").default_async_client_factory
    hub.set_async_client_factory(lambda: track(make()))

    client = track(hub.AsyncInferenceClient(api_key="k"))

    hub.set_async_client_factory(make)
    assert all_tracked(client._async_client)


@needs("huggingface-hub")
def test_a_client_that_cannot_be_made_yet_says_why() -> None:
    """What the SDK raises while it makes its client is told as a matter of the set-up."""
    hub = importlib.import_module("huggingface_hub")
    make = importlib.import_module("huggingface_hub.utils._http").default_async_client_factory
    hub.set_async_client_factory(lambda: 1 / 0)

    with pytest.raises(TrackingSetupError, match=r"cannot make its HTTP clients yet.*division by zero"):
        track(hub.AsyncInferenceClient(api_key="k"))
    hub.set_async_client_factory(make)


@needs("huggingface-hub")
def test_a_sync_client_of_huggingfaces_names_the_module() -> None:
    """It holds no client of its own: track() says what does."""
    hub = importlib.import_module("huggingface_hub")

    with pytest.raises(TrackingSetupError, match=r"type track\(huggingface_hub\)"):
        track(hub.InferenceClient(api_key="k"))


# aiohttp


@needs("fireworks-ai")
def test_fireworks_closes_its_aiohttp_connector_through_ours() -> None:
    """Its finaliser looks in `_transport.client` for what aiohttp holds, and finds it when tracked."""
    fireworks = importlib.import_module("fireworks")
    client = track(fireworks.AsyncFireworks(api_key="k", base_url="http://127.0.0.1:9", max_retries=0))

    async def run() -> None:
        with pytest.raises(fireworks.APIConnectionError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])

    asyncio.run(run())
    connector = client._client._transport.client.connector
    assert not connector.closed
    client._client.__del__()

    assert connector.closed


@pytest.mark.parametrize("sdk", ["fireworks-ai", "cohere", "deepgram-sdk"])
def test_async_calls_over_aiohttp_are_metered_in_place(sdk: str, server: Loopback) -> None:
    """Below an `httpx.AsyncClient` may be aiohttp: what goes through it is metered all the same."""
    if sdk not in INSTALLED or importlib.util.find_spec("httpx_aiohttp") is None:
        pytest.skip(f"{sdk} over aiohttp is not installed here")
    module, name = {
        "fireworks-ai": ("fireworks", "AsyncFireworks"),
        "cohere": ("cohere", "AsyncClientV2"),
        "deepgram-sdk": ("deepgram", "AsyncDeepgramClient"),
    }[sdk]
    sdk_object = track(getattr(importlib.import_module(module), name)(api_key="k"))
    http = (
        sdk_object._client if sdk == "fireworks-ai" else sdk_object._client_wrapper.httpx_client.httpx_client
    )

    async def run() -> None:
        async with http:
            await http.post(f"{server.url}/v1/chat/completions", json={"model": "m"})

    with capture_usage() as events:
        asyncio.run(run())

    assert type(http._transport.unwrapped).__name__ == "AiohttpTransport"
    assert [event.usage.total_tokens for event in events] == [8]
