"""Recorded provider traffic, read whole and cut, on both libraries: the usage that each answer states.

`recorded.py` says where they are. What an answer states is not normalised there, so one step for
each family of answers brings it to our inclusive numbers; what the recordings leave to the answer itself,
images, seconds and the results of batches, is counted here. Nothing is left out but whole files, by reason.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pytest
from exchange import WAYS, Exchange, Replay, Way, cut, replay
from recorded import MISSING, WIRE, are_here, recorded, records

if not are_here():
    pytest.skip(MISSING, allow_module_level=True)

OURS = {
    "openai": "openai",
    "azure_openai": "azure",
    "anthropic": "anthropic",
    "google_gemini": "google",
    "google_vertex": "google",
    "groq": "groq",
    "together": "together",
    "cerebras": "cerebras",
    "perplexity": "perplexity",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "xai": "x-ai",
    "azure_ai": "azure",
    "snowflake": "snowflake",
    "writer": "writer",
    "huggingface": "huggingface",
    "heroku": "heroku",
    "crusoe": "crusoe",
    "zai": "zai",
    "gpustack": "openai-compatible",
    "litellm_proxy": "openai-compatible",
    "portkey": "openai-compatible",
    "pydantic_gateway": "openai-compatible",
    "aws_bedrock": "aws",
    "cohere": "cohere",
    "mistral": "mistral",
    "voyage": "voyageai",
    "deepgram": "deepgram",
    "ollama": "openai-compatible",
    "ollama_cloud": "ollama",
    "replicate": "replicate",
}
"""The files of recordings that are read, and what we call their providers."""

NOT_READ = {
    "aleph_alpha": "no table has its answers; a table of one's own does",
    "aws_sagemaker": "an endpoint is billed by the time that it is kept, and its answer states nothing",
    "watsonx": "no table has its answers; a table of one's own does",
}
"""The other files, and why."""

METERED = re.compile(
    r"/(chat/completions|completions|responses|responses/compact|embeddings|messages)$"
    r"|:(generateContent|streamGenerateContent|batchEmbedContents|embedContent|predict)$"
    r"|^writer /v1/chat$"
    r"|^(openai|mistral) /v1/audio/transcriptions$"
    r"|^voyage /v1/rerank$"
    r"|^ollama /api/(chat|generate|embed)$"
    r"|^cohere /v[12]/(chat|embed|rerank|generate)$"
    r"|/model/[^/]+/(converse|converse-stream|invoke|invoke-with-response-stream)$"
    r"|^openai /v1/(images/(generations|edits)|threads/\{id\}/runs)$"
    r"|^google_gemini /v1beta/interactions$"
    r"|^replicate /v1/(models/\{m\}/)?predictions$"
    r"|^huggingface /$"
    r"|^deepgram /v1/(listen|speak)$"
    r"|^xai /v1/stt$"
)
"""The calls that must give an event, by provider and path."""

POLLS = re.compile(r"^openai /v1/(responses/\{id\}|threads/\{id\}/runs/\{id\})$")
"""Those that ask for what another call has started: they must give one if that is done."""

STATES_NOTHING = re.compile(r"^writer /v1/completions$")
"""Those that must not, since no answer of theirs states usage."""

GENERATION = "huggingface /"
"""Text generation: its body states the output alone, and headers state both."""

WAITS = ("usage is null", "not a finished run", "no token counts in metrics (status starting)")
"""How the recordings say that an answer is still to come."""

Verdict = Literal[
    "counted", "counted here", "results", "refused", "broken off", "not said", "waiting", "no event"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Where each result of a batch states its usage, and under what names."""

    results: tuple[str, ...]
    """Where the list of results stands; without any, each line is one."""
    usage: tuple[str, ...]
    taken: tuple[str, ...]
    given: tuple[str, ...]


