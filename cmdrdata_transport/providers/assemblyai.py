"""AssemblyAI: transcripts, its gateway to language models, and text to speech.

Source: the assemblyai SDK 1.8 (`types.py`, `llm_gateway/v1/models.py`, `tts/v1/api.py`,
`dictation/v1/models.py`). A transcript is a job: it is started, and asked for until it is completed; then it
states its seconds. Whoever waits for one in a single call is told its milliseconds. The gateway says input
and output twice, in OpenAI's words and in others, and names no model in a plain answer. Speech states what
it billed in headers. Sentences, paragraphs and subtitles of a transcript state its seconds again.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT, CHAT_UNITS
from cmdrdata_transport.providers.table import Endpoint, Job, Length, Provider, Scaled, Shape, Tree

_PROMPT: Tree = {
    "cached_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "input_audio_tokens",
    "cache_creation": {
        "ephemeral_5m_input_tokens": "cache_write_5m_tokens",
        "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    },
}

_SECONDS_IN_MS = Scaled(unit="audio_seconds", per=1000)

GATEWAY = replace(
    CHAT,
    usage=(("usage",),),
    units={**CHAT_UNITS, "prompt_tokens_details": _PROMPT},
    response_id=(("request_id",), ("id",)),
)

TRANSCRIPT = Shape(
    api="assemblyai.transcripts",
    operation="transcription",
    usage=((),),
    units={"audio_duration": "audio_seconds"},
    request_model=(("speech_model",), ("speech_models", 0)),
    model=(("speech_model_used",), ("speech_model",)),
    finish_reason=(("status",),),
    details={
        "audio_channels": (("audio_channels",),),
        "speaker_labels": (("speaker_labels",),),
        "entity_detection": (("entity_detection",),),
        "sentiment_analysis": (("sentiment_analysis",),),
        "summarization": (("summarization",),),
    },
    pending={("status",): frozenset({"queued", "processing"})},
    job=Job(),
)

SYNC_TRANSCRIPT = Shape(
    api="assemblyai.sync",
    operation="transcription",
    usage=((),),
    units={"audio_duration_ms": _SECONDS_IN_MS},
    request_model_header=b"x-aai-model",
    response_id=(("session_id",),),
    model=(),
)

SPEECH = Shape(
    api="assemblyai.speech",
    operation="speech",
    usage=(),
    units={},
    headers={b"x-tts-billed-characters": "input_characters", b"x-tts-audio-duration-ms": _SECONDS_IN_MS},
    request={"text": Length(unit="input_characters"), "input": Length(unit="input_characters")},
    response_id=(),
    model=(),
    model_header=b"x-tts-model",
)

ASSEMBLYAI = Provider(
    id="assemblyai",
    hosts=(
        "api.assemblyai.com",
        "api.*.assemblyai.com",
        "sync.assemblyai.com",
        "sync.*.assemblyai.com",
        "dictation.assemblyai.com",
        "dictation.*.assemblyai.com",
        "llm-gateway.assemblyai.com",
        "llm-gateway.*.assemblyai.com",
        "tts.*.assemblyai.com",
    ),
    endpoints=(
        Endpoint(path=r"/v2/transcript$", shape=TRANSCRIPT),
        Endpoint(path=r"/v2/transcript/[^/]+$", method="GET", shape=TRANSCRIPT, poll=True),
        Endpoint(path=r"/v1/transcribe(/live)?$", shape=SYNC_TRANSCRIPT),
        Endpoint(path=r"/v1/chat/completions$", shape=GATEWAY),
        Endpoint(path=r"/v1/speech$", shape=SPEECH),
    ),
)
