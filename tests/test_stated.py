"""Calls that no transport can see, recorded by hand: the same event, attribution and journal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_transport import (
    AttributionError,
    Tracker,
    TrackingSetupError,
    Usage,
    UsageEvent,
    customer_context,
    no_tracking,
)
from cmdrdata_transport.testing import capture_usage

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-x",
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 7},
}


class Message:
    """An answer as an SDK gives it to its user."""


def caught(tracker: Tracker, act: Callable[[Tracker], None]) -> list[UsageEvent]:
    """The events of what `act` does."""
    with capture_usage() as events:
        act(tracker)
    return events


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    """A tracker of its own, which writes nothing as long as what it records is captured."""
    return Tracker([], home=tmp_path, customer_id="everybody", metadata={"region": "eu"}, service="voice")


def test_counts_become_an_event_for_the_customer_of_the_context(tracker: Tracker) -> None:
    """What is recorded by hand belongs to whom a metered call at that place would."""
    with customer_context("acme", metadata={"feature": "talk"}):
        (event,) = caught(
            tracker,
            lambda it: it.record(
                provider="x-ai",
                model="grok-5",
                operation="chat",
                usage={"input_tokens": 12, "output_tokens": 3},
            ),
        )
    assert (event.customer_id, event.metadata) == ("acme", {"region": "eu", "feature": "talk"})
    assert (event.provider, event.model, event.operation, event.service) == (
        "x-ai",
        "grok-5",
        "chat",
        "voice",
    )
    assert event.usage == Usage(input_tokens=12, output_tokens=3, total_tokens=15)
    assert (event.usage_status, event.outcome) == ("complete", "ok")


def test_what_the_call_says_wins_over_the_context(tracker: Tracker) -> None:
    """A customer and metadata given to `record` are nearer than those of the context."""
    with customer_context("acme", metadata={"feature": "talk"}):
        (event,) = caught(
            tracker,
            lambda it: it.record(
                provider="x-ai", usage={"input_tokens": 1}, customer_id="globex", metadata={"feature": "hand"}
            ),
        )
    assert (event.customer_id, event.metadata["feature"]) == ("globex", "hand")


@pytest.mark.parametrize("body", [MESSAGE, json.dumps(MESSAGE), json.dumps(MESSAGE).encode()], ids=type)
def test_an_answer_is_read_by_its_providers_table(tracker: Tracker, body: Any) -> None:
    """Parsed or as JSON, an answer gives the counts that the transport would have read from it."""
    (event,) = caught(tracker, lambda it: it.record_response("anthropic", body))
    assert event.usage.input_tokens == 15
    assert event.usage.cache_read_tokens == 5
    assert event.usage.total_tokens == 22
    assert (event.api, event.response_id, event.finish_reason) == ("anthropic.messages", "msg_1", "end_turn")
    assert event.usage.raw_usage == MESSAGE["usage"]


TALKED = {
    "type": "response.done",
    "event_id": "event_1",
    "response": {
        "object": "realtime.response",
        "id": "resp_1",
        "status": "completed",
        "usage": {
            "total_tokens": 253,
            "input_tokens": 132,
            "output_tokens": 121,
            "input_token_details": {
                "text_tokens": 119,
                "audio_tokens": 13,
                "cached_tokens": 64,
                "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4},
            },
            "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
        },
    },
}

HEARD = {
    "type": "conversation.item.input_audio_transcription.completed",
    "item_id": "item_1",
    "transcript": "SECRET",
    "usage": {
        "type": "tokens",
        "input_tokens": 13,
        "input_token_details": {"audio_tokens": 13},
        "output_tokens": 9,
    },
}

GRPC = {
    "id": "r1",
    "model": "grok-4",
    "service_tier": "SERVICE_TIER_DEFAULT",
    "outputs": [{"finish_reason": "REASON_STOP", "message": {"content": "SECRET"}}],
    "usage": {
        "prompt_tokens": 30,
        "cached_prompt_text_tokens": 10,
        "completion_tokens": 5,
        "reasoning_tokens": 100,
        "total_tokens": 135,
        "cost_in_usd_ticks": "12500000",
    },
}

CONVERSED = {
    "ResponseMetadata": {"RequestId": "r-1", "HTTPStatusCode": 200},
    "output": {"message": {"role": "assistant", "content": [{"text": "SECRET"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 10, "outputTokens": 7, "totalTokens": 22, "cacheReadInputTokens": 5},
    "metrics": {"latencyMs": 500},
}

STREAM_ENDED = {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 7}, "metrics": {"latencyMs": 1}}}


@pytest.mark.parametrize(
    ("provider", "body", "says"),
    [
        (
            "openai",
            TALKED,
            {
                "api": "openai.realtime",
                "operation": "chat",
                "model": "gpt-x",
                "response_id": "resp_1",
                "finish_reason": "completed",
                "input_tokens": 132,
                "input_audio_tokens": 13,
                "cache_read_tokens": 64,
                "cache_audio_read_tokens": 4,
                "output_tokens": 121,
                "output_audio_tokens": 91,
                "total_tokens": 253,
            },
        ),
        (
            "azure",
            HEARD,
            {
                "api": "openai.realtime",
                "operation": "transcription",
                "response_id": "item_1",
                "input_audio_tokens": 13,
                "total_tokens": 22,
            },
        ),
        (
            "x-ai",
            GRPC,
            {
                "api": "xai.chat",
                "model": "grok-4",
                "request_model": "gpt-x",
                "finish_reason": "REASON_STOP",
                "service_tier": "SERVICE_TIER_DEFAULT",
                "input_tokens": 30,
                "cache_read_tokens": 10,
                "output_tokens": 105,
                "output_reasoning_tokens": 100,
                "provider_cost": "0.00125",
            },
        ),
        (
            "aws",
            CONVERSED,
            {
                "api": "aws.converse",
                "model": "gpt-x",
                "finish_reason": "end_turn",
                "input_tokens": 15,
                "cache_read_tokens": 5,
                "output_tokens": 7,
            },
        ),
        ("aws", STREAM_ENDED, {"api": "aws.converse", "model": "gpt-x", "total_tokens": 17}),
    ],
    ids=["realtime", "heard", "xai-sdk", "boto3", "boto3, streamed"],
)
def test_what_comes_by_another_way_is_read_by_its_looks(
    tracker: Tracker, provider: str, body: dict[str, Any], says: dict[str, Any]
) -> None:
    """What an answer looks like tells its shape; the model that was asked for stands where it names none."""
    (event,) = caught(tracker, lambda it: it.record_response(provider, body, model="gpt-x"))
    told = event.to_dict()
    assert {name: told.get(name) for name in says} == says
    assert "SECRET" not in event.to_json().decode()


def test_a_usage_is_recorded_whole(tracker: Tracker) -> None:
    """What a `Usage` says beside its counts is in the event too."""
    usage = Usage(images=1, provider_cost="0.04", details={"size": "1024x1024"}, raw_usage={"n": 1})
    (event,) = caught(tracker, lambda it: it.record(provider="x-ai", usage=usage))
    assert event.usage == usage


def test_an_id_of_the_callers_is_the_events(tracker: Tracker) -> None:
    """A second telling under the same id is known as such."""
    events = caught(tracker, lambda it: it.record(provider="x-ai", usage={"images": 2}, event_id="job-7"))
    events += caught(tracker, lambda it: it.record_response("anthropic", MESSAGE, event_id="job-8"))
    assert [event.event_id for event in events] == ["job-7", "job-8"]


@pytest.mark.parametrize("event_id", [5, "x" * 501], ids=["a number", "too long"])
def test_an_answer_takes_no_other_id(tracker: Tracker, event_id: Any) -> None:
    """No database would have it: that is said at once, and nothing is recorded."""
    with capture_usage() as events, pytest.raises(TrackingSetupError, match="event_id"):
        tracker.record_response("anthropic", MESSAGE, event_id=event_id)
    assert events == []


def test_nothing_is_recorded_where_tracking_is_off(tracker: Tracker) -> None:
    """`no_tracking()` holds for what is recorded by hand, too."""
    with no_tracking():
        assert caught(tracker, lambda it: it.record(provider="x-ai", usage={"input_tokens": 1})) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"usage": {"tokens": 1}}, "no unit 'tokens'"),
        ({"usage": {"input_tokens": -1}}, "is no count"),
        ({"usage": {"input_tokens": 1.5}}, "is no count"),
        ({"usage": {"input_tokens": True}}, "is no count"),
        ({"usage": None}, "usage= takes counts"),
        ({"usage": {}, "provider": None}, "provider= takes a str"),
        ({"usage": {}, "model": 5}, "model= takes a str"),
        ({"usage": {}, "event_id": 5}, "event_id= takes a str"),
        ({"usage": {}, "event_id": "x" * 501}, "event_id has 501 characters, and at most 500 fit"),
    ],
    ids=str,
)
def test_a_wrong_count_is_an_error_that_says_what_to_do(
    tracker: Tracker, wrong: dict[str, Any], says: str
) -> None:
    """Nothing is recorded for a unit that there is not, a number that cannot be a count, or no name."""
    with capture_usage() as events, pytest.raises(TrackingSetupError, match=says):
        tracker.record(**{"provider": "x-ai", **wrong})
    assert events == []


@pytest.mark.parametrize(
    ("provider", "body", "says"),
    [
        ("nobody", MESSAGE, "known are"),
        ("anthropic", {"id": "msg_1"}, "states no usage"),
        ("anthropic", b"<html>", "is not JSON"),
        ("anthropic", b"[1]", "is not a JSON object"),
        ("anthropic", 5, "is not a JSON object"),
        ("anthropic", Message(), r"but a Message; .* answer\.to_dict\(\)"),
    ],
)
def test_a_wrong_answer_is_an_error_that_says_what_to_do(
    tracker: Tracker, provider: str, body: Any, says: str
) -> None:
    """Nothing is recorded for an answer that the provider's table cannot read."""
    with capture_usage() as events, pytest.raises(TrackingSetupError, match=says):
        tracker.record_response(provider, body)
    assert events == []