BATCHES = {
    "openai /v1/files/{id}/content": Batch(
        results=(), usage=("response", "body", "usage"), taken=("input_tokens",), given=("output_tokens",)
    ),
    "anthropic /v1/messages/batches/{id}/results": Batch(
        results=(),
        usage=("result", "message", "usage"),
        taken=("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        given=("output_tokens",),
    ),
    "mistral /v1/batch/jobs/{id}": Batch(
        results=("outputs",),
        usage=("response", "body", "usage"),
        taken=("prompt_tokens",),
        given=("completion_tokens",),
    ),
    "google_gemini /v1beta/batches/{id}": Batch(
        results=("response", "inlinedResponses", "inlinedResponses"),
        usage=("response", "usageMetadata"),
        taken=("promptTokenCount",),
        given=("candidatesTokenCount", "thoughtsTokenCount"),
    ),
}
"""Answers that hold those to many calls, by provider and path."""

COUNTED_HERE: Mapping[str, Callable[[Exchange], dict[str, Any]]] = {
    "openai /v1/images/generations": lambda made: {"images": len(document(made)["data"])},
    "deepgram /v1/listen": lambda made: {"audio_seconds": document(made)["metadata"]["duration"]},
    "deepgram /v1/speak": lambda made: {"input_characters": int(header(made, "dg-char-count"))},
    "xai /v1/stt": lambda made: {"audio_seconds": document(made)["duration"]},
}
"""What answers state that the recordings do not repeat, by provider and path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recorded exchange."""

    id: str
    provider: str
    endpoint: str
    exchange: Exchange
    stated: Mapping[str, Any] | None
    """What the answer says in its own fields, by somebody else's reading of the whole body."""
    verdict: Verdict
    """What must come of it: counts, or an event that says why there are none, or no event."""
    failed: bool
    """Whether an error arrived inside the stream."""

    @property
    def place(self) -> str:
        """Provider and path."""
        return f"{self.provider} {self.endpoint}"

    @property
    def asked_model(self) -> str | None:
        """The model that the request's body names, if it is JSON; a form was recorded as its bytes."""
        asked = self.exchange.request_body or b"{}"
        body = json.loads(asked) if asked.startswith(b"{") else {}
        return str(body["model"]) if "model" in body else None


def _read(record: dict[str, Any]) -> Recording:
    return Recording(
        id=record["id"],
        provider=record["provider"],
        endpoint=record["endpoint"],
        exchange=recorded(record),
        stated=record["expected"],
        verdict=_verdict(record),
        failed="stream_error" in record["oracle_detail"],
    )


def _verdict(record: dict[str, Any]) -> Verdict:
    place = f"{record['provider']} {record['endpoint']}"
    if place in BATCHES:
        return "results"
    if POLLS.search(place):
        return "no event" if record["expected"] is None else "counted"
    if record["request"]["method"] != "POST" or not METERED.search(place) or STATES_NOTHING.search(place):
        return "no event"
    if record["response"]["status"] >= 400:
        return "refused"
    if record["expected"] is not None:
        return "counted"
    return "counted here" if place in COUNTED_HERE else _without_usage(record)


def _without_usage(record: dict[str, Any]) -> Verdict:
    reason = record["expected_reason"]
    # Of Cohere's streams that fail, the last event says so.
    if record["oracle_detail"].get("stream_error") or reason.startswith("no tokens or billed_units"):
        return "broken off"
    # The interaction that was recorded without usage goes on in the background.
    if reason.startswith(WAITS) or record["endpoint"] == "/v1beta/interactions":
        return "waiting"
    return "not said"


def header(exchange: Exchange, name: str) -> str:
    """A header of the answer; empty where it has none."""
    return next((value for each, value in exchange.headers if each.lower() == name), "")


def content(exchange: Exchange) -> bytes:
    """The answer's body, without its coding."""
    packed = header(exchange, "content-encoding") == "gzip"
    return gzip.decompress(exchange.body) if packed else exchange.body


def document(exchange: Exchange) -> Any:
    """The answer's JSON."""
    return json.loads(content(exchange))


RECORDINGS = [_read(record) for name in OURS for record in records(name)]

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_recording = pytest.mark.parametrize(
    "recording",
    RECORDINGS,
    ids=lambda each: f"{each.provider}-{each.id}",
)

# --- to our inclusive numbers, one step a family


def inclusive(recording: Recording) -> list[dict[str, Any]]:
    """The counts that our events must have, an event an item, from what the answer states."""
    stated = recording.stated
    assert stated is not None
    if recording.provider == "anthropic":
        return list(_anthropic(stated["raw_usage"], stated["model"]))
    taken, given = _taken_and_given(recording, stated)
    if recording.provider == "cohere":
        stated = {**stated, "cached_input_tokens": None}  # they are no part of what is billed
    return [_counts(stated, taken, given)]


def _taken_and_given(recording: Recording, stated: Mapping[str, Any]) -> tuple[int | None, int | None]:
    raw, taken, given = stated["raw_usage"], stated["input_tokens"], stated["output_tokens"]
    match recording.provider, recording.endpoint:
        case "perplexity", _:
            given = _sum(given, raw.get("reasoning_tokens"), raw.get("citation_tokens"))
        case "cohere", _:
            # What is billed is not what the model saw.
            billed = raw["billed_units"]
            taken, given = billed.get("input_tokens"), billed.get("output_tokens")
        case "voyage", _:
            taken = stated["total_tokens"]
        case "mistral", "/v1/audio/transcriptions":
            # The prompt is without the audio, which the total has.
            taken += raw["prompt_tokens_details"]["audio_tokens"]
        case "aws_bedrock", path if path.startswith("/model/"):
            # Amazon, and whoever answers there, leave what was read from and written to a cache out.
            taken = _sum(taken, stated["cached_input_tokens"], stated["cache_write_tokens"])
        case "google_gemini", "/v1beta/interactions":
            taken = _sum(taken, raw["total_tool_use_tokens"])
            given = _sum(given, stated["reasoning_tokens"])
        case "google_gemini" | "google_vertex", path if "/openai/" in path:
            # Google leaves thinking out of completion_tokens there, and has it in the total.
            given = stated["total_tokens"] - taken
        case "google_gemini" | "google_vertex", _:
            taken = _sum(taken, raw.get("toolUsePromptTokenCount"))
            given = _sum(given, stated["reasoning_tokens"])
    return taken, given


def _counts(stated: Mapping[str, Any], taken: int | None, given: int | None) -> dict[str, Any]:
    return {
        "input_tokens": taken,
        "output_tokens": given,
        "total_tokens": _sum(taken, given),
        "cache_read_tokens": stated["cached_input_tokens"],
        "cache_write_tokens": stated["cache_write_tokens"],
        "output_reasoning_tokens": stated["reasoning_tokens"],
    }


def _anthropic(usage: Mapping[str, Any], model: str) -> Iterator[dict[str, Any]]:
    """Cached tokens are beside the input; an advisor's are in its own entry, and nowhere else."""
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    stated = {
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "reasoning_tokens": usage.get("output_tokens_details", {}).get("thinking_tokens"),
    }
    yield {
        **_counts(stated, _sum(usage["input_tokens"], read, written), usage["output_tokens"]),
        "model": model,
    }
    for entry in usage.get("iterations", ()):
        assert entry["type"] in ("message", "advisor_message"), "no other is recorded: see the facts"
        if entry["type"] == "advisor_message":
            yield from _anthropic(entry, entry["model"])


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def charged(recording: Recording) -> Decimal | None:
    """What the answer says that the provider charged, in US dollars."""
    assert recording.stated is not None
    usage = recording.stated["raw_usage"]
    match recording.provider:
        case "openrouter":
            cost = usage.get("cost")
        case "perplexity":
            cost = usage["cost"]["total_cost"]
        case "xai":
            return Decimal(usage["cost_in_usd_ticks"]) / 10**10
        case _:
            cost = None
    return None if cost is None else Decimal(str(cost))


def ours(recording: Recording) -> str:
    """The provider that an event must name; Hugging Face's router names the vendor in its path."""
    if recording.provider == "huggingface" and recording.endpoint != "/":
        return f"huggingface_{recording.endpoint.split('/')[1]}"
    if recording.endpoint in ("/api/chat", "/api/generate"):
        return "ollama"
    return OURS[recording.provider]


# --- what must come of a recording


def check(recording: Recording, done: Replay) -> None:
    """The events are those that the recording must give."""
    if recording.verdict == "no event":
        assert done.events == []
        return
    if recording.verdict == "results":
        check_results(recording, done.events)
        return
    event, *others = done.events
    assert event["provider"] == ours(recording)
    assert event["status_code"] == recording.exchange.status
    match recording.verdict:
        case "counted":
            check_counts(recording, done.events)
            return
        case "counted here":
            counts = COUNTED_HERE[recording.place](recording.exchange)
            assert {name: event.get(name) for name in counts} == counts
            expected = ("complete", "ok")
        case "refused":
            expected = ("none", "error")
        case "broken off":
            expected = ("partial", "error")
        case "waiting":
            expected = ("none", "ok")
        case _:
            expected = ("missing", "ok")
    assert (event["usage_status"], event["outcome"]) == expected
    assert not others
    assert not [name for name in event if name.endswith("_tokens")]


def check_results(recording: Recording, events: list[dict[str, Any]]) -> None:
    """Each result of a batch is an event of its own, with what it states of itself."""
    words = BATCHES[recording.place]
    lines = content(recording.exchange).splitlines()
    results = pick(document(recording.exchange), words.results) if words.results else map(json.loads, lines)
    stated = [pick(each, words.usage) for each in results]
    assert stated
    for event, usage in zip(events, stated, strict=True):
        assert event["raw_usage"].items() >= usage.items()
        assert event["input_tokens"] == sum(usage[name] for name in words.taken)
        assert event["output_tokens"] == sum(usage[name] for name in words.given)
        assert (event["provider"], event["service_tier"]) == (ours(recording), "batch")
        assert (event["usage_status"], event["outcome"], event["usage_source"]) == ("complete", "ok", "body")
        assert event["response_id"]


def pick(value: Any, path: tuple[str, ...]) -> Any:
    """What stands at a path; it must be there."""
    for key in path:
        value = value[key]
    return value


def check_counts(recording: Recording, events: list[dict[str, Any]]) -> None:
    """Counts, model and id, and the provider's own object, as the answer states them."""
    stated = recording.stated
    assert stated is not None
    expected = inclusive(recording)
    model = stated["model"] or recording.asked_model
    pairs = zip(events, expected, strict=True)
    assert [{name: event.get(name) for name in counts} for event, counts in pairs] == expected
    if "/model/" in recording.endpoint:
        # The recordings name the model as the URL does, and no id but Anthropic's.
        assert events[0]["request_model"] == model
        assert stated["response_id"] in (None, events[0].get("response_id"))
    else:
        assert events[0].get("model") == model
        if (recording.provider, recording.endpoint) != ("cohere", "/v1/chat"):  # that has two ids
            assert events[0].get("response_id") == stated["response_id"]
    cost = events[0].get("provider_cost")
    assert (None if cost is None else Decimal(cost)) == charged(recording)
    outcome = "error" if recording.failed else "ok"
    source = "header" if "headers" in stated["raw_usage"] else "body"
    for event in events:
        assert (event["usage_status"], event["outcome"], event["usage_source"]) == (
            "complete",
            outcome,
            source,
        )
    if recording.endpoint.endswith(":predict"):
        return  # the recordings keep a summary of the counts there, not an object that was sent
    raw = {**stated["raw_usage"].get("headers", stated["raw_usage"])}
    if ours(recording) == "ollama" and recording.endpoint.startswith("/api/"):
        raw = {name: count for name, count in raw.items() if name.endswith("_count")}
    if recording.place == GENERATION:
        details = {"generated_tokens": raw.pop("generated_tokens")}
        raw = {"details": details, **{name: str(count) for name, count in raw.items()}}
    raw.pop("tokenCounts", None)  # the recordings' name for what stands in a list
    if "iterations" in raw:
        raw["iterations"] = [each for each in raw["iterations"] if each["type"] != "advisor_message"]
    assert {name: events[0]["raw_usage"].get(name) for name in raw} == raw


@every_way
@every_recording
def test_whole(recording: Recording, way: Way) -> None:
    """A recorded answer, read in one piece, gives the usage that it states."""
    check(recording, replay(recording.exchange, way))


@every_way
@every_recording
def test_cut(recording: Recording, way: Way) -> None:
    """However it is cut, it gives the same, and the application sees the same bytes."""
    places = random.Random(f"{recording.id} {way}")
    body = recording.exchange.body
    chunks = cut(body, (places.randrange(len(body)) for _ in range(len(body) // places.randint(5, 900) + 1)))
    done = replay(recording.exchange, way, chunks)
    check(recording, done)
    if recording.verdict == "not said":
        chunks, done.chunks = [body], [b"".join(done.chunks)]  # events of a stream that we ask come whole
    assert done.chunks == chunks


def test_what_is_checked_and_what_is_not(record_property: Callable[[str, object], None]) -> None:
    """Nothing is left out but files that are named with a reason, and no file is named in vain."""
    left_out = {name: len(list(records(name))) for name in NOT_READ}
    every = len(RECORDINGS) + sum(left_out.values())
    endpoints = Counter(
        (each.provider, each.exchange.method, each.endpoint, each.verdict) for each in RECORDINGS
    )
    verdicts = Counter(each.verdict for each in RECORDINGS)
    lines = [
        f"{len(RECORDINGS)} of {every} recordings checked, each whole and cut, {len(WAYS)} ways:",
        *(
            f"{count:6}  {' '.join(place)}: {verdict}"
            for (*place, verdict), count in sorted(endpoints.items())
        ),
        "of these " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()),
        f"{sum(left_out.values())} not checked:",
        *(f"{count:6}  {name}: {NOT_READ[name]}" for name, count in left_out.items()),
    ]
    record_property("says", "\n".join(lines))
    assert {*OURS, *NOT_READ} == {file.stem for file in WIRE.glob("*.jsonl")}
    assert [each for each in RECORDINGS if each.stated is not None and each.verdict != "counted"] == []
    assert verdicts["counted"] > 100
    assert set(COUNTED_HERE) | set(BATCHES) <= {each.place for each in RECORDINGS}
