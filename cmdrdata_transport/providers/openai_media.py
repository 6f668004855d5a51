"""OpenAI's images and sound: generation, transcription, translation, speech.

Sources: the types of the openai SDK 3.54 (`types/images_response.py`, `types/audio/`), and recorded
traffic. Newer models state tokens; the older ones are billed by images, seconds or characters. What was
asked for changes the price of an image, so size and quality are kept. Speech is bytes that state nothing:
the characters of the text are counted in the request. A transcript in plain text states nothing at all.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.table import Endpoint, Length, Shape, Stream, Tree

_IN: Tree = {
    "text_tokens": "input_text_tokens",
    "image_tokens": "input_image_tokens",
    "audio_tokens": "input_audio_tokens",
}

IMAGES = Shape(
    api="openai.images",
    operation="image",
    usage=(("usage",),),
    units={
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "input_tokens_details": _IN,
        "output_tokens_details": {
            "text_tokens": "output_text_tokens",
            "image_tokens": "output_image_tokens",
        },
    },
    lists={(): {"data": Length(unit="images")}},
    response_id=(),
    model=(),
    details={"size": (("size",),), "quality": (("quality",),)},
    request_details={"size": (("size",),), "quality": (("quality",),)},
    stream=Stream(
        ends=frozenset({"image_generation.completed", "image_edit.completed"}),
        mark=b".completed",
    ),
)

TRANSCRIPTION = Shape(
    api="openai.transcriptions",
    operation="transcription",
    # `verbose_json` of older models has its seconds beside the text.
    usage=(("usage",), ()),
    units={
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "input_token_details": _IN,
        "seconds": "audio_seconds",
        "duration": "audio_seconds",
    },
    response_id=(),
    model=(),
    stream=Stream(ends=frozenset({"transcript.text.done"}), mark=b"transcript.text.done"),
)

TRANSLATION = replace(TRANSCRIPTION, api="openai.translations", operation="translation", stream=None)

SPEECH = Shape(
    api="openai.speech",
    operation="speech",
    usage=(("usage",),),
    units={"input_tokens": "input_tokens", "output_tokens": "output_tokens"},
    request={"input": Length(unit="input_characters")},
    response_id=(),
    model=(),
    stream=Stream(ends=frozenset({"speech.audio.done"}), mark=b"speech.audio.done"),
)

ENDPOINTS = (
    Endpoint(path=r"/images/(generations|edits|variations)$", shape=IMAGES),
    Endpoint(path=r"/audio/transcriptions$", shape=TRANSCRIPTION),
    Endpoint(path=r"/audio/translations$", shape=TRANSLATION),
    Endpoint(path=r"/audio/speech$", shape=SPEECH),
    # Free: moderation carries no usage.
    Endpoint(path=r"/moderations$", shape=None),
)
