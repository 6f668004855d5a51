"""OpenRouter: OpenAI's shapes and Anthropic's messages, with what was charged and who served.

Source: recorded traffic, and pydantic_ai's reading of it (`models/openrouter.py`). `cost` is what
OpenRouter charged, in US dollars. With the caller's own key (`is_byok`, kept in the details) that is its
fee alone, and the model's price, in `cost_details` of the raw usage, is charged by the vendor. No answer in
Anthropic's shape is recorded: that one states what Anthropic's do is from OpenRouter's documentation.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.openai import (
    CHAT,
    CHAT_UNITS,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    RESPONSES_UNITS,
)
from cmdrdata_transport.providers.table import Endpoint, Path, Paths, Provider, Shape, Tree

_COST: dict[Path, str] = {("cost",): "1"}

_DETAILS: dict[str, Paths] = {
    "is_byok": (("usage", "is_byok"), ("response", "usage", "is_byok")),
    "vendor": (("provider",), ("response", "provider")),
}

_SEARCHES: Tree = {"server_tool_use_details": {"web_search_requests": "web_searches"}}


def _charged(shape: Shape, units: Tree) -> Shape:
    return replace(shape, units={**units, **_SEARCHES}, cost=_COST, details=_DETAILS)


OPENROUTER = Provider(
    id="openrouter",
    hosts=("openrouter.ai", "api.openrouter.ai"),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=_charged(CHAT, CHAT_UNITS)),
        Endpoint(path=r"/responses$", shape=_charged(RESPONSES, RESPONSES_UNITS)),
        Endpoint(path=r"/messages$", shape=replace(MESSAGES, cost=_COST)),
        Endpoint(path=r"/embeddings$", shape=_charged(EMBEDDINGS, EMBEDDINGS.units)),
        Endpoint(path=r"/completions$", shape=_charged(COMPLETIONS, CHAT_UNITS)),
    ),
)
