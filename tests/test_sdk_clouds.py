"""The anthropic SDK's clients for other people's clouds, each over a tracked client, against the fixtures.

A stream of `AnthropicBedrock` is decoded by botocore.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest
from exchange import Fixture, fixtures, stable

from cmdrdata_transport.httpx2 import AsyncTrackedTransport, TrackedTransport
from cmdrdata_transport.testing import capture_usage

FIXTURES = {fixture.name: fixture for fixture in fixtures()}

BEDROCK = {"api_key": "SECRET", "aws_region": "us-east-1"}
VERTEX = {"access_token": "SECRET", "region": "europe-west1", "project_id": "fx"}
FOUNDRY = {"api_key": "SECRET", "resource": "fx"}

every_call = pytest.mark.parametrize(
    ("client", "options", "fixture"),
    [
        ("AnthropicBedrock", BEDROCK, "aws/invoke-anthropic"),
        ("AnthropicBedrock", BEDROCK, "aws/invoke-anthropic-stream"),
        ("AnthropicVertex", VERTEX, "google/vertex-anthropic"),
        ("AnthropicVertex", VERTEX, "google/vertex-anthropic-stream"),
        ("AnthropicFoundry", FOUNDRY, "azure/anthropic-messages"),
    ],
)


def answering(fixture: Fixture) -> httpx2.MockTransport:
    """A provider that gives a fixture's answer, where the fixture says that it is."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        expected = httpx2.URL(fixture.exchange.url)
        # `path` is unescaped: this SDK leaves a model's colon as it is, others write %3A.
        assert (request.url.host, request.url.path) == (expected.host, expected.path)
        return httpx2.Response(
            fixture.exchange.status, headers=list(fixture.exchange.headers), content=fixture.exchange.body
        )

    return httpx2.MockTransport(answer)


def asked(fixture: Fixture) -> dict[str, Any]:
    """What the user types for this answer."""
    return {
        "model": fixture.events[0]["request_model"],
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "SECRET"}],
        "stream": fixture.events[0]["streaming"],
    }


def shown(answer: Any) -> list[dict[str, Any]]:
    """What the SDK shows its user: one message, or the events of one."""
    return [each.to_dict() for each in answer] if isinstance(answer, list) else [answer.to_dict()]


def as_expected(fixture: Fixture, events: list[Any]) -> None:
    """The events are the fixture's, and the SDK's first attempt."""
    said = [stable(event.to_dict()) for event in events]
    assert said == [
        {"format": event["format"], "attempt": 0, **own}
        for event, own in zip(said, fixture.events, strict=True)
    ]


@every_call
def test_sync(client: str, options: dict[str, Any], fixture: str) -> None:
    """A tracked client shows what a bare one shows, and the event is the fixture's."""
    exchange = FIXTURES[fixture]
    make: Callable[..., Any] = getattr(anthropic, client)

    def call(transport: Any) -> list[dict[str, Any]]:
        with httpx2.Client(transport=transport) as http:
            answer = make(**options, http_client=http).messages.create(**asked(exchange))
            return shown(list(answer) if asked(exchange)["stream"] else answer)

    bare = call(answering(exchange))
    with capture_usage() as events:
        assert call(TrackedTransport(answering(exchange))) == bare
    as_expected(exchange, list(events))


@every_call
def test_async(client: str, options: dict[str, Any], fixture: str) -> None:
    """The same, asked by the client for asyncio."""
    exchange = FIXTURES[fixture]
    make: Callable[..., Any] = getattr(anthropic, f"Async{client}")

    async def call(transport: Any) -> list[dict[str, Any]]:
        async with httpx2.AsyncClient(transport=transport) as http:
            answer = await make(**options, http_client=http).messages.create(**asked(exchange))
            return shown([each async for each in answer] if asked(exchange)["stream"] else answer)

    bare = asyncio.run(call(answering(exchange)))
    with capture_usage() as events:
        assert asyncio.run(call(AsyncTrackedTransport(answering(exchange)))) == bare
    as_expected(exchange, list(events))
