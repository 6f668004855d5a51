"""Together: OpenAI's shapes, and a rerank that states tokens.

Source: the types of the together SDK 3.1 (`types/chat/chat_completion_usage.py`), whose chat goes to
`api-inference.together.ai` (`resources/chat/completions.py`), and recorded traffic, in which what was read
from the cache stands in the usage object itself. Images are counted; their size and steps are the
request's. Not metered: speech and transcriptions state no usage, and videos tell what they cost to whoever
polls.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT, CHAT_UNITS, COMPLETIONS, EMBEDDINGS
from cmdrdata_transport.providers.table import Endpoint, Length, Provider, Same, Shape, Tree

_CACHED = Same(unit="cache_read_tokens")

_UNITS: Tree = {
    **CHAT_UNITS,
    "cached_tokens": _CACHED,
    # Together's types have no details; should they come as they do elsewhere, they say it again.
    "prompt_tokens_details": {"cached_tokens": _CACHED},
}

RERANK = Shape(
    api="together.rerank",
    operation="rerank",
    usage=(("usage",),),
    units={"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"},
)

IMAGES = Shape(
    api="openai.images",
    operation="image",
    usage=(),
    units={},
    lists={(): {"data": Length(unit="images")}},
    request_details={name: ((name,),) for name in ("width", "height", "steps")},
)

TOGETHER = Provider(
    id="together",
    hosts=("api.together.ai", "api-inference.together.ai", "api.together.xyz"),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=replace(CHAT, units=_UNITS)),
        Endpoint(path=r"/completions$", shape=replace(COMPLETIONS, units=_UNITS)),
        Endpoint(path=r"/embeddings$", shape=EMBEDDINGS),
        Endpoint(path=r"/rerank$", shape=RERANK),
        Endpoint(path=r"/images/generations$", shape=IMAGES),
    ),
)
