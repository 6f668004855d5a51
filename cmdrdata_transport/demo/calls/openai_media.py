"""openai: images, transcripts, translations, speech and completions of the older kind."""

from __future__ import annotations

import warnings
from operator import attrgetter
from typing import Any

from cmdrdata_transport.demo.calls.openai import QUESTION, through_openai
from cmdrdata_transport.demo.calls.table import Headers, Make, SdkCall

_SOUND: dict[str, Any] = {"file": ("bill.mp3", b"ID3\x04\x00")}


def _call(method: str, **arguments: Any) -> Make:
    return lambda client, headers: attrgetter(method)(client)(extra_headers=headers, **arguments)


def _translate(client: Any, headers: Headers) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the SDK says so of it; it is billed all the same
        return client.audio.translations.create(
            model="whisper-1", response_format="verbose_json", extra_headers=headers, **_SOUND
        )


_TRANSCRIBE = "audio.transcriptions.create"

OPENAI_MEDIA = through_openai(
    "openai, media",
    "openai",
    "/openai-media/v1",
    SdkCall(
        name="images",
        make=_call("images.generate", model="gpt-image-1", prompt="a café", n=2, quality="high"),
    ),
    SdkCall(name="images, DALL-E", make=_call("images.generate", model="dall-e-3", prompt="a café")),
    SdkCall(name="transcription", make=_call(_TRANSCRIBE, model="gpt-4o-transcribe", **_SOUND)),
    SdkCall(
        name="transcription, streaming",
        make=_call(_TRANSCRIBE, model="gpt-4o-transcribe", stream=True, **_SOUND),
        streaming=True,
    ),
    SdkCall(name="transcription, Whisper", make=_call(_TRANSCRIBE, model="whisper-1", **_SOUND)),
    SdkCall(name="translation", make=_translate),
    SdkCall(
        name="speech",
        make=_call("audio.speech.create", model="tts-1", voice="alloy", input=QUESTION),
    ),
    SdkCall(
        name="completions",
        make=_call("completions.create", model="gpt-3.5-turbo-instruct", prompt=QUESTION),
    ),
)
