"""OpenAI, and every server that speaks its shapes.

Sources: the types of the openai SDK 3.54 (`types/completion_usage.py`, `types/responses/response_usage.py`,
`types/responses/response.py`), and recorded traffic. On OpenAI itself cached, cache-write and modality
tokens are parts of the prompt; reasoning, audio and prediction tokens are parts of the completion.

A response that draws states what its image tool used apart from its own usage: that is an event of its own,
of the model that the tool is set to, if the response says which; it is never the conversation's.
"""

from __future__ import annotations

from cmdrdata_transport.providers.openai_media import ENDPOINTS as MEDIA
from cmdrdata_transport.providers.openai_media import IMAGES, drawing, svg
from cmdrdata_transport.providers.openai_realtime import ENDPOINTS as REALTIME
from cmdrdata_transport.providers.openai_runs import ENDPOINTS as RUNS
from cmdrdata_transport.providers.table import EVERY, Endpoint, Job, Provider, Results, Shape, Stream, Tree

CHAT_UNITS: Tree = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "prompt_tokens_details": {
        "cached_tokens": "cache_read_tokens",
        "cache_write_tokens": "cache_write_tokens",
        "audio_tokens": "input_audio_tokens",
        "image_tokens": "input_image_tokens",
        "text_tokens": "input_text_tokens",
    },
    "completion_tokens_details": {
        "reasoning_tokens": "output_reasoning_tokens",
        "audio_tokens": "output_audio_tokens",
        "text_tokens": "output_text_tokens",
        "image_tokens": "output_image_tokens",
        "accepted_prediction_tokens": "accepted_prediction_tokens",
        "rejected_prediction_tokens": "rejected_prediction_tokens",
    },
}

RESPONSES_UNITS: Tree = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "input_tokens_details": {
        "cached_tokens": "cache_read_tokens",
        "cache_write_tokens": "cache_write_tokens",
    },
    "output_tokens_details": {"reasoning_tokens": "output_reasoning_tokens"},
}

_CHAT_STREAM = Stream(
    done=True,
    # The end of every count's name: `"usage":null` is in every event, where it was asked for.
    needles=(b'_tokens"', b'"finish_reason":"', b'"finish_reason": "'),
    tail=4,
    finish_ends=True,
    include_usage=True,
)

CHAT = Shape(
    api="openai.chat_completions",
    operation="chat",
    # Groq's streams say it in x_groq, and some servers in the first choice (found in recorded traffic).
    usage=(("usage",), ("x_groq", "usage"), ("choices", 0, "usage")),
    units=CHAT_UNITS,
    error=(("error",), ("x_groq", "error")),
    finish_reason=(("choices", 0, "finish_reason"),),
    service_tier=(("service_tier",),),
    stream=_CHAT_STREAM,
    looks={("object",): frozenset({"chat.completion", "chat.completion.chunk"})},
)

COMPLETIONS = Shape(
    api="openai.completions",
    operation="completion",
    usage=(("usage",),),
    units=CHAT_UNITS,
    finish_reason=(("choices", 0, "finish_reason"),),
    stream=_CHAT_STREAM,
    looks={("object",): frozenset({"text_completion"})},
)

RESPONSES = Shape(
    api="openai.responses",
    operation="chat",
    usage=(("usage",), ("response", "usage")),
    units=RESPONSES_UNITS,
    beside={
        ("tool_usage",): {"web_search": {"num_requests": "web_searches"}},
        ("response", "tool_usage"): {"web_search": {"num_requests": "web_searches"}},
    },
    asides=(
        drawing(
            ("tool_usage", "image_gen"),
            ("response", "tool_usage", "image_gen"),
            model=(("tools", EVERY, "model"), ("response", "tools", EVERY, "model")),
        ),
        svg(("output", EVERY, "svg_usage"), ("response", "output", EVERY, "svg_usage")),
    ),
    error=(("error",), ("response", "error")),
    response_id=(("response", "id"), ("id",)),
    model=(("response", "model"), ("model",)),
    finish_reason=(
        ("response", "incomplete_details", "reason"),
        ("incomplete_details", "reason"),
        ("response", "status"),
        ("status",),
    ),
    service_tier=(("response", "service_tier"), ("service_tier",)),
    pending={
        ("status",): frozenset({"queued", "in_progress"}),
        ("response", "status"): frozenset({"queued", "in_progress"}),
    },
    # Only what runs in the background is not told whole to whoever asked for it.
    job=Job(
        when={
            ("background",): frozenset({True}),
            ("response", "background"): frozenset({True}),
        }
    ),
    looks={
        ("object",): frozenset({"response", "response.compaction"}),
        ("response", "object"): frozenset({"response"}),
    },
    stream=Stream(
        ends=frozenset({"response.completed", "response.incomplete", "response.failed"}),
        # Text inside a delta is escaped, so only an event with a usage member holds these bytes.
        mark=b'"usage"',
    ),
)

EMBEDDINGS = Shape(
    api="openai.embeddings",
    operation="embeddings",
    usage=(("usage",),),
    # OpenAI sends neither an id nor an output; Azure AI's and OpenRouter's models do.
    units={"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"},
    looks={("data", 0, "object"): frozenset({"embedding"})},
)

DECISIONS = Shape(
    api="openai.decisions",
    operation="classification",
    usage=(("usage",),),
    units=RESPONSES_UNITS,
    response_id=(),
)

# What a batch used stands in the lines of its results; the total that it states itself is their sum.
BATCHES = Shape(
    api="openai.batches",
    operation="chat",
    usage=(),
    units={},
    job=Job(when={("object",): frozenset({"batch"})}, yields=(("output_file_id",), ("error_file_id",))),
)

BATCH_RESULTS = Shape(
    api="openai.batches",
    operation="chat",
    usage=(),
    units={},
    results=Results(
        shapes=(CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS, IMAGES),
        answer=(("response", "body"),),
        id=(("response", "body", "id"), ("id",)),
    ),
)

ENDPOINTS = (
    Endpoint(path=r"/chat/completions$", shape=CHAT),
    Endpoint(path=r"/responses/input_tokens$", shape=None),
    Endpoint(path=r"/responses(/compact)?$", shape=RESPONSES),
    Endpoint(path=r"/responses/[^/]+$", method="GET", shape=RESPONSES, poll=True),
    Endpoint(path=r"/responses/[^/]+/cancel$", shape=RESPONSES, poll=True),
    Endpoint(path=r"/decisions$", shape=DECISIONS, own=True),
    Endpoint(path=r"/embeddings$", shape=EMBEDDINGS),
    Endpoint(path=r"/batches$", shape=BATCHES),
    Endpoint(path=r"/batches/[^/]+$", method="GET", shape=BATCHES, poll=True),
    # What a model wrote into its container, or a user put into a store, may look like anything.
    Endpoint(path=r"/(containers|vector_stores)/[^/]+/files/[^/]+/content$", method="GET", shape=None),
    Endpoint(path=r"/files/(?P<job>[^/]+)/content$", method="GET", shape=BATCH_RESULTS, poll=True),
    Endpoint(path=r"(?<!/chat)/completions$", shape=COMPLETIONS),
)

OPENAI = Provider(
    id="openai",
    # Regional hosts: openai/_data_residency.py
    hosts=("api.openai.com", "*.api.openai.com"),
    endpoints=(*ENDPOINTS, *MEDIA, *RUNS, *REALTIME),
    compatible="openai-compatible",
    include_usage=True,
)
