"""Receivers in trouble: nobody else waits for them, every delay has a name, and in the end all is there."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from journals import Receiver, once, set_up
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from receivers import attributes

from cmdrdata_transport import lanes
from cmdrdata_transport.adopting import drain
from cmdrdata_transport.delivery import Mode
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.replaying import letters, resend

GENEROUS = 15.0
"""Seconds beyond what was promised, on a machine with other things to do."""


@dataclass
class Trouble:
    """What a receiver does instead of taking events. `keeps`: it has taken them, and does not say so."""

    does: Callable[[threading.Event], Answer | None]
    counted: str = "unavailable"
    keeps: bool = False


def status(number: int, *headers: tuple[str, str]) -> Callable[[threading.Event], Answer]:
    """It says so."""
    return lambda _: Answer(status=number, headers=headers, body=b"{}")


def wait(over: threading.Event) -> None:
    """It says nothing, until it is all over."""
    over.wait(30)


def dawdle(over: threading.Event) -> Answer:
    """It begins to answer, byte by byte, and does not end."""

    def body() -> Iterator[bytes]:
        while not over.wait(0.02):
            yield b" "

    return Answer(status=500, body=body())


def break_off(_: threading.Event) -> Answer:
    """It says that it has failed, and dies over that."""
    return Answer(status=503, headers=[("content-length", "500")], body=[b"{", b"}"], close_after=1)


TROUBLES = {
    "is gone": Trouble(lambda _: None),
    "hangs": Trouble(wait),
    "dawdles": Trouble(dawdle),
    "closes in the middle": Trouble(break_off),
    "takes and fails": Trouble(status(500), keeps=True),
    "takes and is gone": Trouble(lambda _: None, keeps=True),
    "429": Trouble(status(429)),
    "429 for a second": Trouble(status(429, ("retry-after", "1"))),
    "500": Trouble(status(500)),
    "503": Trouble(status(503)),
    "401": Trouble(status(401), counted="unauthorized"),
    "403": Trouble(status(403), counted="unauthorized"),
    "404": Trouble(status(404)),
    "400": Trouble(status(400), counted="rejected"),
}


@dataclass
class Server:
    """A receiver of both kinds of HTTP, in trouble at first."""

    trouble: Trouble
    well: threading.Event = field(default_factory=threading.Event)
    taken: dict[str, Counter[int]] = field(default_factory=lambda: {"http": Counter(), "otlp": Counter()})

    def __call__(self, call: Call) -> Answer | None:
        """Take the events, or be in trouble."""
        well = self.well.is_set()
        if well or self.trouble.keeps:
            kind, numbers = _events_in(call)
            self.taken[kind].update(numbers)
        return Answer(status=200, body=b"") if well else self.trouble.does(self.well)


def _events_in(call: Call) -> tuple[str, list[int]]:
    if call.path == "/in":
        return "http", [_number(decode(call.body)["event_id"])]
    if call.path != "/v1/logs":
        return "otlp", []
    (resource,) = ExportLogsServiceRequest.FromString(call.body).resource_logs
    records = [record for scope in resource.scope_logs for record in scope.log_records]
    return "otlp", [_number(attributes(each)["cmdrdata.event_id"]) for each in records]


def _number(event_id: str) -> int:
    return int(event_id.removeprefix("event-"))


@contextmanager
def within(seconds: float) -> Generator[None]:
    """It takes no longer, which is to say that nobody waits for what never comes."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + GENEROUS


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, or fail."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


SOME = {"hangs", "takes and fails", "401", "400"}
"""What stands for the others where time is short."""

