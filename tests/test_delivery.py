"""Delivery: every sink gets every event, whichever sink, thread or process fails, and nobody waits for it."""

from __future__ import annotations

import gc
import logging
import shutil
import signal
import threading
import time
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import Receiver, Setup, event_of, once, program, run, set_up

from cmdrdata_transport import lanes as lanes_module
from cmdrdata_transport.adopting import Drained, drain
from cmdrdata_transport.dead_letters import dead_letters
from cmdrdata_transport.delivery import Mode
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import Claim, backlog, claim, mark_of, segments

THREADS = pytest.mark.parametrize("mode", ["background", "flush"])


def letters(home: Path, sink: str) -> list[dict[str, Any]]:
    """What was buried."""
    return [decode(line) for line in dead_letters(home, sink).read_bytes().splitlines()]


# --- the plain case ---------------------------------------------------------------------------------


@THREADS
def test_every_sink_gets_every_event(tmp_path: Path, *, mode: Mode) -> None:
    """Three kinds of sink have all events after `flush`, and the journal is empty after `close`."""
    receiver = Receiver()
    setup = set_up(tmp_path, "sqlite:///usage.db", "jsonl:///usage.jsonl", receiver, mode=mode)
    setup.delivery.ensure_running()
    setup.append(1200)
    assert setup.delivery.flush(60)
    assert receiver.got == once(1200)
    assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 1200
    with Ledger.open("sqlite:///usage.db", home=tmp_path) as ledger:
        assert ledger.report([])[0]["events"] == 1200
    assert setup.delivery.close(50)
    assert list(setup.journal.directory.iterdir()) == []
    assert setup.counters.snapshot() == {"delivered": 3600}


