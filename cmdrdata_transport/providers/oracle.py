"""Oracle Cloud's generative AI, as cohere's `OciClient` asks for it: chat and embeddings.

Sources: the cohere SDK 7.3 (`oci_client.py`), which reads `inputTokens`, and Oracle's reference of `Usage`
(https://docs.oracle.com/en-us/iaas/api/#/en/generative-ai-inference/20231130/), which says `promptTokens`:
both are one count. Cached tokens are a part of the prompt, reasoning is one of the completion. The request
names the model below `servingMode`. A stream's last event has finish reason and usage, and no other end.
"""

from __future__ import annotations

from cmdrdata_transport.providers.table import Endpoint, Provider, Same, Shape, Stream, Tree

_INPUT, _OUTPUT = Same(unit="input_tokens"), Same(unit="output_tokens")

_UNITS: Tree = {
    "promptTokens": _INPUT,
    "inputTokens": _INPUT,
    "completionTokens": _OUTPUT,
    "outputTokens": _OUTPUT,
    "promptTokensDetails": {"cachedTokens": "cache_read_tokens"},
    "completionTokensDetails": {"reasoningTokens": "output_reasoning_tokens"},
}

CHAT = Shape(
    api="oracle.chat",
    operation="chat",
    usage=(("chatResponse", "usage"), ("usage",)),
    units=_UNITS,
    request_model=(("servingMode", "modelId"), ("servingMode", "endpointId")),
    response_id=(),
    model=(("modelId",),),
    finish_reason=(
        ("chatResponse", "finishReason"),
        ("chatResponse", "choices", 0, "finishReason"),
        ("finishReason",),
    ),
    stream=Stream(needles=(b'"usage"', b'"finishReason"'), finish_ends=True),
)

EMBEDDINGS = Shape(
    api="oracle.embed_text",
    operation="embeddings",
    usage=(("usage",),),
    units=_UNITS,
    request_model=(("servingMode", "modelId"), ("servingMode", "endpointId")),
    model=(("modelId",),),
)

ORACLE = Provider(
    id="oracle",
    hosts=("inference.generativeai.*.oci.oraclecloud.com",),
    endpoints=(
        Endpoint(path=r"/20231130/actions/chat$", shape=CHAT),
        Endpoint(path=r"/20231130/actions/embedText$", shape=EMBEDDINGS),
    ),
    request_id=(b"opc-request-id",),
)
