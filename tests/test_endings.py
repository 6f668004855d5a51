"""However an answer ends, it gives one event that says what is known, in time for SDKs that stop early."""

from __future__ import annotations

import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from endings import CHAT, ENDINGS, MESSAGES, RESPONSES, TRAILER, USAGE, Ending
from exchange import coded
from four_ways import EVERY, FOUR, URL, App, Script, World, run

from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.httpx2 import TrackedTransport
from cmdrdata_transport.testing import capture_usage

every_ending = pytest.mark.parametrize(
    ("ending", "world"),
    [
        pytest.param(ending, world, id=f"{ending}-{world}")
        for ending in ENDINGS
        for world in EVERY
        if ending.fits(world)
    ],
)
four_ways = pytest.mark.parametrize("world", FOUR, ids=str)


@every_ending
def test_an_ending_gives_one_event_that_says_what_is_known(ending: Ending, world: World) -> None:
    """One event, once, with the status and the outcome of its row, and each loss under its name."""
    verdict = ending.verdict
    done = run(ending.act, world, ending.made_for(world), customer_id="acme")
    (event,) = done.events
    assert (event["usage_status"], event["outcome"]) == (verdict.usage_status, verdict.outcome)
    assert event.get("error_type") == verdict.error_type
    assert event["customer_id"] == "acme"
    counted = {name: number for name, number in done.stats.items() if name not in verdict.perhaps}
    assert counted == {"events": 1, **dict.fromkeys(verdict.counts, 1)}
    if verdict.usage_status == "complete":
        assert (event["input_tokens"], event["output_tokens"], event["total_tokens"]) == (5, 7, 12)
        assert event["raw_usage"] == USAGE
    else:
        assert not any(name.endswith("_tokens") for name in event)


# --- in time ----------------------------------------------------------------------------------------


STREAMS = {
    "openai.chat_completions": (URL, list(CHAT)),
    "openai.responses": ("https://api.openai.com/v1/responses", RESPONSES),
    "anthropic.messages": ("https://api.anthropic.com/v1/messages", MESSAGES),
}
"""For each API that says where a stream ends: where it is asked for, and its events, the last one last."""

every_stream = pytest.mark.parametrize("api", STREAMS)


def _seen(world: World, api: str, chunks: Sequence[bytes], **options: Any) -> list[int]:
    """How many events there were when the application was given each chunk; then it closes."""
    counts: list[int] = []

    async def read(app: App) -> None:
        response = await app.send(url=STREAMS[api][0])
        async for chunk in app.chunks(response):
            assert chunk == chunks[len(counts)]
            counts.append(len(app.events))
            if len(counts) == len(chunks):
                break
        await app.close(response)

    done = run(read, world, Script(body=chunks, **options), customer_id="acme")
    assert done.raised is None
    assert [(each["usage_status"], each["total_tokens"]) for each in done.events] == [("complete", 12)]
    return counts


@every_stream
@four_ways
def test_the_event_is_there_when_the_last_event_is_seen(world: World, api: str) -> None:
    """Ours is written before the chunk that completes the last event is handed up, wherever it is cut."""
    events = STREAMS[api][1]
    body, last = b"".join(events), len(events[-1])
    for place in range(len(body) - last - 30, len(body)):
        assert _seen(world, api, [body[:place], body[place:], TRAILER])[1] == 1


@every_stream
@four_ways
def test_the_event_is_there_when_the_last_event_comes_byte_by_byte(world: World, api: str) -> None:
    """The same, when each byte is a chunk of its own."""
    events = STREAMS[api][1]
    early, late = b"".join(events[:-1]), events[-1]
    chunks = [early, *(late[at : at + 1] for at in range(len(late))), TRAILER]
    counts = _seen(world, api, chunks)
    assert counts[0] == 0
    assert counts[len(late)] == 1


