"""The SDKs that are generated as OpenAI's is: groq, together, cerebras, fireworks, perplexity, writer."""

from __future__ import annotations

from typing import Any

from cmdrdata_transport.demo.calls.openai import chat
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Connect, SdkCall


def _class(name: str, base: str = "", **options: Any) -> Connect:
    """A class of the module, given its server at `base` below the URL."""

    def connect(module: Any, url: str, http: Any) -> Any:
        return getattr(module, name)(base_url=url + base, api_key=KEY, http_client=http, **options)

    return connect


GROQ = CalledSdk(
    name="groq",
    module="groq",
    provider="groq",
    connect=_class("Groq"),
    connect_async=_class("AsyncGroq"),
    calls=(
        SdkCall(name="chat", make=chat("llama-3.3-70b-versatile")),
        SdkCall(name="chat, streaming", make=chat("llama-3.3-70b-versatile", stream=True), streaming=True),
    ),
)
