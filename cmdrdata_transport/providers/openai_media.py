"""OpenAI's images, sound and videos: generation, transcription, translation, speech.

Sources: the types of the openai SDK 3.54 (`types/images_response.py`, `types/audio/`, `types/video.py`),
and recorded traffic. Newer models state tokens; the older ones are billed by images, seconds or characters.
What was asked for changes the price of an image, so size and quality are kept. Speech is bytes that state
nothing: the characters of the text are counted in the request. A transcript in plain text states nothing at
all.

An image drawn as SVG is written by another model, whose tokens stand beside the image's own. A video is
billed by its seconds when it is done, and not at all when it failed; an extension's seconds are those of the
whole video, and those that it adds are the request's.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.table import Aside, Endpoint, Job, Length, Path, Shape, Stream, Tree

_IN: Tree = {
    "text_tokens": "input_text_tokens",
    "image_tokens": "input_image_tokens",
    "audio_tokens": "input_audio_tokens",
}

_OUT: Tree = {"text_tokens": "output_text_tokens", "image_tokens": "output_image_tokens"}


def svg(*at: Path) -> Aside:
    """What the author of SVG used, which is no part of the image's own usage."""
    return Aside(
        at=at,
        operation="image",
        units={
            "input_tokens": "input_tokens",
            "output_tokens": "output_tokens",
            "reasoning_tokens": "output_reasoning_tokens",
        },
        model=(("model",),),
    )


def drawing(*at: Path, model: tuple[Path, ...]) -> Aside:
    """What a conversation's image tool used, which is no part of the conversation's own usage."""
    return Aside(
        at=at,
        operation="image",
        units={
            "input_tokens": "input_tokens",
            "output_tokens": "output_tokens",
            "input_tokens_details": _IN,
            "output_tokens_details": _OUT,
            "cached_tokens": "cache_read_tokens",
            "cached_tokens_details": {
                "cached_text_tokens": "cache_text_read_tokens",
                "cached_image_tokens": "cache_image_read_tokens",
            },
        },
        answer_model=model,
    )


IMAGES = Shape(
    api="openai.images",
    operation="image",
    usage=(("usage",),),
    units={
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "input_tokens_details": _IN,
        "output_tokens_details": _OUT,
    },
    asides=(svg(("svg_usage",)),),
    looks={("data", 0, "b64_json"): frozenset()},
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

VIDEOS = Shape(
    api="openai.videos",
    operation="video",
    usage=((),),
    units={"seconds": "video_seconds"},
    details={"size": (("size",),)},
    finish_reason=(("status",),),
    pending={("status",): frozenset({"queued", "in_progress"})},
    free={("status",): frozenset({"failed"})},
    job=Job(),
)

ENDPOINTS = (
    Endpoint(path=r"/images/(generations|edits|variations)$", shape=IMAGES),
    Endpoint(path=r"/audio/transcriptions$", shape=TRANSCRIPTION),
    Endpoint(path=r"/audio/translations$", shape=TRANSLATION),
    Endpoint(path=r"/audio/speech$", shape=SPEECH),
    Endpoint(path=r"/videos(/edits|/[^/]+/remix)?$", shape=VIDEOS, own=True),
    Endpoint(
        path=r"/videos/extensions$",
        shape=replace(VIDEOS, request_details={"added_seconds": (("seconds",),)}),
        own=True,
    ),
    Endpoint(path=r"/videos/[^/]+$", method="GET", shape=VIDEOS, poll=True),
    # Free: moderation carries no usage.
    Endpoint(path=r"/moderations$", shape=None),
)
