"""The providers that the loopback server plays, without their SDKs: what each states is what is recorded.

With the SDKs it is held in `environments`, where they are installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from accounts import counted, told

from cmdrdata_transport import UsageEvent, tracked_http_client
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.testing import capture_usage

CHAT: dict[str, Any] = {"model": "m", "messages": []}
STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
TEXTS: dict[str, Any] = {"model": "m", "texts": ["café", "bill"]}
INPUTS: dict[str, Any] = {"model": "m", "input": ["café", "bill"]}
RANKED: dict[str, Any] = {"model": "m", "query": "q", "documents": ["café", "bill"]}
AUDIO = {"files": {"file": ("bill.mp3", b"ID3")}}

CHATS = [
    ("together", "/together/v1/chat/completions"),
    ("cerebras", "/cerebras/v1/chat/completions"),
    ("fireworks", "/fireworks/inference/v1/chat/completions"),
    ("writer", "/writer/v1/chat"),
    ("ai21", "/ai21/studio/v1/chat/completions"),
    ("mistral", "/mistral/v1/chat/completions"),
    ("huggingface", "/huggingface/v1/chat/completions"),
    ("deepseek", "/deepseek/v1/chat/completions"),
    ("openrouter", "/openrouter/v1/chat/completions"),
    ("x-ai", "/x-ai/v1/chat/completions"),
    ("x-ai", "/x-ai/v1/responses"),
    ("perplexity", "/perplexity/chat/completions"),
    ("perplexity", "/perplexity/v1/responses"),
    ("cohere", "/cohere/v2/chat"),
    ("cohere", "/cohere/v1/chat"),
    ("ollama", "/ollama/api/chat"),
    ("ollama", "/ollama/api/generate"),
    ("google", "/google-later/v1/interactions"),
]
"""Those that can stream what they answer."""

OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("fireworks", "/fireworks/inference/v1/messages", {"json": CHAT}),
    ("together", "/together/v1/embeddings", {"json": INPUTS}),
    ("together", "/together/v1/rerank", {"json": RANKED}),
    ("together", "/together/v1/images/generations", {"json": {"model": "m", "n": 3}}),
    ("mistral", "/mistral/v1/embeddings", {"json": INPUTS}),
    ("mistral", "/mistral/v1/ocr", {"json": {"model": "m"}}),
    ("perplexity", "/perplexity/v1/embeddings", {"json": INPUTS}),
    ("cohere", "/cohere/v1/embed", {"json": TEXTS}),
    ("cohere", "/cohere/v2/embed", {"json": TEXTS}),
    ("cohere", "/cohere/v2/rerank", {"json": RANKED}),
    ("ollama", "/ollama/api/embed", {"json": INPUTS}),
    ("elevenlabs", "/elevenlabs/v1/text-to-speech/v1", {"json": {"text": "café", "model_id": "m"}}),
    ("elevenlabs", "/elevenlabs/v1/speech-to-text", {"data": {"model_id": "m"}, **AUDIO}),
    ("deepgram", "/deepgram/v1/listen?model=nova-3&summarize=v2", {"json": {"url": "u"}}),
    ("deepgram", "/deepgram/v1/listen?model=nova-3", {"json": {"url": "u"}}),
    ("deepgram", "/deepgram/v1/speak?model=aura-2", {"json": {"text": "café"}}),
    ("openai", "/openai-media/v1/audio/transcriptions", {"data": {"model": "whisper-1"}, **AUDIO}),
    (
        "openai",
        "/openai-media/v1/audio/transcriptions",
        {"data": {"model": "gpt-4o-transcribe", "stream": "true"}, **AUDIO},
    ),
]


def metered(
    provider: str, calls: Sequence[tuple[str, str, dict[str, Any]]]
) -> tuple[list[UsageEvent], Provider]:
    """What is recorded of these requests, and the provider."""
    scripted = Provider(seed=11)
    with (
        Loopback(scripted) as server,
        capture_usage() as events,
        tracked_http_client(provider=provider, trust_env=False, verify=False) as client,
    ):
        for method, path, options in calls:
            client.request(method, server.url + path, **options).raise_for_status()
    return events, scripted


def agree(events: Sequence[UsageEvent], provider: Provider) -> bool:
    """Whether the events with usage are the provider's account, one by one."""
    counts = [counted(event) for event in events if event.usage_status != "none"]
    assert all(event.usage_status in ("complete", "none") for event in events)
    return counts == [told(each) for each in provider.stated] != []


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(("provider", "path"), CHATS)
def test_a_chat_is_recorded_as_it_is_stated(provider: str, path: str, body: dict[str, Any]) -> None:
    """Each provider's own words, framing and way to end a stream are read to the unit."""
    events, scripted = metered(provider, [("POST", path, {"json": body})] * 3)
    assert agree(events, scripted)
    assert {event.streaming for event in events} == {body is STREAM}


@pytest.mark.parametrize(("provider", "path", "options"), OTHERS)
def test_what_is_no_chat_is_recorded_as_it_is_stated(
    provider: str, path: str, options: dict[str, Any]
) -> None:
    """Vectors, ranks, pages, pictures and sound are read to the unit, from bodies, headers or requests."""
    events, scripted = metered(provider, [("POST", path, options)] * 3)
    assert agree(events, scripted)
    assert {event.model for event in events} == {each.model for each in scripted.stated}


JOBS: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "replicate",
        "/replicate/v1/predictions",
        {"version": "v", "input": {}},
        "/replicate/v1/predictions/{id}",
    ),
    (
        "replicate",
        "/replicate/v1/models/meta/llama/predictions",
        {"input": {}},
        "/replicate/v1/predictions/{id}",
    ),
    ("assemblyai", "/assemblyai/v2/transcript", {"audio_url": "u"}, "/assemblyai/v2/transcript/{id}"),
    (
        "openai",
        "/openai-later/v1/responses",
        {"model": "gpt-5", "background": True},
        "/openai-later/v1/responses/{id}",
    ),
    ("google", "/google-later/v1/models/gemini:batchGenerateContent", {}, "/google-later/v1/{name}"),
]
"""What starts a job, and where it is asked for."""


@pytest.mark.parametrize(("provider", "path", "body", "again"), JOBS)
def test_a_job_is_stated_and_recorded_when_it_is_over(
    provider: str, path: str, body: dict[str, Any], again: str
) -> None:
    """Asked for four times, it states what it used at the second, and is recorded once."""
    scripted = Provider(seed=12)
    with (
        Loopback(scripted) as server,
        capture_usage() as events,
        tracked_http_client(provider=provider, trust_env=False, verify=False) as client,
    ):
        begun = client.post(server.url + path, json=body, headers={"prefer": "wait"}).json()
        for times in range(4):
            assert len(scripted.stated) == (times > 1)
            client.get(server.url + again.format_map(begun)).raise_for_status()
    assert len(scripted.stated) == 1
    assert agree(list({event.event_id: event for event in events}.values()), scripted)
