"""Perplexity: chat with searches, responses and embeddings, each with what it cost.

Source: the types of the perplexityai SDK 0.46 (`types/shared/usage_info.py`, `types/responses_usage.py`),
and recorded traffic. In chat, reasoning and citations are outside `completion_tokens`, and outside
`total_tokens` too, which is prompt and completion: all output is the sum of the three, as genai-prices has
it. In responses both are within the output, and the cache within the input. A chat's stream repeats a
running usage in every event, with a cost of zero until the last: the newest one is the answer's.

An asynchronous chat has its answer within itself, when it is done; the results of a batch are responses.

Not metered: a search is priced by the call and states nothing.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import (
    BATCH_RESULTS,
    BATCHES,
    CHAT,
    DECISIONS,
    EMBEDDINGS,
    RESPONSES,
)
from cmdrdata_transport.providers.table import Endpoint, Job, Path, Provider, Results, Tree

_COST: dict[Path, str] = {("cost", "total_cost"): "1"}

_CHAT_UNITS: Tree = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "reasoning_tokens": ("output_tokens", "output_reasoning_tokens"),
    "citation_tokens": ("output_tokens", "output_citation_tokens"),
    "num_search_queries": "web_searches",
}

_RESPONSES_UNITS: Tree = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "input_tokens_details": {
        "cache_read_input_tokens": "cache_read_tokens",
        "cache_creation_input_tokens": "cache_write_tokens",
    },
    "output_tokens_details": {"reasoning_tokens": "output_reasoning_tokens"},
    "tool_calls_details": {"search_web": {"invocation": "web_searches"}},
}

_CHAT = replace(
    CHAT,
    units=_CHAT_UNITS,
    needs={"output_tokens": frozenset({"completion_tokens"})},
    cost=_COST,
    details={"search_context_size": (("usage", "search_context_size"),)},
)

_RESPONSES = replace(RESPONSES, units=_RESPONSES_UNITS, cost=_COST)

ASYNC_CHAT = replace(
    _CHAT,
    api="perplexity.async_chat",
    usage=(("response", "usage"),),
    error=(("error_message",),),
    finish_reason=(("response", "choices", 0, "finish_reason"), ("status",)),
    details={"search_context_size": (("response", "usage", "search_context_size"),)},
    request_model=(("request", "model"),),
    pending={("status",): frozenset({"CREATED", "IN_PROGRESS"})},
    job=Job(),
    looks={},
    stream=None,
)

_LINES = Results(
    shapes=(_RESPONSES,),
    answer=(("response", "body"),),
    id=(("response", "body", "id"), ("id",)),
)

PERPLEXITY = Provider(
    id="perplexity",
    hosts=("api.perplexity.ai",),
    endpoints=(
        Endpoint(path=r"/async/chat/completions$", shape=ASYNC_CHAT),
        Endpoint(path=r"/async/chat/completions/[^/]+$", method="GET", shape=ASYNC_CHAT, poll=True),
        Endpoint(path=r"/chat/completions$", shape=_CHAT),
        Endpoint(path=r"/responses$", shape=_RESPONSES),
        Endpoint(path=r"/responses/[^/]+$", method="GET", shape=_RESPONSES, poll=True),
        Endpoint(path=r"/responses/[^/]+/cancel$", shape=_RESPONSES, poll=True),
        Endpoint(path=r"/decisions$", shape=DECISIONS),
        Endpoint(path=r"/batches$", shape=BATCHES),
        Endpoint(path=r"/batches/[^/]+$", method="GET", shape=BATCHES, poll=True),
        Endpoint(
            path=r"/files/(?P<job>[^/]+)/content$",
            method="GET",
            shape=replace(BATCH_RESULTS, results=_LINES),
            poll=True,
        ),
        Endpoint(path=r"/(contextualized)?embeddings$", shape=replace(EMBEDDINGS, cost=_COST)),
    ),
)
