"""The ways in which an answer ends, as data: what the server does, what the application does with it.

The rows are those of a body's life as httpx and httpx2 really show it, and of what the SDKs do with
their streams: openai stops reading at `[DONE]` and, when async, drains what follows through a second
iterator; google-genai's async stream is only ever collected; groq's is never closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import anyio
from four_ways import App, Scenario, Script, Wait, World


def event(**document: Any) -> bytes:
    """One server-sent event."""
    return (
        b"data: "
        + json.dumps({"id": "chatcmpl-1", "model": "gpt-5-2026-08-01", **document}).encode()
        + b"\n\n"
    )


def delta(text: str, finish: str | None = None) -> bytes:
    """One chunk of a chat completion's stream."""
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}], usage=None)


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
HELLO, WORLD = delta("Hello"), delta(" world")
STOP = delta("", "stop")
COUNTS = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
CHAT = (HELLO, WORLD, STOP, COUNTS, DONE)
TRAILER = b": bye\n\n"


def typed(*documents: dict[str, Any]) -> list[bytes]:
    """Events that say what they are, as Anthropic's and those of OpenAI's Responses do."""
    return [f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode() for document in documents]


MESSAGES = typed(
    {
        "type": "message_start",
        "message": {"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 5, "output_tokens": 1}},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "message_stop"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
)
RESPONSES = typed(
    {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "usage": None}},
    {"type": "response.output_text.delta", "delta": 'they call it "usage"'},
    {
        "type": "response.completed",
        "response": {
            "id": "resp_1",
            "model": "gpt-5",
            "status": "completed",
            "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
        },
    },
)

DOCUMENT = json.dumps(
    {
        "id": "chatcmpl-1",
        "model": "gpt-5-2026-08-01",
        "choices": [{"index": 0, "message": {"content": "Hello world"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()
JSON = (("content-type", "application/json"),)

REFUSAL = json.dumps({"error": {"type": "server_error", "code": "overloaded", "message": "SECRET"}}).encode()


# --- what applications do ---------------------------------------------------------------------------


async def read_whole(app: App) -> None:
    """`client.post()`, and every SDK's plain call."""
    response = await app.call()
    app.say(response.content)


async def read_to_the_end(app: App) -> None:
    """A stream read to its end in a block; anthropic reads all of its streams to the end."""
    async with app.stream() as response:
        async for chunk in app.chunks(response):
            app.say(chunk)
        app.say("the end")


async def break_out(app: App) -> None:
    """Break after the first chunk."""
    async with app.stream() as response:
        async for chunk in app.chunks(response):
            app.say(chunk)
            break
        app.say("broke out")
    await app.turn()


async def raise_inside(app: App) -> None:
    """Fail in the middle of reading."""
    async with app.stream() as response:
        async for chunk in app.chunks(response):
            app.say(chunk)
            raise ValueError("the application's own")


async def never_read(app: App) -> None:
    """Open a stream, look at its head, leave."""
    async with app.stream() as response:
        app.say(response.status_code)
    await app.turn()


async def stop_at_done(app: App) -> None:
    """What openai does when sync, and over HTTP/2: close at `[DONE]`, let go of the iterator later."""
    response = await app.send()
    chunks = app.chunks(response)
    async for chunk in chunks:
        app.say(chunk)
        if b"[DONE]" in chunk:
            break
    await app.close(response)
    app.say("closed")
    del chunks
    await app.turn()


async def drain(app: App) -> None:
    """What openai does when async, over HTTP/1.1: iterate the stream once more behind `[DONE]`."""
    response = await app.send()
    chunks = app.chunks(response)
    async for chunk in chunks:
        app.say(chunk)
        if b"[DONE]" in chunk:
            break
    async for chunk in app.chunks_of(response.stream):
        app.say(chunk)
    app.say("drained")
    await app.close(response)
    del chunks
    await app.turn()


async def close_between(app: App) -> None:
    """Close while the iterator waits at a chunk, then ask it for more."""
    response = await app.send()
    chunks = app.chunks(response)
    app.say(await anext(chunks))
    await app.close(response)
    app.say("closed")
    async for chunk in chunks:
        app.say(chunk)


async def close_the_iterator_first(app: App) -> None:
    """What google-genai does when sync: the generator goes, then the response is closed."""
    response = await app.send()
    chunks = app.chunks(response)
    app.say(await anext(chunks))
    await chunks.aclose()
    app.say("iterator closed")
    await app.close(response)
    await app.turn()


async def close_twice(app: App) -> None:
    """Close after the end, and again."""
    response = await app.send()
    async for chunk in app.chunks(response):
        app.say(chunk)
    await app.close(response)
    await app.close(response)


async def drop_after_some(app: App) -> None:
    """Read a chunk, then forget everything; ai21 and groq do so when a caller breaks."""
    response = await app.send()
    chunks = app.chunks(response)
    app.say(await anext(chunks))
    del chunks, response
    app.say("dropped")
    await app.turn()


async def drop_in_a_circle(app: App) -> None:
    """Forget an answer that holds itself: only garbage collection finds it."""
    response = await app.send()
    chunks = app.chunks(response)
    app.say(await anext(chunks))
    circle = [response, chunks]
    circle.append(circle)
    del circle, response, chunks
    app.say("dropped")
    await app.turn()


async def drop_at_done(app: App) -> None:
    """What google-genai and huggingface_hub do when async: read to the last event, never close."""
    response = await app.send()
    chunks = app.chunks(response)
    async for chunk in chunks:
        app.say(chunk)
        if b"[DONE]" in chunk:
            break
    del chunks, response
    app.say("dropped")
    await app.turn()


async def drop_unread(app: App) -> None:
    """Ask, and forget the answer: a stream object that nobody iterates."""
    response = await app.send()
    app.say(response.status_code)
    del response
    app.say("dropped")
    await app.turn()


async def cancelled_waiting(app: App) -> None:
    """A task is cancelled while it waits for the next chunk."""

    async def act(now: Callable[[], None]) -> None:
        async with app.stream() as response:
            async for chunk in app.chunks(response):
                app.say(chunk)
                now()

    await app.give_up_on(act)
    await app.turn()


async def cancelled_in_its_own_code(app: App) -> None:
    """A task is cancelled while it thinks about a chunk."""

    async def act(now: Callable[[], None]) -> None:
        async with app.stream() as response:
            async for chunk in app.chunks(response):
                app.say(chunk)
                now()
                await anyio.sleep_forever()

    await app.give_up_on(act)
    await app.turn()


async def cancelled_closing(app: App) -> None:
    """A task is cancelled while it closes the answer."""

    async def act(now: Callable[[], None]) -> None:
        async with app.stream() as response:
            app.say(response.status_code)
            now()

    await app.give_up_on(act)
    await app.turn()


async def cancelled_before_the_answer(app: App) -> None:
    """A task is cancelled while it waits for the head of the answer."""

    async def act(now: Callable[[], None]) -> None:
        now()
        await app.send()

    await app.give_up_on(act)
    await app.turn()


# --- the rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an event must say, and what `stats()` must name beside it."""

    usage_status: str
    outcome: str
    counts: tuple[str, ...] = ()
    error_type: str | None = None
    perhaps: tuple[str, ...] = ()
    """What may be counted: garbage collection finalises a circle in any order."""


@dataclass(frozen=True, slots=True)
class Ending:
    """One row. `script` is made anew for each run, with the errors of the library that runs it."""

    name: str
    act: Scenario
    script: Callable[[Any], Script]
    verdict: Verdict
    only_async: bool = False

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def fits(self, world: World) -> bool:
        """Whether this can happen there."""
        return world.way.is_async or not self.only_async

    def made_for(self, world: World) -> Script:
        """The script, with this library's errors."""
        return self.script(world.library)


def _chat(*body: bytes | Wait, **options: Any) -> Callable[[Any], Script]:
    return lambda _: Script(body=body or CHAT, **options)


def _json(body: bytes = DOCUMENT, **options: Any) -> Callable[[Any], Script]:
    half = len(body) // 2
    return lambda _: Script(body=(body[:half], body[half:]), headers=JSON, **options)


def _broken(error: str, *body: bytes, **options: Any) -> Callable[[Any], Script]:
    return lambda library: Script(body=(*body, getattr(library, error)("the network's own")), **options)


def _refused(error: str) -> Callable[[Any], Script]:
    return lambda library: Script(refusal=getattr(library, error)("the network's own"))


OK = Verdict("complete", "ok")
GIVEN_UP = Verdict("partial", "cancelled", ("partial",))
BROKEN = Verdict("partial", "error", ("partial",))

ENDINGS = (
    # A body that is read to its end.
    Ending("a plain answer", read_whole, _json(), OK),
    Ending("a plain answer already read", read_whole, _json(already_read=True), OK),
    Ending("a stream read whole", read_whole, _chat(), OK),
    Ending("a stream read to its end", read_to_the_end, _chat(), OK),
    Ending("a stream with a trailer", read_to_the_end, _chat(*CHAT, TRAILER), OK),
    Ending("closed twice", close_twice, _chat(), OK),
    Ending("an empty answer", read_whole, _chat(b""), Verdict("missing", "ok", ("missing",))),
    # SDKs stop at the event that ends a stream.
    Ending("closed at the last event", stop_at_done, _chat(*CHAT, TRAILER), OK),
    Ending("drained behind the last event", drain, _chat(*CHAT, TRAILER), OK),
    Ending("drained when all was read", drain, _chat(), OK),
    Ending("dropped at the last event", drop_at_done, _chat(), OK),
    Ending("broken behind the last event", read_to_the_end, _broken("ReadError", *CHAT), OK),
    Ending("closed behind a document", break_out, _chat(DOCUMENT, b"\n", headers=JSON), OK),
    # The application gives up.
    Ending("break", break_out, _chat(), GIVEN_UP),
    Ending("an error of the application", raise_inside, _chat(), GIVEN_UP),
    Ending("never read", never_read, _chat(), GIVEN_UP),
    Ending("closed between two chunks", close_between, _chat(), GIVEN_UP),
    Ending("iterator closed first", close_the_iterator_first, _chat(), GIVEN_UP),
    Ending("dropped after some", drop_after_some, _chat(), GIVEN_UP),
    Ending("dropped in a circle", drop_in_a_circle, _chat(), replace(GIVEN_UP, perhaps=("abandoned",))),
    Ending("dropped unread", drop_unread, _chat(), replace(GIVEN_UP, counts=("partial", "abandoned"))),
    Ending("half a document", break_out, _json(), GIVEN_UP),
    Ending("cancelled waiting", cancelled_waiting, _chat(HELLO, Wait()), GIVEN_UP, only_async=True),
    Ending("cancelled in its own code", cancelled_in_its_own_code, _chat(), GIVEN_UP, only_async=True),
    Ending("cancelled closing", cancelled_closing, _chat(close_hangs=True), GIVEN_UP, only_async=True),
    Ending(
        "cancelled before the answer",
        cancelled_before_the_answer,
        _chat(hangs=True),
        Verdict("none", "cancelled"),
        only_async=True,
    ),
    # The network or the provider gives up.
    Ending(
        "broken in the middle",
        read_to_the_end,
        _broken("ReadError", HELLO),
        replace(BROKEN, error_type="ReadError"),
    ),
    Ending(
        "a document broken in the middle",
        read_whole,
        _broken("RemoteProtocolError", DOCUMENT[:40], headers=JSON),
        replace(BROKEN, error_type="RemoteProtocolError"),
    ),
    Ending("closing fails", stop_at_done, _chat(close_error=OSError("the network's own")), OK),
    Ending("closing fails unread", never_read, _chat(close_error=OSError("the network's own")), GIVEN_UP),
    Ending(
        "a stream that just stops",
        read_to_the_end,
        _chat(HELLO, WORLD),
        Verdict("partial", "unknown", ("partial",)),
    ),
    Ending(
        "an error in the stream",
        read_to_the_end,
        _chat(HELLO, b"data: " + REFUSAL + b"\n\n"),
        replace(BROKEN, error_type="server_error"),
    ),
    Ending(
        "refused by the provider",
        read_whole,
        _json(REFUSAL, status=503),
        Verdict("none", "error", error_type="server_error"),
    ),
    Ending(
        "never connected",
        read_whole,
        _refused("ConnectError"),
        Verdict("none", "error", error_type="ConnectError"),
    ),
    Ending(
        "no answer in time",
        read_whole,
        _refused("ReadTimeout"),
        Verdict("none", "unknown", error_type="ReadTimeout"),
    ),
)
