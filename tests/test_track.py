"""What `track` and `untrack` do to an SDK's object, and what they leave alone."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import anthropic
import groq
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

import cmdrdata_transport.httpx
import cmdrdata_transport.httpx2
from cmdrdata_transport import (
    customer_context,
    track,
    tracked_async_http_client,
    tracked_http_client,
    tracking_headers,
    untrack,
)
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.errors import AttributionError, TrackingSetupError
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRACKED = (
    cmdrdata_transport.httpx.TrackedTransport,
    cmdrdata_transport.httpx.AsyncTrackedTransport,
    cmdrdata_transport.httpx2.TrackedTransport,
    cmdrdata_transport.httpx2.AsyncTrackedTransport,
)
MESSAGES: Any = [{"role": "user", "content": "Hello"}]

OBJECTS: dict[str, Callable[[], Any]] = {
    "OpenAI": lambda: openai.OpenAI(api_key="k"),
    "AsyncOpenAI": lambda: openai.AsyncOpenAI(api_key="k"),
    "AzureOpenAI": lambda: openai.AzureOpenAI(
        api_key="k", api_version="2024-10-21", azure_endpoint="https://x.openai.azure.com"
    ),
    "Anthropic": lambda: anthropic.Anthropic(api_key="k"),
    "AsyncAnthropic": lambda: anthropic.AsyncAnthropic(api_key="k"),
    "Groq": lambda: groq.Groq(api_key="k"),
    "AsyncGroq": lambda: groq.AsyncGroq(api_key="k"),
    "genai.Client": lambda: genai.Client(api_key="k"),
    "genai.Client.aio": lambda: genai.Client(api_key="k").aio,
    "httpx.Client": httpx.Client,
    "httpx.AsyncClient": httpx.AsyncClient,
    "httpx2.Client": httpx2.Client,
    "httpx2.AsyncClient": httpx2.AsyncClient,
}
EVERY_OBJECT = pytest.mark.parametrize("name", OBJECTS)


def http_clients(obj: Any) -> list[Any]:
    """The HTTP clients inside one of `OBJECTS`."""
    if hasattr(obj, "_api_client"):
        return [obj._api_client._httpx_client, obj._api_client._async_httpx_client]
    return [getattr(obj, "_client", obj)]


def transports(obj: Any) -> list[Any]:
    """Every transport inside one of `OBJECTS`, the empty mounts included."""
    return [
        transport
        for client in http_clients(obj)
        for transport in (client._transport, *client._mounts.values())
    ]


@pytest.fixture
def provider() -> Provider:
    """What answers, and its account of what it stated."""
    return Provider(seed=3)


@pytest.fixture
def url(provider: Provider) -> Iterator[str]:
    """Where the provider listens."""
    with Loopback(provider) as server:
        yield server.url


@EVERY_OBJECT
def test_the_object_stays_what_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """track() gives the same object back, with the same HTTP clients, whose transports are tracked."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.test")
    obj = OBJECTS[name]()
    before = http_clients(obj)
    kinds = [type(transport) for transport in transports(obj)]

    assert track(obj) is obj

    assert http_clients(obj) == before
    found = transports(obj)
    assert [isinstance(transport, TRACKED) for transport in found] == [k is not type(None) for k in kinds]
    assert [type(getattr(transport, "unwrapped", None)) for transport in found] == kinds
    assert type(None) in kinds


@EVERY_OBJECT
def test_untrack_puts_everything_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After untrack() the very transports of before are there, and nothing else has changed."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    obj = OBJECTS[name]()
    before = transports(obj)
    attributes = [dict(vars(client)) for client in http_clients(obj)]

    assert untrack(track(obj)) is obj

    assert all(now is then for now, then in zip(transports(obj), before, strict=True))
    assert [dict(vars(client)) for client in http_clients(obj)] == attributes


@EVERY_OBJECT
def test_untrack_leaves_alone_what_is_not_tracked(name: str) -> None:
    """Untracking twice, or what was never tracked, does nothing."""
    obj = OBJECTS[name]()
    before = transports(obj)

    untrack(obj)

    assert all(now is then for now, then in zip(transports(obj), before, strict=True))


@EVERY_OBJECT
def test_tracking_again_with_the_same_settings_changes_nothing(name: str) -> None:
    """A second track() that asks for the same is a no-op."""
    obj = track(OBJECTS[name](), customer_id="acme", metadata={"plan": "pro"})
    before = transports(obj)

    track(obj, customer_id="acme", metadata={"plan": "pro"})

    assert all(now is then for now, then in zip(transports(obj), before, strict=True))


