"""Streams that are cut short, at every event and in every way: one event, and no count that was not told.

What must be known at each place is computed here from the events themselves: by OpenAI nothing until the
end, by Anthropic the input from the start on, by Google the running counts of the newest event.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import httpx2
import pytest
from endings import CHAT, MESSAGES, RESPONSES
from four_ways import ASYNC, EVERY, App, Script, Wait, World, run

from cmdrdata_transport.event import UsageEvent

GEMINI = [
    b"data: "
    + json.dumps(
        {
            "responseId": "r1",
            "modelVersion": "gemini-x",
            "candidates": [{"content": {}, **({"finishReason": "STOP"} if count == 7 else {})}],
            "usageMetadata": {
                "promptTokenCount": 5,
                "candidatesTokenCount": count,
                "totalTokenCount": 5 + count,
            },
        }
    ).encode()
    + b"\r\n\r\n"
    for count in (1, 4, 7)
]

STREAMS: dict[str, tuple[str, list[bytes], list[tuple[str, int | None, int | None]]]] = {
    "chat": (
        "https://api.openai.com/v1/chat/completions",
        [*CHAT],
        [("partial", None, None)] * 3 + [("complete", 5, 7)] * 2,
    ),
    "messages": (
        "https://api.anthropic.com/v1/messages",
        MESSAGES,
        [("partial", 5, None)] * 2 + [("partial", 5, 7), ("complete", 5, 7)],
    ),
    "responses": (
        "https://api.openai.com/v1/responses",
        RESPONSES,
        [("partial", None, None)] * 2 + [("complete", 5, 7)],
    ),
    "gemini": (
        "https://generativelanguage.googleapis.com/v1/models/gemini-x:streamGenerateContent?alt=sse",
        GEMINI,
        [("partial", 5, 1), ("partial", 5, 4), ("complete", 5, 7)],
    ),
}
"""Where each is asked for, its events, and what is known when so many of them have come."""

PLACES = [(name, place) for name, (_, events, _) in STREAMS.items() for place in range(1, len(events) + 1)]

every_place = pytest.mark.parametrize(("name", "place"), PLACES)
ASK = {"model": "gpt-5", "stream": True, "stream_options": {"include_usage": True}}


async def read(app: App, name: str, place: int) -> tuple[Any, Any]:
    """The answer and its iterator, after so many events."""
    response = await app.send(url=STREAMS[name][0], json=ASK)
    chunks = app.chunks(response)
    for _ in range(place):
        await anext(chunks)
    return response, chunks


async def close(app: App, name: str, place: int) -> None:
    """Stop there, and close."""
    response, _ = await read(app, name, place)
    await app.close(response)


async def drop(app: App, name: str, place: int) -> None:
    """Stop there, and let go of everything: nobody closes."""
    response, chunks = await read(app, name, place)
    del response, chunks
    await app.turn()


ENDS: dict[str, Callable[[App, str, int], Awaitable[None]]] = {"close": close, "drop": drop}


def known(events: Sequence[UsageEvent]) -> list[tuple[str, int | None, int | None]]:
    """What was recorded."""
    return [(each.usage_status, each.usage.input_tokens, each.usage.output_tokens) for each in events]


@pytest.mark.parametrize("end", ENDS)
@every_place
@pytest.mark.parametrize("world", EVERY, ids=str)
def test_given_up_at_every_event(world: World, name: str, place: int, end: str) -> None:
    """However the application lets go, one event says what had been told by then, and no more."""
    events: list[UsageEvent] = []

    async def scenario(app: App) -> None:
        await ENDS[end](app, name, place)
        events.extend(app.events)

    run(scenario, world, Script(body=STREAMS[name][1]), customer_id="acme")
    (event,) = events
    assert known([event]) == [STREAMS[name][2][place - 1]]
    assert event.outcome == ("ok" if event.usage_status == "complete" else "cancelled")
    if event.usage_status == "partial":
        came = STREAMS[name][1][:place]
        assert event.usage.details == {"delivered_bytes": sum(map(len, came)), "delivered_chunks": place}


@pytest.mark.parametrize(
    "error", [httpx.ReadError("SECRET"), httpx2.ReadTimeout("SECRET")], ids=["lost", "slow"]
)
@every_place
@pytest.mark.parametrize("world", EVERY, ids=str)
def test_broken_at_every_event(world: World, name: str, place: int, error: Exception) -> None:
    """A connection that is lost, or too slow, is an error, with what had been told by then."""
    events: list[UsageEvent] = []

    async def scenario(app: App) -> None:
        response = await app.send(url=STREAMS[name][0], json=ASK)
        with pytest.raises(type(error)):
            async for _ in app.chunks(response):
                pass
        await app.close(response)
        events.extend(app.events)

    run(scenario, world, Script(body=[*STREAMS[name][1][:place], error]), customer_id="acme")
    (event,) = events
    status, *counts = STREAMS[name][2][place - 1]
    assert known([event]) == [(status, *counts)]
    if status == "partial":
        assert (event.outcome, event.error_type) == ("error", type(error).__name__)


@every_place
@pytest.mark.parametrize("world", ASYNC, ids=str)
def test_cancelled_at_every_await(world: World, name: str, place: int) -> None:
    """A task that is cancelled while it waits for the next event has what had been told by then."""
    events: list[UsageEvent] = []

    async def scenario(app: App) -> None:
        async def act(reached: Callable[[], None]) -> None:
            _, chunks = await read(app, name, place)
            reached()
            await anext(chunks)

        await app.give_up_on(act)
        await app.turn()
        events.extend(app.events)

    run(scenario, world, Script(body=[*STREAMS[name][1][:place], Wait()]), customer_id="acme")
    assert known(events) == [STREAMS[name][2][place - 1]]


@pytest.mark.parametrize("world", ASYNC, ids=str)
def test_cancelled_before_there_is_an_answer(world: World) -> None:
    """It may have been billed, and nobody knows: one event says that it was given up."""
    events: list[UsageEvent] = []

    async def scenario(app: App) -> None:
        async def act(reached: Callable[[], None]) -> None:
            reached()
            await app.send(json=ASK)

        await app.give_up_on(act)
        events.extend(app.events)

    run(scenario, world, Script(hangs=True), customer_id="acme")
    assert [(each.usage_status, each.outcome) for each in events] == [("none", "cancelled")]
