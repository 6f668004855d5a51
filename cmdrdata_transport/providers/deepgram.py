"""Deepgram: speech to text, text to speech, and what it reads out of a text.

Sources: the types of the deepgram SDK 7.17 (`types/listen_v1response_metadata.py`,
`types/read_v1response_metadata.py`), and recorded traffic. Listening is billed by seconds, and by tokens
for each thing that was to be found in the text; speaking by characters, which a header counts. The URL's
query names the model. Where the answer goes to a `callback`, there is an id in its place.
"""

from __future__ import annotations

from cmdrdata_transport.providers.table import Endpoint, Length, Provider, Shape, Tree

_TOKENS: Tree = {"input_tokens": "input_tokens", "output_tokens": "output_tokens"}

_FOUND: Tree = {
    "summary_info": _TOKENS,
    "sentiment_info": _TOKENS,
    "topics_info": _TOKENS,
    "intents_info": _TOKENS,
}

LISTEN = Shape(
    api="deepgram.listen",
    operation="transcription",
    usage=(("metadata",),),
    units={"duration": "audio_seconds", **_FOUND},
    response_id=(("metadata", "request_id"), ("request_id",)),
    model=(),
    details={"channels": (("metadata", "channels"),)},
    pending={("request_id",): frozenset()},
)

READ = Shape(
    api="deepgram.read",
    operation="classification",
    # The SDK nests one in the other.
    usage=(("metadata", "metadata"), ("metadata",)),
    units=_FOUND,
    response_id=(("metadata", "metadata", "request_id"), ("metadata", "request_id"), ("request_id",)),
    model=(),
    pending={("request_id",): frozenset()},
)

SPEAK = Shape(
    api="deepgram.speak",
    operation="speech",
    usage=(),
    units={},
    headers={b"dg-char-count": "input_characters"},
    request={"text": Length(unit="input_characters")},
    response_id=(),
    model=(),
    model_header=b"dg-model-name",
)

DEEPGRAM = Provider(
    id="deepgram",
    hosts=("api.deepgram.com", "api.*.deepgram.com"),
    endpoints=(
        Endpoint(path=r"/v[12]/listen$", shape=LISTEN, query_model="model"),
        Endpoint(path=r"/v1/read$", shape=READ, query_model="model"),
        Endpoint(path=r"/v[12]/speak$", shape=SPEAK, query_model="model"),
    ),
    request_id=(b"dg-request-id", b"x-dg-request-id"),
)
