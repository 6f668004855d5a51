"""`instrument` and `uninstrument`: which clients are metered, which are left alone, what is put back."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest
from client_facts import is_tracked
from google import genai

import cmdrdata_transport.httpx
import cmdrdata_transport.httpx2
from cmdrdata_transport import (
    Tracker,
    customer_context,
    instrument,
    track,
    tracked_async_http_client,
    tracked_http_client,
    uninstrument,
    untrack,
)
from cmdrdata_transport.demo.calls import CALLED_SDKS, CalledSdk, call, call_async
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.errors import AttributionError, TrackingSetupError
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = (httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient)
FOUR_WAYS = [
    pytest.param(library, asynchronous, id=f"{library.__name__}-{'async' if asynchronous else 'sync'}")
    for library in (httpx, httpx2)
    for asynchronous in (False, True)
]
four_ways = pytest.mark.parametrize(("library", "asynchronous"), FOUR_WAYS)
BODY: Any = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}


def here(provider: str, tmp_path: Path) -> Tracker:
    """A tracker that takes this machine for one of the provider's hosts, as its table names them."""
    table = next(each for each in PROVIDERS if each.id == provider)
    return Tracker([], home=tmp_path, providers=[replace(table, hosts=("127.0.0.1",))])


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    """Every test ends with the classes as they were."""
    before = [(kind.__init__, kind._transport_for_url) for kind in CLASSES]
    yield
    uninstrument()
    assert [(kind.__init__, kind._transport_for_url) for kind in CLASSES] == before


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    """A tracker to which this machine is a host of OpenAI's."""
    return here("openai", tmp_path)


@pytest.fixture
def provider() -> Provider:
    """What answers, and its account of what it stated."""
    return Provider(seed=3)


@pytest.fixture
def url(provider: Provider) -> Iterator[str]:
    """Where the provider listens."""
    with Loopback(provider) as server:
        yield f"{server.url}/v1/chat/completions"


def client_of(library: Any, *, asynchronous: bool, **options: Any) -> Any:
    """The library's own client of either colour."""
    return (library.AsyncClient if asynchronous else library.Client)(**options)


def post(client: Any, url: str, *, close: bool = True) -> None:
    """One chat completion through a client of either colour."""

    async def run() -> None:
        try:
            answer = client.post(url, json=BODY)
            await answer if inspect.isawaitable(answer) else answer
        finally:
            if close:
                closed = client.aclose() if hasattr(client, "aclose") else client.close()
                await closed if inspect.isawaitable(closed) else closed

    asyncio.run(run())


# Which clients


@four_ways
def test_a_client_made_afterwards_is_metered(
    library: Any, *, asynchronous: bool, tracker: Tracker, url: str, provider: Provider
) -> None:
    """Each call gives one event, for the customer of its context, with what the provider stated."""
    instrument(tracker=tracker)

    with capture_usage() as events, customer_context("acme"):
        post(client_of(library, asynchronous=asynchronous), url)

    assert [(event.customer_id, event.provider) for event in events] == [("acme", "openai")]
    assert events[0].usage.input_tokens == provider.stated[0].units["input_tokens"]


@four_ways
def test_a_client_made_before_is_left_alone(
    library: Any, *, asynchronous: bool, tracker: Tracker, url: str
) -> None:
    """What existed is `track`'s affair."""
    client = client_of(library, asynchronous=asynchronous)
    instrument(tracker=tracker)

    with capture_usage() as events:
        post(client, url)

    assert events == []
    assert not is_tracked(client._transport)


@four_ways
def test_a_host_of_no_table_is_not_metered(library: Any, *, asynchronous: bool, url: str) -> None:
    """A path that looks like a provider's is not enough in a process full of clients."""
    instrument()

    with capture_usage() as events:
        post(client_of(library, asynchronous=asynchronous), url)

    assert events == []


