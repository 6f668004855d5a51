"""OpenAI's words, and Groq's: chat completions, responses, embeddings.

Shapes are those of recorded traffic of 2026: `usage` is null on every chunk but the one that was
asked for with `include_usage`, chunks are padded with `obfuscation`, a responses stream has named and
numbered events and no `[DONE]`. Groq adds times to the usage and tells a stream's in `x_groq`.
"""

from __future__ import annotations

import base64
import struct
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cmdrdata_transport.demo.dialects.drawing import (
    EPOCH,
    JSON,
    Asked,
    Document,
    Route,
    Tokens,
    Told,
    compact,
    pretty,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_STREAM = "text/event-stream; charset=utf-8"


def _headers(asked: Asked) -> tuple[tuple[str, str], ...]:
    return (
        ("x-request-id", asked.name("req_", 32)),
        ("openai-processing-ms", "512"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-remaining-requests", "14999"),
    )


def _padding(asked: Asked) -> Document:
    return {"obfuscation": asked.name("", asked.random.randint(1, 14))}


def data(documents: Iterable[Document], written: Callable[[Document], str] = compact) -> list[bytes]:
    """A stream of chunks, up to its `[DONE]`."""
    return [*(f"data: {written(document)}\n\n".encode() for document in documents), b"data: [DONE]\n\n"]


def deltas(asked: Asked) -> Iterator[list[Document]]:
    """The `choices` of each chunk of a streamed chat."""
    first: Document = {"role": "assistant", "content": "", "refusal": None}
    for delta in (first, *({"content": word} for word in asked.text())):
        yield [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]
    yield [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]


def choices(asked: Asked) -> list[Document]:
    """The `choices` of a chat that is not streamed."""
    message: Document = {"role": "assistant", "content": "".join(asked.text()), "refusal": None}
    return [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]


def chat_completions(asked: Asked) -> Told:
    """`POST /chat/completions`."""
    tokens = asked.tokens("cache_read", "reasoning")
    usage: Document = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    response_id = asked.name("chatcmpl-", 29)
    common: Document = {
        "id": response_id,
        "object": "chat.completion.chunk" if asked.streaming else "chat.completion",
        "created": EPOCH,
        "model": asked.answered_model,
        "service_tier": "default",
        "system_fingerprint": asked.name("fp_", 10),
    }
    content: bytes | list[bytes]
    if asked.streaming:
        null: Document = {"usage": None} if asked.with_usage else {}
        chunks = [{**common, "choices": choices, **null, **_padding(asked)} for choices in deltas(asked)]
        if asked.with_usage:
            chunks.append({**common, "choices": [], "usage": usage, **_padding(asked)})
        content = data(chunks)
    else:
        content = pretty({**common, "choices": choices(asked), "usage": usage})
    silent = asked.streaming and not asked.with_usage
    return Told(
        content=content,
        content_type=_STREAM if asked.streaming else JSON,
        headers=_headers(asked),
        model=asked.answered_model,
        response_id=response_id,
        units=Counter() if silent else tokens.units(),
    )


def groq_chat_completions(asked: Asked) -> Told:
    """`POST /openai/v1/chat/completions`, as Groq answers it."""
    tokens = asked.tokens("cache_read", "reasoning")
    usage: Document = {
        "queue_time": 0.068087324,
        "prompt_tokens": tokens.input,
        "prompt_time": 0.01664678,
        "completion_tokens": tokens.output,
        "completion_time": 0.112083403,
        "total_tokens": tokens.input + tokens.output,
        "total_time": 0.128730183,
    }
    if tokens.cache_read:
        usage["prompt_tokens_details"] = {"cached_tokens": tokens.cache_read}
    if tokens.reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": tokens.reasoning}
    response_id, request_id = asked.name("chatcmpl-", 36), asked.name("req_", 26)
    common: Document = {
        "id": response_id,
        "object": "chat.completion.chunk" if asked.streaming else "chat.completion",
        "created": EPOCH,
        "model": asked.answered_model,
        "system_fingerprint": asked.name("fp_", 10),
    }
    content: bytes | list[bytes]
    if asked.streaming:
        chunks = [{**common, "choices": choices} for choices in deltas(asked)]
        chunks[0]["x_groq"] = {"id": request_id, "seed": 7}
        chunks[-1]["x_groq"] = {"id": request_id, "usage": usage}
        if asked.with_usage:
            chunks[-1]["usage"] = usage  # the same once more: not to be added
        content = data(chunks)
    else:
        groq = {"service_tier": "on_demand", "x_groq": {"id": request_id, "seed": 7}}
        document = {**common, "choices": choices(asked), "usage": usage, "usage_breakdown": None, **groq}
        content = compact(document).encode()
    return Told(
        content=content,
        content_type="text/event-stream" if asked.streaming else JSON,
        headers=(("x-request-id", request_id), ("x-ratelimit-remaining-tokens", "5999")),
        model=asked.answered_model,
        response_id=response_id,
        units=tokens.units(),
    )


def responses(asked: Asked) -> Told:
    """`POST /responses`."""
    tokens = asked.tokens("cache_read", "cache_write_5m", "reasoning")
    units = tokens.units()
    del units["cache_write_5m_tokens"]  # its caches live longer, and it does not say how long
    told = response(asked, response_usage(tokens), id_length=50)
    return replace(told, headers=_headers(asked), units=units)


def response_usage(tokens: Tokens) -> Document:
    """The usage object of a response."""
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write,
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def response(asked: Asked, usage: Document, *, id_length: int = 32) -> Told:
    """A response with this usage, whole or streamed."""
    words = asked.text()
    item: Document = {
        "id": asked.name("msg_", 50),
        "type": "message",
        "status": "completed",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(words)}],
        "role": "assistant",
    }
    begun: Document = {
        "id": asked.name("resp_", id_length),
        "object": "response",
        "created_at": EPOCH,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": asked.answered_model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None},
        "service_tier": "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }
    whole = {**begun, "status": "completed", "output": [item], "service_tier": "default", "usage": usage}
    content: bytes | list[bytes] = pretty(whole)
    if asked.streaming:
        content = [
            f"event: {event['type']}\ndata: {compact({**event, 'sequence_number': number})}\n\n".encode()
            for number, event in enumerate(_response_events(asked, begun, item, words, whole))
        ]
    return Told(
        content=content,
        content_type=_STREAM if asked.streaming else JSON,
        model=asked.answered_model,
        response_id=begun["id"],
    )


def _response_events(
    asked: Asked, begun: Document, item: Document, words: list[str], whole: Document
) -> Iterator[Document]:
    [part] = item["content"]
    at: Document = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    started: Document = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": started}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for word in words:
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": [], **_padding(asked)}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


def embeddings(asked: Asked) -> Told:
    """`POST /embeddings`: vectors in base64 where asked for, as the SDK does."""
    tokens = Tokens(fresh=asked.random.randint(3, 500))
    given: Any = asked.body.get("input")
    inputs: Sequence[Any] = [given] if isinstance(given, str) else given
    packed = asked.body.get("encoding_format") == "base64"
    entries: list[Document] = []
    for index, _ in enumerate(inputs):
        vector = asked.vector()
        text = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        entries.append({"object": "embedding", "index": index, "embedding": text if packed else vector})
    usage = {"prompt_tokens": tokens.input, "total_tokens": tokens.input}
    document = {"object": "list", "data": entries, "model": asked.answered_model, "usage": usage}
    return Told(
        content=pretty(document),
        content_type=JSON,
        headers=_headers(asked),
        model=asked.answered_model,
        units=tokens.units(),
    )


def models(asked: Asked) -> Told:
    """`GET /models`: nothing that is billed."""
    entry = {"id": "gpt-5", "object": "model", "created": EPOCH, "owned_by": "openai"}
    document = {"object": "list", "data": [entry]}
    return Told(content=pretty(document), content_type=JSON, headers=_headers(asked))


def input_tokens(asked: Asked) -> Told:
    """`POST /responses/input_tokens`: counts, and bills nothing."""
    document = {"object": "response.input_tokens", "input_tokens": asked.random.randint(1, 99)}
    return Told(content=pretty(document), content_type=JSON, headers=_headers(asked))


ROUTES = (
    Route("groq", r"POST .*/openai/v1/chat/completions", groq_chat_completions),
    Route("openai", r"POST .*/chat/completions", chat_completions),
    Route("openai", r"POST .*/responses/input_tokens", input_tokens),
    Route("openai", r"POST .*/responses", responses),
    Route("openai", r"POST .*/embeddings", embeddings),
    Route("openai", r"GET .*/models", models),
)
