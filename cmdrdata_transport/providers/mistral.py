"""Mistral: chat, agents, fill-in-the-middle, embeddings, OCR, transcription, speech, conversations, batches.

Sources: the types of the mistralai SDK 3.7 (`models/usageinfo.py`, `models/conversationusageinfo.py`,
`models/ocrusageinfo.py`), and recorded traffic. Cached tokens are a part of the prompt; servers named
them `num_cached_tokens` before they had details. A transcription's audio is not in its prompt: the
total shows it. Streams state usage without being asked; the service tier stands in the usage object.
A conversation's answer has no id of its own; its first output has. What its connectors gave the model to
read is beside the prompt, as the total shows. The results of a batch are in a file that it names, and in
its own answer for whoever asks for them there.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT as OPENAI_CHAT
from cmdrdata_transport.providers.openai import CHAT_UNITS, EMBEDDINGS, RESPONSES
from cmdrdata_transport.providers.table import (
    Endpoint,
    Job,
    Length,
    Provider,
    Results,
    Same,
    Shape,
    Stream,
    Tree,
)

_CACHED = Same(unit="cache_read_tokens")

UNITS: Tree = {
    **CHAT_UNITS,
    "prompt_tokens_details": {"cached_tokens": _CACHED, "audio_tokens": "input_audio_tokens"},
    "num_cached_tokens": _CACHED,
    "prompt_audio_seconds": "audio_seconds",
}

CHAT = replace(
    OPENAI_CHAT,
    usage=(("usage",),),
    units=UNITS,
    service_tier=(("usage", "service_tier"),),
)

FIM = replace(CHAT, operation="completion")

OCR = Shape(
    api="mistral.ocr",
    operation="ocr",
    usage=(("usage_info",),),
    units={"pages_processed": "input_document_pages"},
    response_id=(),
    looks={("usage_info",): frozenset()},
)

TRANSCRIPTION = Shape(
    api="mistral.transcription",
    operation="transcription",
    usage=(("usage",),),
    units={
        **UNITS,
        "prompt_tokens_details": {
            "cached_tokens": _CACHED,
            "audio_tokens": ("input_tokens", "input_audio_tokens"),
        },
    },
    response_id=(),
    service_tier=(("usage", "service_tier"),),
    looks={("usage", "prompt_audio_seconds"): frozenset()},
    stream=Stream(ends=frozenset({"transcription.done"}), mark=b"transcription.done"),
)

SPEECH = Shape(
    api="mistral.speech",
    operation="speech",
    usage=(("usage",),),
    units=UNITS,
    request={"input": Length(unit="input_characters")},
    response_id=(),
    model=(),
    stream=Stream(ends=frozenset({"speech.audio.done"}), mark=b"speech.audio.done"),
)

CONVERSATION = Shape(
    api="mistral.conversations",
    operation="chat",
    usage=(("usage",),),
    units={
        **UNITS,
        "connector_tokens": ("input_tokens", "input_tool_tokens"),
        "connectors": {"web_search": "web_searches", "web_search_premium": "web_searches"},
    },
    response_id=(("outputs", 0, "id"), ("id",)),
    model=(("outputs", 0, "model"), ("model",)),
    looks={("object",): frozenset({"conversation.response"})},
    stream=Stream(
        ends=frozenset({"conversation.response.done", "conversation.response.error"}),
        mark=b"conversation.response.",
        overlay=True,  # the last event has the usage, the ones before it model and id: all are read
    ),
)

EMBED = replace(EMBEDDINGS, response_id=(("id",),))

_LINES = Results(
    shapes=(CHAT, EMBED, CONVERSATION, OCR, TRANSCRIPTION),
    answer=(("response", "body"),),
    id=(("response", "body", "id"), ("id",)),
)

BATCHES = Shape(
    api="mistral.batches",
    operation="chat",
    usage=(),
    units={},
    job=Job(when={("object",): frozenset({"batch"})}, yields=(("output_file",), ("error_file",))),
)

# `?inline=true`
BATCH = replace(BATCHES, results=replace(_LINES, at=(("outputs",),)))

BATCH_RESULTS = replace(BATCHES, job=None, results=_LINES)

ENDPOINTS = (
    Endpoint(path=r"/(chat|agents)/completions$", shape=CHAT),
    Endpoint(path=r"/fim/completions$", shape=FIM),
    Endpoint(path=r"/embeddings$", shape=EMBED),
    Endpoint(path=r"/ocr$", shape=OCR),
    Endpoint(path=r"/audio/transcriptions$", shape=TRANSCRIPTION),
    Endpoint(path=r"/audio/speech$", shape=SPEECH),
    Endpoint(path=r"/conversations(/[^/]+(/restart)?)?$", shape=CONVERSATION),
    Endpoint(path=r"/responses/input_tokens$", shape=None),
    Endpoint(path=r"/responses$", shape=RESPONSES),
    Endpoint(path=r"/batch/jobs$", shape=BATCHES),
    Endpoint(path=r"/batch/jobs/(?P<job>[^/]+)$", method="GET", shape=BATCH, poll=True),
    Endpoint(path=r"/files/(?P<job>[^/]+)/content$", method="GET", shape=BATCH_RESULTS, poll=True),
)

MISTRAL = Provider(
    id="mistral",
    hosts=("api.mistral.ai", "api.*.mistral.ai", "codestral.mistral.ai"),
    endpoints=ENDPOINTS,
    request_id=(b"mistral-correlation-id", b"x-kong-request-id", b"x-request-id"),
)
