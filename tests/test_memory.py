"""A body of any size passes in a bounded memory.

Measured with tracemalloc, against a bare client that does the same. Two things are measured: what is
*held* whenever a chunk has reached the application, which is what a body costs while it passes, and the
*peak* in between, when a stretch of it is read. orjson asks for some thirteen bytes of address space for
each byte that it parses, and touches few of them; that is most of a peak.
"""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from endings import CHAT, COUNTS, DOCUMENT, HELLO, JSON, delta
from four_ways import ASYNCIO, FOUR, SYNC, URL, App, Script, World, run

from cmdrdata_transport.body import LARGEST_DOCUMENT, LARGEST_REFUSAL

KIB, MIB = 1024, 1024 * 1024

CHUNK = 64 * KIB
"""What httpcore reads from a socket at once."""

HELD = 256 * KIB
"""What a passing body may cost, beside the largest event in it."""

READ = 18
"""What it may cost for a moment to read an event, as a multiple of it: copies, and what orjson asks for."""

SMALL = 4 * MIB
"""Enough for a stream of small events, of which tracemalloc makes much work."""

MESSAGES = "https://api.anthropic.com/v1/messages"
RESPONSES = "https://api.openai.com/v1/responses"
SSE = (("content-type", "text/event-stream"),)
GZIP = ("content-encoding", "gzip")
FILL = b"x" * CHUNK
LONG = delta("x" * 4000)


@dataclass(frozen=True, slots=True)
class Body:
    """Chunks that are made while they are read, as often as they are asked for."""

    make: Callable[[], Iterator[bytes]]

    def __iter__(self) -> Iterator[bytes]:
        return self.make()