@four_ways
def test_nothing_is_metered_any_more_after_uninstrument(
    library: Any, *, asynchronous: bool, tracker: Tracker, url: str
) -> None:
    """Neither what was made meanwhile, used or not, nor what is made later."""
    instrument(tracker=tracker)
    used, unused = (client_of(library, asynchronous=asynchronous) for _ in range(2))
    with capture_usage() as before:
        asyncio.run(_twice(used, url)) if asynchronous else post(used, url, close=False)
    transport = used._transport
    uninstrument()

    with capture_usage() as events:
        if not asynchronous:
            post(used, url)
        post(unused, url)
        post(client_of(library, asynchronous=asynchronous), url)

    assert before
    assert events == []
    assert is_tracked(transport)
    assert used._transport is transport.unwrapped


async def _twice(client: Any, url: str) -> None:
    await client.post(url, json=BODY)
    await client.post(url, json=BODY)
    await client.aclose()


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_librarys_own_functions_are_metered(library: Any, tracker: Tracker, url: str) -> None:
    """`httpx.post()` and `httpx.stream()` make a client for each call."""
    instrument(tracker=tracker)

    with capture_usage() as events:
        library.post(url, json=BODY)
        with library.stream("POST", url, json=BODY) as response:
            response.read()

    assert len(events) == 2


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_call_through_the_environments_proxy_is_metered(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies sit in mounts of their own, which are wrapped as well."""
    provider = Provider(seed=3)
    instrument(tracker=Tracker([], home=tmp_path))

    with Loopback(provider) as server, capture_usage() as events:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        post(library.Client(), "http://api.openai.com/v1/chat/completions")

    assert [event.host for event in events] == ["api.openai.com"]


class Late(httpx2.Client):
    """A subclass that sets its transports when the library's own `__init__` is done."""

    def __init__(self, transport: httpx2.BaseTransport, pattern: str = "") -> None:
        super().__init__()
        self._transport.close()
        if pattern:
            self._mounts = {httpx2._utils.URLPattern(pattern): transport}
        else:
            self._transport = transport


@pytest.mark.parametrize("pattern", ["", "all://"])
def test_transports_that_a_subclass_sets_late_are_metered(pattern: str, tracker: Tracker, url: str) -> None:
    """A client's transports are wrapped at its first call, and looked at again at every other."""
    instrument(tracker=tracker)

    with closing(httpx2.HTTPTransport()) as first, closing(httpx2.HTTPTransport()) as second:
        client = Late(first, pattern)
        with capture_usage() as events:
            post(client, url, close=False)
            client._transport, client._mounts = second, {}
            post(client, url)

    assert len(events) == 2


class Odd(httpx.Client):
    """A client that cannot be a member of a set."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")


def test_a_client_that_cannot_be_metered_works(tracker: Tracker, url: str, provider: Provider) -> None:
    """Whatever goes wrong in here is counted, and never the application's trouble."""
    instrument(tracker=tracker)

    post(Odd(), url)

    assert len(provider.stated) == 1
    assert tracker.stats()["internal_errors"] == 1


def test_settings_reach_every_client(tracker: Tracker, url: str) -> None:
    """Customer and metadata are the defaults of every client that is made."""
    instrument(tracker=tracker, customer_id="acme", metadata={"app": "shop"})

    with capture_usage() as events:
        post(httpx.Client(), url)

    assert [(event.customer_id, event.metadata) for event in events] == [("acme", {"app": "shop"})]


# SDKs


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("sdk", CALLED_SDKS, ids=lambda sdk: sdk.name)
def test_every_call_of_an_sdk_is_metered_through_its_own_client(
    sdk: CalledSdk, *, asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDKs that are given nothing are metered to the token, whole and streamed."""
    if not sdk.installed:
        pytest.skip(f"{sdk.name} is not installed here")
    provider = Provider(seed=7)
    instrument(tracker=here(sdk.provider, tmp_path))
    module = importlib.import_module(sdk.module)

    async def run(url: str) -> None:
        client = (sdk.connect_async if asynchronous else sdk.connect)(module, url + sdk.at, None)
        for what in sdk.calls:
            await call_async(client, what, {}) if asynchronous else call(client, what, {})
        for each in sdk.opened(client):
            close = getattr(each, "aclose" if asynchronous and hasattr(each, "aclose") else "close", None)
            ending = close() if close is not None else None
            await ending if inspect.isawaitable(ending) else ending

    with Loopback(provider) as server, capture_usage() as events:
        asyncio.run(run(server.url))

    assert len(provider.stated) == len(sdk.calls)
    assert [
        {unit: getattr(event.usage, unit) for unit in stated.units}
        for event, stated in zip(events, provider.stated, strict=True)
    ] == [dict(stated.units) for stated in provider.stated]
    assert {event.provider for event in events} == {sdk.provider}


@pytest.mark.parametrize("explicit", [False, True], ids=["by itself", "asked for"])
def test_google_stays_with_httpx_unless_it_is_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, explicit: bool
) -> None:
    """Where aiohttp is installed google-genai's async calls would pass us by; they do not."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    before = genai.Client(api_key="k")
    instrument(tracker=here("google", tmp_path))
    client = genai.Client(api_key="k")
    if explicit:
        api: Any = client._api_client
        api._http_options = api._http_options.model_copy(update={"aiohttp_client": object()})

    assert client._api_client._use_aiohttp() is explicit
    assert before._api_client._use_aiohttp()
    uninstrument()
    assert client._api_client._use_aiohttp()


@pytest.mark.parametrize(
    "order",
    [
        "instrument, httpx, httpx2",
        "httpx, instrument, httpx2",
        "httpx2, instrument, httpx",
        "httpx, httpx2, instrument",
        "instrument, openai, groq",
        "openai, groq, instrument",
        "alias, instrument, httpx2, httpx",
        "instrument, alias, httpx2, httpx",
    ],
)
def test_it_may_come_before_or_after_what_it_meters_is_imported(order: str, tmp_path: Path, url: str) -> None:
    """In any order of imports every client is metered, and no library is imported for it."""
    program = """
    import importlib, sys
    from dataclasses import replace
    from cmdrdata_transport import Tracker, instrument, uninstrument
    from cmdrdata_transport.providers.openai import OPENAI
    from cmdrdata_transport.testing import capture_usage

    tracker = Tracker([], providers=[replace(OPENAI, hosts=("127.0.0.1",))])
    assert not {"httpx", "httpx2"} & set(sys.modules)
    kinds = []
    for step in sys.argv[2].split(", "):
        if step == "instrument":
            loaded = set(sys.modules)
            instrument(tracker=tracker)
            assert ("httpx" in loaded) is ("httpx" in sys.modules)
            assert ("httpx2" in loaded) is ("httpx2" in sys.modules)
        elif step == "alias":
            import httpx2
            httpx2.alias_httpx()
        else:
            module = importlib.import_module(step)
            library = {"openai": "httpx2", "groq": "httpx"}.get(step, step)
            kinds.append(importlib.import_module(library).Client)
            assert type(module.__loader__).__module__ != "cmdrdata_transport.everywhere"
            assert type(module.__spec__.loader).__module__ != "cmdrdata_transport.everywhere"
    with capture_usage() as events:
        for kind in kinds:
            with kind() as client:
                client.post(sys.argv[1], json={"model": "gpt-5"})
    assert len(events) == len(kinds) == 2, events
    uninstrument()
    assert all("__wrapped__" not in vars(kind.__init__) for kind in kinds)
    assert not any(type(each).__module__ == "cmdrdata_transport.everywhere" for each in sys.meta_path)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), url, order],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "CMDRDATA_HOME": str(tmp_path),
            "CMDRDATA_CUSTOMER_ID": "acme",
        },  # or it would warn of each
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_who_only_looks_for_a_library_finds_what_there_is(tmp_path: Path) -> None:
    """The import hook's loader answers as the one below it does, and a missing module is missing."""
    program = """
    import importlib.util, sys
    from cmdrdata_transport import instrument

    instrument()
    spec = importlib.util.find_spec("httpx")
    assert "AsyncClient" in spec.loader.get_source("httpx")
    assert spec.loader.is_package("httpx")
    assert not hasattr(spec.loader, "no_such_thing")
    assert "httpx" not in sys.modules
    sys.meta_path[:] = sys.meta_path[:1]
    assert importlib.util.find_spec("httpx2") is None
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CMDRDATA_HOME": str(tmp_path)},
    )
    assert (told.returncode, told.stderr) == (0, "")


# What stays as it is


def test_no_class_is_replaced(tracker: Tracker) -> None:
    """Identity, isinstance, subclasses, signatures and docstrings are as they were."""
    before = [(kind, inspect.signature(kind), kind.__init__.__doc__) for kind in CLASSES]
    old = httpx.Client()
    instrument(tracker=tracker)

    assert (httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient) == CLASSES
    assert [(kind, inspect.signature(kind), kind.__init__.__doc__) for kind in CLASSES] == before
    with closing(Late(httpx2.HTTPTransport())) as late, closing(httpx.Client()) as new, closing(old):
        assert isinstance(late, httpx2.Client)
        assert isinstance(old, httpx.Client)
        assert type(new) is httpx.Client


def test_twice_is_once(tracker: Tracker, url: str) -> None:
    """The same options again change nothing."""
    instrument(tracker=tracker, customer_id="acme")
    functions = httpx.Client.__init__
    instrument(tracker=tracker, customer_id="acme")

    assert httpx.Client.__init__ is functions
    with capture_usage() as events:
        post(httpx.Client(), url)
    assert len(events) == 1


def test_other_options_are_refused_until_it_is_undone(tracker: Tracker, url: str) -> None:
    """Silently taking the first options, or the last, would bill the wrong customer."""
    instrument(tracker=tracker, customer_id="acme")

    with pytest.raises(TrackingSetupError, match=r"call uninstrument\(\) first.*customer_context\('acme'\)"):
        instrument(tracker=tracker, customer_id="globex")

    uninstrument()
    uninstrument()
    instrument(tracker=tracker, customer_id="globex")
    with capture_usage() as events:
        post(httpx.Client(), url)
    assert [event.customer_id for event in events] == ["globex"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"customer_id": ""}, AttributionError),
        ({"metadata": {"a": object()}}, AttributionError),
        ({"include_usage": "sometimes"}, TrackingSetupError),
        ({"tracker": "acme"}, TrackingSetupError),
    ],
    ids=["customer", "metadata", "include_usage", "tracker"],
)
def test_a_wrong_option_changes_nothing(options: dict[str, Any], error: type[Exception]) -> None:
    """What no event can carry is refused where it is written."""
    before = httpx.Client.__init__

    with pytest.raises(error):
        instrument(**options)

    assert httpx.Client.__init__ is before


def test_who_builds_upon_it_is_not_undone(
    tracker: Tracker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's patch above ours stays when we go; below it ours only passes on."""
    instrument(tracker=tracker)
    ours = httpx.Client.__init__
    seen: list[Any] = []

    def theirs(self: Any, *args: Any, **options: Any) -> None:
        seen.append(self)
        ours(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(httpx.Client, "__init__", theirs)
        uninstrument()
        with capture_usage() as events:
            post(httpx.Client(), url)
        assert httpx.Client.__init__ is theirs

    httpx.Client.__init__ = ours.__wrapped__  # type: ignore[method-assign, attr-defined]
    assert len(seen) == 1
    assert events == []


# With other ways of tracking


def _given(url: str) -> Any:
    return openai.OpenAI(
        api_key="k", base_url=url, http_client=tracked_http_client("openai", customer_id="acme")
    )


def _tracked(url: str) -> Any:
    return track(openai.OpenAI(api_key="k", base_url=url), customer_id="acme")


def _tracked_after_a_call(url: str) -> Any:
    client = openai.OpenAI(api_key="k", base_url=url)
    client._client._transport_for_url(httpx2.URL(url))  # as its first call does
    return track(client, customer_id="acme")


def _explicit(url: str) -> Any:
    transport = cmdrdata_transport.httpx2.TrackedTransport(httpx2.HTTPTransport(), customer_id="acme")
    return openai.OpenAI(api_key="k", base_url=url, http_client=httpx2.Client(transport=transport))


class Retrying(httpx2.BaseTransport):
    """A transport of the application's own, above one of ours."""

    def __init__(self, inner: httpx2.BaseTransport) -> None:
        self.inner = inner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The inner transport's answer."""
        return self.inner.handle_request(request)

    def close(self) -> None:
        """Close the inner transport."""
        self.inner.close()


def _explicit_below(url: str) -> Any:
    transport = cmdrdata_transport.httpx2.TrackedTransport(httpx2.HTTPTransport(), customer_id="acme")
    return openai.OpenAI(api_key="k", base_url=url, http_client=httpx2.Client(transport=Retrying(transport)))


class Chained(Retrying):
    """A transport that knows its own, and another client of the application's besides."""

    def __init__(self, inner: httpx2.BaseTransport, other: object = None) -> None:
        super().__init__(inner)
        self.me, self.other = self, other


def _explicit_far_below(url: str) -> Any:
    transport = cmdrdata_transport.httpx2.TrackedTransport(httpx2.HTTPTransport(), customer_id="acme")
    chained = Chained(Chained(transport))
    return openai.OpenAI(api_key="k", base_url=url, http_client=httpx2.Client(transport=chained))


WAYS = [_given, _tracked, _tracked_after_a_call, _explicit, _explicit_below, _explicit_far_below]


def test_a_tracked_client_beside_a_transport_is_not_below_it(tracker: Tracker, url: str) -> None:
    """What a transport of the application's knows besides does not send its calls."""
    instrument(tracker=tracker)
    chained = Chained(Chained(httpx2.HTTPTransport()), tracked_http_client("openai"))

    with capture_usage() as events:
        post(httpx2.Client(transport=chained), url)

    assert len(events) == 1


@pytest.mark.parametrize("make", WAYS)
def test_what_is_tracked_by_other_means_counts_once_and_keeps_its_customer(
    make: Any, tracker: Tracker, url: str
) -> None:
    """However a client is tracked besides, each call gives one event, by the nearer settings."""
    instrument(tracker=tracker, customer_id="everybody")

    with capture_usage() as events, make(url.removesuffix("/chat/completions")) as client:
        for _ in range(2):
            client.chat.completions.create(**BODY)

    assert [event.customer_id for event in events] == ["acme", "acme"]


def test_an_untracked_client_is_metered_as_every_other(tracker: Tracker, url: str) -> None:
    """untrack() undoes track(), not instrument()."""
    instrument(tracker=tracker, customer_id="everybody")
    client = httpx.Client()

    with capture_usage() as events:
        track(client, customer_id="acme")
        post(client, url, close=False)
        untrack(client)
        post(client, url)

    assert [event.customer_id for event in events] == ["acme", "everybody"]


def test_uninstrument_leaves_alone_what_is_tracked(tracker: Tracker, url: str) -> None:
    """What `track` and `tracked_http_client` did stays."""
    instrument(tracker=tracker)
    one, other = httpx.Client(), tracked_http_client("groq")
    asynchronous = tracked_async_http_client("groq")
    track(one)
    uninstrument()

    assert all(is_tracked(each._transport) for each in (one, other, asynchronous))
    with capture_usage() as events:
        post(one, url)
        post(other, url)
    assert len(events) == 2


# Threads and forks


def test_many_threads_use_a_new_client_at_once(tracker: Tracker, url: str) -> None:
    """A client whose first calls come from many threads is wrapped, and counts each call once."""
    instrument(tracker=tracker)
    client = httpx.Client()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        client.post(url, json=BODY)

    with capture_usage() as events, closing(client):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(events) == 8
    assert not is_tracked(client._transport.unwrapped)  # type: ignore[attr-defined]


def test_many_threads_instrument_at_once(tracker: Tracker) -> None:
    """Only one of them does it."""
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        instrument(tracker=tracker)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not hasattr(httpx.Client.__init__.__wrapped__, "__wrapped__")  # type: ignore[attr-defined]


def test_a_forked_child_is_instrumented(tracker: Tracker, url: str) -> None:
    """Clients that a child makes are metered, and it may turn it off."""
    instrument(tracker=tracker)
    child = os.fork()
    if not child:
        with capture_usage() as events:
            post(httpx.Client(), url)
            uninstrument()
            post(httpx.Client(), url)
        os._exit(0 if len(events) == 1 else 1)

    assert os.waitpid(child, 0)[1] == 0
