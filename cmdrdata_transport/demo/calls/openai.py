"""openai: chat, responses and embeddings; and other providers that are called through its SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Headers, SdkCall

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


def _connect(module: Any, url: str, http: Any) -> Any:
    return module.OpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=http)


def _connect_async(module: Any, url: str, http: Any) -> Any:
    return module.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, http_client=http)


OPENAI = CalledSdk(
    name="openai",
    module="openai",
    provider="openai",
    connect=_connect,
    connect_async=_connect_async,
    calls=(
        SdkCall(name="chat", make=chat("gpt-5")),
        SdkCall(name="chat, streaming", make=chat("gpt-5", **STREAM), streaming=True),
        SdkCall(name="responses", make=responses("gpt-5-mini")),
        SdkCall(name="responses, streaming", make=responses("gpt-5-mini", stream=True), streaming=True),
        SdkCall(name="embeddings", make=embeddings("text-embedding-3-small")),
    ),
)
