"""The scripted provider's account is what each SDK shows of the very bytes that were sent.

So the bytes are such as the SDK takes for its provider's, and the account is true, whatever we make of it.
`run.py` beside this file runs it where these SDKs are; for those of the demo `test_provider.py` holds it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from cmdrdata_transport.demo.calls import CALLED_SDKS, EVERY_SDK, CalledSdk, SdkCall, connected
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.testing import capture_usage

NAMED = (os.environ.get("CMDRDATA_TEST_SDKS") or "openai anthropic groq google-genai").split()
SHOWING = [sdk for sdk in EVERY_SDK if sdk not in CALLED_SDKS and (sdk.sdk or sdk.name) in NAMED]

Shown = Mapping[str, Callable[[Any], Any]]
"""Each unit, as one finds it in what the SDK gives."""


def at(*paths: str) -> Callable[[Any], Decimal]:
    """The sum of what stands at these places; nothing counts as zero."""

    def find(answer: Any) -> Decimal:
        return sum((Decimal(str(_follow(answer, path) or 0)) for path in paths), Decimal(0))

    return find


def _follow(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def tokens(root: str, put_in: str = "prompt_tokens", got_out: str = "completion_tokens") -> Shown:
    """Input and output of a usage object."""
    return {"input_tokens": at(f"{root}.{put_in}"), "output_tokens": at(f"{root}.{got_out}")}


def billed(root: str) -> Shown:
    """Cohere's input and output."""
    return tokens(f"{root}.billed_units", "input_tokens", "output_tokens")


CHAT = tokens("usage")
EMBEDDED: Shown = {"input_tokens": at("usage.prompt_tokens")}
SEARCHES: Shown = {"rerank_searches": at("meta.billed_units.search_units")}
OLLAMA: Shown = {"input_tokens": at("prompt_eval_count"), "output_tokens": at("eval_count")}
CACHED: Shown = {**CHAT, "cache_read_tokens": at("usage.prompt_tokens_details.cached_tokens")}
PERPLEXITY: Shown = {
    "input_tokens": at("usage.prompt_tokens"),
    "output_tokens": at("usage.completion_tokens", "usage.reasoning_tokens", "usage.citation_tokens"),
    "web_searches": at("usage.num_search_queries"),
    "provider_cost": at("usage.cost.total_cost"),
}
XAI: Shown = {
    **CACHED,
    "output_tokens": at("usage.completion_tokens", "usage.completion_tokens_details.reasoning_tokens"),
    "provider_cost": lambda answer: at("usage.cost_in_usd_ticks")(answer) * Decimal("1e-10"),
}
PREDICTION: Shown = {
    "input_tokens": at("metrics.input_token_count"),
    "output_tokens": at("metrics.output_token_count"),
    "compute_seconds": at("metrics.predict_time"),
}
NOTHING: Shown = {}
"""Speech is bytes: what it used is in headers, or follows from the text."""

RESPONSE = tokens("usage", "input_tokens", "output_tokens")
BATCH = tokens("response.body.usage")


def gemini(root: str) -> Shown:
    """Google's usage object."""
    put_in = at(f"{root}.prompt_token_count", f"{root}.tool_use_prompt_token_count")
    got_out = at(f"{root}.candidates_token_count", f"{root}.thoughts_token_count")
    return {"input_tokens": put_in, "output_tokens": got_out}


def interaction(root: str) -> Shown:
    """Google's other one."""
    put_in = at(f"{root}.total_input_tokens", f"{root}.total_tool_use_tokens")
    got_out = at(f"{root}.total_output_tokens", f"{root}.total_thought_tokens")
    return {"input_tokens": put_in, "output_tokens": got_out}