def a_document(size: int) -> Body:
    """A plain answer whose text is this long."""
    middle = DOCUMENT.index(b"Hello")

    def make() -> Iterator[bytes]:
        yield DOCUMENT[:middle]
        for _ in range(size // CHUNK):
            yield FILL
        yield DOCUMENT[middle:]

    return Body(make)


def many_events(size: int, event: bytes = HELLO) -> Body:
    """A stream of small events, many to a chunk, cut anywhere."""
    block = (event * (CHUNK // len(event) + 1))[:CHUNK]
    whole, rest = divmod(CHUNK, len(event))

    def make() -> Iterator[bytes]:
        left = b""
        for _ in range(size // CHUNK):
            yield left + block[: whole * len(event)] + event[:rest]
            left = event[rest:]
        yield left
        yield from CHAT

    return Body(make)


def large_events(size: int, each: int) -> Body:
    """A stream of large events, each in many chunks."""
    event = delta("x" * each)

    def make() -> Iterator[bytes]:
        for _ in range(size // each):
            for start in range(0, len(event), CHUNK):
                yield event[start : start + CHUNK]
        yield from CHAT

    return Body(make)


def one_event(size: int) -> Body:
    """A stream whose first event is this large; the counts come behind it."""

    def make() -> Iterator[bytes]:
        yield b'data: {"x": "'
        for _ in range(size // CHUNK):
            yield FILL
        yield b'"}\n\n'
        yield from CHAT

    return Body(make)


def blanks(size: int) -> Body:
    """A body that never says anything."""
    return Body(lambda: iter([b" " * CHUNK] * (size // CHUNK)))


def bomb(body: Body) -> list[bytes]:
    """The body, gzipped: a thousandth of it, in chunks."""
    encoder = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    sent = b"".join(encoder.compress(chunk) for chunk in body) + encoder.flush()
    return [sent[start : start + CHUNK] for start in range(0, len(sent), CHUNK)]


@dataclass(frozen=True, slots=True)
class Passing:
    """A body, the largest event or document in it that is kept, and what comes of it."""

    name: str
    body: Iterable[bytes]
    largest: int
    headers: tuple[tuple[str, str], ...] = SSE
    counts: tuple[str, ...] = ()
    usage_status: str = "complete"
    url: str = URL
    status: int = 200

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


MISSING = ("missing",)

PASSING = (
    Passing("a document", a_document(8 * MIB), 8 * MIB, JSON),
    Passing("a document beyond reading", a_document(100 * MIB), LARGEST_DOCUMENT, JSON),
    Passing("a stream", many_events(SMALL), 0),
    Passing("a stream of messages", many_events(SMALL), 0, SSE, MISSING, "missing", MESSAGES),
    Passing("a stream of responses", many_events(SMALL), 0, SSE, MISSING, "missing", RESPONSES),
    Passing("a stream with CRLF", many_events(SMALL, HELLO.replace(b"\n", b"\r\n")), 0),
    Passing("a stream that repeats its counts", many_events(MIB, COUNTS), 0),
    Passing("a stream of large events", large_events(10 * MIB, MIB), MIB),
    Passing("a stream with a large event", one_event(10 * MIB), 10 * MIB),
    Passing("a stream with one beyond reading", one_event(100 * MIB), LARGEST_DOCUMENT, SSE, ("too_large",)),
    Passing("a refusal", a_document(100 * MIB), LARGEST_REFUSAL, JSON, (), "none", status=500),
    Passing("blanks", blanks(20 * MIB), 0, JSON, MISSING, "missing"),
    Passing(
        "noise", Body(lambda: iter([b"<html>", *[FILL] * 1600])), 0, (), ("unparsed", "missing"), "missing"
    ),
    Passing(
        "a sound",
        Body(lambda: (bytes(CHUNK) for _ in range(160))),
        0,
        (("content-type", "audio/mpeg"),),
        ("unparsed", "missing"),
        "missing",
    ),
    Passing("a bomb", bomb(a_document(100 * MIB)), LARGEST_DOCUMENT, (*JSON, GZIP)),
    Passing("a bomb of events", bomb(many_events(SMALL)), 0, (*SSE, GZIP)),
    Passing("a bomb of blanks", bomb(blanks(20 * MIB)), 0, (*JSON, GZIP), MISSING, "missing"),
)


WORLDS = [
    *(pytest.param(each, marks=pytest.mark.slow) for each in (SYNC[0], ASYNCIO[1])),
    SYNC[1],
    ASYNCIO[0],
]


@pytest.mark.parametrize("passing", PASSING, ids=str)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_a_body_passes_in_a_bounded_memory(world: World, passing: Passing) -> None:
    """No more than the largest event in it is held, and no more than that is read at once."""
    measured = []
    for tracked in (False, True):
        held = peak = 0

        async def look(app: App) -> None:
            nonlocal held, peak
            response = await app.send(url=passing.url)
            app.log.clear()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            async for chunk in app.chunks(response):
                app.log.clear()
                now, highest = tracemalloc.get_traced_memory()
                held, peak = max(held, now - len(chunk) - before), max(peak, highest - before)
            await app.close(response)
            peak = max(peak, tracemalloc.get_traced_memory()[1] - before)

        script = Script(body=passing.body, headers=passing.headers, status=passing.status)
        options: dict[str, Any] = {"customer_id": "acme"} if tracked else {}
        tracemalloc.start()
        try:
            done = run(look, world, script, tracked=tracked, **options)
        finally:
            tracemalloc.stop()
        assert done.raised is None
        measured.append((held, peak))
    (bare_held, bare_peak), (held, peak) = measured
    assert [event["usage_status"] for event in done.events] == [passing.usage_status]
    assert done.stats == {"events": 1, **dict.fromkeys(passing.counts, 1)}
    assert held - bare_held <= HELD + passing.largest
    assert peak - bare_peak <= 2 * HELD + READ * passing.largest


@pytest.mark.parametrize(
    "body",
    [
        pytest.param((a_document(100 * MIB), JSON, "complete"), id="a document"),
        pytest.param((many_events(100 * MIB, LONG), SSE, "complete"), id="a stream"),
        pytest.param((bomb(many_events(100 * MIB, LONG)), (*SSE, GZIP), "complete"), id="a bomb of events"),
    ],
)
@pytest.mark.parametrize("world", FOUR, ids=str)
def test_a_hundred_megabytes_arrive_as_they_were_sent(world: World, body: Any) -> None:
    """Byte for byte, and what stands at their end is read."""
    chunks, headers, usage_status = body
    sums = [0, 0]

    async def look(app: App) -> None:
        response = await app.send()
        async for chunk in app.chunks(response):
            app.log.clear()
            sums[0] = zlib.crc32(chunk, sums[0])
        await app.close(response)

    done = run(look, world, Script(body=chunks, headers=headers), customer_id="acme")
    for chunk in chunks:
        sums[1] = zlib.crc32(chunk, sums[1])
    assert done.raised is None
    assert sums[0] == sums[1]
    assert [event["usage_status"] for event in done.events] == [usage_status]
