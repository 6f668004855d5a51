"""Gemini, on the Developer API and on Vertex.

Source: the types of google-genai 3.4 (`types.GenerateContentResponseUsageMetadata`), and recorded
traffic. Thoughts are not in the candidates' count and tool prompts are not in the prompt's; cached
content is in the prompt's. Zero counts are left out by the server. The usage of a stream's chunk is
the server's running total, and it may go down: the newest one replaces the ones before.

A batch of the Developer API has its results in itself, or in a file that it names (`batches.py`); they are
recorded. Those of Vertex are in Cloud Storage, where nothing of ours sees them.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.google_interactions import ENDPOINTS as INTERACTIONS
from cmdrdata_transport.providers.google_media import ENDPOINTS as MEDIA
from cmdrdata_transport.providers.mistral import CHAT as MISTRAL_CHAT
from cmdrdata_transport.providers.mistral import OCR
from cmdrdata_transport.providers.openai import CHAT, RESPONSES
from cmdrdata_transport.providers.openai import EMBEDDINGS as OPENAI_EMBEDDINGS
from cmdrdata_transport.providers.openai import ENDPOINTS as OPENAI_ENDPOINTS
from cmdrdata_transport.providers.table import (
    Each,
    Endpoint,
    Items,
    Job,
    Length,
    Provider,
    Results,
    Shape,
    Stream,
    Tree,
)

_INPUT = Each(
    key="modality",
    value="tokenCount",
    into={
        "TEXT": "input_text_tokens",
        "AUDIO": "input_audio_tokens",
        "IMAGE": "input_image_tokens",
        "VIDEO": "input_video_tokens",
        "DOCUMENT": "input_document_tokens",
    },
)

_OUTPUT = Each(
    key="modality",
    value="tokenCount",
    into={
        "TEXT": "output_text_tokens",
        "AUDIO": "output_audio_tokens",
        "IMAGE": "output_image_tokens",
        "VIDEO": "output_video_tokens",
    },
)

UNITS: Tree = {
    "promptTokenCount": "input_tokens",
    "toolUsePromptTokenCount": ("input_tokens", "input_tool_tokens"),
    "candidatesTokenCount": "output_tokens",
    "thoughtsTokenCount": ("output_tokens", "output_reasoning_tokens"),
    "cachedContentTokenCount": "cache_read_tokens",
    "promptTokensDetails": _INPUT,
    # Embeddings spell it without the s (recorded).
    "promptTokenDetails": _INPUT,
    "toolUsePromptTokensDetails": _INPUT,
    "candidatesTokensDetails": _OUTPUT,
}

_CACHED = Each(
    key="modality",
    value="tokenCount",
    into={
        "TEXT": "cache_text_read_tokens",
        "AUDIO": "cache_audio_read_tokens",
        "IMAGE": "cache_image_read_tokens",
        "VIDEO": "cache_video_read_tokens",
    },
)

GENERATE = Shape(
    api="google.generate_content",
    operation="chat",
    usage=(("usageMetadata",),),
    units={**UNITS, "cacheTokensDetails": _CACHED},
    needs={"input_tokens": frozenset({"promptTokenCount"})},
    lists={("candidates", 0, "groundingMetadata"): {"webSearchQueries": Length(unit="web_searches")}},
    response_id=(("responseId",),),
    model=(("modelVersion",),),
    finish_reason=(("candidates", 0, "finishReason"), ("promptFeedback", "blockReason")),
    service_tier=(("usageMetadata", "serviceTier"), ("usageMetadata", "trafficType")),
    looks={("usageMetadata",): frozenset(), ("candidates", 0, "content"): frozenset()},
    stream=Stream(needles=(b'"usageMetadata"', b'"finishReason"'), finish_ends=True, as_list=True),
)

EMBED = Shape(
    api="google.embed_content",
    operation="embeddings",
    usage=(("usageMetadata",),),
    units=UNITS,
    response_id=(),
    model=(),
)

PREDICT = Shape(
    api="google.predict",
    operation="embeddings",
    # A count for each instance; the billed characters are the provider's own other measure.
    usage=((),),
    units={
        "predictions": Items(tree={"embeddings": {"statistics": {"token_count": "input_tokens"}}}),
        "metadata": {"billableCharacterCount": "input_characters"},
    },
    response_id=(),
    model=(),
)

# Google's OpenAI-compatible endpoint leaves thinking out of completion_tokens and has it in total_tokens
# (recorded), so output is the total less the prompt.
_OPENAI_UNITS: Tree = {
    "prompt_tokens": ("input_tokens", "-output_tokens"),
    "total_tokens": "output_tokens",
    "prompt_tokens_details": {"cached_tokens": "cache_read_tokens"},
    "completion_tokens_details": {"reasoning_tokens": "output_reasoning_tokens"},
}

OPENAI_CHAT = Shape(
    api="openai.chat_completions",
    operation="chat",
    usage=(("usage",),),
    units=_OPENAI_UNITS,
    needs={"output_tokens": frozenset({"prompt_tokens", "total_tokens"})},
    finish_reason=CHAT.finish_reason,
    stream=CHAT.stream,
)

BATCHES = Shape(
    api="google.batches",
    operation="chat",
    usage=(),
    units={},
    response_id=(("name",),),
    model=(),
    job=Job(),
)

_BATCH_EMBEDDED = Shape(
    api="google.embed_content",
    operation="embeddings",
    usage=((),),
    units={"tokenCount": "input_tokens"},
    response_id=(),
    model=(),
    looks={("embedding",): frozenset()},
)

_RESULTS = Results(
    shapes=(GENERATE, _BATCH_EMBEDDED),
    answer=(("response",),),
    id=(("response", "responseId"),),
    custom_id=(("key",), ("metadata", "key"), ("metadata", "custom_id")),
)

BATCH_RESULTS = replace(
    BATCHES,
    job=Job(yields=(("metadata", "output", "responsesFile"), ("response", "responsesFile"))),
    results=replace(
        _RESULTS,
        at=tuple(
            (*within, kind, "inlinedResponses")
            for within in (("metadata", "output"), ("response",))
            for kind in ("inlinedResponses", "inlinedEmbedContentResponses")
        ),
    ),
)

BATCH_FILE = replace(BATCHES, job=None, results=_RESULTS)

_MODEL = r"/models/(?P<model>[^/:]+)"

GOOGLE = Provider(
    id="google",
    hosts=(
        "generativelanguage.googleapis.com",
        "*.generativelanguage.googleapis.com",
        "aiplatform.googleapis.com",
        "*-aiplatform.googleapis.com",
        "aiplatform.*.rep.googleapis.com",
        "generativelanguage.mtls.googleapis.com",
        "*aiplatform.mtls.googleapis.com",
        "claude.googleapis.com",
    ),
    endpoints=(
        # A tuned model is named by an endpoint on Vertex.
        Endpoint(
            path=r"/(models|tunedModels|endpoints)/(?P<model>[^/:]+):(stream)?[gG]enerateContent$",
            shape=GENERATE,
        ),
        Endpoint(path=rf"{_MODEL}:(batchEmbedContents|embedContent)$", shape=EMBED),
        *MEDIA,
        Endpoint(path=rf"/publishers/google{_MODEL}:predict$", shape=PREDICT),
        Endpoint(path=rf"{_MODEL}:(batchGenerateContent|asyncBatchEmbedContent)$", shape=BATCHES),
        Endpoint(path=r"/(?P<job>batches/[^/:]+)$", method="GET", shape=BATCH_RESULTS, poll=True),
        Endpoint(path=r"/(?P<job>files/[^/:]+):download$", method="GET", shape=BATCH_FILE, poll=True),
        *INTERACTIONS,
        Endpoint(path=rf"{_MODEL}:(countTokens|computeTokens)$", shape=None),
        # The anthropic SDK 2.12 (`lib/vertex`, `lib/google_cloud`).
        Endpoint(path=r"/publishers/anthropic/models/count-tokens:rawPredict$", shape=None),
        Endpoint(path=rf"/publishers/anthropic{_MODEL}:(rawPredict|streamRawPredict)$", shape=MESSAGES),
        Endpoint(path=r"/workspaces/[^/]+/invoke/v1/messages$", shape=MESSAGES),
        # The mistralai SDK 3.7 (`gcp/client/_hooks`).
        Endpoint(path=r"/publishers/mistralai/models/(?P<model>mistral-ocr[^/:]*):rawPredict$", shape=OCR),
        Endpoint(path=rf"/publishers/mistralai{_MODEL}:(rawPredict|streamRawPredict)$", shape=MISTRAL_CHAT),
        # The openai SDK 3.54 (`providers/vertex.py`).
        *(
            replace(each, path=f"/publishers/openai/v1{each.path}")
            for each in OPENAI_ENDPOINTS
            if each.shape is RESPONSES
        ),
        Endpoint(path=r"/openai/chat/completions$", shape=OPENAI_CHAT),
        Endpoint(path=r"/openapi/chat/completions$", shape=OPENAI_CHAT),
        Endpoint(path=r"/openai/embeddings$", shape=OPENAI_EMBEDDINGS),
    ),
    compatible="google-compatible",
    request_id=(b"x-request-id",),
    service_tier=(b"x-gemini-service-tier",),
)