def in_batch(shown: Shown) -> Shown:
    """The same, in the only answer of a batch of Google's."""

    def read(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda answer: find(answer.dest.inlined_responses[0].response)

    return {unit: read(find) for unit, find in shown.items()}


def drawn(answer: Any) -> int:
    """How many images there are to be seen."""
    return sum(bool(each.image and each.image.image_bytes) for each in answer.generated_images)


def in_file(shown: Shown) -> Shown:
    """The same, in the only line of a file."""

    def read(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda answer: find(json.loads(answer.text))

    return {unit: read(find) for unit, find in shown.items()}


SHOWN: dict[str, dict[str, Shown]] = {
    "openai, media": {
        "images": {**RESPONSE, "images": lambda answer: len(answer.data)},
        "images, DALL-E": {"images": lambda answer: len(answer.data)},
        "transcription": RESPONSE,
        "transcription, streaming": RESPONSE,
        "transcription, Whisper": {"audio_seconds": at("usage.seconds")},
        "translation": {"audio_seconds": at("duration")},
        "speech": NOTHING,
        "completions": CHAT,
    },
    "openai, later": {"response in the background": RESPONSE, "batch": in_file(BATCH)},
    "anthropic, later": {
        "batch": {
            "input_tokens": at(
                "result.message.usage.input_tokens",
                "result.message.usage.cache_creation_input_tokens",
                "result.message.usage.cache_read_input_tokens",
            ),
            "output_tokens": at("result.message.usage.output_tokens"),
        }
    },
    "google-genai, later": {
        "batch": in_batch(gemini("usage_metadata")),
        "interaction": interaction("usage"),
        "interaction, streaming": interaction("interaction.usage"),
    },
    "google-genai at Vertex": {
        "generateContent": gemini("usage_metadata"),
        "generateContent, streaming": gemini("usage_metadata"),
        "images": {"images": drawn},
        "video": {"videos": lambda answer: len(answer.response.generated_videos)},
    },
    "cohere": {
        "chat": billed("usage"),
        "chat, streaming": billed("delta.usage"),
        "embed": {"input_tokens": at("meta.billed_units.input_tokens")},
        "rerank": SEARCHES,
    },
    "cohere, version 1": {
        "chat": billed("meta"),
        "chat, streaming": billed("response.meta"),
        "embed": {"input_tokens": at("meta.billed_units.input_tokens")},
        "rerank": SEARCHES,
    },
    "mistralai": {
        "chat": CACHED,
        "chat, streaming": tokens("data.usage"),
        "agents": CACHED,
        "fill-in-the-middle": CACHED,
        "embeddings": EMBEDDED,
        "OCR": {"input_document_pages": at("usage_info.pages_processed")},
    },
    "together": {
        "chat": {**CHAT, "cache_read_tokens": at("usage.cached_tokens")},
        "chat, streaming": CHAT,
        "embeddings": EMBEDDED,
        "rerank": CHAT,
        "images": {"images": lambda answer: len(answer.data)},
    },
    "cerebras-cloud-sdk": {"chat": CACHED, "chat, streaming": CACHED},
    "fireworks-ai": {
        "chat": CACHED,
        "chat, streaming": CACHED,
        "messages": {
            "input_tokens": at(
                "usage.input_tokens",
                "usage.cache_creation_input_tokens",
                "usage.cache_read_input_tokens",
            ),
            "output_tokens": at("usage.output_tokens"),
        },
    },
    "perplexityai": {
        "chat": PERPLEXITY,
        "chat, streaming": PERPLEXITY,
        "responses": {
            **RESPONSE,
            "web_searches": at("usage.tool_calls_details.search_web.invocation"),
        },
        "responses, streaming": tokens("response.usage", "input_tokens", "output_tokens"),
        "embeddings": {**EMBEDDED, "provider_cost": at("usage.cost.total_cost")},
    },
    "writer-sdk": {
        "chat": {**CHAT, "cache_read_tokens": at("usage.prompt_token_details.cached_tokens")},
        "chat, streaming": CHAT,
    },
    "ai21": {"chat": CHAT, "chat, streaming": CHAT},
    "huggingface-hub": {"chat": CHAT, "chat, streaming": CHAT},
    "ollama": {
        "chat": OLLAMA,
        "chat, streaming": OLLAMA,
        "generate": OLLAMA,
        "generate, streaming": OLLAMA,
        "embed": OLLAMA,
    },
    "elevenlabs": {
        "text to speech": NOTHING,
        "speech to text": {"audio_seconds": at("audio_duration_secs")},
    },
    "deepgram-sdk": {
        "listen": {
            "audio_seconds": at("metadata.duration"),
            "input_tokens": at("metadata.summary_info.input_tokens", "metadata.topics_info.input_tokens"),
            "output_tokens": at("metadata.summary_info.output_tokens", "metadata.topics_info.output_tokens"),
        },
        "speak": NOTHING,
    },
    "assemblyai": {"transcribe": {"audio_seconds": at("audio_duration")}},
    "replicate": {"predictions, polled": PREDICTION, "run, and looked up": PREDICTION},
    "openai at xAI": {
        "chat": XAI,
        "chat, streaming": XAI,
        "responses": RESPONSE,
        "responses, streaming": tokens("response.usage", "input_tokens", "output_tokens"),
    },
    "openai at DeepSeek": {
        "chat": {**CHAT, "cache_read_tokens": at("usage.prompt_cache_hit_tokens")},
        "chat, streaming": CACHED,
    },
    "openai at OpenRouter": {
        "chat": {**CACHED, "provider_cost": at("usage.cost")},
        "chat, streaming": {**CACHED, "provider_cost": at("usage.cost")},
    },
}


CALLS = [pytest.param(sdk, what, id=f"{sdk.name} {what.name}") for sdk in SHOWING for what in sdk.calls]


def last(answer: Any) -> Any:
    """What a stream gave last that has anything to say."""
    *_, end = (each for each in answer if each)
    return end


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sdk", "what"), CALLS)
def test_what_is_stated_is_what_the_sdk_shows(sdk: CalledSdk, what: SdkCall, seed: int) -> None:
    """Every unit that the SDK has an attribute for has there what the account says."""
    provider = Provider(seed=seed)
    with Loopback(provider) as server, capture_usage(), connected(sdk, server.url) as client:
        answer = what.make(client, {})
        if what.streaming:
            answer = last(answer)
    (stated,) = provider.stated
    account = {**stated.units, **stated.amounts}
    shown = {unit: find(answer) for unit, find in SHOWN[sdk.name][what.name].items()}
    assert shown == {unit: account.get(unit, 0) for unit in shown}
    assert stated.provider == sdk.provider


def test_every_call_shows_something() -> None:
    """No call is missing here, but those whose answers are bytes."""
    known = {sdk.name: {what.name for what in sdk.calls} for sdk in EVERY_SDK if sdk not in CALLED_SDKS}
    assert {name: set(shown) for name, shown in SHOWN.items()} == known
    silent = {name for shown in SHOWN.values() for name, units in shown.items() if not units}
    assert silent == {"text to speech", "speak", "speech"}
