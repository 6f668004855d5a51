"""Perplexity's words: chat with searches and citations, responses, embeddings, each with its cost.

From the types of its SDK and recorded traffic: reasoning and citations are outside `completion_tokens` and
outside the total. Every event of a chat's stream has the usage so far, with a cost of zero; the last one
has what was charged. Its lines end in CR LF.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

from cmdrdata_transport.demo.dialects.drawing import (
    EPOCH,
    JSON,
    Asked,
    Document,
    Route,
    Tokens,
    Told,
    compact,
)
from cmdrdata_transport.demo.dialects.openai import choices, deltas, response


def _usage(tokens: Tokens, searches: int, visible: int, cost: Decimal | None) -> Document:
    """The usage so far: what is charged is told when `cost` is."""
    told: Document = {
        "prompt_tokens": tokens.input,
        "completion_tokens": visible,
        "total_tokens": tokens.input + visible,
        "search_context_size": "low",
        "num_search_queries": searches,
    }
    if tokens.reasoning:
        told["reasoning_tokens"] = tokens.reasoning
    if tokens.citation:
        told["citation_tokens"] = tokens.citation
    charged: Document = {"input_tokens_cost": 0.0, "output_tokens_cost": 0.0, "total_cost": 0.0}
    if cost is not None:
        charged |= {"request_cost": 0.005, "total_cost": float(cost)}
    return {**told, "cost": charged}


def chat(asked: Asked) -> Told:
    """`POST /chat/completions`."""
    tokens = asked.tokens("reasoning", "citation")
    searches, cost = asked.random.randint(1, 9), asked.dollars()
    common: Document = {
        "id": asked.name("", 36),
        "model": asked.answered_model,
        "created": EPOCH,
        "object": "chat.completion.chunk" if asked.streaming else "chat.completion",
        "citations": ["https://example.com/café"],
    }
    usage = _usage(tokens, searches, tokens.visible, cost)
    content: bytes | list[bytes]
    if asked.streaming:
        chunks = [
            {**common, "usage": _usage(tokens, searches, min(number, tokens.visible), None), "choices": each}
            for number, each in enumerate(deltas(asked))
        ]
        chunks[-1]["usage"] = usage
        content = [f"data: {compact(chunk)}\r\n\r\n".encode() for chunk in chunks]
        content.append(b"data: [DONE]\r\n\r\n")
    else:
        content = compact({**common, "usage": usage, "choices": choices(asked)}).encode()
    return Told(
        content=content,
        content_type="text/event-stream" if asked.streaming else JSON,
        headers=(("x-ppl-region", "us-east-1"),),
        model=asked.answered_model,
        response_id=common["id"],
        units=tokens.units() + Counter(web_searches=searches),
        amounts={"provider_cost": cost},
    )


def responses(asked: Asked) -> Told:
    """`POST /v1/responses`: reasoning within the output, the cache within the input."""
    tokens = asked.tokens("cache_read", "cache_write_5m")
    searches, cost = asked.random.randint(1, 9), asked.dollars()
    usage: Document = {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "input_tokens_details": {
            "cache_creation_input_tokens": tokens.cache_write,
            "cache_read_input_tokens": tokens.cache_read,
        },
        "tool_calls_details": {"search_web": {"invocation": searches}},
        "cost": {"currency": "USD", "input_cost": 0.0001, "output_cost": 0.0, "total_cost": float(cost)},
    }
    units = tokens.units() + Counter(web_searches=searches)
    del units["cache_write_5m_tokens"]  # it does not say how long its cache lives
    return replace(response(asked, usage), units=units, amounts={"provider_cost": cost})


def embeddings(asked: Asked) -> Told:
    """`POST /v1/embeddings`: vectors of small integers, in base64."""
    tokens, cost = Tokens(fresh=asked.random.randint(3, 500)), asked.dollars()
    document: Document = {
        "data": [
            {"embedding": "1/8A807U0EuwxfoA", "index": index, "object": "embedding"}
            for index, _ in enumerate(asked.body["input"])
        ],
        "model": asked.answered_model,
        "object": "list",
        "usage": {
            "cost": {"currency": "USD", "input_cost": float(cost), "total_cost": float(cost)},
            "prompt_tokens": tokens.input,
            "total_tokens": tokens.input,
        },
    }
    return Told(
        content=compact(document).encode() + b"\n",
        content_type=JSON,
        model=asked.answered_model,
        units=tokens.units(),
        amounts={"provider_cost": cost},
    )


ROUTES = (
    Route("perplexity", r"POST /perplexity/chat/completions", chat),
    Route("perplexity", r"POST /perplexity/v1/responses", responses),
    Route("perplexity", r"POST /perplexity/v1/embeddings", embeddings),
)
