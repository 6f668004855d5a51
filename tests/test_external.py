"""Applications that deliver nothing themselves: another process does, while they run and after they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journals import line_of, until_killed

from cmdrdata_transport import Tracker, TrackingSetupError, UsageEvent, delivery, journal
from cmdrdata_transport.adopting import drain, follow
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.errors import TrackingError
from cmdrdata_transport.journal import LEAST_JOURNAL_BYTES
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import backlog
from cmdrdata_transport.tallies import tallies

LEDGER = "sqlite:///usage.db"

APPLICATION = """
import sys, time
from cmdrdata_transport import Tracker
tracker = Tracker(["sqlite:///usage.db", "jsonl:///usage.jsonl"], home=sys.argv[1], delivery="external")
for line in sys.stdin:
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id=line.strip())
    print("written", flush=True)
"""


def customers(home: Path) -> list[str | None]:
    """Whose events the ledger has."""
    try:
        with Ledger.open(LEDGER, home=home) as ledger:
            return [entry.event.customer_id for entry in ledger.events()]
    except TrackingError:
        return []


def wait_for(home: Path, expected: list[str]) -> None:
    """Until the ledger has these, and the file too."""
    for _ in range(300):
        if customers(home) == expected and len((home / "usage.jsonl").read_bytes().splitlines()) == len(
            expected
        ):
            return
        time.sleep(0.05)
    pytest.fail(f"the ledger has {customers(home)}")


@contextmanager
def following(home: Path) -> Iterator[None]:
    """Somebody who follows."""
    stopped = threading.Event()
    thread = threading.Thread(target=follow, args=(home,), kwargs={"stop": stopped.is_set})
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(50)


@contextmanager
def application(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that only writes."""
    with until_killed(
        subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    ) as process:
        yield process


def use(process: subprocess.Popen[str], customer: str) -> None:
    """Have it write one event; it is in the journal then."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{customer}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"


def test_events_of_a_process_at_work_are_delivered_by_another(tmp_path: Path) -> None:
    """They do not wait for its end, nor for its next event; what it leaves when it is killed follows."""
    with application(tmp_path) as process:
        use(process, "acme")
        with following(tmp_path):
            wait_for(tmp_path, ["acme"])
            use(process, "globex")
            wait_for(tmp_path, ["acme", "globex"])
        use(process, "initech")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with following(tmp_path):
        wait_for(tmp_path, ["acme", "globex", "initech"])
        for _ in range(100):
            if not list((tmp_path / "journal").glob("*.seg")):
                break
            time.sleep(0.1)
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_process_at_work_delivers_nothing_itself(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """It writes its journal, has no thread and opens no sink; `flush` says that nobody has delivered."""
    tracker = Tracker([LEDGER], home=tmp_path, delivery="external")
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    assert not started()
    assert not tracker.flush(0.2)
    assert not (tmp_path / "usage.db").exists()
    (waiting,) = backlog(tmp_path / "journal")
    assert (waiting.events, waiting.live) == (1, False)
    with following(tmp_path):
        assert tracker.flush(50)
    assert customers(tmp_path) == ["acme"]
    tracker.close(0)


def fill(tracker: Tracker) -> int:
    """Record until the journal takes no more, and a few more; how many."""
    before = tracker.stats().get("events", 0)
    while tracker.stats().get("memory_journal", 0) < 5:
        tracker.record(
            provider="x-ai", usage={"input_tokens": 1}, customer_id="acme", metadata={"why": "x" * 10_000}
        )
    return tracker.stats()["events"] - before


def test_what_is_held_in_memory_is_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flush` is not content before that, nor before it is delivered, which others do."""
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.1)
    tracker = Tracker([LEDGER], home=tmp_path, delivery="external", max_journal_bytes=LEAST_JOURNAL_BYTES)
    number = fill(tracker)
    assert not tracker.flush(0)
    drain(tmp_path)
    assert len(customers(tmp_path)) == number - 5
    assert not tracker.flush(1)
    tracker.close(0)
    drain(tmp_path)
    assert customers(tmp_path) == ["acme"] * number
    assert "memory_dropped" not in tracker.stats()


