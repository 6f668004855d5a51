"""elevenlabs and deepgram: what is spoken, and what was said."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from cmdrdata_transport.demo.calls.openai import QUESTION
from cmdrdata_transport.demo.calls.table import KEY, CalledSdk, Connect, Make, SdkCall


def _call(method: str, **arguments: Any) -> Make:
    return lambda client, headers: attrgetter(method)(client)(
        request_options={"additional_headers": dict(headers)}, **arguments
    )


def _elevenlabs(name: str) -> Connect:
    return lambda module, url, http: getattr(module, name)(api_key=KEY, base_url=url, httpx_client=http)


def _opened(client: Any) -> tuple[Any, ...]:
    return (client._client_wrapper.httpx_client.httpx_client,)  # noqa: SLF001 - it has no other way


# What is spoken is sent when the first piece of it is wanted: `streaming`, though it is no stream of events.
ELEVENLABS = CalledSdk(
    name="elevenlabs",
    module="elevenlabs",
    provider="elevenlabs",
    connect=_elevenlabs("ElevenLabs"),
    connect_async=_elevenlabs("AsyncElevenLabs"),
    at="/elevenlabs",
    opened=_opened,
    calls=(
        SdkCall(
            name="text to speech",
            make=_call(
                "text_to_speech.convert", voice_id="v1", text=QUESTION, model_id="eleven_multilingual_v2"
            ),
            streaming=True,
            later=True,
        ),
        SdkCall(
            name="speech to text",
            make=_call("speech_to_text.convert", model_id="scribe_v1", file=("bill.mp3", b"ID3\x04\x00")),
        ),
    ),
)


def _deepgram(name: str) -> Connect:
    """The server is one for each of its hosts; the calls here go to the first."""

    def connect(module: Any, url: str, http: Any) -> Any:
        hosts = module.environment.DeepgramClientEnvironment(
            base=url, production=url, agent=url, agent_rest=url
        )
        return getattr(module, name)(api_key=KEY, environment=hosts, httpx_client=http)

    return connect


DEEPGRAM = CalledSdk(
    name="deepgram-sdk",
    module="deepgram",
    provider="deepgram",
    connect=_deepgram("DeepgramClient"),
    connect_async=_deepgram("AsyncDeepgramClient"),
    at="/deepgram",
    opened=_opened,
    calls=(
        SdkCall(
            name="listen",
            make=_call(
                "listen.v1.media.transcribe_url",
                url="https://example.com/bill.mp3",
                model="nova-3",
                summarize="v2",
                topics=True,
            ),
        ),
        SdkCall(
            name="speak",
            make=_call("speak.v1.audio.generate", text=QUESTION, model="aura-2-thalia-en"),
            streaming=True,
            later=True,
        ),
    ),
)
