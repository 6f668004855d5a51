"""mistralai: chat, agents, fill-in-the-middle, embeddings, OCR. One class has the methods of both colours."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from cmdrdata_transport.demo.calls.openai import MESSAGES, QUESTION
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Make, SdkCall


def _call(name: str, method: str, *, streaming: bool = False, **arguments: Any) -> SdkCall:
    """A call whose async method has the same name and `_async` behind it."""

    def of(path: str) -> Make:
        return lambda client, headers: attrgetter(path)(client)(http_headers=dict(headers), **arguments)

    return SdkCall(name=name, make=of(method), make_async=of(f"{method}_async"), streaming=streaming)


def _connect(module: Any, url: str, http: Any) -> Any:
    return module.Mistral(api_key=KEY, server_url=url, client=http)


def _connect_async(module: Any, url: str, http: Any) -> Any:
    return module.Mistral(api_key=KEY, server_url=url, async_client=http)


_SMALL = "mistral-small-latest"

MISTRAL = CalledSdk(
    name="mistralai",
    module="mistralai.client",
    provider="mistral",
    connect=_connect,
    connect_async=_connect_async,
    at="/mistral",
    opened=lambda client: (client.sdk_configuration.client, client.sdk_configuration.async_client),
    calls=(
        _call("chat", "chat.complete", model=_SMALL, messages=MESSAGES),
        _call("chat, streaming", "chat.stream", model=_SMALL, messages=MESSAGES, streaming=True),
        _call("agents", "agents.complete", agent_id="ag_1", messages=MESSAGES),
        _call("fill-in-the-middle", "fim.complete", model="codestral-latest", prompt=QUESTION),
        _call("embeddings", "embeddings.create", model="mistral-embed", inputs=["café", "bill"]),
        _call(
            "OCR",
            "ocr.process",
            model="mistral-ocr-latest",
            document={"type": "document_url", "document_url": "https://example.com/bill.pdf"},
        ),
    ),
)
