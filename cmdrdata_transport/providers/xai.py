"""xAI: OpenAI's shapes over REST. Its own SDK speaks gRPC, whose answers are told by hand.

Source: recorded responses; for chat, litellm's and genai-prices' reading of it, and the message of the
xai-sdk (`proto/v6/usage.proto`; the worth of a tick: `cost.py`). In chat, reasoning is outside
`completion_tokens` where the total says so; in responses it is a part of the output. `cost_in_usd_ticks`
is what was charged, tools and cache included; for images it is all that the usage object has, and known
from its types alone. A transcript states its seconds.

Not metered: videos.
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
from cmdrdata_transport.providers.table import BY_HAND, Apart, Endpoint, Length, Path, Provider, Shape, Tree

_COST: dict[Path, str] = {("cost_in_usd_ticks",): "1e-10"}

_TOOLS: Tree = {"server_side_tool_usage_details": {"web_search_calls": "web_searches"}}

_CHAT = replace(CHAT, units={**CHAT_UNITS, **_TOOLS}, apart=Apart(), cost=_COST)

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
    hosts=("api.x.ai", "*.api.x.ai"),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=_CHAT),
        Endpoint(
            path=r"/responses$", shape=replace(RESPONSES, units={**RESPONSES_UNITS, **_TOOLS}, cost=_COST)
        ),
        Endpoint(path=r"/embeddings$", shape=EMBEDDINGS),
        Endpoint(path=r"/stt$", shape=TRANSCRIPTION),
        Endpoint(path=r"/images/(generations|edits)$", shape=IMAGES),
        Endpoint(path=r"/completions$", shape=replace(COMPLETIONS, apart=Apart(), cost=_COST)),
        Endpoint(path=r"/xai_api\.Chat/GetCompletion$", method=BY_HAND, shape=GRPC),
    ),
)
