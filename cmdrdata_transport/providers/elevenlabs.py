"""ElevenLabs: speech from text and from speech, dialogue, sounds, music, speech to text, dubbing.

Sources: the elevenlabs SDK 2.78 for paths, requests and answers in JSON, and what is known of its response
headers. Speech is billed by the characters of the text, at a rate of each model; no answer states them, so
they are counted in the request. What it came to in credits is in a header, and is kept as it stands there:
a plan says what a credit costs. Of sounds, music and changed voices that is often all there is to know. A
transcript states its seconds, unless it is sent to a webhook; a dubbing those that it expects, and, where
parts of it are made again, those that it charged.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.table import Endpoint, Items, Length, Provider, Scaled, Shape

_CHARACTERS = Length(unit="input_characters")
_SECONDS_IN_MS = Scaled(unit="audio_seconds", per=1000)

SPEECH = Shape(
    api="elevenlabs.text_to_speech",
    operation="speech",
    usage=(),
    units={},
    header_details={"character_cost": b"character-cost"},
    request={"text": _CHARACTERS, "inputs": Items(tree={"text": _CHARACTERS})},
    request_model=(("model_id",),),
    response_id=(),
    model=(),
)

VOICE = replace(SPEECH, api="elevenlabs.speech_to_speech", request={})

SOUND = replace(
    SPEECH,
    api="elevenlabs.sound_generation",
    request={"text": _CHARACTERS, "duration_seconds": "audio_seconds"},
)

MUSIC = replace(
    SPEECH,
    api="elevenlabs.music",
    request={
        "music_length_ms": _SECONDS_IN_MS,
        "composition_plan": {"sections": Items(tree={"duration_ms": _SECONDS_IN_MS})},
    },
)

TRANSCRIPTION = Shape(
    api="elevenlabs.speech_to_text",
    operation="transcription",
    usage=((),),
    units={"audio_duration_secs": "audio_seconds"},
    request_model=(("model_id",),),
    response_id=(("transcription_id",),),
    model=(),
    # The answer of one that goes to a webhook.
    pending={("message",): frozenset()},
)

DUBBING = Shape(
    api="elevenlabs.dubbing",
    operation="translation",
    usage=((),),
    units={"expected_duration_sec": "audio_seconds"},
    header_details={"character_cost": b"character-cost"},
    request_details={"target_lang": (("target_lang",),)},
    request_model=(),
    response_id=(("dubbing_id",),),
    model=(),
)

DUBBED_AGAIN = replace(
    DUBBING,
    units={"charged_seconds": "audio_seconds"},
    request_details={},
    response_id=(),
)

ELEVENLABS = Provider(
    id="elevenlabs",
    hosts=("api.elevenlabs.io", "api.us.elevenlabs.io", "api.*.residency.elevenlabs.io"),
    endpoints=(
        Endpoint(path=r"/v1/text-to-(speech/[^/]+|dialogue)(/stream)?(/with-timestamps)?$", shape=SPEECH),
        Endpoint(path=r"/v1/(voice-changer|speech-to-speech)/[^/]+(/stream)?$", shape=VOICE),
        Endpoint(path=r"/v1/audio-isolation(/stream)?$", shape=VOICE),
        Endpoint(path=r"/v1/sound-generation$", shape=SOUND),
        Endpoint(path=r"/v1/music(/detailed)?(/stream)?$", shape=MUSIC),
        Endpoint(path=r"/v1/speech-to-text$", shape=TRANSCRIPTION),
        Endpoint(path=r"/v1/dubbing$", shape=DUBBING),
        Endpoint(path=r"/v1/dubbing/project/[^/]+/language/[^/]+/transcript/regenerate$", shape=DUBBED_AGAIN),
    ),
    request_id=(b"request-id", b"x-request-id"),
)
