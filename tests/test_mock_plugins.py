"""What users' own tests do: real SDKs, a plugin that answers in the provider's place, and our fixture.

pytest-httpx and respx answer for httpx, pytest-httpx2 for httpx2. They stand below our transport, so the
providers are at their true addresses, and the events must be those that the fixtures state. (httpx2-pytest
takes the module name of pytest-httpx2; `tests/environments` tries it where the other is not installed.)
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import groq
import httpcore2
import httpx
import openai
import pytest
import respx
from exchange import Fixture, cut, fixtures, stable
from google import genai
from pytest_httpx import IteratorStream
from sdks import both, entered, every

from cmdrdata_transport import (
    UsageEvent,
    customer_context,
    track,
    tracked_async_http_client,
    tracked_http_client,
)

pytestmark = pytest.mark.usefixtures("one_certificate")

FIXTURES = {fixture.name: fixture for fixture in fixtures()}


async def openai_client(stack: AsyncExitStack, *, asynchronous: bool) -> Any:
    """OpenAI, with the client that it wants: of httpx2."""
    make = tracked_async_http_client if asynchronous else tracked_http_client
    http = await stack.enter_async_context(entered(make("openai")))
    return (openai.AsyncOpenAI if asynchronous else openai.OpenAI)(api_key="none", http_client=http)


async def openai_client_over_httpx(stack: AsyncExitStack, *, asynchronous: bool) -> Any:
    """OpenAI, with the client that its user made: of httpx."""
    http = await stack.enter_async_context(
        entered(track(httpx.AsyncClient() if asynchronous else httpx.Client()))
    )
    return (openai.AsyncOpenAI if asynchronous else openai.OpenAI)(api_key="none", http_client=http)


async def anthropic_client(stack: AsyncExitStack, *, asynchronous: bool) -> Any:
    """Anthropic, of httpx2."""
    make = tracked_async_http_client if asynchronous else tracked_http_client
    http = await stack.enter_async_context(entered(make("anthropic")))
    kind = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    return kind(api_key="none", http_client=http)


async def google_client(stack: AsyncExitStack, *, asynchronous: bool) -> Any:
    """google-genai, of httpx2."""
    http = await stack.enter_async_context(entered(tracked_http_client("google-genai")))
    async_http = await stack.enter_async_context(entered(tracked_async_http_client("google-genai")))
    options: Any = {"httpx_client": http, "httpx_async_client": async_http}
    client = genai.Client(api_key="none", vertexai=False, http_options=options)
    return client.aio if asynchronous else client


async def groq_client(stack: AsyncExitStack, *, asynchronous: bool) -> Any:
    """Groq, of httpx."""
    make = tracked_async_http_client if asynchronous else tracked_http_client
    http = await stack.enter_async_context(entered(make("groq")))
    return (groq.AsyncGroq if asynchronous else groq.Groq)(api_key="none", http_client=http)


def chat(client: Any, body: dict[str, Any]) -> Any:
    """Chat completions of OpenAI and Groq."""
    return client.chat.completions.create(**body)


def responses(client: Any, body: dict[str, Any]) -> Any:
    """OpenAI's responses."""
    return client.responses.create(**body)


def messages(client: Any, body: dict[str, Any]) -> Any:
    """Anthropic's messages."""
    return client.messages.create(**body)


def generate(client: Any, body: dict[str, Any]) -> Any:
    """Gemini's generateContent."""
    return client.models.generate_content(model="gemini-3-flash", **body)


def generate_stream(client: Any, body: dict[str, Any]) -> Any:
    """Gemini's streamGenerateContent."""
    return client.models.generate_content_stream(model="gemini-3-flash", **body)


def by_pytest_httpx(mock: Any, fixture: Fixture) -> None:
    """The fixture's answer: whole, or as a stream in pieces."""
    answer = fixture.exchange
    pieces = IteratorStream(cut(answer.body, fixture.cuts)) if fixture.cuts else None
    mock.add_response(
        status_code=answer.status,
        headers=list(answer.headers),
        content=None if pieces else answer.body,
        stream=pieces,
    )


def by_respx(mock: Any, fixture: Fixture) -> None:
    """The fixture's answer; pytest-httpx2 is respx too, and takes responses of httpx."""
    answer = fixture.exchange
    pieces = IteratorStream(cut(answer.body, fixture.cuts)) if fixture.cuts else None
    mock.route().mock(
        return_value=httpx.Response(
            answer.status, headers=answer.headers, content=None if pieces else answer.body, stream=pieces
        )
    )


ANSWERING: dict[str, Callable[[Any, Fixture], None]] = {
    "httpx_mock": by_pytest_httpx,
    "respx_mock": by_respx,
    "httpx2_mock": by_respx,
}
"""By the name of the plugin's fixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A plugin, an SDK that it can answer, and the exchange."""

    plugin: str
    client: Callable[..., Any]
    call: Callable[[Any, dict[str, Any]], Any]
    fixture: str

    def __str__(self) -> str:
        return f"{self.plugin} {self.client.__name__} {self.fixture}"


