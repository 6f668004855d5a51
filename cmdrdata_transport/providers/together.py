"""Together: OpenAI's shapes, and a rerank that states tokens.

Source: the types of the together SDK 3.1 (`types/chat/chat_completion_usage.py`), whose chat goes to
`api-inference.together.ai` (`resources/chat/completions.py`), and recorded traffic, in which what was read
from the cache stands in the usage object itself. Images are counted; their size and steps are the
request's. Of speech the characters are counted in the request; only a verbose transcript states its seconds.
A video that is done says what was charged and its seconds (`types/video_job.py`), a batch has its results in
files (`types/batch_job.py`).
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import (
    BATCH_RESULTS,
    CHAT,
    CHAT_UNITS,
    COMPLETIONS,
    EMBEDDINGS,
)
from cmdrdata_transport.providers.openai_media import SPEECH, TRANSCRIPTION, TRANSLATION, VIDEOS
from cmdrdata_transport.providers.table import Endpoint, Job, Length, Provider, Results, Same, Shape, Tree

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

_CHAT = replace(CHAT, units=_UNITS)

_COMPLETIONS = replace(COMPLETIONS, units=_UNITS)

_VIDEOS = replace(
    VIDEOS,
    usage=((),),
    units={"seconds": "video_seconds", "outputs": {"cost": ()}},
    cost={("outputs", "cost"): "1"},
    pending={("status",): frozenset({"queued", "in_progress"})},
)

BATCHES = Shape(
    api="openai.batches",
    operation="chat",
    usage=(),
    units={},
    job=Job(
        id=(("job", "id"), ("id",)),
        yields=(
            ("job", "output_file_id"),
            ("job", "error_file_id"),
            ("output_file_id",),
            ("error_file_id",),
        ),
    ),
)

_LINES = Results(
    shapes=(_CHAT, EMBEDDINGS, _COMPLETIONS),
    answer=(("response", "body"),),
    id=(("response", "body", "id"), ("id",)),
)

TOGETHER = Provider(
    id="together",
    hosts=("api.together.ai", "api-inference.together.ai", "api.together.xyz"),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=_CHAT),
        Endpoint(path=r"/completions$", shape=_COMPLETIONS),
        Endpoint(path=r"/embeddings$", shape=EMBEDDINGS),
        Endpoint(path=r"/rerank$", shape=RERANK),
        Endpoint(path=r"/images/generations$", shape=IMAGES),
        Endpoint(path=r"/audio/speech$", shape=SPEECH),
        Endpoint(path=r"/audio/transcriptions$", shape=TRANSCRIPTION),
        Endpoint(path=r"/audio/translations$", shape=TRANSLATION),
        Endpoint(path=r"/videos$", shape=_VIDEOS),
        Endpoint(path=r"/videos/[^/]+$", method="GET", shape=_VIDEOS, poll=True),
        Endpoint(path=r"/batches$", shape=BATCHES),
        Endpoint(path=r"/batches/[^/]+$", method="GET", shape=BATCHES, poll=True),
        Endpoint(
            path=r"/files/(?P<job>[^/]+)/content$",
            method="GET",
            shape=replace(BATCH_RESULTS, results=_LINES),
            poll=True,
        ),
    ),
)
