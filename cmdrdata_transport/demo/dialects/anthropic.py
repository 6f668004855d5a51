"""Anthropic's words: messages, whole and streamed.

As recorded: each JSON of a stream is padded with blanks inside its last brace, `message_start` tells
the cache's split, the tier and a placeholder for output, and `message_delta` tells totals that
replace; after a server tool its input differs from the start's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmdrdata_transport.demo.dialects.drawing import JSON, Asked, Document, Route, Told, compact

if TYPE_CHECKING:
    from collections.abc import Iterator


def messages(asked: Asked) -> Told:
    """`POST /v1/messages`."""
    tokens = asked.tokens("cache_read", "cache_write_5m", "cache_write_1h", "reasoning")
    totals: Document = {
        "input_tokens": tokens.fresh,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.output,
    }
    if tokens.reasoning:
        totals["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    told_once: Document = {
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "service_tier": "standard",
        "inference_geo": "us",
    }
    words = asked.text()
    message: Document = {
        "model": asked.answered_model,
        "id": asked.name("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "".join(words)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {**totals, **told_once},
    }
    content: bytes | list[bytes] = compact(message).encode()
    if asked.streaming:
        placeholder: Document = {
            "input_tokens": asked.random.choice((tokens.fresh, max(1, tokens.fresh // 3))),
            "cache_creation_input_tokens": tokens.cache_write,
            "cache_read_input_tokens": tokens.cache_read,
            "output_tokens": asked.random.randint(1, 7),
            **told_once,
        }
        begun: Document = {**message, "content": [], "stop_reason": None, "usage": placeholder}
        content = [_framed(asked, event) for event in _events(begun, words, totals)]
        content.insert(2, b'event: ping\ndata: {"type": "ping"}\n\n')
    return Told(
        content=content,
        content_type="text/event-stream; charset=utf-8" if asked.streaming else JSON,
        headers=(
            ("request-id", asked.name("req_01", 22)),
            ("anthropic-organization-id", "00000000-0000-0000-0000-000000000000"),
            ("anthropic-ratelimit-requests-remaining", "3999"),
        ),
        model=asked.answered_model,
        response_id=message["id"],
        units=tokens.units(),
    )


def _events(begun: Document, words: list[str], totals: Document) -> Iterator[Document]:
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in words:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": totals,
    }
    yield {"type": "message_stop"}


def _framed(asked: Asked, event: Document) -> bytes:
    padding = " " * asked.random.randint(0, 15)
    return f"event: {event['type']}\ndata: {compact(event)[:-1]}{padding}}}\n\n".encode()


def count_tokens(asked: Asked) -> Told:
    """`POST /v1/messages/count_tokens`: counts, and bills nothing."""
    document = {"input_tokens": asked.random.randint(1, 99)}
    return Told(content=compact(document).encode(), content_type=JSON)


ROUTES = (
    Route("anthropic", r"POST .*/messages/count_tokens", count_tokens),
    Route("anthropic", r"POST .*/messages", messages),
)
