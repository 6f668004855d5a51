"""ollama: chat, generate and embed. It takes no HTTP client, and no headers with a call."""

from __future__ import annotations

from typing import Any

from cmdrdata_transport.demo.calls.openai import MESSAGES, QUESTION
from cmdrdata_transport.demo.calls.table import LOOPBACK, CalledSdk, Make, SdkCall


def _call(method: str, **arguments: Any) -> Make:
    return lambda client, _: getattr(client, method)(model="gpt-oss:20b", **arguments)


OLLAMA = CalledSdk(
    name="ollama",
    module="ollama",
    provider="ollama",
    connect=lambda module, url, _: module.Client(host=url, **LOOPBACK),
    connect_async=lambda module, url, _: module.AsyncClient(host=url, **LOOPBACK),
    at="/ollama",
    ways=("track", "instrument"),
    calls=(
        SdkCall(name="chat", make=_call("chat", messages=MESSAGES)),
        SdkCall(
            name="chat, streaming",
            make=_call("chat", messages=MESSAGES, stream=True),
            streaming=True,
            later=True,
        ),
        SdkCall(name="generate", make=_call("generate", prompt=QUESTION)),
        SdkCall(
            name="generate, streaming",
            make=_call("generate", prompt=QUESTION, stream=True),
            streaming=True,
            later=True,
        ),
        SdkCall(name="embed", make=_call("embed", input=["café", "bill"])),
    ),
)
