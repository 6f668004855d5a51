"""google-genai: interactions and batches; on Vertex, images and videos, which it makes nowhere else (3.4)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from cmdrdata_transport.demo.calls.google import GOOGLE
from cmdrdata_transport.demo.calls.openai import QUESTION
from cmdrdata_transport.demo.calls.steps import in_steps
from cmdrdata_transport.demo.calls.table import KEY, Headers, SdkCall

_GEMINI = "gemini-2.5-flash"
_OVER = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED")


def _batch(client: Any, _: Headers) -> Generator[Any, Any, Any]:
    batch = yield client.batches.create(model=_GEMINI, src=[{"contents": QUESTION}])
    while batch.state.name not in _OVER:
        batch = yield client.batches.get(name=batch.name)
    return (yield client.batches.get(name=batch.name))


def _interaction(client: Any, _: Headers) -> Any:
    return client.interactions.create(model=_GEMINI, input=QUESTION)


def _streamed_interaction(client: Any, _: Headers) -> Any:
    return client.interactions.create(model=_GEMINI, input=QUESTION, stream=True)


GOOGLE_LATER = replace(
    GOOGLE,
    name="google-genai, later",
    sdk="google-genai",
    at="/google-later",
    calls=(
        in_steps("batch", _batch),
        SdkCall(name="interaction", make=_interaction),
        SdkCall(name="interaction, streaming", make=_streamed_interaction, streaming=True),
    ),
)


def _images(client: Any, _: Headers) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to be removed in 2027, and is billed until then
        return client.models.generate_images(
            model="imagen-4.0-generate-001", prompt="a café", config={"number_of_images": 3}
        )


def _video(client: Any, _: Headers) -> Generator[Any, Any, Any]:
    """It is asked for once more when it is known to be done."""
    operation = yield client.models.generate_videos(model="veo-3.1-generate-001", source={"prompt": "a café"})
    while not operation.done:
        operation = yield client.operations.get(operation)
    return (yield client.operations.get(operation))


def _vertex(module: Any, options: dict[str, Any]) -> Any:
    credentials = importlib.import_module("google.oauth2.credentials").Credentials(KEY)
    where = {"project": "p", "location": "us-central1", "credentials": credentials}
    return module.Client(vertexai=True, http_options=options, **where)


def _connect(module: Any, url: str, http: Any) -> Any:
    return _vertex(module, {"base_url": url, "httpx_client": http})


def _connect_async(module: Any, url: str, http: Any) -> Any:
    return _vertex(module, {"base_url": url, "httpx_async_client": http}).aio


GOOGLE_VERTEX = replace(
    GOOGLE,
    name="google-genai at Vertex",
    sdk="google-genai",
    at="/google-vertex",
    connect=_connect,
    connect_async=_connect_async,
    calls=(*GOOGLE.calls[:2], SdkCall(name="images", make=_images), in_steps("video", _video)),
)
