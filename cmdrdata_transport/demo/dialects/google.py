"""Google's words: generateContent, streamGenerateContent, batchEmbedContents.

As recorded: zero counts are left out, thoughts are beside the candidates' count and tool prompts
beside the prompt's, lines end in CR LF, nothing says that a stream has ended, and each chunk has a
running total that the next one replaces, not always with more.
"""

from __future__ import annotations

import json

from cmdrdata_transport.demo.dialects.drawing import Asked, Document, Route, Tokens, Told, pretty

_JSON = "application/json; charset=UTF-8"


def _usage(tokens: Tokens) -> Document:
    prompt = tokens.fresh + tokens.cache_read
    counts = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": tokens.visible,
        "totalTokenCount": tokens.input + tokens.output,
        "cachedContentTokenCount": tokens.cache_read,
        "toolUsePromptTokenCount": tokens.tool,
        "thoughtsTokenCount": tokens.reasoning,
    }
    modalities = {"promptTokensDetails": prompt, "toolUsePromptTokensDetails": tokens.tool}
    return {
        **{name: count for name, count in counts.items() if count},
        **{name: [{"modality": "TEXT", "tokenCount": count}] for name, count in modalities.items() if count},
        "serviceTier": "standard",
    }


def _chunk(asked: Asked, response_id: str, text: str, tokens: Tokens, *, last: bool) -> Document:
    finish = {"finishReason": "STOP"} if last else {}
    return {
        "candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, **finish, "index": 0}],
        "usageMetadata": _usage(tokens),
        "modelVersion": asked.answered_model,
        "responseId": response_id,
    }


def _told(
    asked: Asked, content: bytes | list[bytes], content_type: str, tokens: Tokens, response_id: str
) -> Told:
    return Told(
        content=content,
        content_type=content_type,
        headers=(
            ("server-timing", "gfet4t7; dur=866"),
            ("x-gemini-service-tier", "standard"),
            ("vary", "Origin, X-Origin, Referer"),
        ),
        model=asked.answered_model,
        response_id=response_id,
        units=tokens.units(),
    )


def generate(asked: Asked) -> Told:
    """`POST /models/{model}:generateContent`."""
    tokens = asked.tokens("cache_read", "tool", "reasoning")
    response_id = asked.name("", 23)
    document = _chunk(asked, response_id, "".join(asked.text()), tokens, last=True)
    return _told(asked, pretty(document), _JSON, tokens, response_id)


def stream(asked: Asked) -> Told:
    """`POST /models/{model}:streamGenerateContent`: events with `alt=sse`, else one JSON array."""
    tokens = asked.tokens("cache_read", "tool", "reasoning")
    response_id = asked.name("", 23)
    *words, end = asked.text()
    chunks = [_chunk(asked, response_id, word, asked.tokens("reasoning"), last=False) for word in words]
    chunks.append(_chunk(asked, response_id, end, tokens, last=True))
    texts = [json.dumps(chunk, ensure_ascii=False).encode() for chunk in chunks]
    if "alt=sse" in asked.query:
        events = [b"data: " + text + b"\r\n\r\n" for text in texts]
        return _told(asked, events, "text/event-stream", tokens, response_id)
    items = [b"[" + texts[0], *(b",\r\n" + text for text in texts[1:]), b"]\r\n"]
    return _told(asked, items, _JSON, tokens, response_id)


def embed(asked: Asked) -> Told:
    """`POST /models/{model}:batchEmbedContents`; the details' name lacks an s there."""
    tokens = Tokens(fresh=asked.random.randint(3, 500))
    document = {
        "embeddings": [{"values": asked.vector()} for _ in asked.body.get("requests", ())],
        "usageMetadata": {
            "promptTokenCount": tokens.input,
            "promptTokenDetails": [{"modality": "TEXT", "tokenCount": tokens.input}],
        },
    }
    return _told(asked, pretty(document), _JSON, tokens, "")


def count_tokens(asked: Asked) -> Told:
    """`POST /models/{model}:countTokens`: counts, and bills nothing."""
    return Told(content=pretty({"totalTokens": asked.random.randint(1, 99)}), content_type=_JSON)


ROUTES = (
    Route("google", r"POST .*/models/(?P<model>[^/:]+):generateContent", generate),
    Route("google", r"POST .*/models/(?P<model>[^/:]+):streamGenerateContent", stream),
    Route("google", r"POST .*/models/(?P<model>[^/:]+):batchEmbedContents", embed),
    Route("google", r"POST .*/models/(?P<model>[^/:]+):countTokens", count_tokens),
)
