"""Fireworks: OpenAI's shapes and Anthropic's messages, under /inference/v1.

Source: the types of the fireworks-ai SDK 1.2 (`types/shared/usage_info.py`). Cached tokens are a part of
the prompt. The numbers of `perf_metrics` and of the `fireworks-` headers repeat them and are not read.
The SDK's type of a message has no usage; that it is Anthropic's is known from its documentation alone.
"""

from __future__ import annotations

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Provider

FIREWORKS = Provider(
    id="fireworks",
    hosts=("api.fireworks.ai",),
    endpoints=(Endpoint(path=r"/inference/v1/messages$", shape=MESSAGES), *ENDPOINTS),
)
