"""What the tests of journal, delivery and sinks share: events, whole set-ups, and programs to kill."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from time import sleep
from typing import Any

from cmdrdata_transport.counters import Counters
from cmdrdata_transport.delivery import Delivery, Mode
from cmdrdata_transport.event import FORMAT, UsageEvent, decode, encode
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.segments import Claim, claim, segments
from cmdrdata_transport.sinks import Sink, open_sink
from cmdrdata_transport.syncing import Durability

SINK = "sqlite:///usage.db"


def event_of(number: int, **fields: Any) -> dict[str, Any]:
    """An event whose id is its number."""
    event: dict[str, Any] = {
        "format": FORMAT,
        "event_id": f"event-{number}",
        "timestamp": "2026-11-21T12:00:00.250000Z",
        "customer_id": "acme",
        "provider": "openai",
        "model": "gpt-5",
        "operation": "chat",
        "usage_status": "complete",
        "outcome": "ok",
        "input_tokens": 10,
        "output_tokens": 2,
        "total_tokens": 12,
    }
    return {name: value for name, value in (event | fields).items() if value is not None}


def line_of(number: int, **fields: Any) -> bytes:
    """The same as a line of the journal."""
    return encode(event_of(number, **fields))


def ids_in(lines: Sequence[bytes]) -> Counter[int]:
    """How often each event is there."""
    return Counter(int(decode(line)["event_id"].removeprefix("event-")) for line in lines)


def once(number: int, start: int = 0) -> Counter[int]:
    """So many events, each once."""
    return Counter(range(start, start + number))


@dataclass
class Receiver:
    """A function for events that raises what is in `raises` first, one after the other."""

    name: str = "receiver"
    raises: list[BaseException] = field(default_factory=list)
    asked: list[list[int]] = field(default_factory=list)
    got: Counter[int] = field(default_factory=Counter)

    def __call__(self, events: list[UsageEvent]) -> None:
        """Take them, or raise."""
        numbers = [int(each.event_id.removeprefix("event-")) for each in events]
        self.asked.append(numbers)
        if self.raises:
            raise self.raises.pop(0)
        self.got.update(numbers)


@dataclass
class Setup:
    """One tracker's journal and delivery, without a tracker."""

    home: Path
    journal: Journal
    delivery: Delivery
    counters: Counters

    def append(self, number: int, start: int = 0) -> None:
        """Journal so many events."""
        for each in range(start, start + number):
            self.journal.append(line_of(each))

    def segments(self) -> list[Path]:
        """The segments on disk."""
        return segments(self.journal.directory)


def set_up(
    home: Path,
    *sinks: str | Sink | Callable[[list[UsageEvent]], object],
    mode: Mode = "background",
    durability: Durability = "process",
    environ: dict[str, str] | None = None,
    **options: Any,
) -> Setup:
    """A journal for the sinks and a delivery to them."""
    counters = Counters()
    outlets = {
        each.identity: each for each in (open_sink(sink, home=home, environ=environ or {}) for sink in sinks)
    }
    journal = Journal(home, sinks=list(outlets), counters=counters, **options)
    delivery = Delivery(journal, outlets, counters, mode=mode, durability=durability)
    return Setup(home, journal, delivery, counters)


def journal_at(home: Path, **options: Any) -> tuple[Journal, Counters]:
    """A journal for `SINK`, which nobody delivers."""
    counters = Counters()
    return Journal(home, sinks=[SINK], counters=counters, **options), counters


def read_all(journal: Journal, sink: str = SINK) -> list[bytes]:
    """Every line of the journal's own segments, as a lane would read them."""
    lines: list[bytes] = []
    for own in journal.own():
        claimed = claim(own.path, sink, count=ignore, finished=own.finished)
        assert isinstance(claimed, Claim)
        while taken := claimed.take(100, 2**20):
            lines += taken
            claimed.advance(len(taken))
        claimed.close()
    return lines


def ignore(_name: str, _detail: str) -> None:
    """Counts nothing."""


PRELUDE = """
import atexit, os, resource, sys, time, signal, threading
from pathlib import Path
from cmdrdata_transport.adopting import drain
from journals import *
home = Path(sys.argv[1])
# Whoever measures the coverage of this program writes at its end, whatever limit it has set itself.
atexit.register(resource.setrlimit, resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))
"""


def program(code: str, home: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a program that knows what stands in this module; `home` is its first argument."""
    here = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + dedent(code), str(home), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
        **options,
    )


@contextmanager
def until_killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end, if it has not ended before."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(code: str, home: Path, *arguments: str) -> str:
    """What such a program prints; it has to end well."""
    with program(code, home, *arguments) as process:
        try:
            printed, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0
    return printed


def fork_in_c() -> int:
    """`os.fork`, but Python is told nothing.

    A child has for good what a thread holds just then, and waits for whoever asks for Python's own lock: so
    threads get time to come to rest, and none is to ask.
    """
    sleep(1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    pid = int(ctypes.PyDLL(None).fork())
    sys.setswitchinterval(interval)
    return pid


APPLICATION = """
import httpx, logging
import cmdrdata_transport.sinks.jsonl, cmdrdata_transport.sinks.sqlite  # while this user may read them
from cmdrdata_transport import Tracker
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.httpx import TrackedTransport
BODY = {
    "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-5",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}
warned = Counter()
class Listener(logging.Handler):
    def emit(self, record): warned[record.getMessage().partition(":")[0]] += 1
logging.getLogger("cmdrdata_transport").addHandler(Listener())
def calling(tracker):
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json=BODY))
    return httpx.Client(transport=TrackedTransport(answer, tracker=tracker, customer_id="acme"))
def call(client, number):
    for _ in range(number):
        got = client.post("https://api.openai.com/v1/chat/completions", json={"model": "gpt-5"})
        assert (got.status_code, got.json()) == (200, BODY)
def give_up_rights():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.environ["HOME"] = str(home)
"""


def application(code: str, home: Path, *arguments: str) -> str:
    """What such a program prints, which makes calls; each has to be as it would be without us."""
    return run(APPLICATION + dedent(code), home, *arguments)
