"""Anthropic messages, at Anthropic and at every host that speaks them.

Source: the types of the anthropic SDK 2.12 (`types/usage.py`, `types/beta/beta_usage.py`,
`types/message_delta_usage.py`), and recorded traffic. `input_tokens` leaves cache reads and writes
out, so all input is the sum of the three; thinking is a part of output. `message_start` has the cache
split and the tier but only a placeholder for output; `message_delta` has running totals that replace.

What a batch used stands in its results, each a message; those that were cancelled or expired used nothing.
"""

from __future__ import annotations

from cmdrdata_transport.providers.table import Endpoint, Job, Parts, Provider, Results, Shape, Stream, Tree

UNITS: Tree = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_input_tokens": ("input_tokens", "cache_read_tokens"),
    "cache_creation_input_tokens": ("input_tokens", "cache_write_tokens"),
    "cache_creation": {
        "ephemeral_5m_input_tokens": "cache_write_5m_tokens",
        "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    },
    "output_tokens_details": {"thinking_tokens": "output_reasoning_tokens"},
    "server_tool_use": {"web_search_requests": "web_searches", "web_fetch_requests": "web_fetches"},
}

MESSAGES = Shape(
    api="anthropic.messages",
    operation="chat",
    usage=(("usage",), ("message", "usage")),
    units=UNITS,
    needs={"input_tokens": frozenset({"input_tokens"})},
    parts=Parts(
        at="iterations",
        kind="type",
        outside=frozenset({"compaction", "advisor_message"}),
        inside=frozenset({"message", "fallback_message"}),
    ),
    response_id=(("message", "id"), ("id",)),
    model=(("message", "model"), ("model",)),
    finish_reason=(("delta", "stop_reason"), ("stop_reason",)),
    service_tier=(("usage", "service_tier"), ("message", "usage", "service_tier")),
    details={
        "inference_geo": (("usage", "inference_geo"), ("message", "usage", "inference_geo")),
        "speed": (("usage", "speed"), ("message", "usage", "speed")),
    },
    looks={("type",): frozenset({"message", "message_start"})},
    stream=Stream(
        ends=frozenset({"message_stop"}),
        mark=b"message_stop",
        overlay=True,
        tail=1,
        placeholders={("message", "usage"): frozenset({"output_tokens", "output_tokens_details"})},
    ),
)

BATCHES = Shape(
    api="anthropic.batches",
    operation="chat",
    usage=(),
    units={},
    job=Job(),
)

BATCH_RESULTS = Shape(
    api="anthropic.batches",
    operation="chat",
    usage=(),
    units={},
    results=Results(
        shapes=(MESSAGES,),
        answer=(("result", "message"),),
        id=(("result", "message", "id"),),
        error=(("result", "error", "error"), ("result", "error")),
        marks=(("result", "type"),),
    ),
)

ENDPOINTS = (
    Endpoint(path=r"/messages/count_tokens$", shape=None),
    Endpoint(path=r"/messages$", shape=MESSAGES),
    Endpoint(path=r"/messages/batches$", shape=BATCHES),
    Endpoint(path=r"/messages/batches/(?P<job>[^/]+)/results$", method="GET", shape=BATCH_RESULTS, poll=True),
)

ANTHROPIC = Provider(
    id="anthropic",
    # The second is Anthropic's own platform on AWS (`lib/aws`), where models have their plain names.
    hosts=("api.anthropic.com", "aws-external-anthropic.*.api.aws"),
    endpoints=ENDPOINTS,
    compatible="anthropic-compatible",
    request_id=(b"request-id", b"x-request-id", b"x-amzn-requestid"),
)
