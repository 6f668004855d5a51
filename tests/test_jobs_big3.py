"""What each provider starts by one call and tells by others: once, for whoever started it.

A story is what one process of a host asks for in a customer's name, and what another, in nobody's, asks
later, twice. The answers are the fixtures' where there is one; what differs stands here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exchange import FIXTURES, WAYS, Way
from stories import Ask, Host, hosted, make

from cmdrdata_transport import UsageEvent

Facts = dict[str, Any]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with a home of its own."""
    with hosted(tmp_path) as it:
        yield it


def told_by(name: str, customer: str | None = None) -> Ask:
    """The call of a fixture, and its answer."""
    folder = FIXTURES / name
    request, response = (
        json.loads((folder / f"{file}.json").read_text("utf-8")) for file in ("request", "response")
    )
    return Ask(
        method=request["method"],
        url=request["url"],
        asked=request.get("body"),
        answer=(folder / "body").read_bytes(),
        status=response["status"],
        kind=response["headers"]["content-type"],
        customer=customer,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is asked for, by the names of fixtures, and what must be recorded of it, in order."""

    starts: Sequence[str]
    later: Sequence[str]
    events: Sequence[Facts]

    def __str__(self) -> str:
        return self.starts[0]


PENDING: Facts = {"usage_status": "none", "outcome": "ok"}
REFUSED: Facts = {"usage_status": "none", "outcome": "error"}


def done(**facts: Any) -> Facts:
    """An event that has all its usage."""
    return {"usage_status": "complete", "outcome": "ok", **facts}


STORIES = (
    Story(
        starts=["openai/videos"],
        later=["openai/videos-poll-pending", "openai/videos-poll", "openai/videos-list"],
        events=[PENDING, done(video_seconds=8, request_model="sora-2-pro")],
    ),
    Story(
        starts=["openai/videos-extension"],
        later=["openai/videos-poll"],
        events=[PENDING, done(video_seconds=8, details={"added_seconds": "12", "size": "1280x720"})],
    ),
    Story(
        starts=["openai/videos-remix"],
        later=["openai/videos-poll-pending", "openai/videos-poll-failed"],
        events=[PENDING, REFUSED],
    ),
    Story(
        starts=["openai/runs", "openai/runs-poll-waiting"],
        later=["openai/runs-tool-outputs", "openai/runs-steps", "openai/runs-poll"],
        events=[PENDING, done(total_tokens=469)],
    ),
    Story(
        starts=["openai/runs-stream-waiting"],
        later=["openai/runs-poll-waiting", "openai/runs-poll"],
        events=[PENDING, done(total_tokens=469)],
    ),
    Story(
        starts=["openai/runs-stream"],
        later=["openai/runs-poll"],
        events=[done(total_tokens=469)],
    ),
    Story(
        starts=["openai/batches", "openai/batches-poll"],
        later=["openai/batches-poll", "openai/batch-results", "openai/batch-errors", "openai/file-content"],
        events=[
            done(total_tokens=1050),
            done(total_tokens=15),
            done(total_tokens=8),
            done(total_tokens=5),
            done(total_tokens=520, images=1),
            REFUSED,
            REFUSED,
        ],
    ),
    Story(
        starts=["anthropic/batches"],
        later=["anthropic/batches-poll", "anthropic/batch-results"],
        events=[done(total_tokens=155, service_tier="batch"), REFUSED],
    ),
    Story(
        starts=["google/interactions-background"],
        later=["google/interactions-poll-pending", "google/interactions-poll"],
        events=[PENDING, done(total_tokens=2100, request_model="deep-research-pro-preview-12-2025")],
    ),
    Story(
        starts=["google/interactions-stream"],
        later=["google/interactions-poll", "google/interactions-cancel"],
        events=[done(total_tokens=2100)],
    ),
    Story(
        starts=["google/veo"],
        later=["google/veo-poll-pending", "google/veo-poll"],
        events=[
            PENDING,
            done(
                videos=2,
                details={"seconds": 8, "resolution": "1080p", "aspect_ratio": "16:9", "audio": True},
                model="veo-3.1-generate-001",
            ),
        ],
    ),
    Story(
        starts=["google/veo"],
        later=["google/veo-poll-pending", "google/veo-poll-filtered"],
        events=[PENDING, PENDING],
    ),
    Story(
        starts=["google/veo-developer"],
        later=["google/veo-developer-poll-pending", "google/veo-developer-poll"],
        events=[PENDING, done(videos=1, details={"seconds": "4"})],
    ),
    Story(
        starts=["google/batches"],
        later=["google/batches-poll-pending", "google/batches-poll"],
        events=[
            done(total_tokens=57, request_model="gemini-2.5-flash"),
            REFUSED,
            done(total_tokens=65),
        ],
    ),
    Story(
        starts=["google/batches"],
        later=["google/batches-poll-file", "google/batch-file", "google/file-download"],
        events=[done(total_tokens=57), REFUSED, done(total_tokens=65)],
    ),
    Story(
        starts=["x-ai/videos"],
        later=["x-ai/videos-poll-pending", "x-ai/videos-poll"],
        events=[
            PENDING,
            done(
                video_seconds=8,
                provider_cost="0.56",
                details={"seconds": 8, "resolution": "720p", "aspect_ratio": "16:9"},
            ),
        ],
    ),
    Story(
        starts=["x-ai/deferred"],
        later=["x-ai/deferred-poll-pending", "x-ai/deferred-poll"],
        events=[PENDING, done(total_tokens=65, provider_cost="0.0021")],
    ),
    Story(
        starts=["x-ai/batches"],
        later=["x-ai/batch-results"],
        events=[done(total_tokens=65), REFUSED],
    ),
    Story(
        starts=["together/videos"],
        later=["together/videos-poll-pending", "together/videos-poll"],
        events=[PENDING, done(video_seconds=6, provider_cost="0.28")],
    ),
    Story(
        starts=["together/batches", "together/batches-poll"],
        later=["together/batch-results"],
        events=[done(total_tokens=46)],
    ),
    Story(
        starts=["perplexity/async-chat"],
        later=["perplexity/async-chat-poll-pending", "perplexity/async-chat-poll"],
        events=[PENDING, done(total_tokens=2362, provider_cost="0.011", web_searches=9)],
    ),
    Story(
        starts=["perplexity/async-chat"],
        later=["perplexity/async-chat-poll-failed"],
        events=[PENDING, REFUSED],
    ),
    Story(
        starts=["openrouter/batches"],
        later=["openrouter/batches-poll"],
        events=[done(total_tokens=46, provider_cost="0.00007"), REFUSED],
    ),
)

each_story = pytest.mark.parametrize("story", STORIES, ids=str)


def facts(event: UsageEvent, names: Facts) -> Facts:
    """What an event says of these."""
    said = event.to_dict()
    return {name: said.get(name) for name in names}


@pytest.mark.parametrize("way", WAYS, ids=str)
@each_story
def test_a_story(way: Way, story: Story, host: Host) -> None:
    """Whoever asks, however often: it is recorded once, for the customer who started it."""
    make(way, host.process(), [told_by(name, "acme") for name in story.starts])
    for _ in range(2):
        make(way, host.process(customer_id="nobody"), [told_by(name) for name in story.later])
    events = host.ledger()
    assert len(events) == len(story.events)
    assert [facts(*each) for each in zip(events, story.events, strict=True)] == list(story.events)
    assert {event.customer_id for event in events} == {"acme"}


@each_story
def test_a_story_of_which_the_beginning_is_not_known(story: Story, host: Host) -> None:
    """What was started elsewhere counts once, for whoever asks first, and never for nobody at all."""
    for customer in ("first", "second"):
        make(WAYS[0], host.process(), [told_by(name, customer) for name in story.later])
    events = host.ledger()
    counted = [each for each in story.events if each is not PENDING]
    assert sorted(each.usage_status for each in events if each.usage_status == "complete") == sorted(
        each["usage_status"] for each in counted if each["usage_status"] == "complete"
    )
    assert {event.customer_id for event in events} <= {"first"}


def test_the_parts_of_a_background_answer_are_told_once_too(host: Host) -> None:
    """What the image tool used has an id of its own that follows from the answer's."""
    answer = json.loads((FIXTURES / "openai/responses-image-tool/body").read_text("utf-8"))
    url = "https://api.openai.com/v1/responses"
    queued = {
        **answer,
        "background": True,
        "status": "queued",
        "usage": None,
        "tool_usage": None,
        "output": [],
    }
    poll = Ask(method="GET", url=f"{url}/{answer['id']}", answer={**answer, "background": True})
    start = Ask(
        method="POST",
        url=url,
        asked={"model": "gpt-5.4", "background": True},
        answer=queued,
        customer="acme",
    )
    make(WAYS[0], host.process(), [start, poll, poll])
    told = [(each.customer_id, each.part, each.model, each.usage.total_tokens) for each in host.ledger()]
    assert told == [
        ("acme", None, "gpt-5.4-2026-05-01", None),
        ("acme", 0, "gpt-5.4-2026-05-01", 1050),
        ("acme", 1, "gpt-image-2", 1126),
        ("acme", 2, "gpt-5.4-svg", 2300),
    ]


def test_results_without_a_name_are_told_apart_by_their_place(host: Host) -> None:
    """Embeddings have no id of their own; asked for again they are the same two."""
    embedded = [{"response": {"embedding": {"values": [0.1]}, "tokenCount": count}} for count in (7, 7)]
    output = {"inlinedEmbedContentResponses": {"inlinedResponses": embedded}}
    url = "https://generativelanguage.googleapis.com/v1beta"
    start = Ask(
        method="POST",
        url=f"{url}/models/gemini-embedding-001:asyncBatchEmbedContent",
        answer={"name": "batches/b", "metadata": {"state": "BATCH_STATE_PENDING"}},
        asked={"batch": {}},
        customer="acme",
    )
    poll = Ask(method="GET", url=f"{url}/batches/b", answer={"done": True, "metadata": {"output": output}})
    make(WAYS[0], host.process(), [start, poll, poll])
    told = [(each.customer_id, each.model, each.usage.input_tokens) for each in host.ledger()]
    assert told == [("acme", "gemini-embedding-001", 7)] * 2
