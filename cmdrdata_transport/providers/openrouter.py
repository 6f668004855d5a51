"""OpenRouter: OpenAI's shapes and Anthropic's messages, with what was charged and who served.

Source: recorded traffic, and pydantic_ai's reading of it (`models/openrouter.py`). `cost` is what
OpenRouter charged, in US dollars. With the caller's own key (`is_byok`, kept in the details) that is its
fee alone, and the model's price, in `cost_details` of the raw usage, is charged by the vendor. No answer in
Anthropic's shape is recorded: that one states what Anthropic's do is from OpenRouter's documentation, and so
is that a batch has its results within itself, each as OpenAI's batches have them.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.openai import (
    BATCHES,
    CHAT,
    CHAT_UNITS,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    RESPONSES_UNITS,
)
from cmdrdata_transport.providers.table import Endpoint, Path, Paths, Provider, Results, Shape, Tree

_COST: dict[Path, str] = {("cost",): "1"}

_DETAILS: dict[str, Paths] = {
    "is_byok": (("usage", "is_byok"), ("response", "usage", "is_byok")),
    "vendor": (("provider",), ("response", "provider")),
}

_SEARCHES: Tree = {"server_tool_use_details": {"web_search_requests": "web_searches"}}


def _charged(shape: Shape, units: Tree) -> Shape:
    return replace(shape, units={**units, **_SEARCHES}, cost=_COST, details=_DETAILS)


_CHAT = _charged(CHAT, CHAT_UNITS)

_RESPONSES = _charged(RESPONSES, RESPONSES_UNITS)

_EMBEDDINGS = _charged(EMBEDDINGS, EMBEDDINGS.units)

_BATCH = replace(
    BATCHES,
    results=Results(
        shapes=(_CHAT, _RESPONSES, _EMBEDDINGS),
        at=(("results",),),
        answer=(("response", "body"),),
        id=(("response", "body", "id"), ("id",)),
    ),
)

OPENROUTER = Provider(
    id="openrouter",
    hosts=("openrouter.ai", "api.openrouter.ai"),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=_CHAT),
        Endpoint(path=r"/responses$", shape=_RESPONSES),
        Endpoint(path=r"/messages$", shape=replace(MESSAGES, cost=_COST)),
        Endpoint(path=r"/embeddings$", shape=_EMBEDDINGS),
        Endpoint(path=r"/batches$", shape=BATCHES),
        Endpoint(path=r"/batches/(?P<job>[^/]+)$", method="GET", shape=_BATCH, poll=True),
        Endpoint(path=r"/completions$", shape=_charged(COMPLETIONS, CHAT_UNITS)),
    ),
)
