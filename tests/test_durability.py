"""`durability="fsync"`: the disk is given what is in the journal, soon, and nobody waits for it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from journals import Receiver, Setup, set_up

from cmdrdata_transport import Tracker, TrackingSetupError
from cmdrdata_transport.sinks.sqlite import connect


@dataclass
class Disk:
    """What the disk has been given: how much of each file, by its number; `trouble` comes before."""

    has: dict[int, int] = field(default_factory=dict[int, int])
    trouble: Callable[[], None] = lambda: None

    def fsync(self, fd: int) -> None:
        """As `os.fsync`."""
        self.trouble()
        found = os.fstat(fd)
        self.has[found.st_ino] = found.st_size

    def has_all(self, *paths: Path) -> bool:
        """Whether nothing of these files would be lost."""
        return all(self.has.get(each.stat().st_ino) == each.stat().st_size for each in paths)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that tells what it was given."""
    made = Disk()
    monkeypatch.setattr(os, "fsync", made.fsync)
    return made


def journaling(home: Path, number: int, **options: Any) -> Setup:
    """A set-up at work whose sink takes nothing, with so many events."""
    down = Receiver(raises=[OSError()] * 1000)
    setup = set_up(home, down, durability="fsync", **options)
    setup.delivery.ensure_running()
    setup.append(number)
    return setup


def soon(holds: Callable[[], bool]) -> bool:
    """Whether it is so within some seconds."""
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_the_disk_is_given_every_event(tmp_path: Path, disk: Disk) -> None:
    """Whatever segment it is in, finished or not, and the directory in which that has its name."""
    setup = journaling(tmp_path, 50, segment_bytes=4000)
    assert len(setup.segments()) > 3
    assert soon(lambda: disk.has_all(*setup.segments()))
    assert (tmp_path / "journal").stat().st_ino in disk.has
    assert tmp_path.stat().st_ino in disk.has
    setup.append(1, start=50)
    assert soon(lambda: disk.has_all(*setup.segments()))
    setup.delivery.close(0)


def test_no_answer_waits_for_the_disk(tmp_path: Path, disk: Disk) -> None:
    """While the disk takes its time, events are written as ever; they are in its next turn."""
    turn, asked = threading.Event(), threading.Event()

    def slow() -> None:
        asked.set()
        turn.wait(20)

    disk.trouble = slow
    setup = journaling(tmp_path, 1)
    assert asked.wait(20)
    setup.append(500, start=1)  # would wait here for ever
    assert not disk.has
    turn.set()
    assert soon(lambda: disk.has_all(*setup.segments()))
    setup.delivery.close(0)


def test_a_disk_that_fails_is_counted_and_a_new_segment_begun(tmp_path: Path, disk: Disk) -> None:
    """After an error nobody knows what the disk has: what comes goes to a file without a past."""

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.trouble = fail
    setup = journaling(tmp_path, 1)
    assert soon(lambda: setup.counters.snapshot().get("sync_failed", 0) > 0)
    disk.trouble = lambda: None
    setup.append(1, start=1)
    assert len(setup.segments()) == 2
    assert soon(lambda: disk.has_all(*setup.segments()))
    setup.delivery.close(0)


def test_without_threads_the_disk_is_given_it_by_flush(
    tmp_path: Path, disk: Disk, started: Callable[[], list[threading.Thread]]
) -> None:
    """Before it is delivered, so that what no sink takes is safe when `flush` returns."""
    down = Receiver(raises=[OSError()] * 1000)
    setup = set_up(tmp_path, down, durability="fsync", mode="flush")
    setup.delivery.ensure_running()
    setup.append(3)
    assert not started()
    assert not disk.has
    assert not setup.delivery.flush(0.1)
    assert disk.has_all(*setup.segments())


def test_close_gives_the_disk_the_rest(
    tmp_path: Path, disk: Disk, started: Callable[[], list[threading.Thread]]
) -> None:
    """The end of a process leaves nothing to the next tenth of a second."""
    setup = journaling(tmp_path, 3)
    setup.delivery.close(0)
    assert disk.has_all(*setup.segments())
    assert soon(lambda: not started())


def test_a_forked_child_gives_the_disk_its_own(tmp_path: Path) -> None:
    """The parent's thread is not in the child, which starts another."""
    setup = journaling(tmp_path, 1)
    (parents,) = setup.segments()
    if (child := os.fork()) == 0:
        given = Disk()
        os.fsync = given.fsync  # type: ignore[assignment]  # as the journal calls it
        setup.delivery.ensure_running()
        setup.append(1, start=1)
        own = next(each for each in setup.segments() if each != parents)
        os._exit(0 if soon(lambda: given.has_all(own)) and not given.has_all(parents) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    setup.delivery.close(0)


def test_by_default_the_journal_waits_for_the_system(tmp_path: Path, disk: Disk) -> None:
    """Nobody asked for more than to survive the process, and the thread for more is not there."""
    setup = set_up(tmp_path, Receiver(raises=[OSError()] * 1000))
    setup.delivery.ensure_running()
    setup.append(3)
    assert not setup.delivery.flush(0.3)
    setup.delivery.close(0)
    assert not disk.has.keys() & {each.stat().st_ino for each in setup.segments()}


def test_the_journal_forgets_only_what_the_disk_has_of_a_file_of_ours(tmp_path: Path, disk: Disk) -> None:
    """A segment is removed when its sinks have taken it: those on this machine have given it to the disk."""
    setup = set_up(tmp_path, "jsonl:///usage.jsonl", mode="flush")
    setup.append(3)
    assert setup.delivery.flush(50)
    assert disk.has_all(tmp_path / "usage.jsonl")
    with closing(connect(tmp_path / "usage.db")) as ledger:
        assert ledger.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: with every commit


def test_a_tracker_takes_it_as_an_option(tmp_path: Path, disk: Disk) -> None:
    """One of two words; anything else is an error that names them."""
    tracker = Tracker(["https://127.0.0.1:1/events"], home=tmp_path, durability="fsync", exit_timeout=0)
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    assert soon(lambda: disk.has_all(*(tmp_path / "journal").glob("*.seg")))
    tracker.close(0)
    with pytest.raises(TrackingSetupError, match='durability= takes "process" or "fsync"'):
        Tracker([], home=tmp_path, durability="disk")  # type: ignore[arg-type]
