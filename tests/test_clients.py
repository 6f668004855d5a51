"""What `tracked_http_client` and its async twin make: the SDK's own client, but for its transports."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import anthropic
import certifi
import groq
import httpx
import httpx2
import openai
import pytest
from client_facts import facts, transports
from google import genai
from google.genai import types

import cmdrdata_transport.httpx
import cmdrdata_transport.httpx2
from cmdrdata_transport import tracked_async_http_client, tracked_http_client
from cmdrdata_transport.demo.loopback import Answer, Loopback
from cmdrdata_transport.errors import AttributionError, TrackingSetupError
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
}
TRACKED = (
    cmdrdata_transport.httpx.TrackedTransport,
    cmdrdata_transport.httpx.AsyncTrackedTransport,
    cmdrdata_transport.httpx2.TrackedTransport,
    cmdrdata_transport.httpx2.AsyncTrackedTransport,
)
FOUR_WAYS = [
    pytest.param(library, asynchronous, id=f"{library.__name__}-{'async' if asynchronous else 'sync'}")
    for library in (httpx, httpx2)
    for asynchronous in (False, True)
]
SDKS = ["openai", "anthropic", "groq", "google-genai"]
SDKS_TWO_WAYS = [
    pytest.param(sdk, asynchronous, id=f"{sdk}-{'async' if asynchronous else 'sync'}")
    for sdk in SDKS
    for asynchronous in (False, True)
]


def make(*args: Any, asynchronous: bool, **options: Any) -> Any:
    """A tracked client of either colour."""
    return (tracked_async_http_client if asynchronous else tracked_http_client)(*args, **options)


def bare(library: Any, *, asynchronous: bool, **options: Any) -> Any:
    """The library's own client of either colour."""
    return (library.AsyncClient if asynchronous else library.Client)(**options)


def own_client(sdk: str, *, asynchronous: bool) -> Any:
    """The client that the installed SDK makes when it is given none."""
    if sdk == "google-genai":
        api = genai.Client(api_key="k")._api_client
        kept.append(api)  # its finaliser would close the client
        return api._async_httpx_client if asynchronous else api._httpx_client
    kinds: dict[str, Any] = {
        "openai": (openai.OpenAI, openai.AsyncOpenAI),
        "anthropic": (anthropic.Anthropic, anthropic.AsyncAnthropic),
        "groq": (groq.Groq, groq.AsyncGroq),
    }
    return kinds[sdk][asynchronous](api_key="k")._client


kept: list[Any] = []


async def both(value: Any) -> Any:
    """A value, awaited where it has to be."""
    return await value if inspect.isawaitable(value) else value


def call(client: Any, url: str, *, close: bool = True) -> Any:
    """One chat completion through a client of any kind; the client is closed after it."""

    async def run() -> Any:
        try:
            return await both(client.post(f"{url}/v1/chat/completions", json={"model": "gpt-5"}))
        finally:
            if close:
                await both(client.aclose() if hasattr(client, "aclose") else client.close())

    return asyncio.run(run())


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A provider of one answer."""
    with Loopback(lambda call: Answer.json(COMPLETION)) as loopback:
        yield loopback


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxies and certificates are not what is tested."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# The SDK's own defaults


@pytest.mark.parametrize("environment", ["plain", "proxies"])
@pytest.mark.parametrize(("sdk", "asynchronous"), SDKS_TWO_WAYS)
def test_a_tracked_client_is_what_the_sdk_makes_itself(
    sdk: str, *, asynchronous: bool, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Library, timeout, redirects, pool, socket options, TLS and proxies equal the SDK's own client's."""
    if environment == "proxies":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "example.test")

    tracked = make(sdk, asynchronous=asynchronous)

    assert facts(tracked) == facts(own_client(sdk, asynchronous=asynchronous))


