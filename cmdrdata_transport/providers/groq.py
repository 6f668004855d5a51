"""Groq: OpenAI's shapes under /openai/v1.

Source: the types of the groq SDK 1.7. Its streams state usage in `x_groq.usage` of the last chunk
without being asked, and in `usage` as well when asked: one of the two is read. In a plain answer
`x_groq.usage` has hardware counters, which are no usage. `usage_breakdown` repeats the same tokens. Of
speech the characters are counted in the request; only a verbose transcript states its seconds.
"""

from __future__ import annotations

from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.openai_media import SPEECH, TRANSCRIPTION, TRANSLATION
from cmdrdata_transport.providers.table import Endpoint, Provider

GROQ = Provider(
    id="groq",
    hosts=("api.groq.com",),
    endpoints=(
        *ENDPOINTS,
        Endpoint(path=r"/audio/speech$", shape=SPEECH),
        Endpoint(path=r"/audio/transcriptions$", shape=TRANSCRIPTION),
        Endpoint(path=r"/audio/translations$", shape=TRANSLATION),
    ),
)
