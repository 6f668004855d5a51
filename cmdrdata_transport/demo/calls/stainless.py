"""The SDKs that are generated as OpenAI's is: groq, together, cerebras, fireworks, perplexity, writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmdrdata_transport.demo.calls.anthropic import messages
from cmdrdata_transport.demo.calls.openai import (
    MESSAGES,
    QUESTION,
    STREAM,
    chat,
    embeddings,
    of_class,
    responses,
)
from cmdrdata_transport.demo.calls.table import CalledSdk, Headers, SdkCall

_LLAMA = "llama-3.3-70b-versatile"

GROQ = CalledSdk(
    name="groq",
    module="groq",
    provider="groq",
    connect=of_class("Groq"),
    connect_async=of_class("AsyncGroq"),
    calls=(
        SdkCall(name="chat", make=chat(_LLAMA)),
        SdkCall(name="chat, streaming", make=chat(_LLAMA, stream=True), streaming=True),
    ),
)


def _rerank(client: Any, headers: Headers) -> Any:
    return client.rerank.create(
        model="mixedbread-ai/Mxbai-Rerank-Large-V2",
        query=QUESTION,
        documents=["café", "bill"],
        extra_headers=headers,
    )


def _image(client: Any, headers: Headers) -> Any:
    return client.images.generate(
        model="black-forest-labs/FLUX.1-schnell", prompt="a café", n=2, steps=4, extra_headers=headers
    )


TOGETHER = CalledSdk(
    name="together",
    module="together",
    provider="together",
    connect=of_class("Together", "/together"),
    connect_async=of_class("AsyncTogether", "/together"),
    calls=(
        SdkCall(name="chat", make=chat("openai/gpt-oss-20b")),
        SdkCall(name="chat, streaming", make=chat("openai/gpt-oss-20b", stream=True), streaming=True),
        SdkCall(name="embeddings", make=embeddings("BAAI/bge-base-en-v1.5")),
        SdkCall(name="rerank", make=_rerank),
        SdkCall(name="images", make=_image),
    ),
)

CEREBRAS = CalledSdk(
    name="cerebras-cloud-sdk",
    module="cerebras.cloud.sdk",
    provider="cerebras",
    connect=of_class("Cerebras", "/cerebras", warm_tcp_connection=False),
    connect_async=of_class("AsyncCerebras", "/cerebras", warm_tcp_connection=False),
    calls=(
        SdkCall(name="chat", make=chat("gpt-oss-120b")),
        SdkCall(name="chat, streaming", make=chat("gpt-oss-120b", stream=True), streaming=True),
    ),
)

_KIMI = "accounts/fireworks/models/kimi-k2-instruct"

FIREWORKS = CalledSdk(
    name="fireworks-ai",
    module="fireworks",
    provider="fireworks",
    connect=of_class("Fireworks", "/fireworks/inference"),
    connect_async=of_class("AsyncFireworks", "/fireworks/inference"),
    calls=(
        SdkCall(name="chat", make=chat(_KIMI)),
        SdkCall(name="chat, streaming", make=chat(_KIMI, stream=True), streaming=True),
        SdkCall(name="messages", make=messages(_KIMI)),  # its streams the SDK can't read (1.2)
    ),
)

PERPLEXITY = CalledSdk(
    name="perplexityai",
    module="perplexity",
    provider="perplexity",
    connect=of_class("Perplexity", "/perplexity"),
    connect_async=of_class("AsyncPerplexity", "/perplexity"),
    calls=(
        SdkCall(name="chat", make=chat("sonar")),
        SdkCall(name="chat, streaming", make=chat("sonar", stream=True), streaming=True),
        SdkCall(name="responses", make=responses("openai/gpt-5-mini")),
        SdkCall(
            name="responses, streaming", make=responses("openai/gpt-5-mini", stream=True), streaming=True
        ),
        SdkCall(name="embeddings", make=embeddings("pplx-embed-v1-0.6b")),
    ),
)


def _writer_chat(**options: Any) -> Callable[[Any, Headers], Any]:
    return lambda client, headers: client.chat.chat(
        model="palmyra-x5", messages=MESSAGES, extra_headers=headers, **options
    )


WRITER = CalledSdk(
    name="writer-sdk",
    module="writerai",
    provider="writer",
    connect=of_class("Writer", "/writer"),
    connect_async=of_class("AsyncWriter", "/writer"),
    calls=(
        SdkCall(name="chat", make=_writer_chat()),
        SdkCall(name="chat, streaming", make=_writer_chat(**STREAM), streaming=True),
    ),
)
