"""`max_journal_bytes`: at the bound the newest events are not written, and what is written stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from journals import Receiver, ids_in, journal_at, line_of, once, read_all, set_up

from cmdrdata_transport import Tracker, TrackingSetupError, journal
from cmdrdata_transport import lanes as lanes_module

BOUND = 16_000
"""For some fifty events, in segments of a few each."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a second before the bound is looked at again."""
    monkeypatch.setattr(journal, "RETRY_SECONDS", 0.0)


def test_at_the_bound_the_newest_are_held_in_memory(tmp_path: Path) -> None:
    """What is written stays, from the first on; the segments go over the bound by one at most."""
    written, counters = journal_at(tmp_path, max_bytes=BOUND)
    for number in range(100):
        written.append(line_of(number))
    kept = 100 - written.held
    taken = sum(each.stat().st_size for each in written.directory.glob("*.seg"))
    assert 30 < kept < 90
    assert BOUND <= taken <= BOUND * 9 / 8 + 1000
    assert ids_in(read_all(written)) == once(kept)
    assert ids_in(written.take_held()) == once(100 - kept, start=kept)
    assert counters.snapshot() == {"journal_full": 100 - kept, "memory_journal": 100 - kept}


def test_all_processes_of_a_home_share_the_bound(tmp_path: Path) -> None:
    """What another has left counts, whoever will deliver it."""
    other, _ = journal_at(tmp_path)
    for number in range(100):
        other.append(line_of(number))
    mine, counters = journal_at(tmp_path, max_bytes=BOUND)
    mine.append(line_of(0))
    assert (mine.held, counters.snapshot()["journal_full"]) == (1, 1)


def test_what_is_held_is_delivered_when_the_sink_is_back(tmp_path: Path) -> None:
    """Everything arrives once, though the journal had no room for all of it; then it has room again."""
    receiver = Receiver(raises=[OSError()] * 3)
    setup = set_up(tmp_path, receiver, mode="flush", max_bytes=BOUND)
    setup.append(100)
    assert setup.delivery.flush(30)
    assert receiver.got == once(100)
    setup.append(1, start=100)
    assert setup.counters.snapshot()["journal_full"] < 100
    assert setup.journal.held == 0
    assert setup.delivery.close(30)
    assert receiver.got == once(101)
    assert setup.segments() == []


def test_what_memory_does_not_hold_either_is_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that stays away for long: memory is bounded too, and every event that is lost is counted."""
    monkeypatch.setattr(journal, "HELD_EVENTS", 10)
    monkeypatch.setattr(lanes_module, "HELD_EVENTS", 10)
    receiver = Receiver(raises=[OSError()] * 50)
    setup = set_up(tmp_path, receiver, mode="flush", max_bytes=BOUND)
    setup.append(200)
    assert not setup.delivery.flush(0.2)
    receiver.raises.clear()
    assert setup.delivery.close(30)
    counts = setup.counters.snapshot()
    arrived = len(receiver.got)
    assert receiver.got == once(arrived)
    assert counts["memory_dropped"] == 200 - arrived > 0


@pytest.mark.parametrize("wrong", [0, -1, 1000, 1.5e9, True, "1GB"])
def test_a_bound_that_is_none_is_an_error(tmp_path: Path, wrong: Any) -> None:
    """It says what to write; a bound for a few events only is meant otherwise, too."""
    with pytest.raises(TrackingSetupError, match="max_journal_bytes= takes a number of bytes from 1048576"):
        Tracker([], home=tmp_path, max_journal_bytes=wrong)


def test_a_tracker_takes_it_as_an_option(tmp_path: Path) -> None:
    """The events of its calls are bounded by it."""
    for number, waiting in enumerate((0, 2**20)):
        home = tmp_path / str(number)
        (home / "journal").mkdir(parents=True)
        (home / "journal" / "0-0-0.seg").write_bytes(bytes(waiting))
        tracker = Tracker(["jsonl:///a.jsonl"], home=home, max_journal_bytes=2**20, delivery="flush")
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
        assert tracker.stats().get("journal_full", 0) == number
        tracker.close(50)