@EVERY_OBJECT
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"customer_id": "globex"},
        {"customer_id": "acme", "metadata": {"a": 1}},
        {"customer_id": "acme", "provider": "openai"},
        {"customer_id": "acme", "include_usage": False},
    ],
    ids=str,
)
def test_tracking_again_with_other_settings_is_refused(name: str, others: dict[str, Any]) -> None:
    """Silently billing the first customer, or the last, would be wrong: it says what to type."""
    obj = track(OBJECTS[name](), customer_id="acme")
    before = transports(obj)

    with pytest.raises(TrackingSetupError, match=r"with_options\(default_headers=tracking_headers"):
        track(obj, **others)

    assert all(now is then for now, then in zip(transports(obj), before, strict=True))


def test_new_settings_after_untrack_are_taken() -> None:
    """The way out that the message names works."""
    client = track(openai.OpenAI(api_key="k"), customer_id="acme")

    track(untrack(client), customer_id="globex")

    assert isinstance(client._client._transport, TRACKED)


def test_copies_of_a_tracked_client_are_tracked_and_may_have_another_customer(
    url: str, provider: Provider
) -> None:
    """with_options() shares the transport; tracking_headers() binds the copy to its own customer."""
    with (
        capture_usage() as events,
        track(openai.OpenAI(api_key="k", base_url=f"{url}/v1"), customer_id="acme") as client,
    ):
        globex = client.with_options(default_headers=tracking_headers("globex"))
        for each in (client, globex):
            each.chat.completions.create(model="gpt-5", messages=MESSAGES)

    assert [event.customer_id for event in events] == ["acme", "globex"]
    assert len(provider.stated) == 2


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (object(), r"no HTTP client of httpx or httpx2 was found in a object"),
        (openai.OpenAI, r"was found in the class OpenAI; give the SDK's object"),
        (anthropic, r"the module anthropic has no HTTP client behind its functions.*instrument\(\) before"),
        (None, r"was found in a NoneType"),
        (httpx.HTTPTransport(), r"was found in a HTTPTransport"),
    ],
    ids=["object", "class", "module", "None", "transport"],
)
@pytest.mark.parametrize("do", [track, untrack])
def test_where_nothing_can_be_tracked_the_message_says_so(do: Any, obj: Any, says: str) -> None:
    """An object without an HTTP client is refused, with what to give instead."""
    with pytest.raises(TrackingSetupError, match=says):
        do(obj)


class Lazy:
    """An object whose attributes cannot always be had."""

    @property
    def _client(self) -> object:
        raise RuntimeError("not before login")


def test_an_attribute_that_fails_holds_no_client() -> None:
    """Looking for clients never lets an SDK's own error out."""
    with pytest.raises(TrackingSetupError, match="was found in a Lazy"):
        track(Lazy())


@pytest.mark.parametrize("options", [{"customer_id": ""}, {"metadata": {"a": object()}}])
def test_bad_attribution_is_refused_and_changes_nothing(options: dict[str, Any]) -> None:
    """A customer id or metadata that no event can carry leaves the object as it was."""
    client = openai.OpenAI(api_key="k")

    with pytest.raises(AttributionError):
        track(client, **options)

    assert not isinstance(client._client._transport, TRACKED)


def test_a_client_that_was_made_tracked_is_not_tracked_twice(url: str) -> None:
    """track() of an SDK object that holds a tracked client counts each call once."""
    client = openai.OpenAI(api_key="k", base_url=f"{url}/v1", http_client=tracked_http_client("openai"))

    with capture_usage() as events, track(client):
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)

    assert len(events) == 1


class Retrying(httpx2.BaseTransport):
    """A transport of the application's own, between two of ours."""

    def __init__(self, inner: httpx2.BaseTransport) -> None:
        self.inner = inner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The inner transport's answer."""
        return self.inner.handle_request(request)

    def close(self) -> None:
        """Close the inner transport."""
        self.inner.close()


def test_a_tracked_transport_below_another_counts_once(url: str) -> None:
    """track() cannot see into a transport of the application's; a call counts once all the same."""
    inner = cmdrdata_transport.httpx2.TrackedTransport(httpx2.HTTPTransport())
    http = openai.DefaultHttpxClient(transport=Retrying(inner))
    client = openai.OpenAI(api_key="k", base_url=f"{url}/v1", http_client=http)

    with capture_usage() as events, track(client):
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)

    assert len(events) == 1


def test_an_untracked_client_is_not_metered(url: str, provider: Provider) -> None:
    """After untrack() calls go through as if we had never been there."""
    with (
        capture_usage() as events,
        untrack(track(openai.OpenAI(api_key="k", base_url=f"{url}/v1"))) as client,
    ):
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)

    assert events == []
    assert len(provider.stated) == 1