def test_a_wrong_customer_is_an_error(tracker: Tracker) -> None:
    """A customer id that no event can carry is refused where it is given."""
    with pytest.raises(AttributionError):
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="")


def test_it_goes_through_the_journal_to_the_sinks(tmp_path: Path) -> None:
    """Recorded by hand or metered, an event is delivered to every sink."""
    received: list[UsageEvent] = []

    def receive(events: list[UsageEvent]) -> None:
        received.extend(events)

    tracker = Tracker([receive], home=tmp_path)
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    assert tracker.flush(50)
    tracker.close()
    assert [event.customer_id for event in received] == ["acme"]


def test_a_webhook_of_a_prediction_is_one_of_a_prediction(tracker: Tracker) -> None:
    """Replicate's trainings look the same; what is told by hand is read as what there is far more of."""
    body = {"id": "p1", "version": "v1", "status": "succeeded", "metrics": {"predict_time": 1.5}}
    (event,) = caught(tracker, lambda it: it.record_response("replicate", body))
    assert (event.api, event.usage.compute_seconds) == ("replicate.predictions", 1.5)


@pytest.mark.parametrize("metrics", [{}, {"predict_time": 0.1}, None])
def test_what_is_not_done_is_not_recorded(tracker: Tracker, metrics: Any) -> None:
    """A webhook that tells of a start is an error that says so: its counts are still to come."""
    body = {"id": "p1", "version": "v1", "status": "processing", "metrics": metrics}
    with pytest.raises(TrackingSetupError, match="not there yet"):
        tracker.record_response("replicate", body)
