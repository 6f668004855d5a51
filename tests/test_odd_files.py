"""What lies in a home under the names of our files, and is none: in nobody's way, and nothing is lost."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import SINK, line_of, once, run, set_up

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import mark_of, record, segments


def in_ledger(home: Path) -> Counter[int]:
    """The numbers of the events in the ledger."""
    with Ledger.open(home / "usage.db") as ledger:
        return Counter(int(each.event.event_id.removeprefix("event-")) for each in ledger.events())


def left_in(home: Path, number: int = 10) -> Path:
    """The segment of a process that has died, with so many events."""
    setup = set_up(home, SINK, mode="flush")
    setup.append(number)
    (segment,) = setup.segments()
    setup.journal.close()
    return segment


def a_pipe(path: Path) -> None:
    """Whoever opens it to read waits for somebody to write."""
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    """With something in it."""
    path.mkdir()
    (path / "file").touch()


def a_link_to_nowhere(path: Path) -> None:
    """Its target was removed."""
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    """It can never be opened."""
    path.symlink_to(path.name)


def noise(path: Path) -> None:
    """Bytes without a meaning."""
    path.write_bytes(bytes(range(256)) * 40)


def nothing(path: Path) -> None:
    """A file of no bytes."""
    path.touch()


PLACES = {
    "a segment": "journal/0-0-0.seg",
    "a mark": "journal/0-0-0.0123456789ab.mark",
    "a half-made segment": "journal/.0-0-0.new",
    "a torn piece": "journal/0-0-0-5.torn",
    "a dead letter": "dead/sqlite-usage.db-00000000.jsonl",
    "a count": "stats/1-00000000.json",
    "a job": "jobs/00000000.json",
}


@pytest.mark.parametrize("thing", [a_pipe, a_directory, a_link_to_nowhere, a_link_to_itself, noise, nothing])
def test_what_lies_in_a_home_is_in_nobodys_way(tmp_path: Path, thing: Callable[[Path], None]) -> None:
    """Not to those who write, deliver, drain or look: whatever has the name of a file of ours."""
    left_in(tmp_path)
    for place in PLACES.values():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        thing(tmp_path / place)
    setup = set_up(tmp_path, SINK, mode="flush")
    setup.append(5, 10)
    assert setup.delivery.flush(30)
    assert setup.delivery.close(50)
    assert all(each.pending == 0 for each in drain(tmp_path, environ={}))
    assert in_ledger(tmp_path) == once(15)
    found = examine(tmp_path)
    assert found.pending == ()
    counted = setup.counters.snapshot()
    assert {"torn", "segment_blocked"} & counted.keys() or thing is a_link_to_nowhere
    assert [each for each in segments(tmp_path / "journal") if each.name != "0-0-0.seg"] == []


@pytest.mark.parametrize("thing", [a_pipe, a_directory, a_link_to_itself, noise, nothing])
def test_something_else_in_the_place_of_a_mark(tmp_path: Path, thing: Callable[[Path], None]) -> None:
    """What cannot be read counts as none; where none can be made the events wait, counted, for one."""
    mark = mark_of(left_in(tmp_path), SINK)
    thing(mark)
    setup = set_up(tmp_path, SINK, mode="flush")
    setup.append(5, 10)
    setup.delivery.flush(30)
    assert in_ledger(tmp_path) >= once(5, 10)
    if thing not in (noise, nothing):
        assert setup.counters.snapshot()["segment_blocked"] > 0
        _remove(mark)
    setup.delivery.close(50)
    drain(tmp_path, environ={})
    assert in_ledger(tmp_path) == once(15)
    assert segments(tmp_path / "journal") == []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("offset", [10**18, 10**40, 1, -1, "in a record"])
def test_a_mark_that_cannot_be_right_counts_as_none(tmp_path: Path, offset: Any) -> None:
    """Nothing is taken for delivered that is not, nor for damaged: it is told again, and counts once."""
    segment = left_in(tmp_path)
    size = segment.stat().st_size
    mark_of(segment, SINK).write_bytes(b"%020d\n" % (size // 2 if offset == "in a record" else offset))
    setup = set_up(tmp_path, SINK, mode="flush")
    assert [each.events for each in setup.delivery.backlog()] == [10]
    setup.append(5, 10)
    assert setup.delivery.flush(30)
    setup.delivery.close(50)
    assert in_ledger(tmp_path) == once(15)
    assert "torn" not in setup.counters.snapshot()
    assert segments(tmp_path / "journal") == []


def test_the_end_of_a_segment_that_a_disk_lost_is_no_delivery(tmp_path: Path) -> None:
    """After a failure of the machine the mark may be ahead of the file: what is there still is told again."""
    segment = left_in(tmp_path)
    end = segment.stat().st_size
    mark_of(segment, SINK).write_bytes(b"%020d\n" % end)
    os.truncate(segment, end - 5)
    (done,) = drain(tmp_path, environ={})
    assert (done.delivered, done.pending) == (9, 0)
    assert in_ledger(tmp_path) == once(9)


@pytest.mark.parametrize("behind", [b"", b"5}\n", b"\n"], ids=["nothing", "an end", "a line feed"])
def test_zeros_behind_what_the_disk_had_cost_no_event(tmp_path: Path, behind: bytes) -> None:
    """After a failure of the machine a file may be longer than what was synced: that ends no record."""
    segment = left_in(tmp_path)
    with segment.open("ab") as file:
        file.write(bytes(700) + behind)
    (done,) = drain(tmp_path, environ={})
    assert (done.delivered, done.pending) == (10, 0)
    assert in_ledger(tmp_path) == once(10)
    (torn,) = (tmp_path / "journal").glob("*.torn")
    assert set(torn.read_bytes()) <= set(bytes(1) + behind)
    assert segments(tmp_path / "journal") == []


def test_a_segment_of_a_later_version_is_left_and_named(tmp_path: Path) -> None:
    """Its events are for whoever knows its format; the doctor says that they wait, and for whom."""
    later = tmp_path / "journal" / "0-0-0.seg"
    left_in(tmp_path)
    header = b'{"format":"cmdrdata.journal/2","sinks":["sqlite:///usage.db"],"created":1.5}'
    later.write_bytes(record(header) + record(line_of(99)))
    before = later.read_bytes()
    setup = set_up(tmp_path, SINK, mode="flush")
    setup.append(5, 10)
    assert setup.delivery.flush(30)
    setup.delivery.close(50)
    assert all(each.pending == 0 for each in drain(tmp_path, environ={}))
    assert in_ledger(tmp_path) == once(15)
    assert later.read_bytes() == before
    (problem,) = [each for each in examine(tmp_path).problems if "later version" in each]
    assert problem.startswith(f"{later} waits")


def test_lines_may_go_to_where_nothing_can_be_taken_back(tmp_path: Path) -> None:
    """The standard output of a container, a pipe, takes each event once."""
    printed = run(
        """
        setup = set_up(home, "jsonl:////dev/stdout", mode="flush")
        setup.append(3)
        assert setup.delivery.flush(30) and setup.delivery.close(50)
        assert setup.counters.snapshot() == {"delivered": 3}
        """,
        tmp_path,
    )
    assert printed.encode() == b"".join(line_of(number) + b"\n" for number in range(3))