def test_an_application_that_goes_on_waits_for_no_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What memory holds is written while it makes calls; what is wrong is logged, and counts are told."""
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(delivery, "TEND_SECONDS", 0.01)
    tracker = Tracker([LEDGER], home=tmp_path, delivery="external", max_journal_bytes=LEAST_JOURNAL_BYTES)
    number = fill(tracker)
    for _ in range(500):
        drain(tmp_path)
        if customers(tmp_path).count("acme") == number:
            break
        time.sleep(0.02)
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="globex")
    assert customers(tmp_path).count("acme") == number
    assert any(message.startswith("journal_full: ") for message in caplog.messages)
    assert [each.pid for each in tallies(tmp_path) if each.pid] == [os.getpid()]
    tracker.close(0)


def test_what_is_held_in_memory_at_the_end_is_counted_for_each_sink(tmp_path: Path) -> None:
    """Where nothing takes it, it is lost, and is not called held."""
    tracker = Tracker(
        [LEDGER, "jsonl:///usage.jsonl"],
        home=tmp_path,
        delivery="external",
        max_journal_bytes=LEAST_JOURNAL_BYTES,
    )
    number = fill(tracker)
    tracker.close(0)
    assert tracker.stats()["memory_dropped"] == 2 * 5
    with following(tmp_path):
        wait_for(tmp_path, ["acme"] * (number - 5))


def test_the_command_follows_until_it_is_told_to_end(tmp_path: Path) -> None:
    """`cmdrdata-transport drain --follow` runs beside an application, and ends at SIGTERM."""
    command = [sys.executable, "-m", "cmdrdata_transport", "drain", "--follow", "--home", str(tmp_path)]
    environ = {**os.environ, "CMDRDATA_HOME": str(tmp_path)}
    with application(tmp_path) as process:
        use(process, "acme")
        with subprocess.Popen(command, env=environ) as sidecar:
            wait_for(tmp_path, ["acme"])
            use(process, "globex")
            wait_for(tmp_path, ["acme", "globex"])
            sidecar.terminate()
            assert sidecar.wait(20) == 0


def test_who_drains_once_delivers_what_a_process_at_work_has_written(tmp_path: Path) -> None:
    """It need not end for that: such a process leaves it to others, by a clock perhaps."""
    with application(tmp_path) as process:
        use(process, "acme")
        done = {each.sink: (each.delivered, each.pending) for each in drain(tmp_path)}
        assert done == {LEDGER: (1, 0), "jsonl:///usage.jsonl": (1, 0)}


@pytest.mark.parametrize("once", [True, False], ids=["drained once", "followed"])
def test_a_journal_that_names_no_sink_any_more_is_set_aside(tmp_path: Path, once: bool) -> None:  # noqa: FBT001
    """Its begin is lost, so no sink's delivery comes across it; whoever delivers for others does."""
    with application(tmp_path) as process:
        use(process, "acme")
    (segment,) = (tmp_path / "journal").glob("*.seg")
    segment.write_bytes(b"\0" * 100 + segment.read_bytes()[100:])
    counters = Counters()
    if once:
        assert drain(tmp_path, counters=counters) == []
    else:
        follow(tmp_path, stop=lambda: not segment.exists(), counters=counters)
    assert counters.snapshot() == {"torn": 1}
    (piece,) = examine(tmp_path).torn
    assert (piece.path, piece.events) == (segment.with_suffix(".torn"), 1)


def test_nobody_else_can_call_a_function(tmp_path: Path) -> None:
    """A sink that only this program has cannot be delivered to by another."""

    def collect(events: list[UsageEvent]) -> None:
        raise AssertionError(events)

    with pytest.raises(TrackingSetupError, match="cannot call 'callable:collect'"):
        Tracker([collect], home=tmp_path, delivery="external")
    with pytest.raises(TrackingSetupError, match="delivery= takes"):
        Tracker([], home=tmp_path, delivery="later")  # type: ignore[arg-type]


def test_without_threads_flush_delivers(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """Where threads are frozen or die, the end of a handler is the moment, in the handler's own thread."""
    threads: list[int] = []

    def collect(_: list[UsageEvent]) -> None:
        threads.append(threading.get_ident())

    tracker = Tracker([collect, LEDGER], home=tmp_path, delivery="flush")
    for _ in range(2):
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
        assert not started()
        assert tracker.flush(50)
    assert threads == [threading.get_ident()] * 2
    assert customers(tmp_path) == ["acme"] * 2
    tracker.close(1)


def test_an_ordinary_process_at_work_is_left_alone(tmp_path: Path) -> None:
    """Whoever follows delivers nothing of a process that does so itself."""
    tracker = Tracker(["jsonl:///held.jsonl"], home=tmp_path)
    tracker._journal.append(line_of(1))  # its threads have not been started: nothing is delivered yet
    with following(tmp_path):
        time.sleep(1.5)
        assert not (tmp_path / "held.jsonl").exists()
    assert tracker.flush(50)
    tracker.close(1)
