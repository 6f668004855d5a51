"""The calls that the demo and the doctor make: each SDK's own, as a table.

Knows how each SDK is pointed at a server and what its calls are. Knows nothing of what comes of them.
To add a call is to add a row. An SDK's sync and async clients take the same call: the async one gives
an awaitable of what the sync one gives. SDKs are imported when they are connected.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmdrdata_transport.clients import tracked_async_http_client, tracked_http_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

_KEY = "not-a-key"

_LOOPBACK: Mapping[str, Any] = {"trust_env": False, "verify": False}
"""Client options for a server on this machine: no proxy, and no certificates, which take long to load."""

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkCall:
    """One call of an SDK.

    `make` is given the client and headers to send along; with `streaming`, what it gives is iterated.
    """

    name: str
    make: Callable[[Any, Headers], Any]
    streaming: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledSdk:
    """One SDK: its name for `tracked_http_client`, its module, whose it is, and its calls.

    `connect` and `connect_async` make its object from the server's URL and an HTTP client.
    """

    name: str
    module: str
    provider: str
    connect: Callable[[Any, str, Any], Any]
    connect_async: Callable[[Any, str, Any], Any]
    calls: tuple[SdkCall, ...]

    @property
    def installed(self) -> bool:
        """Whether it can be imported; nothing is imported to tell."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # of a parent package
            return False


@contextmanager
def connected(sdk: CalledSdk, url: str, **tracking: Any) -> Generator[Any]:
    """The SDK's sync client, tracked, talking to the server at `url`.

    `tracking`: the options of `tracked_http_client`.
    """
    with tracked_http_client(sdk.name, **_LOOPBACK, **tracking) as http:
        yield sdk.connect(importlib.import_module(sdk.module), url, http)


@asynccontextmanager
async def connected_async(sdk: CalledSdk, url: str, **tracking: Any) -> AsyncGenerator[Any]:
    """The same, async."""
    async with tracked_async_http_client(sdk.name, **_LOOPBACK, **tracking) as http:
        yield sdk.connect_async(importlib.import_module(sdk.module), url, http)


def call(client: Any, what: SdkCall, headers: Headers) -> None:
    """Make one call, and read it to its end."""
    answer = what.make(client, headers)
    if what.streaming:
        deque(answer, maxlen=0)


async def call_async(client: Any, what: SdkCall, headers: Headers) -> None:
    """The same with an async client."""
    answer = await what.make(client, headers)
    if what.streaming:
        async for _ in answer:
            pass


_QUESTION: list[dict[str, str]] = [{"role": "user", "content": "What did the café bill?"}]


def _chat(model: str, **options: Any) -> Callable[[Any, Headers], Any]:
    return lambda client, headers: client.chat.completions.create(
        model=model, messages=_QUESTION, extra_headers=headers, **options
    )


def _responses(**options: Any) -> Callable[[Any, Headers], Any]:
    return lambda client, headers: client.responses.create(
        model="gpt-5-mini", input="What did the café bill?", extra_headers=headers, **options
    )


def _embeddings(client: Any, headers: Headers) -> Any:
    return client.embeddings.create(
        model="text-embedding-3-small", input=["café", "bill"], extra_headers=headers
    )


def _messages(**options: Any) -> Callable[[Any, Headers], Any]:
    return lambda client, headers: client.messages.create(
        model="claude-haiku-4-5", max_tokens=512, messages=_QUESTION, extra_headers=headers, **options
    )


def _gemini(method: str, model: str) -> Callable[[Any, Headers], Any]:
    def make(client: Any, headers: Headers) -> Any:
        config = {"http_options": {"headers": dict(headers)}}
        return getattr(client.models, method)(model=model, contents="What did the café bill?", config=config)

    return make


def _openai(module: Any, url: str, http: Any) -> Any:
    return module.OpenAI(base_url=f"{url}/v1", api_key=_KEY, http_client=http)


def _async_openai(module: Any, url: str, http: Any) -> Any:
    return module.AsyncOpenAI(base_url=f"{url}/v1", api_key=_KEY, http_client=http)


def _anthropic(module: Any, url: str, http: Any) -> Any:
    return module.Anthropic(base_url=url, api_key=_KEY, http_client=http)


def _async_anthropic(module: Any, url: str, http: Any) -> Any:
    return module.AsyncAnthropic(base_url=url, api_key=_KEY, http_client=http)


def _genai(module: Any, url: str, http: Any) -> Any:
    options = {"base_url": url, "httpx_client": http}
    return module.Client(api_key=_KEY, vertexai=False, http_options=options)


def _async_genai(module: Any, url: str, http: Any) -> Any:
    options = {"base_url": url, "httpx_async_client": http}
    return module.Client(api_key=_KEY, vertexai=False, http_options=options).aio


def _groq(module: Any, url: str, http: Any) -> Any:
    return module.Groq(base_url=url, api_key=_KEY, http_client=http)


def _async_groq(module: Any, url: str, http: Any) -> Any:
    return module.AsyncGroq(base_url=url, api_key=_KEY, http_client=http)


CALLED_SDKS = (
    CalledSdk(
        name="openai",
        module="openai",
        provider="openai",
        connect=_openai,
        connect_async=_async_openai,
        calls=(
            SdkCall(name="chat", make=_chat("gpt-5")),
            SdkCall(
                name="chat, streaming",
                make=_chat("gpt-5", stream=True, stream_options={"include_usage": True}),
                streaming=True,
            ),
            SdkCall(name="responses", make=_responses()),
            SdkCall(name="responses, streaming", make=_responses(stream=True), streaming=True),
            SdkCall(name="embeddings", make=_embeddings),
        ),
    ),
    CalledSdk(
        name="anthropic",
        module="anthropic",
        provider="anthropic",
        connect=_anthropic,
        connect_async=_async_anthropic,
        calls=(
            SdkCall(name="messages", make=_messages()),
            SdkCall(name="messages, streaming", make=_messages(stream=True), streaming=True),
        ),
    ),
    CalledSdk(
        name="google-genai",
        module="google.genai",
        provider="google",
        connect=_genai,
        connect_async=_async_genai,
        calls=(
            SdkCall(name="generateContent", make=_gemini("generate_content", "gemini-2.5-flash")),
            SdkCall(
                name="generateContent, streaming",
                make=_gemini("generate_content_stream", "gemini-2.5-flash"),
                streaming=True,
            ),
            SdkCall(name="embedContent", make=_gemini("embed_content", "gemini-embedding-001")),
        ),
    ),
    CalledSdk(
        name="groq",
        module="groq",
        provider="groq",
        connect=_groq,
        connect_async=_async_groq,
        calls=(
            SdkCall(name="chat", make=_chat("llama-3.3-70b-versatile")),
            SdkCall(
                name="chat, streaming",
                make=_chat("llama-3.3-70b-versatile", stream=True),
                streaming=True,
            ),
        ),
    ),
)
"""Every SDK that the demo and the doctor call."""
