"""cohere: both versions of its client; chat, embeddings and reranking."""

from __future__ import annotations

from typing import Any

from cmdrdata_transport.demo.calls.openai import MESSAGES, QUESTION
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Connect, Make, SdkCall


def _call(method: str, **arguments: Any) -> Make:
    return lambda client, headers: getattr(client, method)(
        request_options={"additional_headers": dict(headers)}, **arguments
    )


def _class(name: str) -> Connect:
    return lambda module, url, http: getattr(module, name)(api_key=KEY, base_url=url, httpx_client=http)


def _opened(client: Any) -> tuple[Any, ...]:
    return (client._client_wrapper.httpx_client.httpx_client,)  # noqa: SLF001 - it has no other way


_COMMAND = "command-a-03-2025"

_EMBED: dict[str, Any] = {
    "model": "embed-v4.0",
    "texts": ["café", "bill"],
    "input_type": "search_document",
    "embedding_types": ["float"],
}
_RERANK: dict[str, Any] = {"model": "rerank-v3.5", "query": QUESTION, "documents": ["café", "bill"]}

COHERE_V2 = CalledSdk(
    name="cohere",
    module="cohere",
    provider="cohere",
    connect=_class("ClientV2"),
    connect_async=_class("AsyncClientV2"),
    at="/cohere",
    opened=_opened,
    calls=(
        SdkCall(name="chat", make=_call("chat", model=_COMMAND, messages=MESSAGES)),
        SdkCall(
            name="chat, streaming",
            make=_call("chat_stream", model=_COMMAND, messages=MESSAGES),
            streaming=True,
            later=True,
        ),
        SdkCall(name="embed", make=_call("embed", **_EMBED)),
        SdkCall(name="rerank", make=_call("rerank", **_RERANK)),
    ),
)

COHERE_V1 = CalledSdk(
    name="cohere, version 1",
    module="cohere",
    provider="cohere",
    connect=_class("Client"),
    connect_async=_class("AsyncClient"),
    at="/cohere",
    sdk="cohere",
    opened=_opened,
    calls=(
        SdkCall(name="chat", make=_call("chat", model=_COMMAND, message=QUESTION)),
        SdkCall(
            name="chat, streaming",
            make=_call("chat_stream", model=_COMMAND, message=QUESTION),
            streaming=True,
            later=True,
        ),
        # The sync client embeds on threads of its own, which know nothing of the caller's context.
        SdkCall(name="embed", make=_call("embed", **_EMBED), elsewhere=True),
        SdkCall(name="rerank", make=_call("rerank", **_RERANK)),
    ),
)
