"""Cohere's words: chat in both versions, embeddings and reranking.

As recorded: each answer has the counts that are billed beside those that the model saw, which are more, and
names no model. Version 1 streams lines of JSON, version 2 events whose names repeat their type, with the
id in the first and the usage in the last.
"""

from __future__ import annotations

from collections import Counter

from cmdrdata_transport.demo.dialects.drawing import (
    JSON,
    Asked,
    Document,
    Route,
    Tokens,
    Told,
    compact,
    escaped,
)


def _headers(asked: Asked) -> tuple[tuple[str, str], ...]:
    return (("x-debug-trace-id", asked.name("", 32)), ("x-envoy-upstream-service-time", "289"))


def _usage(asked: Asked, tokens: Tokens) -> Document:
    """What is billed, and what the model saw, with Cohere's own preamble."""
    seen = tokens.input + asked.random.randint(60, 480)
    return {
        "billed_units": {"input_tokens": tokens.input, "output_tokens": tokens.output},
        "tokens": {"input_tokens": seen, "output_tokens": tokens.output},
        "cached_tokens": asked.random.randint(0, seen),
    }


def chat(asked: Asked) -> Told:
    """`POST /v2/chat`."""
    tokens = asked.tokens()
    usage, words, response_id = _usage(asked, tokens), asked.text(), asked.name("", 36)
    content: bytes | list[bytes]
    if asked.streaming:
        events = _events(response_id, words, usage)
        content = [f"event: {each['type']}\ndata: {compact(each)}\n\n".encode() for each in events]
        content.append(b"data: [DONE]\n\n")
    else:
        message = {"role": "assistant", "content": [{"type": "text", "text": "".join(words)}]}
        document = {"id": response_id, "message": message, "finish_reason": "COMPLETE", "usage": usage}
        content = compact(document).encode()
    return Told(
        content=content,
        content_type="text/event-stream" if asked.streaming else JSON,
        headers=_headers(asked),
        model=asked.model,
        response_id=response_id,
        units=tokens.units(),
    )


def _events(response_id: str, words: list[str], usage: Document) -> list[Document]:
    message: Document = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    begun: Document = {"message": {"content": {"type": "text", "text": ""}}}
    return [
        {"id": response_id, "type": "message-start", "delta": {"message": message}},
        {"type": "content-start", "index": 0, "delta": begun},
        *(
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}
            for word in words
        ),
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    ]


def _meta(version: str, billed: Document) -> Document:
    return {"api_version": {"version": version}, "billed_units": billed}


def chat_v1(asked: Asked) -> Told:
    """`POST /v1/chat`: a stream is lines of JSON, the last of which has the whole answer."""
    tokens, words = asked.tokens(), asked.text()
    usage = _usage(asked, tokens)
    answer: Document = {
        "response_id": asked.name("", 36),
        "text": "".join(words),
        "generation_id": asked.name("", 36),
        "chat_history": [],
        "finish_reason": "COMPLETE",
        "meta": {**_meta("1", usage["billed_units"]), "tokens": usage["tokens"]},
    }
    content: bytes | list[bytes] = compact(answer).encode()
    if asked.streaming:
        lines: list[Document] = [
            {"event_type": "stream-start", "generation_id": answer["generation_id"]},
            *({"event_type": "text-generation", "text": word} for word in words),
            {"event_type": "stream-end", "response": answer, "finish_reason": "COMPLETE"},
        ]
        content = [f"{escaped({'is_finished': line is lines[-1], **line})}\n".encode() for line in lines]
    return Told(
        content=content,
        content_type="application/stream+json" if asked.streaming else JSON,
        headers=_headers(asked),
        model=asked.model,
        response_id=answer["generation_id"],
        units=tokens.units(),
    )


def embed(asked: Asked) -> Told:
    """`POST /v1/embed` and `POST /v2/embed`."""
    tokens, texts = Tokens(fresh=asked.random.randint(3, 500)), asked.body["texts"]
    document: Document = {
        "id": asked.name("", 36),
        "texts": texts,
        "embeddings": {"float": [asked.vector() for _ in texts]},
        "meta": _meta(asked.named["version"], {"input_tokens": tokens.input}),
        "response_type": "embeddings_by_type",
    }
    return _plain(asked, document, tokens.units())


def rerank(asked: Asked) -> Told:
    """`POST /v1/rerank` and `POST /v2/rerank`: billed by the search."""
    searches = asked.random.randint(1, 9)
    results = [
        {"index": index, "relevance_score": 0.9990 / (index + 1)}
        for index, _ in enumerate(asked.body["documents"])
    ]
    document: Document = {
        "id": asked.name("", 36),
        "results": results,
        "meta": _meta(asked.named["version"], {"search_units": searches}),
    }
    return _plain(asked, document, Counter(rerank_searches=searches))


def _plain(asked: Asked, document: Document, units: Counter[str]) -> Told:
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        headers=_headers(asked),
        model=asked.model,
        response_id=document["id"],
        units=units,
    )


ROUTES = (
    Route("cohere", r"POST /cohere/v2/chat", chat),
    Route("cohere", r"POST /cohere/v1/chat", chat_v1),
    Route("cohere", r"POST /cohere/v(?P<version>[12])/embed", embed),
    Route("cohere", r"POST /cohere/v(?P<version>[12])/rerank", rerank),
)