def test_many_threads_track_one_client_once(url: str) -> None:
    """However many threads call track() at the same moment, a call gives one event."""
    client = openai.OpenAI(api_key="k", base_url=f"{url}/v1")
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        track(client)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with capture_usage() as events, client:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)

    assert len(events) == 1


# Objects that hold SDKs


class Agent:
    """What a framework's objects come to: it keeps SDKs, and has properties and callbacks."""

    def __init__(self, *sdks: Any) -> None:
        self.parts = {"models": [Model(sdk) for sdk in sdks]}
        self.hooks = [self.ask]

    @property
    def model(self) -> Any:
        """A property that must not be asked."""
        raise AssertionError("asked")

    def ask(self) -> None:
        """A callback, by which the agent holds itself."""


class Model:
    """The part of a framework that knows one SDK."""

    __slots__ = ("_create",)

    def __init__(self, sdk: Any) -> None:
        self._create = sdk.chat.completions.create if hasattr(sdk, "chat") else sdk


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_holds_an_sdk_is_tracked_with_it(name: str) -> None:
    """Wherever in a framework's object an SDK or an HTTP client is, its transports are tracked."""
    sdk = OBJECTS[name]()
    before = transports(sdk)
    agent = Agent(sdk)

    assert track(agent) is agent

    assert all(isinstance(transport, TRACKED) for transport in transports(sdk))
    assert untrack(agent) is agent
    assert all(now is then for now, then in zip(transports(sdk), before, strict=True))


def test_all_that_an_object_holds_is_tracked_or_nothing() -> None:
    """One client that is tracked otherwise refuses the whole, and leaves the others as they were."""
    theirs, ours = groq.Groq(api_key="k"), openai.OpenAI(api_key="k")
    track(theirs, customer_id="acme")

    with pytest.raises(TrackingSetupError, match="already tracked with other settings"):
        track(Agent(ours, theirs))

    assert not isinstance(ours._client._transport, TRACKED)


def test_google_inside_another_object_is_led_from_aiohttp_and_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What google-genai needs besides the wrap is done wherever its client is found."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    client = genai.Client(api_key="k")

    track(Agent(client))

    assert not client._api_client._use_aiohttp()
    monkeypatch.setattr(client._api_client, "_use_google_auth_sync", lambda: True)
    with pytest.raises(TrackingSetupError, match="mTLS"):
        track(Agent(client))


def test_an_sdks_callback_does_not_lead_to_other_clients() -> None:
    """An SDK's own client is where the table says; what its options hold is another's affair."""
    other = openai.OpenAI(api_key="k")
    agent = Agent(other)

    def key() -> str:
        return "k"

    client = openai.OpenAI(api_key=key)
    client.agent = agent  # type: ignore[attr-defined]
    track(client, customer_id="acme")

    assert isinstance(client._client._transport, TRACKED)
    assert not isinstance(other._client._transport, TRACKED)


class Circular:
    """It is its own SDK's client, by every name that the table has."""

    def __init__(self) -> None:
        self._api_client = self._client = self._client_wrapper = self.httpx_client = self


class SyncAPIClient(Circular):
    """The same, of a class that is in the table."""


@pytest.mark.parametrize("kind", [Circular, SyncAPIClient])
def test_an_object_that_leads_back_to_itself_holds_no_client(kind: type[Circular]) -> None:
    """Places are looked for no longer than it takes to come back."""
    agent = Agent(openai.OpenAI(api_key="k"), kind())

    assert track(agent) is agent
    assert track(untrack(agent)) is agent


@pytest.mark.parametrize("do", [track, untrack])
def test_an_object_too_large_to_be_looked_through_says_so(do: Any) -> None:
    """Rather than miss a client silently, track() asks for the part that matters."""
    agent = Agent(openai.OpenAI(api_key="k"), *([object()] for _ in range(20_001)))

    with pytest.raises(TrackingSetupError, match=r"a Agent is too large.*Give the part of it"):
        do(agent)


# Modules whose functions call by themselves


