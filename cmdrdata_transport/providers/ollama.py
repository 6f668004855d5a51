"""Ollama's own API, at its cloud and wherever somebody runs it.

Sources: the types of the ollama SDK 0.6.3 (`_types.py`), and recorded traffic. Counts stand among the
content of the answer; of a stream's lines, in the one that is `done`. Thinking is a part of the output,
`prompt_eval_cached_count` one of the prompt. A prompt that was cached whole may state no count: then the
input is not known. Answers have no id.
"""

from __future__ import annotations

from cmdrdata_transport.providers.openai import ENDPOINTS as OPENAI_ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Provider, Shape, Stream, Tree

UNITS: Tree = {
    "prompt_eval_count": "input_tokens",
    "eval_count": "output_tokens",
    "prompt_eval_cached_count": "cache_read_tokens",
}

_STREAM = Stream(
    kind=("done",), ends=frozenset({True}), mark=b'"done":true', needles=(b'"eval_count"',), tail=1
)

CHAT = Shape(
    api="ollama.chat",
    operation="chat",
    usage=((),),
    units=UNITS,
    response_id=(),
    finish_reason=(("done_reason",),),
    stream=_STREAM,
)

GENERATE = Shape(
    api="ollama.generate",
    operation="completion",
    usage=((),),
    units=UNITS,
    response_id=(),
    finish_reason=(("done_reason",),),
    stream=_STREAM,
)

EMBED = Shape(
    api="ollama.embed",
    operation="embeddings",
    usage=((),),
    units=UNITS,
    response_id=(),
)

SYSTEM_ONE = Shape(
    api="ollama.systemone",
    operation="classification",
    usage=(("usage",),),
    units={"input_tokens": "input_tokens", "output_tokens": "output_tokens"},
    response_id=(),
)

OLLAMA = Provider(
    id="ollama",
    hosts=("ollama.com",),
    endpoints=(
        Endpoint(path=r"/api/chat$", shape=CHAT),
        Endpoint(path=r"/api/generate$", shape=GENERATE),
        Endpoint(path=r"/api/embed$", shape=EMBED),
        Endpoint(path=r"/v1/systemone$", shape=SYSTEM_ONE),
        # The first way to embed, which states nothing; it looks like OpenAI's.
        Endpoint(path=r"/api/embeddings$", shape=None),
        *OPENAI_ENDPOINTS,
    ),
    # Nobody else has these paths, and what one runs oneself is Ollama, too.
    compatible="ollama",
)