def test_what_was_never_asked_for_is_not_started(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """Without an event there is no thread and no file, whoever flushes and closes."""
    setup = set_up(tmp_path, Receiver())
    assert setup.delivery.flush(0)
    assert setup.delivery.close(0)
    assert not started()
    assert list(tmp_path.iterdir()) == []


def test_an_event_arrives_without_a_flush(tmp_path: Path) -> None:
    """The threads look for themselves."""
    arrived = threading.Event()
    setup = set_up(tmp_path, named(lambda _: arrived.set()))
    setup.delivery.ensure_running()
    setup.append(1)
    assert arrived.wait(30)
    setup.delivery.close(50)


def named(function: Callable[[list[UsageEvent]], object], name: str = "receiver") -> Callable[..., object]:
    """A function that a sink can be made of."""
    function.__name__ = name
    return function


def test_a_closed_delivery_can_be_started_again(tmp_path: Path) -> None:
    """A call that is metered after `close` is delivered all the same."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver)
    for first in (0, 5):
        setup.delivery.ensure_running()
        setup.append(5, first)
        assert setup.delivery.close(30)
    assert receiver.got == once(10)


def test_what_is_appended_after_close_is_delivered_by_a_flush(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """A flush of what is closed delivers by itself, and starts no thread."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver)
    setup.delivery.close(1)
    setup.append(5)
    assert setup.delivery.flush(30)
    assert not started()
    assert receiver.got == once(5)


def test_a_dropped_delivery_ends_its_threads(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """A tracker that nobody closed, and nobody has any more, leaves no thread behind."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver)
    setup.delivery.ensure_running()
    (thread,) = started()
    del setup
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_a_dropped_delivery_delivers_first(
    tmp_path: Path, started: Callable[[], list[threading.Thread]]
) -> None:
    """What the tracker that `configure` replaced has recorded reaches that tracker's own sinks."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver)
    setup.delivery.ensure_running()
    (thread,) = started()
    setup.append(5)
    del setup
    gc.collect()
    thread.join(30)
    assert receiver.got == once(5)


# --- sinks that fail --------------------------------------------------------------------------------


@pytest.mark.slow
@THREADS
def test_a_sink_that_fails_is_tried_again(tmp_path: Path, *, mode: Mode) -> None:
    """Any error of a sink is a reason to come back, with one event first, and not to lose or repeat one."""
    receiver = Receiver(raises=[Unavailable("later"), ValueError("a bug"), SystemExit(), CancelledError()])
    setup = set_up(tmp_path, receiver, mode=mode)
    setup.append(10)
    assert setup.delivery.flush(60)
    assert receiver.got == once(10)
    assert [len(each) for each in receiver.asked[:5]] == [10, 1, 1, 1, 1]
    assert setup.counters.snapshot() == {"unavailable": 4, "delivered": 10}
    setup.delivery.close(50)


def test_what_a_sink_took_of_a_batch_is_not_sent_again(tmp_path: Path) -> None:
    """`Unavailable(taken=…)` moves the mark that far."""
    receiver = Receiver(raises=[Unavailable("full", taken=6)])
    setup = set_up(tmp_path, receiver, mode="flush")
    setup.append(10)
    assert setup.delivery.flush(60)
    assert receiver.asked[1] == [6]
    assert receiver.got == once(4, start=6)


@pytest.mark.parametrize(
    ("retry_after", "asked"), [(None, 2), (600.0, 1)], ids=["merely failed", "asked for a pause"]
)
def test_a_flush_does_not_press_a_sink_that_asked_for_a_pause(
    tmp_path: Path, retry_after: float | None, asked: int
) -> None:
    """A flush tries a sink that merely failed at once, and one that asked for time when that is over."""
    receiver = Receiver(raises=[Unavailable("later", retry_after=retry_after)])
    setup = set_up(tmp_path, receiver, mode="flush")
    setup.append(1)
    assert not setup.delivery.flush(0.05)
    assert setup.delivery.flush(0.05) is (asked == 2)
    assert len(receiver.asked) == asked


def test_a_dead_sink_delays_no_other(tmp_path: Path) -> None:
    """While one sink hangs, another has every event, and `close` returns."""
    stuck, freed = threading.Event(), threading.Event()

    def hang(_: list[UsageEvent]) -> None:
        stuck.set()
        freed.wait()

    receiver = Receiver()
    setup = set_up(tmp_path, hang, receiver)
    setup.delivery.ensure_running()
    setup.append(20)
    assert stuck.wait(30)
    assert not setup.delivery.close(0.5)
    assert receiver.got == once(20)
    assert not freed.is_set()
    freed.set()


def test_what_a_dead_sink_did_not_take_is_there_for_the_next_process(tmp_path: Path) -> None:
    """The journal keeps what was not delivered, and the next delivery of the same sink takes it."""
    down = Receiver(raises=[Unavailable("down")] * 1000)
    setup = set_up(tmp_path, down, "jsonl:///usage.jsonl", mode="flush")
    setup.append(20)
    assert not setup.delivery.close(0.2)
    assert [(each.sink, each.events) for each in setup.delivery.backlog()] == [("callable:receiver", 20)]
    up = Receiver()
    after = set_up(tmp_path, up, "jsonl:///usage.jsonl")
    after.delivery.ensure_running()
    wait_for(lambda: up.got == once(20))
    assert after.delivery.close(50)
    assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 20
    assert after.segments() == []


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, or fail."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what a sink refuses ----------------------------------------------------------------------------


def refuse(bad: Counter[int]) -> Callable[[list[UsageEvent]], None]:
    """A sink that refuses a list with one of these in it."""

    def picky(events: list[UsageEvent]) -> None:
        numbers = [int(each.event_id.removeprefix("event-")) for each in events]
        if bad.keys() & numbers:
            raise Rejected("bad number")
        taken.update(numbers)

    taken: Counter[int] = Counter()
    picky.taken = taken  # type: ignore[attr-defined]
    return picky


@THREADS
def test_refused_events_are_buried_with_the_reason(tmp_path: Path, *, mode: Mode) -> None:
    """A refused batch is sent one by one: the good events arrive, the bad ones are buried."""
    picky = refuse(Counter([3, 7]))
    setup = set_up(tmp_path, picky, mode=mode)
    setup.append(10)
    assert setup.delivery.flush(60)
    assert picky.taken == once(10) - Counter([3, 7])  # type: ignore[attr-defined]
    buried = letters(tmp_path, "callable:picky")
    assert [each["event"] for each in buried] == [event_of(3), event_of(7)]
    assert {(each["sink"], each["reason"]) for each in buried} == {("callable:picky", "bad number")}
    assert dead_letters(tmp_path, "callable:picky").stat().st_mode & 0o777 == 0o600
    assert setup.counters.snapshot() == {"delivered": 8, "rejected": 2}
    setup.delivery.close(50)
    assert setup.segments() == []


def test_a_refused_event_that_cannot_be_buried_is_not_lost(tmp_path: Path) -> None:
    """Without a dead-letter file the event stays in the journal, until there is one."""
    setup = set_up(tmp_path, refuse(Counter([0])), mode="flush")
    (tmp_path / "dead").write_text("in the way")
    setup.append(1)
    assert not setup.delivery.flush(0.2)
    (tmp_path / "dead").unlink()
    assert setup.delivery.flush(60)
    assert len(letters(tmp_path, "callable:picky")) == 1


def test_what_is_no_event_is_buried_too(tmp_path: Path) -> None:
    """A line that no sink can read does not stop the others."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver, "sqlite:///usage.db", mode="flush")
    setup.journal.append(b"not json \xff")
    setup.append(2)
    assert setup.delivery.flush(60)
    assert receiver.got == once(2)
    assert letters(tmp_path, "callable:receiver")[0]["event"] == "not json �"
    assert letters(tmp_path, "sqlite:///usage.db")[0]["reason"] == "the event is not a JSON object"


# --- what is logged ---------------------------------------------------------------------------------


def test_a_log_has_no_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a sink says of an event may quote it: the log names the sink and the kind of error."""
    caplog.set_level(logging.DEBUG)
    receiver = Receiver(raises=[ValueError("secret-1"), Rejected("secret-2")])
    setup = set_up(tmp_path, receiver, mode="flush")
    setup.append(1)
    assert setup.delivery.flush(60)
    assert "callable:receiver: ValueError" in caplog.text
    assert "rejected: 1 more" in caplog.text
    assert "secret" not in caplog.text


# --- memory -----------------------------------------------------------------------------------------


def test_what_no_file_takes_is_delivered_from_memory(tmp_path: Path) -> None:
    """On a full disk a sink that needs no disk has every event, once."""
    printed = run(
        """
        import resource
        receiver = Receiver()
        setup = set_up(home, receiver)
        setup.delivery.ensure_running()
        setup.append(5)
        setup.delivery.flush(30)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        setup.append(20, 5)
        print(setup.delivery.flush(30), receiver.got == once(25))
        print(setup.counters.snapshot()["memory_journal"] > 0)
        """,
        tmp_path,
    )
    assert printed == "True True\nTrue\n"


@pytest.mark.slow
def test_what_memory_holds_for_a_dead_sink_is_written_when_there_is_space(tmp_path: Path) -> None:
    """Disk full and sink down at once: later, a segment has what only that sink needs, once."""
    printed = run(
        """
        import resource
        def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        def down(events):
            if not home.joinpath("up").exists(): raise Unavailable("down")
            got.update(int(each.event_id.removeprefix("event-")) for each in events)
        from cmdrdata_transport.errors import Unavailable
        got = Counter()
        receiver = Receiver()
        setup = set_up(home, down, receiver, mode="flush")
        limit(300)
        setup.append(20)
        print(setup.delivery.flush(2), receiver.got == once(20))
        limit(resource.RLIM_INFINITY)
        print(setup.delivery.close(2), [(each.sink, each.events) for each in setup.delivery.backlog()])
        home.joinpath("up").touch()
        print(setup.delivery.flush(30), got == once(20), receiver.got == once(20))
        print("memory_dropped" in setup.counters.snapshot())
        """,
        tmp_path,
    )
    assert printed == "False True\nFalse [('callable:down', 20)]\nTrue True True\nFalse\n"


def test_what_nobody_is_left_to_deliver_from_memory_is_counted(tmp_path: Path) -> None:
    """A disk that stays full and a sink that stays down: `close` says how many events are lost."""
    printed = run(
        """
        import resource
        from cmdrdata_transport.errors import Unavailable
        def down(events): raise Unavailable("down")
        setup = set_up(home, down, mode="flush")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        setup.append(20)
        print(setup.delivery.close(1), setup.counters.snapshot()["memory_dropped"])
        """,
        tmp_path,
    )
    assert printed == "False 20\n"


def test_a_queue_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stays full does not fill memory: what is over is counted."""
    monkeypatch.setattr(lanes_module, "HELD_EVENTS", 3)
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    receiver = Receiver(raises=[Unavailable("down")] * 1000)
    setup = set_up(Path("/dev/null/nowhere"), receiver, mode="flush")
    setup.append(5)
    assert not setup.delivery.flush(0.2)
    assert setup.counters.snapshot()["memory_dropped"] == 2


def test_a_journal_removed_under_a_running_program_is_started_anew(tmp_path: Path) -> None:
    """Somebody deletes the directory: what was being delivered arrives, and what comes is journaled."""
    receiver = Receiver()
    setup = set_up(tmp_path, receiver, mode="flush")
    setup.append(5)
    assert setup.delivery.flush(60)
    shutil.rmtree(setup.journal.directory)
    setup.append(5, 5)
    assert setup.delivery.flush(60)
    assert receiver.got == once(10)
    setup.append(5, 10)
    assert len(setup.segments()) == 1
    assert setup.delivery.flush(60)
    assert receiver.got == once(15)


# --- processes --------------------------------------------------------------------------------------

LEAVE = """
setup = set_up(home, *sys.argv[2:])
setup.append(50)
print(flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(home: Path, *sinks: str) -> None:
    """Have a program journal fifty events and die."""
    process = program(LEAVE, home, *sinks)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def count_lines(path: Path) -> Counter[int]:
    """The events of a file of JSON lines."""
    return Counter(
        int(decode(line)["event_id"].removeprefix("event-")) for line in path.read_bytes().splitlines()
    )


def test_drain_delivers_what_a_killed_program_left(tmp_path: Path) -> None:
    """To all sinks that the segment names, with nothing but home to go by."""
    leave(tmp_path, "sqlite:///usage.db", "jsonl:///usage.jsonl")
    seen: list[tuple[str, int]] = []
    told = drain(tmp_path, environ={}, progress=lambda sink, number: seen.append((sink, number)))
    assert told == [
        Drained(sink=sink, delivered=50, rejected=0, pending=0, live=0, trouble=None)
        for sink in ("jsonl:///usage.jsonl", "sqlite:///usage.db")
    ]
    assert ("sqlite:///usage.db", 50) in seen
    assert count_lines(tmp_path / "usage.jsonl") == once(50)
    assert segments(tmp_path / "journal") == []
    assert drain(tmp_path) == []


def test_drain_removes_what_somebody_delivered_and_was_killed_over(tmp_path: Path) -> None:
    """The last mark is made, and the segment is still there: nothing waits in it, and it takes room."""
    setup = set_up(tmp_path, "jsonl:///usage.jsonl", mode="flush")
    setup.append(5)
    setup.journal.close()
    (segment,) = setup.segments()
    claimed = claim(segment, "jsonl:///usage.jsonl", count=lambda *_: None)
    assert isinstance(claimed, Claim)
    claimed.advance(len(claimed.take(5, 1_000_000)))
    claimed.close()
    assert backlog(segment.parent) == []
    assert drain(tmp_path, environ={}) == []
    assert list(segment.parent.iterdir()) == []


def test_drain_says_what_it_cannot_deliver(tmp_path: Path) -> None:
    """Another program's function cannot be called from here, a sink is down: their events wait."""
    setup = set_up(tmp_path, Receiver(), "https://127.0.0.1:1/events?timeout=1", mode="flush")
    setup.append(5)
    setup.journal.close()
    told = {each.sink: each for each in drain(tmp_path, environ={})}
    function, web = told["callable:receiver"], told["https://127.0.0.1:1/events"]
    assert (function.delivered, function.pending) == (0, 5)
    assert "function" in str(function.trouble)
    assert (web.delivered, web.pending, web.trouble) == (0, 5, "ConnectError")
    assert drain(tmp_path, [Receiver()])[0].delivered == 5


def test_drain_tries_again_until_its_time_is_over(tmp_path: Path) -> None:
    """With a timeout, a sink that fails gets more than one chance."""
    setup = set_up(tmp_path, Receiver(), mode="flush")
    setup.append(5)
    setup.journal.close()
    receiver = Receiver(raises=[Unavailable("soon")])
    assert drain(tmp_path, [receiver], timeout=30)[0].delivered == 5
    assert receiver.got == once(5)
    assert drain(tmp_path, [receiver], timeout=0)[0].delivered == 0


def test_drain_leaves_live_programs_alone(tmp_path: Path) -> None:
    """A program that is at work delivers its events itself; they are counted apart."""
    setup = set_up(tmp_path, "jsonl:///usage.jsonl", mode="flush")
    setup.append(5)
    (told,) = drain(tmp_path, ["jsonl:///usage.jsonl"])
    assert (told.delivered, told.pending, told.live) == (0, 0, 5)
    assert setup.delivery.flush(60)
    assert count_lines(tmp_path / "usage.jsonl") == once(5)


def test_a_sink_given_twice_is_an_error(tmp_path: Path) -> None:
    """It would get every event twice."""
    with pytest.raises(TrackingSetupError, match="twice"):
        drain(tmp_path, ["jsonl:///a.jsonl", "jsonl:///a.jsonl"])
    with pytest.raises(TrackingSetupError, match="scheme"):
        drain(tmp_path, ["gopher://a"])


def test_many_drains_at_once_deliver_once(tmp_path: Path) -> None:
    """Five programs that clear up after four dead ones share the work: a file has each event once."""
    for _ in range(4):
        leave(tmp_path, "jsonl:///usage.jsonl")
    programs = [program("print(sum(each.delivered for each in drain(home)))", tmp_path) for _ in range(5)]
    told = [int(each.communicate(timeout=60)[0]) for each in programs]
    assert sum(told) == 200
    assert count_lines(tmp_path / "usage.jsonl") == Counter(dict.fromkeys(range(50), 4))
    assert segments(tmp_path / "journal") == []


def test_a_running_program_delivers_what_another_left(tmp_path: Path) -> None:
    """No drain is needed where a program with the same sinks runs."""
    leave(tmp_path, "jsonl:///usage.jsonl")
    setup = set_up(tmp_path, "jsonl:///usage.jsonl")
    setup.delivery.ensure_running()
    wait_for(
        lambda: (tmp_path / "usage.jsonl").exists() and count_lines(tmp_path / "usage.jsonl") == once(50)
    )
    setup.delivery.close(50)
    assert setup.segments() == []


def test_a_segment_that_cannot_be_opened_stops_no_other(tmp_path: Path) -> None:
    """One file in the way is counted, and the rest is delivered."""
    (tmp_path / "journal" / "0-0-0.seg").mkdir(parents=True)
    leave(tmp_path, "jsonl:///usage.jsonl")
    setup = set_up(tmp_path, "jsonl:///usage.jsonl", mode="flush")
    setup.append(1, 50)
    assert setup.delivery.flush(60)
    wait_for(lambda: not setup.delivery.flush(0) or count_lines(tmp_path / "usage.jsonl") == once(51))
    assert setup.counters.snapshot()["segment_blocked"] > 0


def test_a_mark_that_cannot_be_made_stops_no_other_sink(tmp_path: Path) -> None:
    """One sink's mark is in the way: its events wait, counted, until it can be made."""
    receiver = Receiver()
    setup = set_up(tmp_path, "jsonl:///usage.jsonl", receiver, mode="flush")
    setup.append(5)
    mark = mark_of(setup.segments()[0], "callable:receiver")
    mark.mkdir()
    assert not setup.delivery.flush(0.1)
    assert count_lines(tmp_path / "usage.jsonl") == once(5)
    assert setup.counters.snapshot()["segment_blocked"] > 0
    mark.rmdir()
    assert setup.delivery.flush(60)
    assert receiver.got == once(5)


def test_a_lane_lets_go_of_a_segment_that_another_has_removed(tmp_path: Path) -> None:
    """The lane that sees the end of a segment first removes it; the other keeps no file of it open."""
    setup = set_up(tmp_path, Receiver("first"), Receiver("second"), mode="flush")
    first, second = setup.delivery._lanes
    setup.append(5)
    (segment,) = setup.segments()
    first.step()
    second.step()
    setup.journal.close()
    second.step()
    assert not segment.exists()
    assert setup.journal.own() == []
    assert first.reads(segment)
    first.step()
    assert not first.reads(segment)


def test_two_who_flush_do_not_deliver_twice(tmp_path: Path) -> None:
    """Without threads, the second waits for the first, no longer than it is told to."""
    stuck, freed = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow(events: list[UsageEvent]) -> None:
        stuck.set()
        freed.wait()
        calls.append(len(events))

    setup = set_up(tmp_path, slow, mode="flush")
    setup.append(5)
    first = threading.Thread(target=setup.delivery.flush)
    first.start()
    assert stuck.wait(60)
    assert not setup.delivery.flush(0.1)
    freed.set()
    first.join()
    assert calls == [5]
    assert setup.delivery.flush(60)


def test_fork_with_live_threads(tmp_path: Path) -> None:
    """Parent and child both go on: each delivers its own events, once, and neither the other's."""
    run(
        """
        setup = set_up(home, "jsonl:///usage.jsonl", "sqlite:///usage.db")
        setup.delivery.ensure_running()
        setup.append(300)
        children = []
        for child in range(1, 4):
            pid = os.fork()
            if pid == 0:
                assert setup.journal.own() == [] and setup.counters.snapshot() == {}
                setup.delivery.ensure_running()
                setup.append(300, child * 1000)
                os._exit(0 if setup.delivery.close(60) else 1)
            children.append(pid)
        setup.append(300, 300)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        assert setup.delivery.close(60)
        """,
        tmp_path,
    )
    expected = once(600) + once(300, 1000) + once(300, 2000) + once(300, 3000)
    assert count_lines(tmp_path / "usage.jsonl") == expected
    with Ledger.open(tmp_path / "usage.db") as ledger:
        assert ledger.report([])[0]["events"] == 1500
    assert segments(tmp_path / "journal") == []


def test_a_child_that_never_records_disturbs_nothing(tmp_path: Path) -> None:
    """A worker that only exits neither delivers what is the parent's nor waits for it."""
    printed = run(
        """
        receiver = Receiver()
        setup = set_up(home, receiver)
        setup.delivery.ensure_running()
        setup.append(10)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if setup.delivery.close(0) and not receiver.got - once(10) else 1)
        print(os.waitpid(pid, 0)[1], setup.delivery.close(60), receiver.got == once(10))
        """,
        tmp_path,
    )
    assert printed == "0 True True\n"


def test_a_child_that_python_knows_nothing_of_is_noticed(tmp_path: Path) -> None:
    """A fork in C that calls no hook: at its first request the child starts anew, and shares nothing."""
    run(
        """
        setup = set_up(home, "jsonl:///usage.jsonl")
        setup.delivery.ensure_running()
        setup.append(10)
        assert setup.delivery.flush(60)
        pid = fork_in_c()
        if pid == 0:
            setup.delivery.ensure_running()
            setup.append(10, 10)
            os._exit(0 if setup.delivery.close(60) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        setup.append(10, 20)
        assert setup.delivery.close(60)
        """,
        tmp_path,
    )
    assert count_lines(tmp_path / "usage.jsonl") == once(30)


def test_exit_delivers_with_or_without_threads(tmp_path: Path) -> None:
    """At interpreter exit no thread may start any more: the thread that exits delivers what is there."""
    run(
        """
        import atexit
        setup = set_up(home, "jsonl:///usage.jsonl")
        atexit.register(setup.delivery.close, 60)
        atexit.register(setup.delivery.ensure_running)
        setup.append(10)
        """,
        tmp_path,
    )
    assert count_lines(tmp_path / "usage.jsonl") == once(10)


def test_a_thread_that_cannot_start_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit of threads has its events journaled, and delivered when it flushes."""

    def refuse_to_start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    receiver = Receiver()
    setup = set_up(tmp_path, receiver)
    setup.delivery.ensure_running()
    setup.append(5)
    assert setup.delivery.flush(60)
    assert receiver.got == once(5)


def test_one_thread_for_each_sink(tmp_path: Path, started: Callable[[], list[threading.Thread]]) -> None:
    """However many threads meter their first call at once."""
    setup = set_up(tmp_path, Receiver(), "jsonl:///usage.jsonl")
    barrier = threading.Barrier(8)

    def begin() -> None:
        barrier.wait()
        setup.delivery.ensure_running()

    starters = [threading.Thread(target=begin) for _ in range(8)]
    for each in starters:
        each.start()
    for each in starters:
        each.join()
    names = sorted(each.name for each in started())
    assert names == ["cmdrdata callable:receiver", "cmdrdata jsonl:///usage.jsonl"]
    setup.delivery.close(30)


def test_two_trackers_of_one_process_share_a_home(tmp_path: Path) -> None:
    """Each has its journal; the same file takes the events of both, once."""
    setups: list[Setup] = [set_up(tmp_path, "jsonl:///usage.jsonl", tracker=name) for name in ("one", "two")]
    for number, setup in enumerate(setups):
        setup.delivery.ensure_running()
        setup.append(100, number * 100)
    assert all(setup.delivery.close(60) for setup in setups)
    assert count_lines(tmp_path / "usage.jsonl") == once(200)
    assert segments(tmp_path / "journal") == []
