"""xAI: OpenAI's shapes over REST. Its own SDK speaks gRPC, whose answers are told by hand.

Source: recorded responses; for chat, litellm's and genai-prices' reading of it, and the message of the
xai-sdk (`proto/v6/usage.proto`; the worth of a tick: `cost.py`). In chat, reasoning is outside
`completion_tokens` where the total says so; in responses it is a part of the output. `cost_in_usd_ticks`
is what was charged, tools and cache included; for images it is all that the usage object has, and known
from its types alone. A transcript states its seconds.

A deferred answer, a video and a batch are asked for by the name that the call which started them gave; no
answer repeats it. Of videos a pending answer is recorded and the rest is known from the documentation of xAI
(`/v1/videos`, `/v1/batches/{id}/results`, `/v1/chat/deferred-completion`).
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import (
    CHAT,
    CHAT_UNITS,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    RESPONSES_UNITS,
)
from cmdrdata_transport.providers.table import (
    BY_HAND,
    Apart,
    Endpoint,
    Job,
    Length,
    Path,
    Paths,
    Provider,
    Results,
    Shape,
    Tree,
)

_COST: dict[Path, str] = {("cost_in_usd_ticks",): "1e-10"}

_TOOLS: Tree = {"server_side_tool_usage_details": {"web_search_calls": "web_searches"}}

_CHAT = replace(CHAT, units={**CHAT_UNITS, **_TOOLS}, apart=Apart(), cost=_COST)

# Where the call that starts something names it. What tells of it later does not: its path does.
_NAME: Paths = (("request_id",),)

_STARTED: dict[Path, frozenset[str]] = {("request_id",): frozenset()}

DEFERRED = replace(_CHAT, job=Job(id=_NAME), stream=None)

IMAGES = Shape(
    api="openai.images",
    operation="image",
    usage=(("usage",),),
    # Counts towards no unit, and tells that this is a usage object.
    units={"cost_in_usd_ticks": ()},
    lists={(): {"data": Length(unit="images")}},
    cost=_COST,
    response_id=(),
    request_details={name: ((name,),) for name in ("aspect_ratio", "resolution")},
)

VIDEOS = Shape(
    api="xai.videos",
    operation="video",
    usage=(("usage",),),
    units={"cost_in_usd_ticks": ()},
    lists={("video",): {"duration": "video_seconds"}},
    cost=_COST,
    response_id=_NAME,
    finish_reason=(("status",),),
    pending={**_STARTED, ("status",): frozenset({"pending"})},
    free={("status",): frozenset({"failed", "expired"})},
    job=Job(),
    request_details={
        "seconds": (("duration",),),
        "resolution": (("resolution",),),
        "aspect_ratio": (("aspect_ratio",),),
    },
)

BATCHES = Shape(
    api="xai.batches",
    operation="chat",
    usage=(),
    units={},
    job=Job(id=(("batch_id",),)),
)

BATCH_RESULTS = replace(
    BATCHES,
    job=None,
    results=Results(
        shapes=(_CHAT,),
        at=(("results",),),
        answer=(("batch_result", "response", "chat_get_completion"),),
        id=(("batch_result", "response", "chat_get_completion", "id"),),
        custom_id=(("batch_request_id",),),
        error=(("batch_result", "error"), ("error",), ("error_message",)),
    ),
)

TRANSCRIPTION = Shape(
    api="xai.stt",
    operation="transcription",
    usage=((),),
    units={"duration": "audio_seconds"},
    response_id=(),
    model=(),
)

# `GetChatCompletionResponse` as google.protobuf.json_format writes it, with the names of the proto.
GRPC = Shape(
    api="xai.chat",
    operation="chat",
    usage=(("usage",),),
    units={
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "reasoning_tokens": "output_reasoning_tokens",
        "cached_prompt_text_tokens": "cache_read_tokens",
        "prompt_text_tokens": "input_text_tokens",
        "prompt_image_tokens": "input_image_tokens",
    },
    apart=Apart(),
    cost=_COST,
    finish_reason=(("outputs", 0, "finish_reason"),),
    service_tier=(("service_tier",),),
    looks={("outputs",): frozenset()},
)

XAI = Provider(
    id="x-ai",
    include_usage=True,
    hosts=("api.x.ai", "*.api.x.ai"),
    endpoints=(
        Endpoint(
            path=r"/chat/completions$",
            # An answer that is there says what it is, whatever else it has.
            shape=replace(
                _CHAT,
                job=Job(when=_STARTED, id=_NAME),
                pending={**_STARTED, ("object",): frozenset({""})},
            ),
        ),
        Endpoint(path=r"/chat/deferred-completion/(?P<job>[^/]+)$", method="GET", shape=DEFERRED, poll=True),
        Endpoint(
            path=r"/responses$", shape=replace(RESPONSES, units={**RESPONSES_UNITS, **_TOOLS}, cost=_COST)
        ),
        Endpoint(path=r"/embeddings$", shape=EMBEDDINGS),
        Endpoint(path=r"/stt$", shape=TRANSCRIPTION),
        Endpoint(path=r"/images/(generations|edits)$", shape=IMAGES),
        Endpoint(path=r"/videos/(generations|edits|extensions)$", shape=VIDEOS),
        Endpoint(path=r"/videos/(?P<job>[^/]+)$", method="GET", shape=VIDEOS, poll=True),
        Endpoint(path=r"/batches$", shape=BATCHES),
        Endpoint(path=r"/batches/(?P<job>[^/]+)/results$", method="GET", shape=BATCH_RESULTS, poll=True),
        Endpoint(path=r"/completions$", shape=replace(COMPLETIONS, apart=Apart(), cost=_COST)),
        Endpoint(path=r"/xai_api\.Chat/GetCompletion$", method=BY_HAND, shape=GRPC),
    ),
)
