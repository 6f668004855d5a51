"""Disks and rights: whatever is wrong with them is counted, and no event is lost or doubled by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from journals import APPLICATION, application, event_of, once, program, run, set_up

from cmdrdata_transport import Tracker
from cmdrdata_transport.adopting import drain
from cmdrdata_transport.dead_letters import dead_letters
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.home import private_home
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import segments

LINES = "jsonl:///usage.jsonl"


def in_ledger(home: Path) -> Counter[int]:
    """The numbers of the events in the ledger."""
    with Ledger.open(home / "usage.db") as ledger:
        return Counter(int(each.event.event_id.removeprefix("event-")) for each in ledger.events())


def in_file(path: Path) -> Counter[int]:
    """The numbers of the events in a file of JSON lines, which are all whole."""
    events = [decode(line) for line in path.read_bytes().splitlines()]
    return Counter(int(each.get("event", each)["event_id"].removeprefix("event-")) for each in events)


def mount(place: Path, options: str) -> None:
    """A small file system there, where the tests may make one."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")


def unmount(place: Path) -> None:
    """Take it away, whoever still has it open."""
    subprocess.run(["umount", "-l", str(place)], check=True)


# --- disks that are full ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a quarter of a megabyte, where the tests may make one."""
    made = tmp_path / "disk"
    made.mkdir()
    mount(made, "size=256k,mode=1777")
    yield made
    unmount(made)


def test_a_disk_that_is_full_for_all_loses_nothing(disk: Path) -> None:
    """Journal, ledger, lines and dead letters share it: with space again each has every event, once."""
    printed = run(
        """
        from cmdrdata_transport.errors import Rejected
        def picky(events): raise Rejected("never")
        setup = set_up(home, "sqlite:///usage.db", "jsonl:///usage.jsonl", picky, mode="flush")
        setup.append(5)
        print(setup.delivery.flush(30))
        with open(home / "filler", "wb", 0) as file:
            for size in (512, 64, 1):
                try:
                    while file.write(b"x" * size): pass
                except OSError: pass
        setup.append(100, 5)
        print(setup.delivery.flush(1), setup.counters.snapshot()["unavailable"] > 0)
        (home / "filler").unlink()
        time.sleep(1.1)
        print(setup.delivery.flush(30), "memory_dropped" in setup.counters.snapshot())
        print(setup.delivery.close(50), setup.segments(), setup.journal.held)
        """,
        disk,
    )
    assert printed == "True\nFalse True\nTrue False\nTrue [] 0\n"
    assert in_ledger(disk) == in_file(disk / "usage.jsonl") == once(105)
    assert in_file(dead_letters(disk, "callable:picky")) == once(105)


def test_a_mark_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    """No quota is left for it when a sink has the last events: with one again the segment goes."""
    printed = run(
        """
        def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        receiver = Receiver()
        setup = set_up(home, receiver, mode="flush")
        setup.append(5)
        print(setup.delivery.flush(30))
        setup.append(5, 5)
        limit(0)
        print(setup.delivery.flush(0.3), receiver.got == once(10))
        limit(resource.RLIM_INFINITY)
        print(setup.delivery.flush(30), receiver.got == once(10))
        print(setup.delivery.close(50), setup.segments())
        """,
        tmp_path,
    )
    assert printed == "True\nFalse True\nTrue True\nTrue []\n"


def test_a_journal_that_has_filled_the_disk_makes_room_by_itself(disk: Path) -> None:
    """When the sink is back, segments go, though no mark fits; nothing is told twice, now or later."""
    printed = run(
        """
        from cmdrdata_transport.errors import Unavailable
        number, receiver = 0, Receiver(raises=[Unavailable("down")])
        setup = set_up(home, receiver, mode="flush", segment_bytes=20_000)
        while not setup.journal.held:
            setup.append(1, number)
            number += 1
        print(setup.delivery.flush(0), os.statvfs(home).f_bavail)
        print(setup.delivery.flush(60), receiver.got == once(number))
        print(setup.delivery.close(50), setup.segments(), os.statvfs(home).f_bavail > 50)
        print(drain(home, [receiver])[0].delivered, receiver.got == once(number))
        """,
        disk,
    )
    assert printed == "False 0\nTrue True\nTrue [] True\n0 True\n"