def test_openais_functions_are_metered_when_the_module_is_tracked(
    url: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`openai.chat` goes through a client that is made at the first call; it has the SDK's defaults."""
    monkeypatch.setattr(openai, "api_key", "k")
    monkeypatch.setattr(openai, "base_url", f"{url}/v1/")
    monkeypatch.setattr(openai, "http_client", None)
    monkeypatch.setattr(openai, "_client", None)

    with capture_usage() as events:
        assert track(openai) is openai
        assert track(openai) is openai
        openai.chat.completions.create(model="gpt-5", messages=MESSAGES)
        assert openai.http_client is not None
        with pytest.raises(TrackingSetupError, match="other settings"):
            track(openai, customer_id="acme")
        untrack(openai)
        openai.chat.completions.create(model="gpt-5", messages=MESSAGES)
        http: Any = openai.http_client
        http.close()

    assert len(provider.stated) == 2
    assert len(events) == 1


def test_openais_module_keeps_the_client_that_it_has(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracked after its first call, the client that made it is wrapped in place."""
    monkeypatch.setattr(openai, "api_key", "k")
    monkeypatch.setattr(openai, "base_url", f"{url}/v1/")
    monkeypatch.setattr(openai, "http_client", None)
    monkeypatch.setattr(openai, "_client", None)
    openai.chat.completions.create(model="gpt-5", messages=MESSAGES)
    http: Any = openai.http_client

    with capture_usage() as events:
        track(openai, customer_id="acme")
        openai.chat.completions.create(model="gpt-5", messages=MESSAGES)

    assert vars(openai)["http_client"] is http
    assert [event.customer_id for event in events] == ["acme"]
    http.close()


# google-genai


def google(url: str, **options: Any) -> genai.Client:
    """genai.Client that talks to the loopback provider."""
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url, **options))


async def ask(client: genai.Client, customer: str) -> None:
    """One async Gemini call."""
    with customer_context(customer):
        await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hello")


def each_in_a_loop_of_its_own(client: genai.Client, *customers: str) -> None:
    """One call after the other, in event loops that stay open until all are done."""
    api: Any = client._api_client
    runners = [asyncio.Runner() for _ in customers]
    for runner, customer in zip(runners, customers, strict=True):
        runner.run(ask(client, customer))
    for runner in runners:
        runner.run(api._async_httpx_client._loop_clients.pop(runner.get_loop()).aclose())
        runner.close()
    client.close()


def test_every_event_loop_of_google_is_metered(url: str) -> None:
    """google-genai has one HTTP client per event loop, made when the loop first calls; all are tracked."""
    client = track(google(url))

    with capture_usage() as events:
        each_in_a_loop_of_its_own(client, "acme", "globex", "initech")

    assert [event.customer_id for event in events] == ["acme", "globex", "initech"]


def test_loops_that_google_has_a_client_for_already_are_metered_too(url: str, provider: Provider) -> None:
    """track() reaches the clients that were made before it, and untrack() lets go of all."""
    client = google(url)

    async def before_during_and_after() -> None:
        await ask(client, "before")
        track(client)
        await ask(client, "during")
        untrack(client)
        await ask(client, "after")
        await client.aio.aclose()

    with capture_usage() as events:
        asyncio.run(before_during_and_after())
    client.close()

    assert [event.customer_id for event in events] == ["during"]
    assert len(provider.stated) == 3


def test_a_tracked_async_client_keeps_googles_pool_for_each_loop(url: str) -> None:
    """A client made for google-genai serves several event loops, as the SDK's own does."""
    http = tracked_async_http_client("google-genai")
    client = google(url, httpx_async_client=http)

    with capture_usage() as events:
        each_in_a_loop_of_its_own(client, "acme", "globex")

    assert [event.customer_id for event in events] == ["acme", "globex"]


def test_a_google_client_with_a_session_of_aiohttp_is_refused() -> None:
    """Calls that leave through the user's own aiohttp session could not be seen: track() says so."""
    client = genai.Client(api_key="k")
    api: Any = client._api_client
    api._http_options = api._http_options.model_copy(update={"aiohttp_client": object()})

    with pytest.raises(TrackingSetupError, match=r"httpx_async_client=tracked_async_http_client"):
        track(client)

    assert not isinstance(api._httpx_client._transport, TRACKED)


def test_a_google_client_with_a_client_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With mTLS google-genai sends through google-auth's sessions: track() says what to do."""
    client = genai.Client(api_key="k")
    monkeypatch.setattr(client._api_client, "_use_google_auth_sync", lambda: True)

    with pytest.raises(TrackingSetupError, match="mTLS"):
        track(client)

    assert not isinstance(client._api_client._httpx_client._transport, TRACKED)


def test_google_leaves_aiohttp_and_goes_back(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Where aiohttp is installed google-genai's async calls would pass us by; tracked, they do not."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    client = google(url)

    with capture_usage() as events:
        track(client)
        each_in_a_loop_of_its_own(client, "acme")

    assert [event.customer_id for event in events] == ["acme"]
    assert not client._api_client._use_aiohttp()
    untrack(client)
    assert client._api_client._use_aiohttp()
