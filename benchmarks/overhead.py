"""What metering costs a call: tracked against bare, in turns, in one run.

    python benchmarks/overhead.py [--rounds N]

Every figure is CPU time of the thread that makes the call: attribution, reading, the event and its
journal write are in it. Delivery is not, another thread does that; what it costs the caller all the
same, in a loop that does nothing else, is the row `delivering meanwhile`: at every write the two
threads hand Python's lock to and fro.

Machines differ and are shared, so a figure is a ratio, of medians over rounds that alternate, and the
bars are ratios, too. Nothing here fails: it prints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, sleep, thread_time
from typing import Any, NamedTuple

import httpx
import httpx2
from openai import OpenAI

import cmdrdata_transport.httpx
import cmdrdata_transport.httpx2
from cmdrdata_transport import Tracker, customer_context
from cmdrdata_transport.syncing import Durability

EVENTS, MANY = 200, 1000

DOCUMENT = json.dumps(
    {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "gpt-5-2026-01-01",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "x" * 1600, "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 400,
            "total_tokens": 419,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
    }
).encode()


def _chat_stream(events: int) -> list[bytes]:
    shared = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "gpt-5-2026-01-01",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }

    def event(choices: list[Any], usage: Any = None) -> bytes:
        body = json.dumps(shared | {"choices": choices, "usage": usage}, separators=(",", ":"))
        return b"data: " + body.encode() + b"\n\n"

    def delta(content: dict[str, str], finish: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}]

    usage = {"prompt_tokens": 19, "completion_tokens": events, "total_tokens": 19 + events}
    return [
        *[event(delta({"content": " hello"}))] * (events - 2),
        event(delta({}, "stop")),
        event([], usage),
        b"data: [DONE]\n\n",
    ]


def _messages_stream() -> list[bytes]:
    def event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | members)}\n\n".encode()

    start = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "usage": {"input_tokens": 19, "cache_read_input_tokens": 0, "output_tokens": 1},
    }
    return [
        event("message_start", message=start),
        *[event("content_block_delta", index=0, delta={"type": "text_delta", "text": " hello"})]
        * (EVENTS - 3),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": EVENTS}),
        event("message_stop"),
    ]


CHAT, LONG_CHAT, MESSAGES = _chat_stream(EVENTS), _chat_stream(MANY), _messages_stream()

ASK = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}

ASK_STREAM = {**ASK, "stream": True}


class Row(NamedTuple):
    """One comparison: what is done, with and without us, how often a round, and the bar for the ratio."""

    name: str
    bare: Callable[[], object]
    tracked: Callable[[], object]
    times: int
    bar: float | None


def answering(library: Any, chunks: list[bytes], kind: str) -> Any:
    """A mock transport whose answers are read chunk by chunk."""

    def pieces() -> Iterator[bytes]:
        yield from chunks

    def answer(_: Any) -> Any:
        headers = {"content-type": kind, "x-request-id": "req_1"}
        return library.Response(200, headers=headers, content=pieces())

    return library.MockTransport(answer)


def plain_call(client: Any) -> Callable[[], object]:
    """One POST, its JSON answer read."""
    return lambda: client.post("https://api.openai.com/v1/chat/completions", json=ASK)


def stream(client: Any, url: str, ask: Any = ASK) -> Callable[[], object]:
    """One POST, its events read as bytes."""

    def run() -> None:
        with client.stream("POST", url, json=ask) as response:
            for _ in response.iter_bytes():
                pass

    return run


def sdk_call(client: OpenAI) -> Callable[[], object]:
    """One plain completion through the openai SDK."""
    return lambda: client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": "Hello"}]
    )


def sdk_stream(client: OpenAI) -> Callable[[], object]:
    """One streamed completion through the openai SDK."""

    def run() -> None:
        for _ in client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "Hello"}], stream=True
        ):
            pass

    return run


def rows(tracker: Tracker, delivering: Tracker) -> Iterator[Row]:
    """Every comparison."""
    chat, messages = "https://api.openai.com/v1/chat/completions", "https://api.anthropic.com/v1/messages"

    def pair(
        library: Any, ours: Any, chunks: list[bytes], kind: str, tracker: Tracker = tracker
    ) -> tuple[Any, Any]:
        bare = library.Client(transport=answering(library, chunks, kind))
        transport = ours.TrackedTransport(answering(library, chunks, kind), tracker=tracker)
        return bare, library.Client(transport=transport)

    for library, ours, bars in (
        (httpx2, cmdrdata_transport.httpx2, (1.45, 1.35, 1.7)),
        (httpx, cmdrdata_transport.httpx, (None, None, None)),
    ):
        name = library.__name__
        bare, tracked = pair(library, ours, [DOCUMENT], "application/json")
        yield Row(f"{name} call, 2 KB JSON", plain_call(bare), plain_call(tracked), 300, bars[0])
        bare, tracked = pair(library, ours, CHAT, "text/event-stream")
        yield Row(f"{name} stream, chat completions", stream(bare, chat), stream(tracked, chat), 60, bars[1])
        bare, tracked = pair(library, ours, LONG_CHAT, "text/event-stream")
        yield Row(f"{name} stream of {MANY} events", stream(bare, chat), stream(tracked, chat), 12, None)
        bare, tracked = pair(library, ours, CHAT, "text/event-stream")
        yield Row(
            f"{name} stream, usage asked for, hidden",
            stream(bare, chat, ASK_STREAM),
            stream(tracked, chat, ASK_STREAM),
            60,
            bars[2],
        )
        bare, tracked = pair(library, ours, MESSAGES, "text/event-stream")
        yield Row(f"{name} stream, messages", stream(bare, messages), stream(tracked, messages), 60, bars[1])
    bare, tracked = pair(httpx2, cmdrdata_transport.httpx2, [DOCUMENT], "application/json", delivering)
    yield Row("httpx2 call, delivering meanwhile", plain_call(bare), plain_call(tracked), 300, None)
    for label, chunks, kind, how, times, bar in (
        ("call", [DOCUMENT], "application/json", sdk_call, 60, 1.04),
        ("stream", CHAT, "text/event-stream", sdk_stream, 3, 1.01),
    ):
        bare, tracked = pair(httpx2, cmdrdata_transport.httpx2, chunks, kind)
        yield Row(
            f"openai SDK {label}",
            how(OpenAI(api_key="none", http_client=bare)),
            how(OpenAI(api_key="none", http_client=tracked)),
            times,
            bar,
        )


def compare(row: Row, rounds: int) -> tuple[float, float, float]:
    """Median microseconds bare and tracked, and the median ratio."""

    def clock(run: Callable[[], object]) -> float:
        began = thread_time()
        for _ in range(row.times):
            run()
        return (thread_time() - began) / row.times * 1e6

    clocks = [(clock(row.bare), clock(row.tracked)) for _ in range(rounds)]
    bare, tracked = (statistics.median(column) for column in zip(*clocks, strict=True))
    return bare, tracked, statistics.median(ours / theirs for theirs, ours in clocks)


def memory_while_passing(tracker: Tracker, chunks: list[bytes], kind: str, url: str) -> int:
    """Bytes that are held at the worst moment beyond what the bare client holds."""
    peaks: list[int] = []
    for wrap in (False, True):
        transport = answering(httpx2, chunks, kind)
        if wrap:
            transport = cmdrdata_transport.httpx2.TrackedTransport(transport, tracker=tracker)
        run = stream(httpx2.Client(transport=transport), url)
        run()
        tracemalloc.start()
        run()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return peaks[1] - peaks[0]


def appending(durability: Durability) -> tuple[float, float]:
    """Microseconds of the clock on the wall to record an event: the median, and one in a thousand."""
    with tempfile.TemporaryDirectory() as home:
        tracker = Tracker([], home=home, durability=durability)

        taken: list[float] = []
        for number in range(20_000):
            began = perf_counter()
            tracker.record(provider="openai", model="gpt-5", usage={"input_tokens": 1})
            taken.append((perf_counter() - began) * 1e6)
            if number % 20 == 0:
                sleep(0.001)
        tracker.close()
        taken.sort()
    return statistics.median(taken), taken[-len(taken) // 1000]


def import_milliseconds() -> float:
    """What importing the package adds to a bare interpreter: the median of fresh processes."""

    def run(code: str) -> float:
        lines = f"from time import perf_counter as c; t = c(); {code}; print(c() - t)"
        return float(subprocess.check_output([sys.executable, "-c", lines]))  # noqa: S603 - our own interpreter

    return statistics.median(run("import cmdrdata_transport") for _ in range(9)) * 1000


def main() -> None:
    """Print every figure beside its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="rounds, each bare and tracked (default: 21)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home, customer_context("acme", metadata={"feature": "chat"}):
        tracker = Tracker([], home=Path(home) / "journal only")
        delivering = Tracker([_ignore], home=Path(home) / "delivering")
        print(f"{'':38} {'bare':>9} {'tracked':>9} {'added':>8} {'ratio':>6} {'bar':>6}")
        for row in rows(tracker, delivering):
            row.bare()
            row.tracked()
            bare, tracked, ratio = compare(row, rounds)
            bar = "" if row.bar is None else f"{row.bar:.2f}"
            times = f"{bare:6.0f} µs {tracked:6.0f} µs {tracked - bare:5.0f} µs"
            print(f"{row.name:38} {times} {ratio:6.3f} {bar:>6}", flush=True)
        chat = "https://api.openai.com/v1/chat/completions"
        for name, chunks, kind in (
            ("a stream of 32 MB", CHAT[:1] * 100_000, "text/event-stream"),
            ("a JSON answer of 100 MB", [b"[" + b"0," * 32_000] * 1_600, "application/json"),
        ):
            held = memory_while_passing(tracker, chunks, kind, chat)
            print(f"memory while {name} passes: {held / 1024:.0f} KiB")
        durabilities: tuple[Durability, ...] = ("process", "fsync")
        for durability in durabilities:
            median, rare = appending(durability)
            print(f"to record an event, {durability}: {median:.0f} µs, one in a thousand {rare:.0f}")
        tracker.close()
        delivering.close()
    print(f"import cmdrdata_transport: {import_milliseconds():.1f} ms (bar: 30)")


def _ignore(_: list[Any]) -> None:
    pass


if __name__ == "__main__":
    main()