def test_a_dead_letter_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    """What is half written is taken back: the letter comes again, whole, and spoils no other."""
    printed = run(
        """
        from cmdrdata_transport.errors import Rejected
        def picky(events): raise Rejected("never")
        def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        setup = set_up(home, picky, mode="flush")
        setup.append(3)
        limit(900)
        print(setup.delivery.flush(0.5))
        (file,) = (home / "dead").iterdir()
        print(file.read_bytes().endswith(b"}\\n"), "File too large" in str(setup.delivery._lanes[0].trouble))
        limit(resource.RLIM_INFINITY)
        print(setup.delivery.flush(30), setup.counters.snapshot()["rejected"])
        """,
        tmp_path,
    )
    assert printed == "False\nTrue True\nTrue 3\n"
    assert in_file(dead_letters(tmp_path, "callable:picky")) == once(3)


def refuse_all(events: list[UsageEvent]) -> None:
    """A sink that wants nothing."""
    raise Rejected("never")


def test_a_letter_that_somebody_left_unfinished_spoils_no_other(tmp_path: Path) -> None:
    """The next one begins on a line of its own."""
    path = dead_letters(tmp_path, "callable:refuse_all")
    path.parent.mkdir()
    path.write_bytes(b'{"rejected_at":"20')
    setup = set_up(tmp_path, refuse_all, mode="flush")
    setup.append(1)
    assert setup.delivery.flush(30)
    assert decode(path.read_bytes().splitlines()[1])["event"] == event_of(0)


