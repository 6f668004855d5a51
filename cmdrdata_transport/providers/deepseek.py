"""DeepSeek: OpenAI's chat, completions and responses.

Source: recorded traffic. Cached tokens are a part of the prompt and reasoning of the completion;
`prompt_cache_hit_tokens` and `prompt_cache_miss_tokens` say the same again and are not read.
"""

from __future__ import annotations

from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.table import Provider

DEEPSEEK = Provider(id="deepseek", hosts=("api.deepseek.com",), endpoints=ENDPOINTS)