@pytest.mark.parametrize(("sdk", "asynchronous"), SDKS_TWO_WAYS)
def test_every_transport_is_tracked_and_an_empty_mount_stays_empty(
    sdk: str, *, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxies' transports are tracked too; NO_PROXY's None still means the client's own transport."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.test")

    found = transports(make(sdk, asynchronous=asynchronous))

    assert found.pop("all://*example.test") is None
    assert set(found) == {"", "https://"}
    assert all(isinstance(transport, TRACKED) for transport in found.values())


@pytest.mark.parametrize(("sdk", "asynchronous"), SDKS_TWO_WAYS)
def test_a_call_through_a_proxy_is_metered(
    sdk: str, *, asynchronous: bool, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's proxy is used, and what goes through it counts."""
    monkeypatch.setenv("HTTP_PROXY", server.url)

    with capture_usage() as events:
        call(make(sdk, asynchronous=asynchronous), "http://provider.test")

    assert [sent.target for sent in server.calls] == ["http://provider.test/v1/chat/completions"]
    assert [event.usage.input_tokens for event in events] == [3]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("backend", ["httpx", "httpx2"])
def test_google_keeps_its_certificates(
    backend: str, variable: str, *, asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """google-genai reads SSL_CERT_FILE and SSL_CERT_DIR by itself, on either library; so does ours."""
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    (tmp_path / "ca.pem").write_text(first + end)
    monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", backend)
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem" if variable == "SSL_CERT_FILE" else tmp_path))

    tracked = facts(make("google-genai", asynchronous=asynchronous))

    assert tracked == facts(own_client("google-genai", asynchronous=asynchronous))
    assert f"{backend}.BaseClient" in tracked["family"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_without_an_sdk_the_client_is_of_the_newest_library_and_fit_for_long_calls(
    *, asynchronous: bool
) -> None:
    """No SDK: httpx2, ten minutes, five seconds to connect, a large pool, redirects followed."""
    client = make(asynchronous=asynchronous)

    found = facts(client)

    assert isinstance(client, httpx2.AsyncClient if asynchronous else httpx2.Client)
    assert found["timeout"] == httpx2.Timeout(600, connect=5)
    assert found["follow_redirects"] is True
    assert found["transports"][""]["_max_connections"] == 1000
    assert found["transports"][""]["_max_keepalive_connections"] == 100


# Which SDK is meant


class Ours(openai.AzureOpenAI):
    """A user's subclass."""


@pytest.mark.parametrize(
    ("sdk", "asynchronous", "family"),
    [
        ("openai", False, httpx2.Client),
        (" OpenAI ", False, httpx2.Client),
        (openai, False, httpx2.Client),
        (openai.OpenAI, False, httpx2.Client),
        (openai.AsyncOpenAI, True, httpx2.AsyncClient),
        (openai.AzureOpenAI, False, httpx2.Client),
        (openai.AsyncAzureOpenAI, True, httpx2.AsyncClient),
        (Ours, False, httpx2.Client),
        (anthropic.AsyncAnthropic, True, httpx2.AsyncClient),
        ("groq", True, httpx.AsyncClient),
        (groq, False, httpx.Client),
        (groq.Groq, False, httpx.Client),
        ("google-genai", False, httpx2.Client),
        ("google.genai", False, httpx2.Client),
        ("google_genai", False, httpx2.Client),
        (genai, False, httpx2.Client),
        (genai.Client, False, httpx2.Client),
        (genai.Client, True, httpx2.AsyncClient),
        (None, False, httpx2.Client),
    ],
)
def test_an_sdk_is_named_by_name_class_or_module(
    sdk: Any, *, asynchronous: bool, family: type[object]
) -> None:
    """Any way of saying which SDK gives a tracked client of the library that this SDK takes."""
    client = make(sdk, asynchronous=asynchronous)

    assert isinstance(client._transport, TRACKED)
    assert isinstance(client, family)


@pytest.mark.parametrize(
    ("sdk", "options", "says"),
    [
        ("opanai", {}, r"Did you mean 'openai'"),
        ("something", {}, r"Known are openai, anthropic"),
        (json, {}, r"is of no SDK that we know"),
        (dict, {}, r"is of no SDK that we know"),
        (3, {}, r"name of an SDK, its class or its module, not 'int'"),
        (openai.AsyncOpenAI, {}, r"type tracked_async_http_client\(AsyncOpenAI\)"),
        ("ollama", {}, r"track\(ollama\.Client\(\)\)"),
        ("replicate", {}, r"track\(replicate\.Client\(\)\)"),
        ("assemblyai", {}, r"track\(assemblyai\)"),
        ("huggingface_hub", {}, r"track\(huggingface_hub\)"),
        ("openai", {"customer": "acme"}, r"'customer'.*Ours are tracker, customer_id"),
        (None, {"customer": "acme"}, r"'customer'.*Ours are tracker, customer_id"),
        ("groq", {"transport": httpx2.HTTPTransport()}, r"a transport of httpx2, but this SDK uses httpx"),
        ("openai", {"transport": httpx.HTTPTransport()}, r"a transport of httpx, but this SDK uses httpx2"),
        ("anthropic", {"transport": httpx.HTTPTransport()}, r"uses `httpx2`"),
        ("google-genai", {"transport": httpx.HTTPTransport()}, r"a transport of httpx, but"),
        ("openai", {"mounts": {"all://": httpx.HTTPTransport()}}, r"a transport of httpx, but"),
        ("openai", {"transport": httpx2.AsyncHTTPTransport()}, r"no handle_request\(\)"),
        ("openai", {"transport": object()}, r"no handle_request\(\)"),
        ("openai", {"provider": "no-such-provider"}, r"no-such-provider"),
        ("openai", {"include_usage": "sometimes"}, r"include_usage"),
        ("openai", {"tracker": "acme"}, r"tracker"),
    ],
)
def test_a_wrong_argument_says_what_to_type(sdk: Any, options: dict[str, Any], says: str) -> None:
    """What cannot work is refused where the client is made, with the way out in the message."""
    with pytest.raises(TrackingSetupError, match=says):
        tracked_http_client(sdk, **options)


def test_a_sync_class_is_no_sdk_for_an_async_client() -> None:
    """The other way round it is said just as well."""
    with pytest.raises(TrackingSetupError, match=r"type tracked_http_client\(OpenAI\)"):
        tracked_async_http_client(openai.OpenAI)


def test_an_object_is_not_an_sdk() -> None:
    """Who has the SDK's object already is sent to track()."""
    client: Any = openai.OpenAI(api_key="k")
    with pytest.raises(TrackingSetupError, match=r"type track\(client\)"):
        tracked_http_client(client)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "options", [{"customer_id": ""}, {"customer_id": 7}, {"metadata": {"a": object()}}, {"metadata": "a"}]
)
def test_bad_attribution_is_refused_at_construction(options: dict[str, Any], *, asynchronous: bool) -> None:
    """A customer id or metadata that no event can carry never gets into a client."""
    with pytest.raises(AttributionError):
        make("openai", asynchronous=asynchronous, **options)


def test_a_release_without_its_defaults_for_the_asking_is_sent_to_track(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Early releases export no default client: guessing their defaults would lose some of them."""
    monkeypatch.delattr(openai, "DefaultHttpxClient")

    with pytest.raises(TrackingSetupError, match=r"has no DefaultHttpxClient.*call track\(\) on it"):
        tracked_http_client("openai")


def test_a_google_that_takes_no_client_is_sent_to_track(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.42 or so google-genai had no option for an HTTP client."""
    options = types.HttpOptions.model_fields
    without = {name: field for name, field in options.items() if not name.startswith("httpx")}
    monkeypatch.setattr(types, "HttpOptions", SimpleNamespace(model_fields=without))

    with pytest.raises(TrackingSetupError, match=r"call track\(\) on it"):
        tracked_http_client("google-genai")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_google_without_its_private_classes_gets_a_client_of_its_library(
    *, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a release of google-genai move its classes, the library's own takes their place."""
    own = own_client("google-genai", asynchronous=asynchronous)
    monkeypatch.delattr("google.genai._api_client.SyncHttpx2Client")
    monkeypatch.delattr("google.genai._api_client.AsyncHttpx2Client")

    assert facts(make("google-genai", asynchronous=asynchronous)) == facts(own)


# Options of the client


@pytest.mark.parametrize(("sdk", "asynchronous"), SDKS_TWO_WAYS)
def test_options_reach_the_client_and_the_other_defaults_stay(sdk: str, *, asynchronous: bool) -> None:
    """One option of the caller's changes that one thing."""
    own = facts(own_client(sdk, asynchronous=asynchronous))

    found = facts(make(sdk, asynchronous=asynchronous, timeout=7, max_redirects=3))

    assert found.pop("timeout").read == 7
    assert found.pop("max_redirects") == 3
    assert {name: fact for name, fact in own.items() if name in found} == found


@pytest.mark.parametrize(("sdk", "asynchronous"), SDKS_TWO_WAYS)
def test_a_transport_of_ones_own_keeps_timeout_and_redirects(sdk: str, *, asynchronous: bool) -> None:
    """With `transport=` the rest is still the SDK's, and the transport is the caller's, tracked."""
    library = httpx if sdk == "groq" else httpx2
    own = own_client(sdk, asynchronous=asynchronous)
    mine = library.MockTransport(lambda request: library.Response(200))

    client = make(sdk, asynchronous=asynchronous, transport=mine)

    assert client._transport.unwrapped is mine
    assert (client.timeout, client.follow_redirects) == (own.timeout, own.follow_redirects)


@pytest.mark.parametrize(("library", "asynchronous"), FOUR_WAYS)
def test_a_tracked_transport_as_transport_counts_once(library: Any, *, asynchronous: bool) -> None:
    """A client for a transport that is tracked already does not count twice."""
    ours = cmdrdata_transport.httpx if library is httpx else cmdrdata_transport.httpx2
    kind: Any = ours.AsyncTrackedTransport if asynchronous else ours.TrackedTransport
    mine = kind(library.MockTransport(lambda request: library.Response(200, json=COMPLETION)))

    client = make("groq" if library is httpx else "openai", asynchronous=asynchronous, transport=mine)
    with capture_usage() as events:
        call(client, "http://provider.test")

    assert client._transport is mine
    assert len(events) == 1


# Lifetimes


class Witness:
    """A transport that writes down what is done to it."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.seen: list[str] = []
        self.colour = "blue"

    def handle_request(self, request: Any) -> Any:
        """An answer."""
        self.seen.append("request")
        return self.library.Response(200, json=COMPLETION)

    async def handle_async_request(self, request: Any) -> Any:
        """The same answer."""
        return self.handle_request(request)

    def close(self) -> None:
        """Written down."""
        self.seen.append("close")

    async def aclose(self) -> None:
        """Written down."""
        self.seen.append("close")

    def __enter__(self) -> Self:
        self.seen.append("enter")
        return self

    def __exit__(self, *args: object) -> None:
        self.seen.append("exit")

    async def __aenter__(self) -> Self:
        self.seen.append("enter")
        return self

    async def __aexit__(self, *args: object) -> None:
        self.seen.append("exit")


@pytest.mark.parametrize("way", ["with", "close"])
@pytest.mark.parametrize(("library", "asynchronous"), FOUR_WAYS)
def test_entering_and_closing_reach_the_transport_as_in_a_bare_client(
    library: Any, *, asynchronous: bool, way: str
) -> None:
    """`with client` and `client.close()` do to the wrapped transport what a bare client does to it."""

    async def use(client: Any) -> None:
        if way == "close":
            await both(client.get("http://provider.test"))
            await both(client.aclose() if asynchronous else client.close())
        elif asynchronous:
            async with client:
                await client.get("http://provider.test")
        else:
            with client:
                client.get("http://provider.test")
        assert client.is_closed

    expected, seen = Witness(library), Witness(library)
    sdk = "groq" if library is httpx else "openai"
    asyncio.run(use(bare(library, asynchronous=asynchronous, transport=expected)))
    asyncio.run(use(make(sdk, asynchronous=asynchronous, transport=seen)))

    assert seen.seen == expected.seen
    assert "request" in seen.seen


@pytest.mark.parametrize(("library", "asynchronous"), FOUR_WAYS)
def test_unknown_attributes_are_the_wrapped_transports(library: Any, *, asynchronous: bool) -> None:
    """What an SDK looks for in its own transport is still found there, and what is not there is not."""
    client = make(
        "groq" if library is httpx else "openai", asynchronous=asynchronous, transport=Witness(library)
    )

    assert client._transport.colour == "blue"
    assert not hasattr(client._transport, "flavour")


def answer_httpx(request: httpx.Request) -> httpx.Response:
    """A handler that pickle finds by name."""
    return httpx.Response(200, json=COMPLETION)


def answer_httpx2(request: httpx2.Request) -> httpx2.Response:
    """A handler that pickle finds by name."""
    return httpx2.Response(200, json=COMPLETION)


DUPLICATIONS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


def outcome(duplicate: Any, value: Any) -> tuple[str, Any]:
    """A copy, or the error that said there can be none."""
    try:
        return "ok", duplicate(value)
    except Exception as error:
        return f"{type(error).__name__}: {error}", None


@pytest.mark.parametrize("what", ["client", "transport"])
@pytest.mark.parametrize("real", [True, False], ids=["real", "mock"])
@pytest.mark.parametrize("duplicate", DUPLICATIONS.values(), ids=DUPLICATIONS)
@pytest.mark.parametrize(("library", "asynchronous"), FOUR_WAYS)
def test_copies_go_as_far_as_a_bare_clients(
    library: Any, *, asynchronous: bool, duplicate: Any, real: bool, what: str
) -> None:
    """copy, deepcopy and pickle succeed and fail, with the same words, where they do on a bare client."""
    handler = answer_httpx if library is httpx else answer_httpx2
    options = {} if real else {"transport": library.MockTransport(handler)}
    plain = bare(library, asynchronous=asynchronous, **options)
    tracked = bare(library, asynchronous=asynchronous, **options)
    cmdrdata_transport.track(tracked, customer_id="acme")

    if what == "client":
        expected, found = outcome(duplicate, plain), outcome(duplicate, tracked)
    else:
        expected, found = outcome(duplicate, plain._transport), outcome(duplicate, tracked._transport)

    assert found[0] == expected[0]
    if found[1] is not None and not real:
        client = (
            found[1] if what == "client" else bare(library, asynchronous=asynchronous, transport=found[1])
        )
        with capture_usage() as events:
            call(client, "http://provider.test")
        assert [event.customer_id for event in events] == ["acme"]


# Either library may be absent, or stand for both


def python(code: str) -> None:
    """Run code in an interpreter of its own; it fails the test by raising."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from cmdrdata_transport import track, tracked_async_http_client, tracked_http_client
from cmdrdata_transport.errors import TrackingSetupError
"""


@pytest.mark.parametrize(("absent", "left"), [("httpx", "httpx2"), ("httpx2", "httpx")])
def test_one_library_is_enough(absent: str, left: str) -> None:
    """Without httpx, or without httpx2, clients are made, tracked and metered with the other."""
    python(
        f"{BLOCK.format(absent={absent})}\n"
        f"import {left} as library\n"
        "from cmdrdata_transport.testing import capture_usage\n"
        f"COMPLETION = {COMPLETION!r}\n"
        "answer = library.MockTransport(lambda request: library.Response(200, json=COMPLETION))\n"
        "with capture_usage() as events:\n"
        "    for client in (tracked_http_client(transport=answer),\n"
        "                   track(library.Client(transport=answer))):\n"
        "        assert isinstance(client, library.Client)\n"
        "        with client:\n"
        "            client.post('http://provider.test/v1/chat/completions', json={'model': 'gpt-5'})\n"
        "assert len(events) == 2, events\n"
        "assert isinstance(tracked_async_http_client(), library.AsyncClient)\n"
        f"assert {absent!r} not in sys.modules\n"
    )


def test_with_neither_library_the_message_says_what_to_install() -> None:
    """No HTTP library at all is an error that says so."""
    python(
        BLOCK.format(absent={"httpx", "httpx2"})
        + """
try:
    tracked_http_client()
except TrackingSetupError as error:
    assert "pip install httpx2" in str(error)
else:
    raise AssertionError("no error")
"""
    )


def test_an_sdk_that_is_not_installed_is_named() -> None:
    """The message for an absent SDK is the pip command."""
    python(
        BLOCK.format(absent={"groq"})
        + """
try:
    tracked_http_client("groq")
except TrackingSetupError as error:
    assert "pip install groq" in str(error), error
else:
    raise AssertionError("no error")
"""
    )


def test_an_aliased_httpx_confuses_nothing() -> None:
    """After `httpx2.alias_httpx()` clients of both names are httpx2's, and each counts once."""
    python(f"""
    import httpx2
    httpx2.alias_httpx()
    import httpx
    assert httpx is httpx2
    import groq, openai
    from cmdrdata_transport import track, tracked_http_client
    from cmdrdata_transport.testing import capture_usage
    COMPLETION = {COMPLETION!r}
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json=COMPLETION))
    clients = [
        openai.OpenAI(api_key="k", http_client=tracked_http_client("openai", transport=answer)),
        groq.Groq(api_key="k", http_client=tracked_http_client("groq", transport=answer)),
        track(groq.Groq(api_key="k", http_client=httpx.Client(transport=answer))),
    ]
    with capture_usage() as events:
        for client in clients:
            client.chat.completions.create(model="gpt-5", messages=[])
    assert len(events) == 3, events
    """)


def test_importing_us_imports_no_http_library() -> None:
    """The module that makes clients loads a library only when a client is made."""
    python("""
    import sys
    import cmdrdata_transport.clients, cmdrdata_transport.install
    assert not {"httpx", "httpx2", "openai"} & set(sys.modules)
    """)
