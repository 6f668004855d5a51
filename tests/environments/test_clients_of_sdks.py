"""What `tracked_http_client` makes is the installed SDK's own client: here and in other environments.

`run.py` beside this file runs it against other SDKs; `CMDRDATA_TEST_SDKS` then names those that are
installed there. It needs pytest and the SDKs, nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from client_facts import facts, family, installed_sdks, is_tracked, transports

from cmdrdata_transport import track, tracked_async_http_client, tracked_http_client, untrack
from cmdrdata_transport.clients import SDKS
from cmdrdata_transport.demo.loopback import Answer, Loopback
from cmdrdata_transport.testing import capture_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALLED = (os.environ.get("CMDRDATA_TEST_SDKS") or " ".join(installed_sdks())).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """How to come by the HTTP client that an SDK makes by itself.

    `kinds`: its classes, sync and async; one for both where it has one only. `at`: the attribute of the
    object that holds the client, sync and async. `given`: the option that takes ours, sync and async.
    """

    kinds: tuple[str, str]
    at: tuple[str, str] = ("_client", "_client")
    given: tuple[str, str] = ("http_client", "http_client")


def fern(*kinds: str) -> Own:
    """An SDK that Fern has generated."""
    sync, asynchronous = kinds
    wrapped = "_client_wrapper.httpx_client.httpx_client"
    return Own(kinds=(sync, asynchronous), at=(wrapped, wrapped), given=("httpx_client", "httpx_client"))


OWN = {
    "openai": Own(kinds=("OpenAI", "AsyncOpenAI")),
    "anthropic": Own(kinds=("Anthropic", "AsyncAnthropic")),
    "groq": Own(kinds=("Groq", "AsyncGroq")),
    "together": Own(kinds=("Together", "AsyncTogether")),
    "cerebras-cloud-sdk": Own(kinds=("Cerebras", "AsyncCerebras")),
    "fireworks-ai": Own(kinds=("Fireworks", "AsyncFireworks")),
    "perplexityai": Own(kinds=("Perplexity", "AsyncPerplexity")),
    "writer-sdk": Own(kinds=("Writer", "AsyncWriter")),
    "ai21": Own(kinds=("AI21Client", "AsyncAI21Client")),
    "cohere": fern("ClientV2", "AsyncClientV2"),
    "elevenlabs": fern("ElevenLabs", "AsyncElevenLabs"),
    "deepgram-sdk": fern("DeepgramClient", "AsyncDeepgramClient"),
    "mistralai": Own(
        kinds=("Mistral", "Mistral"),
        at=("sdk_configuration.client", "sdk_configuration.async_client"),
        given=("client", "async_client"),
    ),
    "google-genai": Own(
        kinds=("Client", "Client"), at=("_api_client._httpx_client", "_api_client._async_httpx_client")
    ),
}
CONSTRUCTOR = {"cerebras-cloud-sdk": {"warm_tcp_connection": False}}
"""What a constructor is told so that it sends nothing."""

TAKE_A_CLIENT = [name for name in INSTALLED if name in OWN]
EACH_TWO_WAYS = [
    pytest.param(sdk, asynchronous, id=f"{sdk}-{'async' if asynchronous else 'sync'}")
    for sdk in TAKE_A_CLIENT
    for asynchronous in (False, True)
]
two_ways = pytest.mark.parametrize(("sdk", "asynchronous"), EACH_TWO_WAYS)

ROWS = {row.name: row for row in SDKS}
kept: list[Any] = []
"""SDK objects, whose finalisers would close their clients."""


def sdk_class(sdk: str, *, asynchronous: bool) -> Any:
    """The SDK's class of this colour."""
    module = importlib.import_module(ROWS[sdk].module)
    if sdk == "mistralai" and not hasattr(module, "Mistral"):
        module = importlib.import_module("mistralai.client")
    return getattr(module, OWN[sdk].kinds[asynchronous])


def made(sdk: str, *, asynchronous: bool, **options: Any) -> Any:
    """The SDK's object."""
    obj = sdk_class(sdk, asynchronous=asynchronous)(api_key="k", **CONSTRUCTOR.get(sdk, {}), **options)
    kept.append(obj)
    return obj


def client_of(obj: Any, sdk: str, *, asynchronous: bool) -> Any:
    """The HTTP client in an SDK's object."""
    for name in OWN[sdk].at[asynchronous].split("."):
        obj = getattr(obj, name)
    return obj


