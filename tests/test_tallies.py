"""What processes have counted can be seen by others, while they run and after they have ended."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from journals import program

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


def silent(home: Path) -> None:
    """Nothing has changed here for a while."""
    for path in (home / "stats").iterdir():
        os.utime(path, (0, 0))


def test_many_processes_leave_few_files_and_every_count(tmp_path: Path) -> None:
    """What has not changed for a while is folded into one file, by service and month; no sum falls."""
    for number in range(1, 60):
        made = kept(tmp_path, events=1, missing=number % 2)
        assert totals(tallies(tmp_path)) == {"events": number, "missing": (number + 1) // 2}
        assert len(list((tmp_path / "stats").iterdir())) <= 2
        silent(tmp_path)
    Tallies(tmp_path, tracker="default", service="jobs").keep({"events": 1}, now=True)
    silent(tmp_path)
    made.keep({"events": 2, "missing": 1}, now=True)
    assert totals(tallies(tmp_path)) == {"events": 61, "missing": 30}
    found = {(each.service, each.pid): each.counts["events"] for each in tallies(tmp_path)}
    assert found == {("web", 0): 59, ("web", os.getpid()): 1, ("jobs", os.getpid()): 1}


def test_a_process_that_was_silent_goes_on_counting(tmp_path: Path) -> None:
    """Its file has been folded meanwhile: it begins another, with what it has counted since."""
    made = kept(tmp_path, events=3, missing=1)
    for events in (4, 9):
        silent(tmp_path)
        kept(tmp_path, delivered=1)
        assert not [path for path in (tmp_path / "stats").glob("*.json") if path.stat().st_mtime == 0]
        made.keep({"events": events, "missing": 1}, now=True)
        assert totals(tallies(tmp_path))["events"] == events
    assert totals(tallies(tmp_path)) == {"events": 9, "missing": 1, "delivered": 2}


def test_counts_of_a_month_are_told_apart(tmp_path: Path) -> None:
    """Who looks at what happened lately need not look at everything there has ever been."""
    kept(tmp_path, events=1)
    (file,) = (tmp_path / "stats").iterdir()
    said = json.loads(file.read_text())
    for month, events in (("10", 2), ("10", 3), ("11", 4)):
        at = datetime.fromisoformat(f"2025-{month}-15T12:00:00Z").timestamp()
        file.with_name(f"1-{events}.json").write_text(
            json.dumps({**said, "updated": at, "counts": {"events": events}})
        )
    silent(tmp_path)
    kept(tmp_path, events=8)
    found = {each.updated: each.counts["events"] for each in tallies(tmp_path)}
    assert sorted(found.values()) == [1, 4, 5, 8]
    assert [found[at] for at in sorted(found)][:2] == [5, 4]


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=[] if step in (4, 10, 12) else pytest.mark.slow) for step in range(1, 14)],
)
def test_who_is_killed_over_it_loses_and_doubles_nothing(tmp_path: Path, step: int) -> None:
    """At any step of the folding: the next one goes on, and nobody sees another sum meanwhile."""
    made = [kept(tmp_path, events=number) for number in (1, 2, 4)]
    silent(tmp_path)
    steps = f"""
    import sys
    left = {step}
    def look(event, arguments):
        global left
        if event in ("os.rename", "os.remove", "open") and "{tmp_path}" in str(arguments[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), 9)
    from cmdrdata_transport.tallies import fold
    sys.addaudithook(look)
    fold(home / "stats")
    """
    program(steps, tmp_path).communicate(timeout=60)
    assert totals(tallies(tmp_path)) == {"events": 7}
    made[0].keep({"events": 11}, now=True)
    assert totals(tallies(tmp_path)) == {"events": 17}
    silent(tmp_path)
    kept(tmp_path, events=100)
    assert totals(tallies(tmp_path)) == {"events": 117}
    assert len(list((tmp_path / "stats").iterdir())) <= 3


def test_those_who_read_write_and_fold_at_once_see_no_sum_fall(tmp_path: Path) -> None:
    """Eight processes write, end, and are folded while this one looks."""
    code = """
    from cmdrdata_transport import tallies
    tallies.EVERY_SECONDS = 0
    tallies.RECENT_SECONDS = 0
    for _ in range(10):
        made = tallies.Tallies(home, tracker="default", service=None)
        for events in (1, 2, 3, 4):
            made.keep({"events": events}, now=True)
    """
    programs = [program(code, tmp_path) for _ in range(8)]
    seen = [0]
    while any(each.poll() is None for each in programs):
        seen.append(totals(tallies(tmp_path)).get("events", 0))
    assert [(each.communicate(timeout=60)[0], each.returncode) for each in programs] == [("", 0)] * 8
    assert seen == sorted(seen)
    assert totals(tallies(tmp_path)) == {"events": 8 * 10 * 4}


def test_nobody_waits_long_for_who_folds_and_was_stopped(tmp_path: Path) -> None:
    """He is looked past, and what could not be written is written later."""
    made = kept(tmp_path, events=1)
    fd = os.open(tmp_path / "stats", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        made.keep({"events": 2}, now=True)
        assert totals(tallies(tmp_path)) == {"events": 1}
    finally:
        os.close(fd)
    made.keep({"events": 2}, now=True)
    assert totals(tallies(tmp_path)) == {"events": 2}


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
    used.close(50)
    unused.close(50)
    assert totals(tallies(tmp_path / "used")) == {"events": 1, "delivered": 1}
    assert not (tmp_path / "unused").exists()
