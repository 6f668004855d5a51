"""Google's interactions, and what states usage as they do: decisions and voices.

Source: the types of google-genai 3.4 (`_gaos/types/interactions/usage.py`, `…/interaction.py`), and recorded
traffic. Thoughts are not in the output's count and tool prompts are not in the input's, as in
`generateContent`; cached content is in the input's. In a stream the usage is that of all so far, and the
last event's is the whole; a step's own is a part of it. An interaction can be asked for again by its id,
whether it ran in the background or not. One that has to be continued is followed by another, with an id and
a usage of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from cmdrdata_transport.providers.table import Each, Endpoint, Job, Shape, Stream, Tree


def _by_modality(direction: str) -> Each:
    into: Mapping[str, str] = {
        name: f"{direction}_{name}_tokens" for name in ("text", "audio", "image", "video")
    }
    if direction == "input":
        into = {**into, "document": "input_document_tokens"}
    return Each(key="modality", value="tokens", into=into)


UNITS: Tree = {
    "total_input_tokens": "input_tokens",
    "total_tool_use_tokens": ("input_tokens", "input_tool_tokens"),
    "total_output_tokens": "output_tokens",
    "total_thought_tokens": ("output_tokens", "output_reasoning_tokens"),
    "total_cached_tokens": "cache_read_tokens",
    "input_tokens_by_modality": _by_modality("input"),
    "tool_use_tokens_by_modality": _by_modality("input"),
    "output_tokens_by_modality": _by_modality("output"),
    "cached_tokens_by_modality": Each(
        key="modality",
        value="tokens",
        into={name: f"cache_{name}_read_tokens" for name in ("text", "audio", "image", "video")},
    ),
    "grounding_tool_count": Each(key="type", value="count", into={"google_search": "web_searches"}),
}

_NEEDS = {"input_tokens": frozenset({"total_input_tokens"})}

INTERACTIONS = Shape(
    api="google.interactions",
    operation="chat",
    usage=(("interaction", "usage"), ("usage",)),
    units=UNITS,
    needs=_NEEDS,
    request_model=(("model",), ("agent",)),
    error=(("error",), ("interaction", "error")),
    response_id=(("interaction", "id"), ("interaction_id",), ("id",)),
    model=(("interaction", "model"), ("interaction", "agent"), ("model",), ("agent",)),
    finish_reason=(("interaction", "status"), ("status",)),
    service_tier=(("interaction", "service_tier"), ("service_tier",)),
    pending={
        ("status",): frozenset({"queued", "in_progress"}),
        ("interaction", "status"): frozenset({"queued", "in_progress"}),
    },
    job=Job(),
    stream=Stream(
        kind=("event_type",),
        ends=frozenset({"interaction.completed"}),
        mark=b"interaction.completed",
    ),
)

DECISIONS = Shape(
    api="google.decisions",
    operation="classification",
    usage=(("usage",),),
    units=UNITS,
    needs=_NEEDS,
    response_id=(),
    model=(),
    finish_reason=(("prompt_feedback", "block_reason"),),
)

VOICES = Shape(
    api="google.voices",
    operation="speech",
    usage=(("usage",),),
    units=UNITS,
    needs=_NEEDS,
)

ENDPOINTS = (
    Endpoint(path=r"/interactions$", shape=INTERACTIONS),
    Endpoint(path=r"/interactions/[^/]+$", method="GET", shape=INTERACTIONS, poll=True),
    Endpoint(path=r"/interactions/[^/]+/cancel$", shape=INTERACTIONS, poll=True),
    Endpoint(path=r"/decisions$", shape=DECISIONS, own=True),
    Endpoint(path=r"/voices$", shape=VOICES, own=True),
)