def ours(sdk: Any, *, asynchronous: bool, **options: Any) -> Any:
    """A tracked client of either colour."""
    return (tracked_async_http_client if asynchronous else tracked_http_client)(sdk, **options)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxies and certificates are not what is tested."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("CO_API_KEY", "k")


@pytest.mark.parametrize("environment", ["plain", "proxies"])
@two_ways
def test_a_tracked_client_is_what_the_sdk_makes_itself(
    sdk: str, *, asynchronous: bool, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Library, timeout, redirects, pool, socket options, TLS and proxies equal the SDK's own client's."""
    if environment == "proxies":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "example.test")
    own = client_of(made(sdk, asynchronous=asynchronous), sdk, asynchronous=asynchronous)

    tracked = ours(sdk, asynchronous=asynchronous)

    assert facts(tracked) == facts(own)
    assert all(is_tracked(each) for each in transports(tracked).values() if each is not None)


@two_ways
def test_an_option_changes_one_thing(sdk: str, *, asynchronous: bool) -> None:
    """One option of the caller's leaves the SDK's other defaults as they are."""
    own = facts(client_of(made(sdk, asynchronous=asynchronous), sdk, asynchronous=asynchronous))

    found = facts(ours(sdk, asynchronous=asynchronous, timeout=7, max_redirects=3))

    assert found.pop("timeout").read == 7
    assert found.pop("max_redirects") == 3
    assert {name: fact for name, fact in own.items() if name in found} == found


@two_ways
def test_the_sdk_takes_it_and_its_class_names_it(sdk: str, *, asynchronous: bool) -> None:
    """A client made for the SDK's class goes into the SDK's object, and is the one that it uses."""
    given = OWN[sdk].given[asynchronous]
    client = ours(sdk_class(sdk, asynchronous=asynchronous), asynchronous=asynchronous)

    if sdk == "google-genai":
        options = importlib.import_module("google.genai.types").HttpOptions
        given = "httpx_async_client" if asynchronous else "httpx_client"
        obj = made(sdk, asynchronous=asynchronous, http_options=options(**{given: client}))
    else:
        obj = made(sdk, asynchronous=asynchronous, **{given: client})

    assert client_of(obj, sdk, asynchronous=asynchronous) is client


@two_ways
def test_track_finds_the_sdks_own_client(sdk: str, *, asynchronous: bool) -> None:
    """`track` wraps what the object holds in place, and `untrack` puts it back."""
    obj = made(sdk, asynchronous=asynchronous)
    client = client_of(obj, sdk, asynchronous=asynchronous)
    before = transports(client)

    assert track(obj) is obj

    assert client_of(obj, sdk, asynchronous=asynchronous) is client
    assert all(is_tracked(each) for each in transports(client).values() if each is not None)
    assert untrack(obj) is obj
    assert transports(client) == before


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A provider of one answer."""
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    with Loopback(lambda _: Answer.json({"model": "gpt-5", "choices": [], "usage": usage})) as loopback:
        yield loopback


@two_ways
def test_what_goes_through_it_is_metered(sdk: str, *, asynchronous: bool, server: Loopback) -> None:
    """A call through the client gives one event, whatever is below it: httpcore or aiohttp."""
    url = f"{server.url}/v1/chat/completions"
    client = ours(sdk, asynchronous=asynchronous)

    async def run() -> None:
        if asynchronous:
            async with client:
                await client.post(url, json={"model": "gpt-5"})
        else:
            with client:
                client.post(url, json={"model": "gpt-5"})

    with capture_usage() as events:
        asyncio.run(run())

    assert [event.usage.total_tokens for event in events] == [8]
    assert family(client)


def test_every_sdk_that_takes_a_client_is_tried() -> None:
    """A row of the table that makes clients has its own here to be compared with, and its line to type."""
    assert {row.name for row in SDKS if row.make is not None} == set(OWN)
    assert all(bool(row.line) is (row.make is not None) for row in SDKS)
    assert all(bool(row.instead) is (row.make is None) for row in SDKS)


@pytest.mark.parametrize("sdk", [row.name for row in SDKS if row.make is not None])
def test_the_line_to_type_is_python_that_makes_a_client(sdk: str) -> None:
    """The line of each row names the option that the SDK has for it."""
    row = ROWS[sdk]
    compile(row.line, row.name, "eval")
    assert f'tracked_http_client("{row.name}")' in row.line
    assert all(f"{option}=" in row.line for option in OWN[sdk].given) or sdk == "google-genai"
