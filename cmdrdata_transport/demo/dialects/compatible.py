"""The words of those that took OpenAI's chat completions for theirs, each in its own manner.

Sources are those of the tables in `providers`: recorded traffic where there is some, else the types of
each provider's SDK. Where they differ: which parts of the tokens they tell and by what name, whether a
stream's usage comes with the last choice or alone, asked for or not, what stands between the events, and
what they say they charged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

from cmdrdata_transport.demo.dialects import anthropic
from cmdrdata_transport.demo.dialects.drawing import (
    EPOCH,
    JSON,
    Asked,
    Document,
    Route,
    Tokens,
    Told,
    compact,
    escaped,
)
from cmdrdata_transport.demo.dialects.openai import choices, data, deltas, response, response_usage

TICK = Decimal("1e-10")
"""What one of xAI's ticks is worth, in US dollars."""


def _nothing(_: Asked) -> Document:
    return {}


def _no_headers(_: Asked, __: Tokens) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one provider answers a chat.

    `parts` of the tokens are told, by `usage`. `everywhere` is in every document, `beside` in the one
    with the usage. `alone`: a stream's usage comes in a chunk of its own; `asked_for`: only if asked.
    `null`: the other chunks say that theirs is null.
    """

    usage: Callable[[Tokens], Document]
    parts: tuple[str, ...] = ()
    prefix: str = ""
    id_length: int = 32
    everywhere: Callable[[Asked], Document] = _nothing
    beside: Callable[[Asked], Document] = _nothing
    headers: Callable[[Asked, Tokens], tuple[tuple[str, str], ...]] = _no_headers
    names_model: bool = True
    alone: bool = False
    asked_for: bool = False
    null: bool = False
    done: bool = True
    written: Callable[[Document], str] = compact
    before_stream: tuple[bytes, ...] = ()
    before_document: bytes = b""


def chat(manner: Manner, asked: Asked) -> Told:
    """`POST .../chat/completions`, in this manner."""
    tokens = asked.tokens(*manner.parts)
    usage = {"usage": manner.usage(tokens), **manner.beside(asked)}
    return told(manner, asked, tokens, usage)


def told(manner: Manner, asked: Asked, tokens: Tokens, usage: Document, **amounts: Decimal) -> Told:
    """The answer with these tokens, and with this beside what every document has."""
    response_id = asked.name(manner.prefix, manner.id_length)
    common: Document = {
        "id": response_id,
        "object": "chat.completion.chunk" if asked.streaming else "chat.completion",
        "created": EPOCH,
        **({"model": asked.answered_model} if manner.names_model else {}),
        **manner.everywhere(asked),
    }
    silent = asked.streaming and manner.asked_for and not asked.with_usage
    content: bytes | list[bytes]
    if asked.streaming:
        null: Document = {"usage": None} if manner.null else {}
        chunks = [{**common, "choices": each, **null} for each in deltas(asked)]
        if manner.alone and not silent:
            chunks.append({**common, "choices": []})
        if not silent:
            chunks[-1] |= usage
        content = [*manner.before_stream, *data(chunks, manner.written)]
        if not manner.done:
            del content[-1]
    else:
        content = (
            manner.before_document + manner.written({**common, "choices": choices(asked), **usage}).encode()
        )
    return Told(
        content=content,
        content_type="text/event-stream" if asked.streaming else JSON,
        headers=manner.headers(asked, tokens),
        model=asked.answered_model,
        response_id=response_id,
        units=Counter() if silent else tokens.units(),
        amounts={} if silent else amounts,
    )


def _counts(tokens: Tokens) -> Document:
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    }


def _cached(tokens: Tokens) -> Document:
    return {"prompt_tokens_details": {"cached_tokens": tokens.cache_read}}


def _reasoning(tokens: Tokens) -> Document:
    return {"completion_tokens_details": {"reasoning_tokens": tokens.reasoning}}


TOGETHER = Manner(
    usage=lambda tokens: {**_counts(tokens), "cached_tokens": tokens.cache_read},
    parts=("cache_read",),
    prefix="o",
    everywhere=lambda _: {"prompt": []},
    null=True,
)

CEREBRAS = Manner(
    usage=lambda tokens: {**_counts(tokens), **_cached(tokens), **_reasoning(tokens)},
    parts=("cache_read", "reasoning"),
    prefix="chatcmpl-",
    everywhere=lambda _: {"system_fingerprint": "fp_46358675aa6b1ba4d98d"},
    beside=lambda _: {"time_info": {"queue_time": 0.0087, "total_time": 0.0315, "created": EPOCH + 0.16}},
)

FIREWORKS = Manner(
    usage=lambda tokens: {**_counts(tokens), **_cached(tokens)},
    parts=("cache_read",),
    headers=lambda asked, tokens: (
        ()
        if asked.streaming
        else (
            ("fireworks-prompt-tokens", str(tokens.input)),
            ("fireworks-cached-prompt-tokens", str(tokens.cache_read)),
        )
    ),
    null=True,
)

WRITER = Manner(
    # Without an s, which nobody else writes so.
    usage=lambda tokens: {
        **_counts(tokens),
        "prompt_token_details": {"cached_tokens": tokens.cache_read},
        **_reasoning(tokens),
    },
    parts=("cache_read", "reasoning"),
    everywhere=lambda _: {"system_fingerprint": "v1", "service_tier": None},
    alone=True,
    asked_for=True,
    null=True,
    done=False,
)

AI21 = Manner(usage=_counts, prefix="chat-", names_model=False, written=escaped)

MISTRAL = Manner(
    usage=lambda tokens: {**_counts(tokens), **_cached(tokens), "service_tier": "standard"},
    parts=("cache_read",),
    headers=lambda asked, _: (("mistral-correlation-id", asked.name("", 32)),),
)

HUGGINGFACE = Manner(
    usage=_counts,
    prefix="chatcmpl-",
    everywhere=lambda _: {"system_fingerprint": "3.3.6-sha-1b2f3c4"},
    headers=lambda asked, _: (("x-compute-type", "1-nvidia-a10g"), ("x-request-id", asked.name("", 6))),
    alone=True,
    asked_for=True,
    written=escaped,
)

DEEPSEEK = Manner(
    usage=lambda tokens: {
        **_counts(tokens),
        **_cached(tokens),
        **_reasoning(tokens),
        "prompt_cache_hit_tokens": tokens.cache_read,
        "prompt_cache_miss_tokens": tokens.fresh,
    },
    parts=("cache_read", "reasoning"),
    everywhere=lambda _: {"system_fingerprint": "fp_8b330d02d0_prod0820_fp8_kvcache"},
    null=True,
    before_stream=(b": keep-alive\n\n",) * 2,
    before_document=b"\n\n\n",
)

OPENROUTER = Manner(
    usage=lambda tokens: {
        **_counts(tokens),
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0, "video_tokens": 0},
        **_reasoning(tokens),
    },
    parts=("cache_read", "reasoning"),
    prefix="gen-1773012759-",
    id_length=20,
    everywhere=lambda _: {"provider": "Amazon Bedrock"},
    alone=True,
    before_stream=(b": OPENROUTER PROCESSING\n\n",) * 3,
    before_document=b"\n         \n",
)

XAI = Manner(
    # Reasoning is outside the completion, and inside the total.
    usage=lambda tokens: {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.visible,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {
            "text_tokens": tokens.input,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": tokens.cache_read,
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0},
        "num_sources_used": 0,
    },
    parts=("cache_read", "reasoning"),
    id_length=36,
    everywhere=lambda _: {"system_fingerprint": "fp_eb3c003fc66c14ed"},
    alone=True,
    asked_for=True,
)


def openrouter_chat(asked: Asked) -> Told:
    """`POST /api/v1/chat/completions`, which says what it charged."""
    tokens, cost = asked.tokens(*OPENROUTER.parts), asked.dollars()
    charged = {"cost": float(cost), "cost_details": {"upstream_inference_cost": float(cost)}}
    usage = {"usage": {**OPENROUTER.usage(tokens), **charged}}
    return told(OPENROUTER, asked, tokens, usage, provider_cost=cost)


def xai_chat(asked: Asked) -> Told:
    """`POST /v1/chat/completions`, which says what it charged in ticks."""
    tokens, ticks = asked.tokens(*XAI.parts), asked.random.randint(1, 10**9)
    usage = {"usage": {**XAI.usage(tokens), "cost_in_usd_ticks": ticks}}
    return told(XAI, asked, tokens, usage, provider_cost=ticks * TICK)


def xai_response(asked: Asked) -> Told:
    """`POST /v1/responses`, whose output has the reasoning in it."""
    tokens, ticks = asked.tokens(*XAI.parts), asked.random.randint(1, 10**9)
    usage = {**response_usage(tokens), "num_sources_used": 0, "cost_in_usd_ticks": ticks}
    return replace(response(asked, usage), units=tokens.units(), amounts={"provider_cost": ticks * TICK})


def embeddings(asked: Asked, **beside: Any) -> Told:
    """`POST .../embeddings`: vectors as numbers."""
    tokens = Tokens(fresh=asked.random.randint(3, 500))
    document: Document = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": asked.vector()}
            for index, _ in enumerate(_inputs(asked))
        ],
        "model": asked.answered_model,
        "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input},
        **beside,
    }
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.answered_model,
        response_id=str(beside.get("id", "")),
        units=tokens.units(),
    )


def _inputs(asked: Asked) -> list[Any]:
    given: Any = asked.body.get("input")
    return [given] if isinstance(given, str) else list(given)


def rerank(asked: Asked) -> Told:
    """`POST /v1/rerank`, as Together answers it: with tokens."""
    tokens, response_id = asked.tokens(), asked.name("o", 22)
    results = [
        {"index": index, "relevance_score": 0.9 / (index + 1)}
        for index, _ in enumerate(asked.body["documents"])
    ]
    document: Document = {
        "id": response_id,
        "object": "rerank",
        "model": asked.answered_model,
        "results": results,
        "usage": _counts(tokens),
    }
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.answered_model,
        response_id=response_id,
        units=tokens.units(),
    )


def images(asked: Asked) -> Told:
    """`POST /v1/images/generations`, as Together answers it: no usage, so many images."""
    count, response_id = int(asked.body.get("n", 1)), asked.name("o", 22)
    entries = [{"index": index, "url": "https://api.together.ai/imgproxy/x"} for index in range(count)]
    document: Document = {
        "id": response_id,
        "object": "list",
        "model": asked.answered_model,
        "data": entries,
    }
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.answered_model,
        response_id=response_id,
        units=Counter(images=count),
    )


def _mistral_embeddings(asked: Asked) -> Told:
    return embeddings(asked, id=asked.name("", 32))


def ocr(asked: Asked) -> Told:
    """`POST /v1/ocr`, as Mistral answers it: pages, no id."""
    pages = asked.random.randint(1, 40)
    page: Document = {
        "index": 0,
        "markdown": "# Bill",
        "images": [],
        "dimensions": {"dpi": 200, "height": 2200, "width": 1700},
    }
    document: Document = {
        "pages": [{**page, "index": index} for index in range(pages)],
        "model": asked.answered_model,
        "document_annotation": None,
        "usage_info": {"pages_processed": pages, "doc_size_bytes": 3_002_783},
    }
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.answered_model,
        units=Counter(input_document_pages=pages),
    )


ROUTES = (
    Route("together", r"POST /together/v1/chat/completions", partial(chat, TOGETHER)),
    Route("together", r"POST /together/v1/embeddings", embeddings),
    Route("together", r"POST /together/v1/rerank", rerank),
    Route("together", r"POST /together/v1/images/generations", images),
    Route("cerebras", r"POST /cerebras/v1/chat/completions", partial(chat, CEREBRAS)),
    Route("fireworks", r"POST /fireworks/inference/v1/chat/completions", partial(chat, FIREWORKS)),
    Route("fireworks", r"POST /fireworks/inference/v1/messages", anthropic.messages),
    Route("writer", r"POST /writer/v1/chat", partial(chat, WRITER)),
    Route("ai21", r"POST /ai21/studio/v1/chat/completions", partial(chat, AI21)),
    Route("mistral", r"POST /mistral/v1/(chat|agents|fim)/completions", partial(chat, MISTRAL)),
    Route("mistral", r"POST /mistral/v1/embeddings", _mistral_embeddings),
    Route("mistral", r"POST /mistral/v1/ocr", ocr),
    Route("huggingface", r"POST /huggingface/v1/chat/completions", partial(chat, HUGGINGFACE)),
    Route("deepseek", r"POST /deepseek/v1/chat/completions", partial(chat, DEEPSEEK)),
    Route("openrouter", r"POST /openrouter/v1/chat/completions", openrouter_chat),
    Route("x-ai", r"POST /x-ai/v1/chat/completions", xai_chat),
    Route("x-ai", r"POST /x-ai/v1/responses", xai_response),
)
