"""openai and anthropic: responses in the background, and batches with their results."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from cmdrdata_transport.demo.calls.anthropic import through_anthropic
from cmdrdata_transport.demo.calls.openai import MESSAGES, QUESTION, through_openai
from cmdrdata_transport.demo.calls.steps import in_steps
from cmdrdata_transport.demo.calls.table import Headers


def _background(client: Any, headers: Headers) -> Generator[Any, Any, Any]:
    """It is asked for once more when it is known to be done."""
    answer = yield client.responses.create(
        model="gpt-5-mini", input=QUESTION, background=True, extra_headers=headers
    )
    while answer.status in ("queued", "in_progress"):
        answer = yield client.responses.retrieve(answer.id, extra_headers=headers)
    return (yield client.responses.retrieve(answer.id, extra_headers=headers))


def _batch(client: Any, headers: Headers) -> Generator[Any, Any, Any]:
    """Its results are fetched twice."""
    file = yield client.files.create(file=("asked.jsonl", b"{}"), purpose="batch", extra_headers=headers)
    batch = yield client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers=headers,
    )
    while batch.output_file_id is None:
        batch = yield client.batches.retrieve(batch.id, extra_headers=headers)
    yield client.files.content(batch.output_file_id, extra_headers=headers)
    return (yield client.files.content(batch.output_file_id, extra_headers=headers))


def _messages(client: Any, headers: Headers) -> Generator[Any, Any, Any]:
    params = {"model": "claude-haiku-4-5", "max_tokens": 512, "messages": MESSAGES}
    batch = yield client.messages.batches.create(
        requests=[{"custom_id": "1", "params": params}], extra_headers=headers
    )
    while batch.processing_status != "ended":
        batch = yield client.messages.batches.retrieve(batch.id, extra_headers=headers)
    return (yield client.messages.batches.results(batch.id, extra_headers=headers))


OPENAI_LATER = through_openai(
    "openai, later",
    "openai",
    "/openai-later/v1",
    in_steps("response in the background", _background),
    in_steps("batch", _batch),
)

ANTHROPIC_LATER = through_anthropic(
    "anthropic, later", "/anthropic-later", in_steps("batch", _messages, streaming=True)
)
