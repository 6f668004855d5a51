"""Sinks and disks that are away for long: nothing of ours grows in the process, and nothing is mistaken."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import pytest
from journals import Receiver, journal_at, line_of, once, run, set_up

from cmdrdata_transport.dead_letters import write_dead_letter
from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.lanes import OPEN_AT_ONCE
from cmdrdata_transport.sinks import open_sink
from cmdrdata_transport.tallies import Tallies


def open_files(below: Path) -> list[Path]:
    """The files below a directory that this process has open."""
    found: list[Path] = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # what has listed them is one of them
            found.append(each.readlink())
    return [each for each in found if each.is_relative_to(below)]


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing here says what is open")


@needs_proc
def test_a_sink_that_is_down_for_long_takes_few_files(tmp_path: Path) -> None:
    """However many segments wait for it; and when it is back it has every event, once."""
    receiver = Receiver(raises=[Unavailable("down") for _ in range(3)])
    setup = set_up(tmp_path, receiver, mode="flush", segment_bytes=1000)
    setup.append(200)
    assert len(setup.segments()) > 2 * OPEN_AT_ONCE
    assert not setup.delivery.flush(0.2)
    assert 0 < len(open_files(tmp_path)) <= 2 * OPEN_AT_ONCE
    assert setup.delivery.flush(60)
    assert receiver.got == once(200)
    assert setup.delivery.close(50)
    assert setup.segments() == []


@pytest.mark.slow
def test_a_segment_that_is_removed_before_its_turn_is_missed(tmp_path: Path) -> None:
    """The one that is being written: what comes next goes to another, and the loss is counted."""
    receiver = Receiver(raises=[Unavailable("down") for _ in range(3)])
    setup = set_up(tmp_path, receiver, mode="flush", segment_bytes=1000)
    setup.append(200)
    setup.journal.close()
    setup.append(1, 200)
    (written,) = [own for own in setup.journal.own() if not own.finished()]
    assert not setup.delivery.flush(0.2)
    written.path.unlink()
    assert not setup.delivery.flush(0.2)
    assert setup.counters.snapshot()["segment_removed"] == 1
    setup.append(1, 201)
    assert setup.delivery.flush(60)
    assert receiver.got == once(200) + once(1, 201)


@needs_proc
def test_a_file_system_without_locks_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt that fails there leaves nothing open, of which there would be more every second."""

    def refuse(_descriptor: int, _how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    journal, counters = journal_at(tmp_path)
    outlet = open_sink("jsonl:///usage.jsonl", home=tmp_path, environ={})
    journal.append(line_of(1))
    with pytest.raises(Unavailable):
        outlet.send([line_of(1)])
    with pytest.raises(OSError, match="no locks here"):
        write_dead_letter(tmp_path, "callable:picky", line_of(1), "never")
    Tallies(tmp_path, tracker="default", service=None).keep({"events": 1}, now=True)
    assert counters.snapshot()["journal_failed"] == 1
    assert open_files(tmp_path) == []


def test_what_a_thread_that_hung_has_taken_is_not_mistaken_for_what_came_later(tmp_path: Path) -> None:
    """A full disk, a sink that hangs, and a close in the middle: what came after that waits, and arrives."""
    printed = run(
        """
        def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        def until(condition):
            deadline = time.monotonic() + 50
            while not condition() and time.monotonic() < deadline: time.sleep(0.01)
        entered, hanging, slow, quick = threading.Event(), threading.Event(), Receiver(), Receiver("quick")
        def slowly(events):
            entered.set()
            hanging.wait(50)
            slow(events)
        setup = set_up(home, slowly, quick)
        setup.delivery.ensure_running()
        limit(300)
        setup.append(1)
        print(entered.wait(50))
        limit(resource.RLIM_INFINITY)
        setup.delivery.close(0.1)
        setup.delivery.ensure_running()
        limit(300)
        setup.append(1, 1)
        until(lambda: quick.got[1])
        hanging.set()
        until(lambda: slow.got[0])
        limit(resource.RLIM_INFINITY)
        print(setup.delivery.close(50), set(slow.got) == set(quick.got) == {0, 1})
        """,
        tmp_path,
    )
    assert printed == "True\nTrue True\n"
