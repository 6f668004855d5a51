"""Writer: its chat is OpenAI's, under /v1/chat.

Source: the types of the writer-sdk 3.0 (`types/chat_completion_usage.py`), and recorded traffic. What was
read from the cache stands in `prompt_token_details`, without the s. Not metered: completions,
applications, questions to graphs, tools, translation and vision state no usage.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT, CHAT_UNITS
from cmdrdata_transport.providers.table import Endpoint, Provider, Tree

_UNITS: Tree = {**CHAT_UNITS, "prompt_token_details": {"cached_tokens": "cache_read_tokens"}}

WRITER = Provider(
    id="writer",
    include_usage=True,
    hosts=("api.writer.com",),
    endpoints=(Endpoint(path=r"/v1/chat$", shape=replace(CHAT, units=_UNITS)),),
)
