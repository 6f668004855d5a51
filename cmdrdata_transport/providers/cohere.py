"""Cohere: chat in both versions, embeddings, reranking, classification, parsing, batches.

Sources: the types of the cohere SDK 7.3 (`types/usage.py`, `types/api_meta.py`), and recorded traffic.
Every answer has two counts: `billed_units`, which is what is charged, and `tokens`, which is what the
model saw, Cohere's own preambles included. Ours are the billed ones. `cached_tokens` is a part of the
second, often larger than all that is billed, so it is no unit; it stays in `raw_usage`.

Few answers name their model. Version 1 streams JSON lines; version 2 streams events, and states id and
usage in the first and the last of them. What a batch or an embedding job made lies in a dataset, which
its owner reads by other ways, so the totals that the job itself states are what counts.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import ENDPOINTS as OPENAI_ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Job, Paths, Provider, Shape, Stream, Tree

BILLED: Tree = {
    "billed_units": {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "classifications": "classifications",
        "pages": "input_document_pages",
    }
}

_META: Paths = (("meta",), ("response", "meta"))

CHAT = Shape(
    api="cohere.chat_v2",
    operation="chat",
    usage=(("usage",), ("delta", "usage")),
    units=BILLED,
    error=(("error",), ("delta", "error")),
    model=(),
    finish_reason=(("finish_reason",), ("delta", "finish_reason")),
    stream=Stream(ends=frozenset({"message-end"}), mark=b"message-end", needles=(b'"billed_units"',)),
)

CHAT_V1 = Shape(
    api="cohere.chat_v1",
    operation="chat",
    usage=_META,
    units=BILLED,
    # `response_id` is another, which a stream says at its end alone.
    response_id=(("generation_id",), ("response", "generation_id")),
    model=(),
    finish_reason=(("finish_reason",),),
    stream=Stream(
        kind=("event_type",),
        ends=frozenset({"stream-end"}),
        mark=b"stream-end",
        needles=(b'"billed_units"',),
        tail=1,
    ),
)

GENERATE = Shape(
    api="cohere.generate",
    operation="completion",
    usage=_META,
    units=BILLED,
    response_id=(("response", "id"), ("id",)),
    model=(),
    finish_reason=(("finish_reason",), ("generations", 0, "finish_reason")),
    stream=CHAT_V1.stream,
)

EMBED = Shape(
    api="cohere.embed",
    operation="embeddings",
    usage=_META,
    units={
        "billed_units": {
            "input_tokens": "input_tokens",
            "image_tokens": "input_image_tokens",
            "text_tokens": "input_text_tokens",
            "images": "images",
        }
    },
    model=(),
)

RERANK = Shape(
    api="cohere.rerank",
    operation="rerank",
    usage=_META,
    units={"billed_units": {"search_units": "rerank_searches"}},
    model=(),
)

CLASSIFY = Shape(
    api="cohere.classify",
    operation="classification",
    usage=_META,
    units=BILLED,
    model=(),
)

PARSE = Shape(
    api="cohere.parse",
    operation="ocr",
    usage=_META,
    units=BILLED,
    model=(),
    finish_reason=(("finish_reason",),),
)

EMBED_JOB = replace(
    EMBED,
    api="cohere.embed_jobs",
    response_id=(("job_id",),),
    model=(("model",),),
    finish_reason=(("status",),),
    pending={("status",): frozenset({"processing", "cancelling"})},
    job=Job(),
)

# It says its id, and nothing of how far it is.
EMBED_JOB_STARTED = replace(EMBED_JOB, pending={("job_id",): frozenset()})

BATCH = Shape(
    api="cohere.batches",
    operation="chat",
    usage=((),),
    units={"batch": {"input_tokens": "input_tokens", "output_tokens": "output_tokens"}},
    response_id=(("batch", "id"),),
    model=(("batch", "model"),),
    finish_reason=(("batch", "status"),),
    pending={
        ("batch", "status"): frozenset(
            {
                "BATCH_STATUS_UNSPECIFIED",
                "BATCH_STATUS_QUEUED",
                "BATCH_STATUS_IN_PROGRESS",
                "BATCH_STATUS_CANCELING",
            }
        )
    },
    job=Job(),
)

COHERE = Provider(
    id="cohere",
    hosts=("api.cohere.com", "api.cohere.ai"),
    endpoints=(
        Endpoint(path=r"/v2/chat$", shape=CHAT),
        Endpoint(path=r"/v1/chat$", shape=CHAT_V1),
        Endpoint(path=r"/v[12]/embed$", shape=EMBED),
        Endpoint(path=r"/v[12]/rerank$", shape=RERANK),
        Endpoint(path=r"/v1/classify$", shape=CLASSIFY),
        Endpoint(path=r"/v1/(generate|summarize)$", shape=GENERATE),
        Endpoint(path=r"/v2/parse$", shape=PARSE),
        Endpoint(path=r"/v1/embed-jobs$", shape=EMBED_JOB_STARTED),
        Endpoint(path=r"/v1/embed-jobs/[^/]+$", method="GET", shape=EMBED_JOB, poll=True),
        Endpoint(path=r"/v2/batches$", shape=BATCH),
        Endpoint(path=r"/v2/batches/[^/]+$", method="GET", shape=BATCH, poll=True),
        Endpoint(path=r"/(de)?tokenize$", shape=None),
        *(Endpoint(path=rf"/compatibility/v1.*{each.path}", shape=each.shape) for each in OPENAI_ENDPOINTS),
    ),
    request_id=(b"x-debug-trace-id", b"x-request-id"),
)
