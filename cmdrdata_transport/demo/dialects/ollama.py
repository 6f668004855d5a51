"""Ollama's words: chat, generate and embed, plain or as lines of JSON.

As recorded: the counts stand among the content, in the line that is done, and times are nanoseconds.
Answers have no id. Its server is written in Go, whose JSON has `&`, `<` and U+2028 escaped.
"""

from __future__ import annotations

from cmdrdata_transport.demo.dialects.drawing import JSON, Asked, Document, Route, Tokens, Told, compact

_ESCAPES = {ord(each): f"\\u{ord(each):04x}" for each in "&<>\u2028\u2029"}


def _line(document: Document) -> bytes:
    return compact(document).translate(_ESCAPES).encode()


def _counts(tokens: Tokens) -> Document:
    counts: Document = {
        "total_duration": 1_897_385_625,
        "load_duration": 1_631_208,
        "prompt_eval_count": tokens.input,
        "prompt_eval_duration": 313_560_000,
    }
    if tokens.cache_read:
        counts["prompt_eval_cached_count"] = tokens.cache_read
    if tokens.output:
        counts |= {"eval_count": tokens.output, "eval_duration": 1_577_990_000}
    return counts


def _answer(asked: Asked, *, chat: bool) -> Told:
    def said(text: str) -> Document:
        return {"message": {"role": "assistant", "content": text}} if chat else {"response": text}

    tokens, words = asked.tokens("cache_read"), asked.text()
    common: Document = {"model": asked.model, "created_at": "2026-11-01T20:26:47.872905Z"}
    end = {"done_reason": "stop", "done": True, **_counts(tokens)}
    content: bytes | list[bytes] = _line({**common, **said("".join(words)), **end})
    if asked.streaming:
        content = [_line({**common, **said(word), "done": False}) + b"\n" for word in words]
        content.append(_line({**common, **said(""), **end}) + b"\n")
    return Told(
        content=content,
        content_type="application/x-ndjson" if asked.streaming else f"{JSON}; charset=utf-8",
        model=asked.model,
        units=tokens.units(),
    )


def chat(asked: Asked) -> Told:
    """`POST /api/chat`."""
    return _answer(asked, chat=True)


def generate(asked: Asked) -> Told:
    """`POST /api/generate`."""
    return _answer(asked, chat=False)


def embed(asked: Asked) -> Told:
    """`POST /api/embed`."""
    tokens = Tokens(fresh=asked.random.randint(3, 500))
    counts = _counts(tokens)
    del counts["prompt_eval_duration"]
    document: Document = {"model": asked.model, "embeddings": [asked.vector()], **counts}
    return Told(content=_line(document), content_type=JSON, model=asked.model, units=tokens.units())


ROUTES = (
    Route("ollama", r"POST /ollama/api/chat", chat),
    Route("ollama", r"POST /ollama/api/generate", generate),
    Route("ollama", r"POST /ollama/api/embed", embed),
)
