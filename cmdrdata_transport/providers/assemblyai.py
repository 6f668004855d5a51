"""AssemblyAI: its gateway to language models, and text to speech.

Source: the assemblyai SDK 1.0 (`llm_gateway/v1/models.py`, `tts/v1/api.py`). The gateway says input and
output twice, in OpenAI's words and in others, and names no model in a plain answer. Speech states what
it billed in headers. Transcripts are made in the background and fetched later; that is not read here.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT, CHAT_UNITS
from cmdrdata_transport.providers.table import Endpoint, Length, Provider, Shape, Tree

_PROMPT: Tree = {
    "cached_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "input_audio_tokens",
    "cache_creation": {
        "ephemeral_5m_input_tokens": "cache_write_5m_tokens",
        "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    },
}

GATEWAY = replace(
    CHAT,
    usage=(("usage",),),
    units={**CHAT_UNITS, "prompt_tokens_details": _PROMPT},
    response_id=(("request_id",), ("id",)),
)

SPEECH = Shape(
    api="assemblyai.speech",
    operation="speech",
    usage=(),
    units={},
    headers={b"x-tts-billed-characters": "input_characters"},
    request={"text": Length(unit="input_characters"), "input": Length(unit="input_characters")},
    response_id=(),
    model=(),
)

ASSEMBLYAI = Provider(
    id="assemblyai",
    hosts=("llm-gateway.assemblyai.com", "llm-gateway.*.assemblyai.com", "tts.*.assemblyai.com"),
    endpoints=(
        Endpoint(path=r"/v1/chat/completions$", shape=GATEWAY),
        Endpoint(path=r"/v1/speech$", shape=SPEECH),
    ),
)