# --- rights -----------------------------------------------------------------------------------------

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def common(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that any user may write, with one for temporary files."""
    made = Path(tempfile.mkdtemp(prefix="cmdrdata-tests-", dir="/var/tmp"))
    (made / "tmp").mkdir()
    for each in (made, made / "tmp"):
        each.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(made / "tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@needs_root
def test_a_segment_of_another_user_waits_for_that_user(common: Path) -> None:
    """It is counted, named by the doctor, in nobody's way, and delivered by whoever may read it."""
    journaled = set_up(common, LINES, mode="flush")
    journaled.append(3)
    (left,) = journaled.segments()
    del journaled
    for each in (common / "journal", common):
        each.chmod(0o777)
    printed = application(
        """
        give_up_rights()
        tracker = Tracker(["jsonl:///usage.jsonl"], home=home)
        call(calling(tracker), 5)
        print(tracker.flush(30))
        deadline = time.monotonic() + 30
        while "segment_blocked" not in tracker.stats() and time.monotonic() < deadline: time.sleep(0.05)
        tracker.close(50)
        os.environ["CMDRDATA_SINKS"] = "jsonl:///usage.jsonl"
        setup = examine(home)
        print([each.partition(" waits")[0] for each in setup.problems], setup.counted["segment_blocked"] > 0)
        print(warned["segment_blocked"], tracker.stats()["delivered"])
        """,
        common,
    )
    assert printed == f"True\n['{left}'] True\n1 5\n"
    (done,) = drain(common, environ={})
    assert (done.delivered, done.pending, done.trouble) == (3, 0, None)
    assert len((common / "usage.jsonl").read_bytes().splitlines()) == 8
    assert segments(common / "journal") == []


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("sink", ["sqlite:///usage.db", LINES])
def test_a_file_of_another_user_keeps_its_events_waiting(common: Path, sink: str) -> None:
    """The sink of a file that somebody else made is down, by name; the others are not, nor are the calls."""
    file = common / sink.rpartition("/")[2]
    opened = set_up(common, sink, mode="flush")
    opened.append(1)
    assert opened.delivery.close(50)
    for each in [*common.iterdir()]:
        each.chmod(0o777 if each.is_dir() else 0o600)
    process = program(
        APPLICATION
        + dedent(
            """
            give_up_rights()
            got = []
            def other(events): got.extend(events)
            tracker = Tracker([sys.argv[2], other], home=home)
            call(calling(tracker), 5)
            print(tracker.flush(1), len(got), tracker.stats()["unavailable"] > 0, warned["unavailable"])
            print([(each.sink, each.events) for each in tracker._delivery.backlog()], flush=True)
            sys.stdin.readline()
            print(tracker.flush(30))
            tracker.close(50)
            """
        ),
        common,
        sink,
        stdin=-1,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(2)]
    for each in common.glob(f"{file.name}*"):
        os.chown(each, NOBODY, NOBODY)
    printed, _ = process.communicate("\n", timeout=60)
    assert said == ["False 5 True 1\n", f"[('{sink}', 5)]\n"]
    assert printed == "True\n"
    with Ledger.open(file) if file.suffix == ".db" else file.open("rb") as found:
        assert len(list(found.events() if isinstance(found, Ledger) else found)) == 6


# --- homes that cannot be written -------------------------------------------------------------------


def behind_a_file(common: Path) -> Callable[[], None]:
    """A file in the place of home; what ends that."""
    (common / "home").write_text("in the way")
    return (common / "home").unlink


def read_only(common: Path) -> Callable[[], None]:
    """A file system that takes nothing, for root neither."""
    (common / "home").mkdir()
    mount(common / "home", "ro,size=64k")
    return lambda: unmount(common / "home")


def of_another_user(common: Path) -> Callable[[], None]:
    """Home is root's, and those who work in it are not."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    (common / "home").mkdir(mode=0o755)
    return lambda: (common / "home").chmod(0o777)


def with_a_journal_of_another_user(common: Path) -> Callable[[], None]:
    """Somebody ran the program as root once: only the journal in home is root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    (common / "home" / "journal").mkdir(parents=True, mode=0o700)
    (common / "home").chmod(0o777)
    return lambda: (common / "home" / "journal").chmod(0o777)


WORK = """
import json
if len(sys.argv) > 2: give_up_rights()
got = []
def other(events): got.extend(events)
tracker = Tracker([other, "sqlite:///usage.db"], home=home / "home")
call(calling(tracker), 3)
done = tracker.flush(30)
tracker.close(50)
os.environ["CMDRDATA_SINKS"] = "sqlite:///usage.db"
setup = examine(home / "home")
told = [tracker.stats().get("temporary_home", 0), warned["temporary_home"], len(got), done]
print(json.dumps([told, setup.problems, str(setup.home), sum(setup.recorded.values())]))
"""


@pytest.mark.parametrize(
    "wrong",
    [
        behind_a_file,
        of_another_user,
        pytest.param(read_only, marks=pytest.mark.slow),
        pytest.param(with_a_journal_of_another_user, marks=pytest.mark.slow),
    ],
)
def test_a_home_that_cannot_be_written_is_stood_in_for(
    common: Path, wrong: Callable[[Path], Callable[[], None]]
) -> None:
    """One warning, a count, a line of the doctor's; nothing is lost, and the next process brings it home."""
    right = wrong(common)
    as_nobody = ["nobody"] if os.geteuid() == 0 and "user" in wrong.__name__ else []
    try:
        told, problems, at, recorded = decode(application(WORK, common, *as_nobody).encode())
    finally:
        right()
    assert (told, recorded) == ([1, 1, 3, True], 3)
    assert "cannot be written; events go" in problems[0]
    told, problems, again, recorded = decode(application(WORK, common, *as_nobody).encode())
    assert (told, again) == ([0, 0, 3, True], str(common / "home"))
    assert recorded == (6 if at == again else 3)
    assert [each for each in problems if "cannot be written" in each and "could not" not in each] == []
    assert [each.split()[0] for each in problems] == ([] if at == again else [f"{at}/usage.db"])


def test_what_a_stand_in_kept_is_delivered_when_home_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink was down then, too: the next process, or `drain`, looks there as well."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    home = tmp_path / "home"
    left = set_up(private_home(home), LINES, mode="flush")
    left.append(4)
    left.journal.close()
    assert [(each.sink, each.events) for each in examine(home).pending] == [(LINES, 4)]
    (done,) = drain(home, environ={})
    assert (done.delivered, done.pending) == (4, 0)
    assert in_file(home / "usage.jsonl") == once(4)
    left = set_up(private_home(home), LINES, mode="flush")
    left.append(4, 4)
    left.journal.close()
    setup = set_up(home, LINES, mode="flush")
    setup.append(1, 8)
    assert setup.delivery.flush(30)
    setup.delivery.close(50)
    assert in_file(home / "usage.jsonl") == once(9)
    assert examine(home).pending == ()


def test_where_nothing_can_be_written_memory_has_a_bound_and_the_doctor_says_so(tmp_path: Path) -> None:
    """Neither home nor a temporary directory: calls are as ever, and what is lost in the end is counted."""
    printed = application(
        """
        import tempfile
        from cmdrdata_transport import journal, lanes
        tempfile.tempdir = "/dev/null"
        journal.HELD_EVENTS = lanes.HELD_EVENTS = 5
        got, up = [], threading.Event()
        def other(events):
            if not up.is_set(): raise OSError("down")
            got.extend(events)
        tracker = Tracker([other], home="/dev/null/home")
        call(calling(tracker), 20)
        print(tracker.flush(0.5), warned["journal_failed"], warned["memory_dropped"])
        up.set()
        print(tracker.flush(30), 5 <= len(got) <= 10)
        tracker.close(1)
        counted = tracker.stats()
        print(len(got) + counted["memory_dropped"], counted["journal_failed"], counted["events"])
        print(examine(Path("/dev/null/home")).problems[0])
        """,
        tmp_path,
    )
    assert printed.splitlines() == [
        "False 1 1",
        "True True",
        "20 20 20",
        "/dev/null cannot be written; events go to memory",
    ]


# --- what happens to a home in use ------------------------------------------------------------------


def test_a_home_that_is_removed_under_a_running_program_is_begun_anew(tmp_path: Path) -> None:
    """With ledger and journal: what was told is gone with it, what comes is not, and no call notices."""
    printed = application(
        """
        import shutil
        got = []
        def other(events): got.extend(events)
        tracker = Tracker(["sqlite:///usage.db", "jsonl:///usage.jsonl", other], home=home / "home")
        client = calling(tracker)
        for number in (5, 6):
            call(client, number)
            print(tracker.flush(30), len(got))
            shutil.rmtree(home / "home")
            call(client, 1)  # to a file that has no name: those who read it already go on
            lines, deadline = home / "home" / "usage.jsonl", time.monotonic() + 30
            while not lines.exists() and time.monotonic() < deadline: time.sleep(0.01)
        call(client, 7)
        print(tracker.flush(30), len(got), tracker.stats().get("segment_removed", 0))
        tracker.close(50)
        print(list((home / "home" / "journal").iterdir()))
        """,
        tmp_path,
    )
    assert printed == "True 5\nTrue 12\nTrue 20 0\n[]\n"
    assert len((tmp_path / "home" / "usage.jsonl").read_bytes().splitlines()) == 8
    with Ledger.open(tmp_path / "home" / "usage.db") as ledger:
        assert len(list(ledger.events())) == 8


@pytest.mark.parametrize("mode", ["external", "flush"])
def test_a_segment_that_is_removed_before_anybody_read_it_is_counted(tmp_path: Path, mode: Any) -> None:
    """Those events are lost, which is said; those that come are in a segment that is there."""
    tracker = Tracker([LINES], home=tmp_path, delivery=mode)
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="lost")
    shutil.rmtree(tmp_path / "journal")
    tracker.flush(1)
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="kept")
    tracker.close(0.2)
    assert tracker.stats()["segment_removed"] == 1
    drain(tmp_path, environ={})
    assert [decode(line)["customer_id"] for line in (tmp_path / "usage.jsonl").read_bytes().splitlines()] == [
        "kept"
    ]
