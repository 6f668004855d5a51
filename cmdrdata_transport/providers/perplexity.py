"""Perplexity: chat with searches, responses and embeddings, each with what it cost.

Source: the types of the perplexityai SDK 0.46 (`types/shared/usage_info.py`, `types/responses_usage.py`),
and recorded traffic. In chat, reasoning and citations are outside `completion_tokens`, and outside
`total_tokens` too, which is prompt and completion: all output is the sum of the three, as genai-prices has
it. In responses both are within the output, and the cache within the input. A chat's stream repeats a
running usage in every event, with a cost of zero until the last: the newest one is the answer's.

Not metered: a search is priced by the call and states nothing; what a later poll tells of an
asynchronous chat.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT, EMBEDDINGS, RESPONSES
from cmdrdata_transport.providers.table import Endpoint, Path, Provider, Tree

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

PERPLEXITY = Provider(
    id="perplexity",
    hosts=("api.perplexity.ai",),
    endpoints=(
        Endpoint(path=r"/async/chat/completions$", shape=None),
        Endpoint(
            path=r"/chat/completions$",
            shape=replace(
                CHAT,
                units=_CHAT_UNITS,
                needs={"output_tokens": frozenset({"completion_tokens"})},
                cost=_COST,
                details={"search_context_size": (("usage", "search_context_size"),)},
            ),
        ),
        Endpoint(path=r"/responses$", shape=replace(RESPONSES, units=_RESPONSES_UNITS, cost=_COST)),
        Endpoint(path=r"/(contextualized)?embeddings$", shape=replace(EMBEDDINGS, cost=_COST)),
    ),
)
