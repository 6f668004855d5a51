"""The words of those that speak and listen: ElevenLabs and Deepgram.

Speech is bytes of audio; what it used is in headers, or follows from the text alone. A transcript states
its seconds, and Deepgram's the tokens of what was to be found in it.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from urllib.parse import parse_qs

from cmdrdata_transport.demo.dialects.drawing import JSON, Asked, Document, Route, Told, compact


def _audio(asked: Asked) -> bytes:
    return b"ID3\x04\x00" + asked.random.randbytes(5000)


def _seconds(asked: Asked) -> Decimal:
    return Decimal(asked.random.randint(500, 3_600_000)).scaleb(-3)


def elevenlabs_speech(asked: Asked) -> Told:
    """`POST /v1/text-to-speech/{voice}`: billed by the characters of the text."""
    text: str = asked.body["text"]
    return Told(
        content=_audio(asked),
        content_type="audio/mpeg",
        headers=(
            ("character-cost", str(len(text) // 2)),
            ("request-id", asked.name("", 20)),
            ("history-item-id", asked.name("", 20)),
        ),
        model=asked.model,
        units=Counter(input_characters=len(text)),
    )


def elevenlabs_transcript(asked: Asked) -> Told:
    """`POST /v1/speech-to-text`, a form."""
    seconds, transcript = _seconds(asked), asked.name("", 20)
    document: Document = {
        "language_code": "en",
        "language_probability": 0.98,
        "text": "".join(asked.text()),
        "words": [],
        "transcription_id": transcript,
        "audio_duration_secs": float(seconds),
    }
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.model,
        response_id=transcript,
        amounts={"audio_seconds": seconds},
    )


def _deepgram_model(asked: Asked) -> str:
    return parse_qs(asked.query)["model"][0]


def deepgram_listen(asked: Asked) -> Told:
    """`POST /v1/listen`: seconds, and tokens for each thing that was to be found."""
    seconds, request_id, model_id = _seconds(asked), asked.name("", 36), asked.name("", 36)
    wanted = parse_qs(asked.query)
    found: dict[str, Document] = {
        name: {
            "model_uuid": asked.name("", 36),
            "input_tokens": asked.random.randint(50, 900),
            "output_tokens": asked.random.randint(1, 90),
        }
        for name, parameter in (("summary_info", "summarize"), ("topics_info", "topics"))
        if parameter in wanted
    }
    metadata: Document = {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": asked.name("", 64),
        "created": "2026-11-01T20:26:47.872Z",
        "duration": float(seconds),
        "channels": 1,
        "models": [model_id],
        "model_info": {model_id: {"name": "general-nova-3", "version": "2026-01-01", "arch": "nova-3"}},
        **found,
    }
    heard = {"alternatives": [{"transcript": "".join(asked.text()), "confidence": 0.99, "words": []}]}
    put_in = sum(each["input_tokens"] for each in found.values())
    got_out = sum(each["output_tokens"] for each in found.values())
    return Told(
        content=compact({"metadata": metadata, "results": {"channels": [heard]}}).encode(),
        content_type=JSON,
        headers=(("dg-request-id", request_id),),
        model=_deepgram_model(asked),
        response_id=request_id,
        units=+Counter(input_tokens=put_in, output_tokens=got_out, total_tokens=put_in + got_out),
        amounts={"audio_seconds": seconds},
    )


def deepgram_speech(asked: Asked) -> Told:
    """`POST /v1/speak`: audio, and the characters in a header."""
    characters = len(asked.body["text"])
    return Told(
        content=_audio(asked),
        content_type="audio/mpeg",
        headers=(
            ("dg-request-id", asked.name("", 36)),
            ("dg-char-count", str(characters)),
            ("dg-model-name", _deepgram_model(asked)),
        ),
        model=_deepgram_model(asked),
        units=Counter(input_characters=characters),
    )


ROUTES = (
    Route("elevenlabs", r"POST /elevenlabs/v1/text-to-speech/[^/]+(/stream)?", elevenlabs_speech),
    Route("elevenlabs", r"POST /elevenlabs/v1/speech-to-text", elevenlabs_transcript),
    Route("deepgram", r"POST /deepgram/v1/listen", deepgram_listen),
    Route("deepgram", r"POST /deepgram/v1/speak", deepgram_speech),
)
