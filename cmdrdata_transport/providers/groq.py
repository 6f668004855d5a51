"""Groq: OpenAI's shapes under /openai/v1.

Source: the types of the groq SDK 1.7. Its streams state usage in `x_groq.usage` of the last chunk
without being asked, and in `usage` as well when asked: one of the two is read. In a plain answer
`x_groq.usage` has hardware counters, which are no usage. `usage_breakdown` repeats the same tokens.
"""

from __future__ import annotations

from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.table import Provider

GROQ = Provider(id="groq", hosts=("api.groq.com",), endpoints=ENDPOINTS)
