"""DeepSeek: OpenAI's chat, completions and responses, and Anthropic's messages under /anthropic.

Source: recorded traffic. Cached tokens are a part of the prompt and reasoning of the completion.
`prompt_cache_hit_tokens` says again what the details do, and alone where there are none. That messages
are answered in Anthropic's shape is from its guide alone (https://api-docs.deepseek.com/guides/anthropic_api).
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.openai import CHAT, CHAT_UNITS, COMPLETIONS, ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Provider, Same, Tree

_CACHED = Same(unit="cache_read_tokens")

_UNITS: Tree = {
    **CHAT_UNITS,
    "prompt_tokens_details": {"cached_tokens": _CACHED},
    "prompt_cache_hit_tokens": _CACHED,
}

DEEPSEEK = Provider(
    id="deepseek",
    hosts=("api.deepseek.com",),
    endpoints=(
        Endpoint(path=r"/anthropic/v1/messages$", shape=MESSAGES),
        Endpoint(path=r"/chat/completions$", shape=replace(CHAT, units=_UNITS)),
        # Filling in the middle, under /beta.
        Endpoint(path=r"/completions$", shape=replace(COMPLETIONS, units=_UNITS)),
        *(each for each in ENDPOINTS if each.shape not in (CHAT, COMPLETIONS)),
    ),
)