CASES = [
    *(
        Case(plugin=plugin, client=client, call=call, fixture=fixture)
        for plugin in ("httpx_mock", "respx_mock")
        for client, call, fixture in (
            (groq_client, chat, "groq/chat"),
            (groq_client, chat, "groq/chat-stream"),
            (openai_client_over_httpx, chat, "openai/chat"),
            (openai_client_over_httpx, chat, "openai/chat-stream"),
            (openai_client_over_httpx, responses, "openai/responses"),
        )
    ),
    *(
        Case(plugin="httpx2_mock", client=client, call=call, fixture=fixture)
        for client, call, fixture in (
            (openai_client, chat, "openai/chat"),
            (openai_client, chat, "openai/chat-stream"),
            (openai_client, responses, "openai/responses-stream"),
            (anthropic_client, messages, "anthropic/messages"),
            (anthropic_client, messages, "anthropic/messages-stream"),
            (google_client, generate, "google/generate"),
            (google_client, generate_stream, "google/stream"),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_mocked_answer_is_metered(
    case: Case,
    request: pytest.FixtureRequest,
    cmdrdata_usage: list[UsageEvent],
    *,
    asynchronous: bool,
) -> None:
    """What a plugin answers for a provider is recorded as the provider's own answer would be."""
    fixture = FIXTURES[case.fixture]
    asked = json.loads(fixture.exchange.request_body or b"{}")
    ANSWERING[case.plugin](request.getfixturevalue(case.plugin), fixture)

    async def go() -> None:
        async with AsyncExitStack() as stack:
            client = await case.client(stack, asynchronous=asynchronous)
            with customer_context("acme"):
                answer = await both(case.call(client, asked))
                if fixture.events[0]["streaming"]:
                    await every(answer)

    asyncio.run(go())
    assert [stable(event.to_dict()) for event in cmdrdata_usage] == [
        {"format": "cmdrdata.usage/1", "customer_id": "acme", **event} for event in fixture.events
    ]


# --- what a plugin does instead of answering ---

PLUGINS = [
    pytest.param("httpx_mock", groq_client, "llama-3.3-70b-versatile", id="pytest-httpx"),
    pytest.param("respx_mock", groq_client, "llama-3.3-70b-versatile", id="respx"),
    pytest.param("httpx2_mock", openai_client, "gpt-5", id="pytest-httpx2"),
]


@pytest.mark.parametrize(("plugin", "client", "model"), PLUGINS)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_mocked_failure_is_a_failure(
    plugin: str,
    client: Callable[..., Any],
    model: str,
    request: pytest.FixtureRequest,
    cmdrdata_usage: list[UsageEvent],
    *,
    asynchronous: bool,
) -> None:
    """A timeout that a plugin raises reaches the application, and is an attempt of unknown outcome."""
    mock = request.getfixturevalue(plugin)
    if plugin == "httpx_mock":
        mock.add_exception(httpx.ReadTimeout("too slow"))
    elif plugin == "respx_mock":
        mock.route().mock(side_effect=httpx.ReadTimeout("too slow"))
    else:
        mock.route().mock(side_effect=httpcore2.ReadTimeout("too slow"))

    async def go() -> None:
        async with AsyncExitStack() as stack:
            sdk = await client(stack, asynchronous=asynchronous)
            await both(chat(sdk.with_options(max_retries=0), {"model": model, "messages": []}))

    with pytest.raises((openai.APITimeoutError, groq.APITimeoutError)):
        asyncio.run(go())
    [event] = cmdrdata_usage
    assert (event.outcome, event.usage_status, event.error_type) == ("unknown", "none", "ReadTimeout")


def test_respx_in_place_of_the_transport_leaves_nothing_to_meter(cmdrdata_usage: list[UsageEvent]) -> None:
    """`using="httpx"` makes respx the client's transport, in our place too: README says to leave it out."""
    with respx.mock(using="httpx") as router:
        by_respx(router, FIXTURES["groq/chat"])
        with groq.Groq(api_key="none", http_client=tracked_http_client("groq")) as client:
            chat(client, {"model": "llama-3.3-70b-versatile", "messages": []})
    assert cmdrdata_usage == []


# --- our fixture, as those get it who install us ---

USERS_TEST = """
import pytest
from groq import Groq

from cmdrdata_transport import customer_context, tracked_http_client

@pytest.fixture
def assistant():
    with Groq(api_key="none", http_client=tracked_http_client("groq")) as client:
        yield client

def ask(assistant, customer):
    with customer_context(customer):
        return assistant.chat.completions.create(model="llama-3.3-70b-versatile", messages=[])

def test_who_pays(assistant, httpx_mock, cmdrdata_usage):
    httpx_mock.add_response(json={
        "id": "1", "model": "llama-3.3-70b-versatile", "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    })
    ask(assistant, "acme")
    [event] = cmdrdata_usage
    assert (event.customer_id, event.usage.total_tokens) == ("acme", 10)

def test_nobody_has_called_yet(cmdrdata_usage):
    assert cmdrdata_usage == []
"""


def test_the_fixture_needs_no_import_and_touches_no_disk(tmp_path: Path) -> None:
    """`cmdrdata_usage` is there in any session; each test has its own list, and no file is made."""
    (tmp_path / "test_users.py").write_text(USERS_TEST, "utf-8")
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_users.py"],
        cwd=tmp_path,
        env={**os.environ, "CMDRDATA_HOME": str(home), "CMDRDATA_DISABLED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert not home.exists()
