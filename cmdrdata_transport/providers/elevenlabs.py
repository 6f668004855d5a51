"""ElevenLabs: text to speech, dialogue, and speech to text.

Sources: the elevenlabs SDK 2.78 for paths and requests, and what is known of its response headers.
Speech is billed by the characters of the text, at a rate of each model; no answer states them, so they
are counted in the request. A transcript states its seconds, unless it is sent to a webhook later on.
"""

from __future__ import annotations

from cmdrdata_transport.providers.table import Endpoint, Items, Length, Provider, Shape

_CHARACTERS = Length(unit="input_characters")

SPEECH = Shape(
    api="elevenlabs.text_to_speech",
    operation="speech",
    usage=(),
    units={},
    request={"text": _CHARACTERS, "inputs": Items(tree={"text": _CHARACTERS})},
    request_model=(("model_id",),),
    response_id=(),
    model=(),
)

TRANSCRIPTION = Shape(
    api="elevenlabs.speech_to_text",
    operation="transcription",
    usage=((),),
    units={"audio_duration_secs": "audio_seconds"},
    request_model=(("model_id",),),
    response_id=(("transcription_id",),),
    model=(),
)

ELEVENLABS = Provider(
    id="elevenlabs",
    hosts=("api.elevenlabs.io", "api.us.elevenlabs.io", "api.*.residency.elevenlabs.io"),
    endpoints=(
        Endpoint(path=r"/v1/text-to-(speech/[^/]+|dialogue)(/stream)?(/with-timestamps)?$", shape=SPEECH),
        Endpoint(path=r"/v1/speech-to-text$", shape=TRANSCRIPTION),
    ),
    request_id=(b"request-id", b"x-request-id"),
)
