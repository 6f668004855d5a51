"""What processes have counted can be seen by others, while they run and after they have ended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_transport import Tracker
from cmdrdata_transport.tallies import Tallies, tallies, totals


def kept(home: Path, **counts: int) -> Tallies:
    """The file of one more process."""
    made = Tallies(home, tracker="default", service="web")
    made.keep(counts, now=True)
    return made


def test_the_counts_of_all_processes_are_added_up(tmp_path: Path) -> None:
    """Each process has a file of its own; the sums are by name."""
    kept(tmp_path, events=3, missing=1)
    kept(tmp_path, events=4)
    found = tallies(tmp_path)
    assert [(each.tracker, each.service, each.pid) for each in found] == [("default", "web", os.getpid())] * 2
    assert totals(found) == {"events": 7, "missing": 1}


def test_a_process_rewrites_its_own_file(tmp_path: Path) -> None:
    """Counts grow in one file, which no other user can read."""
    made = kept(tmp_path, events=1)
    made.keep({"events": 2}, now=True)
    (file,) = (tmp_path / "stats").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert totals(tallies(tmp_path)) == {"events": 2}


def test_it_is_not_written_at_every_look(tmp_path: Path) -> None:
    """Delivery threads look many times a second; a file that is some seconds old will do."""
    made = kept(tmp_path, events=1)
    made.keep({"events": 2})
    assert totals(tallies(tmp_path)) == {"events": 1}


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """A damaged file, or one of another version, hides no other."""
    kept(tmp_path, events=1)
    (tmp_path / "stats" / "1-x.json").write_text("{")
    (tmp_path / "stats" / "2-x.json").write_text('{"events": 1}')
    words: dict[str, Any] = {
        "tracker": "t",
        "service": None,
        "pid": 1,
        "started": 1.0,
        "updated": 1e12,
        "counts": {},
    }
    for number, wrong in enumerate((("updated", "now"), ("counts", 3), ("counts", {"events": "many"}))):
        (tmp_path / "stats" / f"3-{number}.json").write_text(json.dumps({**words, wrong[0]: wrong[1]}))
    assert totals(tallies(tmp_path)) == {"events": 1}


def test_old_counts_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process counted is shown for a month after it was last heard of."""
    kept(tmp_path, events=1)
    (file,) = (tmp_path / "stats").iterdir()
    monkeypatch.setattr("cmdrdata_transport.tallies.KEPT_SECONDS", 0)
    os.utime(file, (0, 0))
    assert tallies(tmp_path) == []
    kept(tmp_path, events=2)
    assert file not in set((tmp_path / "stats").iterdir())


def test_a_home_that_takes_no_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    """The counts stay in the process then."""
    (tmp_path / "stats").write_text("in the way")
    kept(tmp_path, events=1)
    assert tallies(tmp_path) == []


def test_a_forked_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    """It counts from zero, and never over its parent's."""
    made = kept(tmp_path, events=5)
    if (child := os.fork()) == 0:
        made.keep({"events": 1}, now=True)
        os._exit(0)
    os.waitpid(child, 0)
    assert sorted(each.counts["events"] for each in tallies(tmp_path)) == [1, 5]


def test_a_tracker_leaves_its_counts_when_it_is_closed(tmp_path: Path) -> None:
    """One that was used, and only then: a tracker that never met a call touches no disk."""
    used, unused = (Tracker(["jsonl:///usage.jsonl"], home=tmp_path / name) for name in ("used", "unused"))
    used.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    used.close(5)
    unused.close(5)
    assert totals(tallies(tmp_path / "used")) == {"events": 1, "delivered": 1}
    assert not (tmp_path / "unused").exists()
