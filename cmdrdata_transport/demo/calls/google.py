"""google-genai: generateContent and embedContent of the Developer API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmdrdata_transport.demo.calls.openai import QUESTION
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Headers, SdkCall


def _gemini(method: str, model: str) -> Callable[[Any, Headers], Any]:
    def make(client: Any, headers: Headers) -> Any:
        config = {"http_options": {"headers": dict(headers)}}
        return getattr(client.models, method)(model=model, contents=QUESTION, config=config)

    return make


def _connect(module: Any, url: str, http: Any) -> Any:
    options = {"base_url": url, "httpx_client": http}
    return module.Client(api_key=KEY, vertexai=False, http_options=options)


def _connect_async(module: Any, url: str, http: Any) -> Any:
    options = {"base_url": url, "httpx_async_client": http}
    return module.Client(api_key=KEY, vertexai=False, http_options=options).aio


GOOGLE = CalledSdk(
    name="google-genai",
    module="google.genai",
    provider="google",
    connect=_connect,
    connect_async=_connect_async,
    calls=(
        SdkCall(name="generateContent", make=_gemini("generate_content", "gemini-2.5-flash")),
        SdkCall(
            name="generateContent, streaming",
            make=_gemini("generate_content_stream", "gemini-2.5-flash"),
            streaming=True,
            later=True,
        ),
        SdkCall(name="embedContent", make=_gemini("embed_content", "gemini-embedding-001")),
    ),
)