@every_stream
@four_ways
def test_the_event_is_there_when_the_last_event_can_be_decoded(world: World, api: str) -> None:
    """Under gzip it is there as soon as an application could decode the last event, wherever it is cut."""
    events = STREAMS[api][1]
    sent = coded([*events, TRAILER], "gzip")
    body, plain = b"".join(sent), sum(map(len, events))
    headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")]
    for place in range(len(body) - len(b"".join(sent[-3:])), len(body), 3):
        decodable = len(zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body[:place]))
        counts = _seen(world, api, [body[:place], body[place:]], headers=headers)
        assert counts[0] >= (decodable >= plain)
        assert counts[1] == 1


@every_stream
@pytest.mark.parametrize("read", [1, 2, 3])
@four_ways
def test_a_stream_that_was_given_up_says_how_much_of_it_came(world: World, read: int, api: str) -> None:
    """Bytes and chunks are counted as what they are: they say nothing of tokens."""
    url, chunks = STREAMS[api]
    events: list[UsageEvent] = []

    async def read_some(app: App) -> None:
        response = await app.send(url=url)
        left = read
        async for _ in app.chunks(response):
            left -= 1
            if not left:
                break
        await app.close(response)
        events.extend(app.events)

    run(read_some, world, Script(body=[*chunks[:3], b": more\n\n", *chunks[3:]]), customer_id="acme")
    (event,) = events
    if event.usage_status == "partial":
        came = {"delivered_bytes": sum(map(len, chunks[:read])), "delivered_chunks": read}
        assert event.usage.details == came
    else:  # of responses the third chunk is the end
        assert (api, read) == ("openai.responses", 3)
        assert event.usage.details is None


# --- where nobody waits for it ----------------------------------------------------------------------


def test_two_threads_that_end_one_answer_give_one_event() -> None:
    """One thread reads to the end while another closes: whoever is first ends the record, once."""
    answers = 200
    transport = TrackedTransport(
        httpx2.MockTransport(lambda _: httpx2.Response(200, stream=_Chunks())), customer_id="acme"
    )
    with capture_usage() as events, httpx2.Client(transport=transport) as client:
        for _ in range(answers):
            response = client.send(client.build_request("POST", URL), stream=True)
            together = threading.Barrier(2)

            def close(response: httpx2.Response = response, together: threading.Barrier = together) -> None:
                together.wait()
                response.stream.close()  # type: ignore[union-attr]  # a sync client's stream is sync

            closing = threading.Thread(target=close)
            closing.start()
            together.wait()
            chunks = list(response.stream)  # type: ignore[arg-type]  # a sync client's stream is sync
            closing.join()
            assert chunks == list(CHAT)
    assert len(events) == answers


class _Chunks(httpx2.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield from CHAT


AT_EXIT = r"""
import sys
import httpx
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.tracker import Tracker

class Body(httpx.SyncByteStream):
    def __iter__(self):
        yield b"data: {}\n\n"
        yield b"data: {}\n\n"

def print_them(events):
    for event in events:
        print(event.customer_id, event.usage_status, event.outcome)

below = httpx.MockTransport(lambda _: httpx.Response(200, stream=Body()))
tracker = Tracker([print_them], home=sys.argv[1], exit_timeout=50)
client = httpx.Client(transport=TrackedTransport(below, tracker=tracker, customer_id="acme"))
request = client.build_request("POST", "https://api.openai.com/v1/chat/completions")
response = client.send(request, stream=True)
chunks = response.iter_raw()
next(chunks)
"""


def test_an_answer_that_is_open_when_the_process_ends_is_recorded(tmp_path: Path) -> None:
    """The interpreter drops it after the delivery threads have stopped: its event waits in the journal.

    With httpx, because CPython 3.13.0 itself dies of an httpx2 generator that it finds at its own end.
    """
    subprocess.run([sys.executable, "-c", AT_EXIT, str(tmp_path)], check=True)
    (segment,) = tmp_path.rglob("*.seg")
    journal = segment.read_bytes()
    assert journal.count(b'"usage_status":"partial"') == 1
    assert journal.count(b'"customer_id":"acme"') == 1
