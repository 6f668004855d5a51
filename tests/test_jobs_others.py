"""Predictions, transcripts and batches of other providers than OpenAI: once, for whoever started them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from exchange import WAYS, Way
from stories import Ask, Host, hosted, make

from cmdrdata_transport import UsageEvent

REPLICATE = "https://api.replicate.com/v1"
MISTRAL = "https://api.mistral.ai/v1"

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with a home of its own."""
    with hosted(tmp_path) as it:
        yield it


def events(host: Host) -> list[UsageEvent]:
    """What was recorded, in the order of the calls: each process stores its own when it comes to it."""
    return sorted(host.ledger(), key=lambda each: each.timestamp)


def prediction(status: str, metrics: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A prediction of Replicate's."""
    return {"id": "p1", "model": "acme/wombat", "version": "v1", "status": status, "metrics": metrics}


def transcript(status: str, seconds: int | None = None) -> dict[str, Any]:
    """A transcript of AssemblyAI's."""
    return {"id": "t1", "status": status, "audio_duration": seconds, "speech_model": "universal"}


def embed_job(status: str, tokens: float) -> dict[str, Any]:
    """An embedding job of Cohere's."""
    billed = {"billed_units": {"input_tokens": tokens}}
    return {"job_id": "j1", "status": status, "model": "embed-v4.0", "meta": billed}


def batch(status: str, tokens: str) -> dict[str, Any]:
    """A batch of Cohere's, which counts in digits."""
    stated = {"input_tokens": tokens, "output_tokens": "5"}
    return {"batch": {"id": "b1", "status": f"BATCH_STATUS_{status}", "model": "command-a", **stated}}


def batch_job(state: str, tokens: int) -> dict[str, Any]:
    """A batch job of Fireworks'."""
    progress = {"inputTokens": tokens, "outputTokens": 5}
    return {
        "name": "accounts/a/batchInferenceJobs/1",
        "model": "m",
        "state": f"JOB_STATE_{state}",
        "jobProgress": progress,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is started at one URL and asked for at another, and what it states when it is done."""

    start: str
    started: Any
    poll: str
    still: Any
    done: Any
    counts: Mapping[str, float]

    @property
    def starting(self) -> Ask:
        """The call of the customer who pays."""
        return Ask(
            method="POST", url=self.start, asked={"model": "asked"}, answer=self.started, customer="acme"
        )

    def asking(self, answer: Any) -> Ask:
        """Somebody's question what has become of it."""
        return Ask(method="GET", url=self.poll, answer=answer)


STORIES = {
    "replicate": Story(
        start=f"{REPLICATE}/predictions",
        started=prediction("starting"),
        poll=f"{REPLICATE}/predictions/p1",
        still=prediction("processing", {}),
        done=prediction("succeeded", {"predict_time": 2.5, "total_time": 3}),
        counts={"compute_seconds": 2.5},
    ),
    "replicate-training": Story(
        start=f"{REPLICATE}/models/acme/wombat/versions/v1/trainings",
        started=prediction("starting"),
        poll=f"{REPLICATE}/trainings/p1",
        still=prediction("processing"),
        done=prediction("succeeded", {"predict_time": 612.5}),
        counts={"compute_seconds": 612.5},
    ),
    "replicate-without-metrics": Story(
        start=f"{REPLICATE}/predictions",
        started=prediction("processing"),
        poll=f"{REPLICATE}/predictions/p1",
        still=prediction("succeeded"),
        done=prediction("succeeded", {"image_count": 2}),
        counts={"images": 2},
    ),
    "assemblyai": Story(
        start="https://api.assemblyai.com/v2/transcript",
        started=transcript("queued"),
        poll="https://api.assemblyai.com/v2/transcript/t1",
        still=transcript("processing"),
        done=transcript("completed", 281),
        counts={"audio_seconds": 281},
    ),
    "cohere-embed-job": Story(
        start="https://api.cohere.com/v1/embed-jobs",
        started={"job_id": "j1", "meta": {"billed_units": {"input_tokens": 0.0}}},
        poll="https://api.cohere.com/v1/embed-jobs/j1",
        still=embed_job("processing", 10.0),
        done=embed_job("complete", 90.0),
        counts={"input_tokens": 90},
    ),
    "cohere-batch": Story(
        start="https://api.cohere.com/v2/batches",
        started=batch("QUEUED", "0"),
        poll="https://api.cohere.com/v2/batches/b1",
        still=batch("IN_PROGRESS", "10"),
        done=batch("COMPLETED", "90"),
        counts={"input_tokens": 90, "output_tokens": 5},
    ),
    "fireworks-batch-job": Story(
        start="https://api.fireworks.ai/v1/accounts/a/batchInferenceJobs",
        started=batch_job("CREATING", 0),
        poll="https://api.fireworks.ai/v1/accounts/a/batchInferenceJobs/1",
        still=batch_job("RUNNING", 10),
        done=batch_job("COMPLETED", 90),
        counts={"input_tokens": 90, "output_tokens": 5},
    ),
}

every_story = pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)


@every_way
@every_story
def test_it_counts_once_when_it_is_done_for_whoever_started_it(story: Story, way: Way, host: Host) -> None:
    """Polls before the end are nothing, and another process that asks again and again adds one event."""
    make(way, host.process(), [story.starting, story.asking(story.still)])
    make(way, host.process(customer_id="nobody"), [story.asking(each) for each in (story.still, story.done)])
    make(way, host.process(customer_id="nobody"), [story.asking(story.done)])
    begun, over = events(host)
    assert (begun.customer_id, begun.usage_status) == ("acme", "none")
    assert (over.customer_id, over.usage_status, over.request_model) == (
        "acme",
        "complete",
        begun.request_model,
    )
    stated = {name: getattr(over.usage, name) for name in story.counts}
    assert stated == story.counts
    assert begun.event_id != over.event_id


@every_way
def test_a_prediction_that_was_told_at_once_is_not_told_again(way: Way, host: Host) -> None:
    """A call that waits until the end counts, and who looks at the prediction later adds nothing."""
    done = STORIES["replicate"].done
    waiting = replace(STORIES["replicate"].starting, answer=done, status=201)
    make(way, host.process(), [waiting, STORIES["replicate"].asking(done)])
    assert [each.usage.compute_seconds for each in events(host)] == [2.5]


@every_way
def test_a_prediction_that_was_over_before_its_metrics_counts_when_they_are_there(
    way: Way, host: Host
) -> None:
    """The call that waited is told that nothing is known; the metrics of a later look are not lost."""
    story = STORIES["replicate"]
    waiting = replace(story.starting, answer=prediction("succeeded"), status=201)
    make(way, host.process(), [waiting, story.asking(story.done)])
    assert [(each.customer_id, each.usage.compute_seconds) for each in events(host)] == [
        ("acme", None),
        ("acme", 2.5),
    ]


@every_way
def test_a_cancelled_prediction_counts_what_it_ran(way: Way, host: Host) -> None:
    """Whoever cancels it is told, and who asks later is told the same."""
    story = STORIES["replicate"]
    over = prediction("canceled", {"predict_time": 0.5})
    cancel = Ask(method="POST", url=f"{REPLICATE}/predictions/p1/cancel", answer=over)
    make(way, host.process(), [story.starting, cancel, story.asking(over)])
    assert [(each.customer_id, each.usage.compute_seconds) for each in events(host)] == [
        ("acme", None),
        ("acme", 0.5),
    ]


@pytest.mark.parametrize(("provider", "story"), [("replicate", "replicate"), ("assemblyai", "assemblyai")])
def test_a_webhook_says_what_a_poll_says(provider: str, story: str, host: Host) -> None:
    """What comes to the application's own server and what it asks for are one event."""
    told = STORIES[story]
    process = host.process()
    make(WAYS[0], process, [told.asking(told.done)])
    process.record_response(provider, json.dumps(told.done), customer_id="acme")
    (only,) = events(host)
    assert {name: getattr(only.usage, name) for name in told.counts} == told.counts


# --- Mistral's batches: the results, wherever they are read

LINES = [
    {
        "id": f"batch-{number}",
        "custom_id": str(number),
        "response": {
            "status_code": 200,
            "body": {
                "id": f"r{number}",
                "object": "chat.completion",
                "model": "mistral-small-latest",
                "usage": {"prompt_tokens": 10, "completion_tokens": number, "total_tokens": 10 + number},
            },
        },
        "error": None,
    }
    for number in (1, 2)
]


def mistral_job(status: str, **more: Any) -> dict[str, Any]:
    """A batch job of Mistral's."""
    return {"id": "job", "object": "batch", "model": "mistral-small-latest", "status": status, **more}


CREATED = Ask(
    method="POST", url=f"{MISTRAL}/batch/jobs", asked={}, answer=mistral_job("QUEUED"), customer="acme"
)
RUNNING = Ask(method="GET", url=f"{MISTRAL}/batch/jobs/job", answer=mistral_job("RUNNING"))
DONE = replace(RUNNING, answer=mistral_job("SUCCESS", output_file="out"))
INLINE = replace(
    RUNNING,
    url=f"{MISTRAL}/batch/jobs/job?inline=true",
    answer=mistral_job("SUCCESS", output_file="out", outputs=LINES),
)
FILE = Ask(
    method="GET",
    url=f"{MISTRAL}/files/out/content",
    answer=b"\n".join(json.dumps(line).encode() for line in LINES),
    kind="application/octet-stream",
)


@every_way
@pytest.mark.parametrize(
    "asks",
    [[RUNNING, DONE, FILE], [INLINE], [INLINE, FILE], [DONE, FILE, INLINE, FILE]],
    ids=["file", "inline", "inline and file", "again and again"],
)
def test_the_results_of_mistral_s_batch_count_once(asks: list[Ask], way: Way, host: Host) -> None:
    """In the file or in the job's own answer, each result is its starter's, and told once."""
    make(way, host.process(), [CREATED])
    make(way, host.process(customer_id="nobody"), asks)
    assert [(each.customer_id, each.service_tier, each.usage.total_tokens) for each in events(host)] == [
        ("acme", "batch", 11),
        ("acme", "batch", 12),
    ]
