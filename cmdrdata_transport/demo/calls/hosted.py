"""ai21 and huggingface_hub, which speak to hosts of other people's models."""

from __future__ import annotations

import importlib
from typing import Any

from cmdrdata_transport.demo.calls.openai import MESSAGES, STREAM
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Headers, Make, SdkCall
from cmdrdata_transport.install import track, untrack


def _chat(model: str, **options: Any) -> Make:
    """`chat.completions.create` of an SDK whose calls take no headers."""
    return lambda client, _: client.chat.completions.create(model=model, messages=MESSAGES, **options)


def _ai21_messages(**options: Any) -> Make:
    def make(client: Any, _: Headers) -> Any:
        message = importlib.import_module("ai21.models.chat").ChatMessage
        messages = [message(**each) for each in MESSAGES]
        return client.chat.completions.create(model="jamba-large", messages=messages, **options)

    return make


def _ai21(module: Any, url: str, http: Any) -> Any:
    return module.AI21Client(api_key=KEY, api_host=url, http_client=http)


def _async_ai21(module: Any, url: str, http: Any) -> Any:
    return module.AsyncAI21Client(api_key=KEY, api_host=url, http_client=http)


AI21 = CalledSdk(
    name="ai21",
    module="ai21",
    provider="ai21",
    connect=_ai21,
    connect_async=_async_ai21,
    at="/ai21/studio/v1",
    opened=lambda client: (client._client,),  # noqa: SLF001 - it has no way to be closed
    calls=(
        SdkCall(name="chat", make=_ai21_messages()),
        SdkCall(name="chat, streaming", make=_ai21_messages(stream=True), streaming=True),
    ),
)


def _huggingface(module: Any, url: str, _: Any) -> Any:
    return module.InferenceClient(base_url=url, api_key=KEY)


def _async_huggingface(module: Any, url: str, _: Any) -> Any:
    return module.AsyncInferenceClient(base_url=url, api_key=KEY)


def _track_module(_: Any, **tracking: Any) -> None:
    """Its clients come from factories of the process: the module is what is tracked."""
    track(importlib.import_module("huggingface_hub"), **tracking)


def _untrack_module(_: Any) -> None:
    """The client that all share goes too, or the next would find one made before."""
    hub = importlib.import_module("huggingface_hub")
    untrack(hub)
    hub.close_session()


_SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"

HUGGINGFACE = CalledSdk(
    name="huggingface-hub",
    module="huggingface_hub",
    provider="huggingface",
    connect=_huggingface,
    connect_async=_async_huggingface,
    at="/huggingface/v1",
    ways=("track", "instrument"),
    track=_track_module,
    untrack=_untrack_module,
    calls=(
        SdkCall(name="chat", make=_chat(_SCOUT)),
        SdkCall(name="chat, streaming", make=_chat(_SCOUT, **STREAM), streaming=True),
    ),
)
