"""openai: chat, responses and embeddings; and other providers that are called through its SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Connect, Headers, SdkCall

QUESTION = "What did the café bill?"
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": QUESTION}]

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def chat(model: str, **options: Any) -> Callable[[Any, Headers], Any]:
    """`chat.completions.create`, which many SDKs have."""
    return lambda client, headers: client.chat.completions.create(
        model=model, messages=MESSAGES, extra_headers=headers, **options
    )


def responses(model: str, **options: Any) -> Callable[[Any, Headers], Any]:
    """`responses.create`."""
    return lambda client, headers: client.responses.create(
        model=model, input=QUESTION, extra_headers=headers, **options
    )


def embeddings(model: str, **options: Any) -> Callable[[Any, Headers], Any]:
    """`embeddings.create`."""
    return lambda client, headers: client.embeddings.create(
        model=model, input=["café", "bill"], extra_headers=headers, **options
    )


def of_class(name: str, at: str = "", **options: Any) -> Connect:
    """A class of the module, made as OpenAI's is; its server is at this place below the URL."""

    def connect(module: Any, url: str, http: Any) -> Any:
        return getattr(module, name)(base_url=url + at, api_key=KEY, http_client=http, **options)

    return connect


def through_openai(name: str, provider: str, at: str, *calls: SdkCall) -> CalledSdk:
    """The openai SDK at a server of this provider."""
    return CalledSdk(
        name=name,
        module="openai",
        provider=provider,
        connect=of_class("OpenAI", at),
        connect_async=of_class("AsyncOpenAI", at),
        calls=calls,
        sdk="openai",
    )


OPENAI = through_openai(
    "openai",
    "openai",
    "/v1",
    SdkCall(name="chat", make=chat("gpt-5")),
    SdkCall(name="chat, streaming", make=chat("gpt-5", **STREAM), streaming=True),
    SdkCall(name="responses", make=responses("gpt-5-mini")),
    SdkCall(name="responses, streaming", make=responses("gpt-5-mini", stream=True), streaming=True),
    SdkCall(name="embeddings", make=embeddings("text-embedding-3-small")),
)

XAI = through_openai(
    "openai at xAI",
    "x-ai",
    "/x-ai/v1",
    SdkCall(name="chat", make=chat("grok-4.3")),
    SdkCall(name="chat, streaming", make=chat("grok-4.3", **STREAM), streaming=True),
    SdkCall(name="responses", make=responses("grok-4.3")),
    SdkCall(name="responses, streaming", make=responses("grok-4.3", stream=True), streaming=True),
)

DEEPSEEK = through_openai(
    "openai at DeepSeek",
    "deepseek",
    "/deepseek/v1",
    SdkCall(name="chat", make=chat("deepseek-chat")),
    SdkCall(name="chat, streaming", make=chat("deepseek-chat", **STREAM), streaming=True),
)

OPENROUTER = through_openai(
    "openai at OpenRouter",
    "openrouter",
    "/openrouter/v1",
    SdkCall(name="chat", make=chat("anthropic/claude-sonnet-4.5")),
    SdkCall(name="chat, streaming", make=chat("anthropic/claude-sonnet-4.5", stream=True), streaming=True),
)
