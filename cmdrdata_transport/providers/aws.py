"""Amazon Bedrock: Converse, the makers' own shapes through InvokeModel, and OpenAI's and Anthropic's.

Sources: recorded traffic, and `ConverseResponse`, `TokenUsage` and `InvokeModel` in Amazon's reference
(https://docs.aws.amazon.com/bedrock/latest/APIReference/). `inputTokens` leaves cache reads and writes
out, so all input is the sum of the three; the recorded totals are that sum and the output. InvokeModel
says the same in headers, for models whose bodies state nothing; in a stream, in the last event's
`amazon-bedrock-invocationMetrics`. Those are a second account of the same: they are read where the
model's maker states none. The model is named by the URL, at times by an ARN.

Requests are signed: nothing about one may be changed on its way.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers import openai
from cmdrdata_transport.providers.anthropic import ENDPOINTS as ANTHROPIC_ENDPOINTS
from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.table import Each, Endpoint, Items, Length, Provider, Shape, Stream, Tree

HEADERS: dict[bytes, str | tuple[str, ...]] = {
    b"x-amzn-bedrock-input-token-count": "input_tokens",
    b"x-amzn-bedrock-output-token-count": "output_tokens",
    b"x-amzn-bedrock-cache-read-input-token-count": ("input_tokens", "cache_read_tokens"),
    b"x-amzn-bedrock-cache-write-input-token-count": ("input_tokens", "cache_write_tokens"),
}

CONVERSE = Shape(
    api="aws.converse",
    operation="chat",
    usage=(("usage",), ("metadata", "usage")),
    units={
        "inputTokens": "input_tokens",
        "outputTokens": "output_tokens",
        # `cacheReadInputTokenCount` and `cacheWriteInputTokenCount` say the same again.
        "cacheReadInputTokens": ("input_tokens", "cache_read_tokens"),
        "cacheWriteInputTokens": ("input_tokens", "cache_write_tokens"),
        "cacheDetails": Each(
            key="ttl",
            value="inputTokens",
            into={"5m": "cache_write_5m_tokens", "1h": "cache_write_1h_tokens"},
        ),
    },
    needs={"input_tokens": frozenset({"inputTokens"})},
    response_id=(),
    model=(),
    finish_reason=(("stopReason",), ("messageStop", "stopReason")),
    service_tier=(("serviceTier", "type"), ("metadata", "serviceTier", "type")),
    details={
        "latency": (("performanceConfig", "latency"), ("metadata", "performanceConfig", "latency")),
    },
    stream=Stream(ends=frozenset({"metadata"}), needles=(b'"inputTokens"',)),
)

# Each maker has names of its own, and none has two of these.
_INVOKE_UNITS: Tree = {
    # Amazon Nova
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokenCount": ("input_tokens", "cache_read_tokens"),
    "cacheWriteInputTokenCount": ("input_tokens", "cache_write_tokens"),
    # The metrics of a stream's last event
    "inputTokenCount": "input_tokens",
    "outputTokenCount": "output_tokens",
    # Amazon Titan
    "inputTextTokenCount": "input_tokens",
    "results": Items(tree={"tokenCount": "output_tokens"}),
    "totalOutputTextTokenCount": "output_tokens",
    # Meta Llama
    "prompt_token_count": "input_tokens",
    "generation_token_count": "output_tokens",
    # Whatever speaks OpenAI's shape: imported models, endpoints of SageMaker, DeepSeek, Qwen, gpt-oss
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "prompt_tokens_details": openai.CHAT_UNITS["prompt_tokens_details"],
    "completion_tokens_details": openai.CHAT_UNITS["completion_tokens_details"],
}

INVOKE = Shape(
    api="aws.invoke_model",
    operation="chat",
    usage=(("usage",), ("metadata", "usage"), ("amazon-bedrock-invocationMetrics",), ()),
    units=_INVOKE_UNITS,
    headers=HEADERS,
    model=(),
    finish_reason=(
        ("stopReason",),
        ("messageStop", "stopReason"),
        ("stop_reason",),
        ("finish_reason",),
        ("choices", 0, "finish_reason"),
        ("results", 0, "completionReason"),
        ("completionReason",),
        ("outputs", 0, "stop_reason"),
        ("generations", 0, "finish_reason"),
        ("completions", 0, "finishReason", "reason"),
        # Of a stream that a guardrail stopped, it is all that is said (recorded).
        ("amazon-bedrock-guardrailAction",),
    ),
    stream=Stream(needles=(b'"amazon-bedrock-invocationMetrics"',), finish_ends=True),
)

INVOKE_EMBED = replace(INVOKE, operation="embeddings", finish_reason=(), stream=None)

INVOKE_RERANK = replace(INVOKE, operation="rerank", usage=(), units={}, finish_reason=(), stream=None)
"""Cohere's and Amazon's: `results` are the ranks here, and no counts of Titan's."""

INVOKE_IMAGE = Shape(
    api="aws.invoke_model",
    operation="image",
    usage=(),
    units={},
    lists={(): {"images": Length(unit="images")}},
    response_id=(),
    model=(),
    request_details={
        "quality": (("imageGenerationConfig", "quality"),),
        "width": (("imageGenerationConfig", "width"), ("width",)),
        "height": (("imageGenerationConfig", "height"), ("height",)),
        "aspect_ratio": (("aspect_ratio",),),
    },
)

_METRICS: Tree = {
    "inputTokenCount": "input_tokens",
    "outputTokenCount": "output_tokens",
    "cacheReadInputTokenCount": ("input_tokens", "cache_read_tokens"),
    "cacheWriteInputTokenCount": ("input_tokens", "cache_write_tokens"),
}

INVOKE_MESSAGES = replace(MESSAGES, headers=HEADERS, again={("amazon-bedrock-invocationMetrics",): _METRICS})

_INVOKE = r"/invoke(-with-response-stream)?$"

ENDPOINTS = (
    Endpoint(path=r"/model/(?P<model>[^/]+)/converse(-stream)?$", shape=CONVERSE),
    Endpoint(path=rf"/model/(?P<model>[^/]*anthropic\.[^/]+){_INVOKE}", shape=INVOKE_MESSAGES),
    Endpoint(path=rf"/model/(?P<model>[^/]*embed[^/]*){_INVOKE}", shape=INVOKE_EMBED),
    Endpoint(path=rf"/model/(?P<model>[^/]*rerank[^/]*){_INVOKE}", shape=INVOKE_RERANK),
    Endpoint(
        path=rf"/model/(?P<model>[^/]*(stability\.|nova-canvas|image-generator)[^/]*){_INVOKE}",
        shape=INVOKE_IMAGE,
    ),
    Endpoint(path=rf"/model/(?P<model>[^/]+){_INVOKE}", shape=INVOKE),
    *ANTHROPIC_ENDPOINTS,
    *openai.ENDPOINTS,
)

AWS = Provider(
    id="aws",
    hosts=(
        "bedrock-runtime.*.amazonaws.com",
        "bedrock-runtime-fips.*.amazonaws.com",
        "*.bedrock-runtime.*.vpce.amazonaws.com",
        # Where the SDKs of OpenAI and Anthropic go.
        "bedrock-mantle.*.api.aws",
    ),
    endpoints=ENDPOINTS,
    request_id=(b"x-amzn-requestid", b"x-request-id"),
)
