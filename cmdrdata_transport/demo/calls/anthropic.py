"""anthropic: messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmdrdata_transport.demo.calls.openai import MESSAGES
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Headers, SdkCall


def messages(model: str, **options: Any) -> Callable[[Any, Headers], Any]:
    """`messages.create`."""
    return lambda client, headers: client.messages.create(
        model=model, max_tokens=512, messages=MESSAGES, extra_headers=headers, **options
    )


def _connect(module: Any, url: str, http: Any) -> Any:
    return module.Anthropic(base_url=url, api_key=KEY, http_client=http)


def _connect_async(module: Any, url: str, http: Any) -> Any:
    return module.AsyncAnthropic(base_url=url, api_key=KEY, http_client=http)


def through_anthropic(name: str, at: str, *calls: SdkCall) -> CalledSdk:
    """The anthropic SDK."""
    return CalledSdk(
        name=name,
        module="anthropic",
        provider="anthropic",
        connect=_connect,
        connect_async=_connect_async,
        calls=calls,
        at=at,
        sdk="anthropic",
    )


ANTHROPIC = through_anthropic(
    "anthropic",
    "",
    SdkCall(name="messages", make=messages("claude-haiku-4-5")),
    SdkCall(name="messages, streaming", make=messages("claude-haiku-4-5", stream=True), streaming=True),
)