CASES = [
    pytest.param(mode, name, marks=() if mode == "flush" and name in SOME else pytest.mark.slow)
    for mode in ("background", "flush")
    for name in TROUBLES
]


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_a_receiver_in_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, name: str
) -> None:
    """Others have all events meanwhile, `flush` is back in its time, and afterwards each is there."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE_SECONDS", 0.01)
    server, other = Server(TROUBLES[name]), Receiver("other")
    with Loopback(server) as listening:
        sinks = (
            f"{listening.url}/in?timeout=5",
            f"otlp+{listening.url}?timeout=5&compression=none",
            "jsonl:///usage.jsonl",
            other,
        )
        setup = set_up(tmp_path, *sinks, mode=mode)
        setup.delivery.ensure_running()
        setup.append(4)

        def told() -> bool:
            with within(0.6):
                done = setup.delivery.flush(0.6)
            assert server.trouble.counted == "rejected" or not done
            return done or (server.trouble.counted in setup.counters.snapshot() and not letters(tmp_path))

        wait_for(told)
        assert other.got == once(4)
        assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 4
        server.well.set()
        for each in letters(tmp_path):
            (reason,) = each.reasons
            assert reason.endswith("status 400")
            assert resend(tmp_path, each) == 4
            drain(tmp_path, sinks[:2], timeout=30)
        wait_for(lambda: setup.delivery.flush(20) and all(map(once(4).__le__, server.taken.values())))
        assert setup.delivery.close(30)
    if not server.trouble.keeps:
        assert server.taken == {"http": once(4), "otlp": once(4)}
    assert other.got == once(4)
    assert setup.segments() == []
    assert letters(tmp_path) == []


# --- the time of others -----------------------------------------------------------------------------


@pytest.mark.slow
def test_sinks_that_hang_leave_the_others_their_time(tmp_path: Path) -> None:
    """One thread delivers to all: many that hang take no more together than the caller allows."""
    server, other = Server(TROUBLES["hangs"]), Receiver("other")
    with Loopback(server) as listening:
        hanging = [f"{listening.url}/in/{number}?timeout=60" for number in range(12)]
        setup = set_up(tmp_path, *hanging, other, "jsonl:///a.jsonl", mode="flush")
        setup.append(3)
        with within(1.5):  # and not twelve times that
            assert not setup.delivery.flush(1.5)
        assert other.got == once(3)
        assert len((tmp_path / "a.jsonl").read_bytes().splitlines()) == 3
        setup.journal.close()
        setup.delivery.close(0)
        with within(1.5):
            drained = drain(tmp_path, [*hanging, "jsonl:///b.jsonl"], timeout=1.5)
        assert [each.trouble is None for each in drained] == [False] * 12 + [True]
        server.well.set()


@pytest.mark.parametrize("refuses", [True, False], ids=["one by one", "batch by batch"])
def test_a_sink_that_is_slow_is_asked_no_longer_than_the_caller_allows(
    tmp_path: Path, *, refuses: bool
) -> None:
    """What it has taken or refused by then is done with; the rest waits."""
    asked: list[int] = []

    def slow(events: list[UsageEvent]) -> None:
        asked.append(len(events))
        time.sleep(0.05)
        if refuses:
            raise Rejected("never")

    setup = set_up(tmp_path, slow, mode="flush", segment_bytes=2000)
    setup.append(200)
    assert not setup.delivery.flush(0.3)
    assert len(asked) < 15
    waiting = sum(each.events for each in setup.delivery.backlog())
    counted = setup.counters.snapshot()
    assert waiting + counted.get("rejected", 0) + counted.get("delivered", 0) == 200
    assert 0 < waiting < 200


# --- pauses -----------------------------------------------------------------------------------------


def pauses(home: Path, monkeypatch: pytest.MonkeyPatch, number: int, **said: float) -> list[float]:
    """How long a sink that stays down is left alone between two attempts, by a clock of our own."""
    now, asked = [1000.0], list[float]()
    monkeypatch.setattr(lanes, "monotonic", lambda: now[0])

    def down(_: list[UsageEvent]) -> None:
        asked.append(now[0])
        raise Unavailable("down", **said)  # type: ignore[arg-type]

    setup = set_up(home, down, mode="flush")
    setup.append(1)
    (lane,) = setup.delivery._lanes
    while len(asked) <= number:
        lane.step()
        now[0] += 0.01 if now[0] < 1070 else 0.25
    return [second - first for first, second in itertools.pairwise(asked)]


def test_pauses_double_up_to_a_minute_and_are_no_two_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is by chance between a half and the whole of what it may be: a fleet does not come back as one."""
    waited = pauses(tmp_path, monkeypatch, 14)
    most = [min(60.0, 0.5 * 2**number) for number in range(14)]
    parts = [pause / whole for pause, whole in zip(waited, most, strict=True)]
    assert all(0.5 <= part <= 1.05 for part in parts)
    assert max(parts[2:]) - min(parts[2:]) > 0.1
    other = pauses(tmp_path / "other", monkeypatch, 14)
    assert sum(abs(one - two) > 0.02 for one, two in zip(waited, other, strict=True)) > 5


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(5.0, 5.0, 5.3), (0.0, 0.25, 0.52), (10**9, 900.0, 900.6), (-3.0, 0.25, 0.52)],
)
def test_a_pause_that_is_asked_for_is_kept_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: float, least: float, most: float
) -> None:
    """Not before that, and not for days."""
    (waited,) = pauses(tmp_path, monkeypatch, 1, retry_after=asked)
    assert least <= waited <= most
