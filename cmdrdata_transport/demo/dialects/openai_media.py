"""OpenAI's words for what is no conversation: images, transcripts, translations, speech, completions.

From the types of its SDK and recorded traffic. Newer models state tokens; of the older ones an image states
nothing but that it is there, and a transcript its seconds.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from cmdrdata_transport.demo.dialects.drawing import (
    EPOCH,
    JSON,
    Asked,
    Document,
    Route,
    Told,
    compact,
    pretty,
)


def images(asked: Asked) -> Told:
    """`POST /images/generations`: pictures, or where they are, and for newer models their tokens."""
    number, tokens = int(asked.body.get("n", 1)), asked.tokens()
    units = Counter(images=number)
    document: Document = {"created": EPOCH, "data": [{"url": "https://example.com/1.png"}] * number}
    if asked.model.startswith("gpt-image"):
        units += tokens.units()
        document = {
            "created": EPOCH,
            "background": "opaque",
            "data": [{"b64_json": "iVBORw0KGgo="}] * number,
            "output_format": "png",
            "quality": asked.body.get("quality", "high"),
            "size": asked.body.get("size", "1024x1024"),
            "usage": {
                "input_tokens": tokens.input,
                "input_tokens_details": {"image_tokens": 0, "text_tokens": tokens.input},
                "output_tokens": tokens.output,
                "total_tokens": tokens.input + tokens.output,
            },
        }
    return Told(content=pretty(document), content_type=JSON, model=asked.model, units=units)


def transcription(asked: Asked) -> Told:
    """`POST /audio/transcriptions`, a form: tokens, or for whisper the seconds."""
    words = asked.text()
    if asked.model.startswith("whisper"):
        seconds = asked.random.randint(3, 4000)
        spoken: Document = {"text": "".join(words), "usage": {"type": "duration", "seconds": seconds}}
        return Told(
            content=compact(spoken).encode(),
            content_type=JSON,
            model=asked.model,
            amounts={"audio_seconds": Decimal(seconds)},
        )
    tokens = asked.tokens()
    usage: Document = {
        "type": "tokens",
        "total_tokens": tokens.input + tokens.output,
        "input_tokens": tokens.input,
        "input_token_details": {"text_tokens": 0, "audio_tokens": tokens.input},
        "output_tokens": tokens.output,
    }
    content: bytes | list[bytes] = compact({"text": "".join(words), "usage": usage}).encode()
    if asked.streaming:
        events: list[Document] = [
            *({"type": "transcript.text.delta", "delta": word} for word in words),
            {"type": "transcript.text.done", "text": "".join(words), "usage": usage},
        ]
        content = [f"data: {compact(event)}\n\n".encode() for event in events]
    return Told(
        content=content,
        content_type="text/event-stream; charset=utf-8" if asked.streaming else JSON,
        model=asked.model,
        units=tokens.units() + Counter(input_audio_tokens=tokens.input),
    )


def translation(asked: Asked) -> Told:
    """`POST /audio/translations`, a form that asked for everything: whisper's seconds, with fractions."""
    seconds = Decimal(asked.random.randint(300, 400_000)).scaleb(-2)
    document: Document = {
        "task": "translate",
        "language": "english",
        "duration": float(seconds),
        "text": "".join(asked.text()),
        "segments": [],
    }
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.model,
        amounts={"audio_seconds": seconds},
    )


def speech(asked: Asked) -> Told:
    """`POST /audio/speech`: bytes, which state nothing; the characters are the request's."""
    return Told(
        content=b"\xff\xf3\xe4\xc4" + asked.random.randbytes(4000),
        content_type="audio/mpeg",
        model=asked.model,
        units=Counter(input_characters=len(asked.body["input"])),
    )


def completions(asked: Asked) -> Told:
    """`POST /completions`, of the older kind."""
    tokens, response_id = asked.tokens(), asked.name("cmpl-", 29)
    document: Document = {
        "id": response_id,
        "object": "text_completion",
        "created": EPOCH,
        "model": asked.model,
        "choices": [{"text": "".join(asked.text()), "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": tokens.input,
            "completion_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output,
        },
    }
    return Told(
        content=pretty(document),
        content_type=JSON,
        model=asked.model,
        response_id=response_id,
        units=tokens.units(),
    )


ROUTES = (
    Route("openai", r"POST /openai-media/v1/images/generations", images),
    Route("openai", r"POST /openai-media/v1/audio/transcriptions", transcription),
    Route("openai", r"POST /openai-media/v1/audio/translations", translation),
    Route("openai", r"POST /openai-media/v1/audio/speech", speech),
    Route("openai", r"POST /openai-media/v1/completions", completions),
)
