"""The journal: what is appended can be read, once, whatever happens to process, threads, disk and files."""

from __future__ import annotations

import gc
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import SINK, ids_in, ignore, journal_at, line_of, once, read_all, run

from cmdrdata_transport import journal as journal_module
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.home import find_home, private_home
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.segments import (
    FORMAT,
    Claim,
    Header,
    Refusal,
    backlog,
    claim,
    claims,
    clear_litter,
    mark_of,
    marked,
    parse,
    record,
    records,
    remove_if_delivered,
    segments,
)

# --- the format -------------------------------------------------------------------------------------

LINES = st.binary(min_size=1, max_size=60).map(lambda line: line.replace(b"\n", b" ").replace(b"\0", b" "))


@settings(deadline=None)
@given(st.lists(st.tuples(LINES, st.integers(0, 100), st.integers(0, 20))), st.lists(st.integers(0, 4000)))
def test_any_records_with_any_torn_ones_between_are_read_once(
    written: list[tuple[bytes, int, int]], cuts: list[int]
) -> None:
    """Whole records come back in order, whatever is cut short, or never came to the disk, between them."""
    data = b""
    for line, torn, zeros in written:
        data += record(line)[: min(torn, len(line) + 9)] + record(line) + bytes(zeros)
    read: list[bytes] = []
    offset = 0
    for cut in sorted({cut for cut in cuts if cut < len(data)}):
        found = parse(data[offset:cut], final=False)
        read += found.lines
        offset += found.used
    read += parse(data[offset:], final=True).lines
    assert read == [line for line, *_ in written]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_torn(data: bytes) -> None:
    """Whatever stands in a file, all of it is passed, and nothing is raised."""
    found = parse(data, final=True)
    assert found.used == len(data)
    assert len(found.ends) == len(found.lines)


def test_a_header_comes_back_as_it_was() -> None:
    """A segment says which tracker and service wrote it, when, and for which sinks."""
    header = Header(tracker="default", service=None, sinks=("sqlite:///usage.db", "callable:x"), created=1.5)
    assert Header.from_line(header.to_line()) == header
    assert Header.from_line(b'{"format":"cmdrdata.journal/2"}') is None


# --- writing ----------------------------------------------------------------------------------------


def test_nothing_is_on_disk_before_the_first_event(tmp_path: Path) -> None:
    """To have a journal costs nothing."""
    journal_at(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    """One segment, with a header and each line, readable by its owner only."""
    journal, counters = journal_at(tmp_path / "home", tracker="mine", service="web")
    for number in range(5):
        journal.append(line_of(number))
    assert ids_in(read_all(journal)) == once(5)
    (segment,) = segments(journal.directory)
    waiting = backlog(tmp_path / "home" / "journal")
    assert [(each.tracker, each.service, each.sink, each.live) for each in waiting] == []
    assert stat.S_IMODE(segment.stat().st_mode) == 0o600
    assert stat.S_IMODE(mark_of(segment, SINK).stat().st_mode) == 0o600
    assert [stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "home", journal.directory)] == [
        0o700
    ] * 2
    assert counters.snapshot() == {}


def test_a_closed_journal_still_takes_events(tmp_path: Path) -> None:
    """What ends after the journal was closed is in another segment, and not lost."""
    journal, _ = journal_at(tmp_path)
    journal.append(line_of(0))
    journal.close()
    journal.append(line_of(1))
    assert ids_in(read_all(journal)) == once(2)
    assert len(segments(journal.directory)) == 2


def test_threads_lose_nothing_while_segments_are_replaced(tmp_path: Path) -> None:
    """Eight threads that start together, and segments of some ten events each: every event is there once."""
    journal, counters = journal_at(tmp_path, segment_bytes=3000)
    barrier = threading.Barrier(8)

    def write(first: int) -> None:
        barrier.wait()
        for number in range(first, first + 200):
            journal.append(line_of(number))

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 1600, 200)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert ids_in(read_all(journal)) == once(1600)
    assert counters.snapshot() == {}
    journal.close()
    assert all(own.finished() for own in journal.own())


def test_garbage_collection_may_append_in_the_middle_of_an_append(tmp_path: Path) -> None:
    """A finaliser that runs at any allocation, also while a segment is started, loses and breaks nothing."""
    journal, counters = journal_at(tmp_path, segment_bytes=2000)
    numbers = iter(range(10_000))

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            journal.append(line_of(next(numbers)))

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            Cycle()
            journal.append(line_of(next(numbers)))
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert ids_in(read_all(journal)) == once(next(numbers))
    assert counters.snapshot() == {}


def test_an_event_of_interpreter_exit_is_written(tmp_path: Path) -> None:
    """An answer that is finalised when the interpreter takes its modules apart is in the journal."""
    run(
        """
        import builtins, tempfile
        journal, counters = journal_at(home)
        class Last:
            def __init__(self, number): self.line = line_of(number)
            def __del__(self, append=journal.append): append(self.line)
        in_main, tempfile.last, builtins.last = Last(0), Last(1), Last(2)
        """,
        tmp_path,
    )
    assert [each.events for each in backlog(tmp_path / "journal")] == [3]


# --- disks ------------------------------------------------------------------------------------------


def test_a_short_write_followed_by_more_loses_nothing(tmp_path: Path) -> None:
    """The disk ends in the middle of a record: it is written again, whole, and no event is there twice."""
    printed = run(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        journal, counters = journal_at(home)
        for number in range(30):
            journal.append(line_of(number))
        print(ids_in(read_all(journal)) == once(30), counters.snapshot(), len(journal.own()) > 1)
        """,
        tmp_path,
    )
    assert printed == "True {} True\n"
    torn = list((tmp_path / "journal").glob("*.torn"))
    assert torn
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in torn)


FULL = {
    "a file size limit": """
        import resource
        def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        def full(): limit(300)
        def space(): limit(resource.RLIM_INFINITY)
        """,
    "a full disk": """
        def full():
            with open(home / "filler", "wb", 0) as file:
                try:
                    while file.write(b"x" * 512): pass
                except OSError: pass
        def space(): (home / "filler").unlink()
        """,
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where the tests may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs '{disk}' 2>/dev/null") != 0:
        pytest.skip("no right to mount a file system here")
    yield disk
    os.system(f"umount '{disk}'")


def when_full(home: Path, means: str) -> str:
    """What a program saw that met a full disk and then space again."""
    return run(
        FULL[means]
        + """
        journal, counters = journal_at(home)
        for number in range(5):
            journal.append(line_of(number))
        full()
        for number in range(5, 25):
            journal.append(line_of(number))
        held = journal.held
        counted = counters.snapshot()
        print(held > 0, counted["journal_failed"] == counted["memory_journal"] == held, journal.recover())
        space()
        time.sleep(1.1)
        print(journal.recover(), journal.held, ids_in(read_all(journal)) == once(25))
        """.replace("\n    ", "\n    "),
        home,
    )


def test_beyond_a_file_size_limit_events_wait_in_memory(tmp_path: Path) -> None:
    """No file takes an event: it is counted, held, and written when there is space again."""
    assert when_full(tmp_path, "a file size limit") == "True True False\nTrue 0 True\n"


def test_on_a_full_disk_events_wait_in_memory(small_disk: Path) -> None:
    """The same on a real file system without space."""
    assert when_full(small_disk, "a full disk") == "True True False\nTrue 0 True\n"


def test_memory_is_bounded_and_what_is_over_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that nobody can write, and more events than memory holds: the rest is counted as lost."""
    monkeypatch.setattr(journal_module, "HELD_EVENTS", 3)
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    journal, counters = journal_at(Path("/dev/null/nowhere"))
    for number in range(5):
        journal.append(line_of(number))
    assert counters.snapshot() == {
        "journal_failed": 5,
        "memory_journal": 3,
        "memory_dropped": 2,
    }
    assert ids_in(journal.take_held()) == once(3)
    assert journal.held == 0


def test_memory_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events with much metadata may not fill it either."""
    monkeypatch.setattr(journal_module, "HELD_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    journal, counters = journal_at(Path("/dev/null/nowhere"))
    journal.append(line_of(0, metadata={"note": "x" * 700}))
    journal.append(line_of(1, metadata={"note": "x" * 700}))
    assert journal.held == 1
    assert counters.snapshot()["memory_dropped"] == 1


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_a_home_that_cannot_be_made_is_replaced_by_a_private_one(stand_in: Path) -> None:
    """The journal goes to a temporary directory, of this user alone, the same for the next process."""
    journal, counters = journal_at(Path("/dev/null/home"))
    journal.append(line_of(0))
    assert ids_in(read_all(journal)) == once(1)
    assert journal.home.parent == stand_in
    assert stat.S_IMODE(journal.home.stat().st_mode) == 0o700
    assert counters.snapshot() == {"temporary_home": 1}
    assert private_home(Path("/dev/null/home")) == journal.home


def test_a_place_that_somebody_prepared_is_not_used(stand_in: Path, tmp_path: Path) -> None:
    """A link in the place of our temporary directory, or one that others can read, is left alone."""
    steady = private_home(Path("/dev/null/home"))
    steady.rmdir()
    steady.symlink_to(tmp_path)
    assert private_home(Path("/dev/null/home")) != steady
    steady.unlink()
    steady.mkdir(mode=0o755)
    assert private_home(Path("/dev/null/home")) != steady


def test_find_home_makes_nothing(stand_in: Path, tmp_path: Path) -> None:
    """A home that could be made is taken without making it; another is replaced and counted."""
    counters = Counters()
    assert find_home(tmp_path / "a" / "b", counters) == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    assert find_home(Path("/dev/null/home"), counters).parent == stand_in
    assert counters.snapshot() == {"temporary_home": 1}


def test_where_nothing_can_be_written_the_home_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a temporary directory either, events are held in memory; looking for a home is no error."""
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    counters = Counters()
    assert find_home(Path("/dev/null/home"), counters) == Path("/dev/null/home")
    journal, held = journal_at(Path("/dev/null/home"))
    journal.append(line_of(0))
    assert (journal.held, counters.snapshot()) == (1, {})
    assert held.snapshot() == {"journal_failed": 1, "memory_journal": 1}


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user of this machine may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_process_that_gave_up_its_rights_journals_elsewhere(common: Path) -> None:
    """A home that this user may only read does not lose events: they go to a directory of this user's."""
    closed, writable = common / "closed", common / "writable"
    closed.mkdir(mode=0o555)
    writable.mkdir()
    writable.chmod(0o777)
    printed = run(
        """
        import tempfile
        tempfile.tempdir = str(home / "writable")
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        journal, counters = journal_at(home / "closed")
        journal.append(line_of(0))
        print(ids_in(read_all(journal)) == once(1), counters.snapshot(), list((home / "closed").iterdir()))
        """,
        common,
    )
    assert printed == "True {'temporary_home': 1} []\n"


def test_a_home_where_this_user_may_not_go(common: Path) -> None:
    """Below a directory that this user may not enter a home cannot be written, and that is no error."""
    (common / "closed").mkdir(mode=0)
    printed = run(
        """
        from cmdrdata_transport.home import obstacle
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        print(obstacle(home / "closed" / "below" / "home") == home / "closed")
        """,
        common,
    )
    assert printed == "True\n"


# --- processes --------------------------------------------------------------------------------------


def test_a_forked_child_writes_a_segment_of_its_own(tmp_path: Path) -> None:
    """Parent and child never share a file, and the parent's lock holds when the child has ended."""
    printed = run(
        """
        journal, _ = journal_at(home)
        journal.append(line_of(0))
        pid = os.fork()
        if pid == 0:
            assert journal.own() == [] and journal.held == 0
            journal.append(line_of(1))
            assert ids_in(read_all(journal)) == once(1, start=1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        parents, childs = segments(journal.directory)
        print(claim(parents, SINK, count=ignore), isinstance(claim(childs, SINK, count=ignore), Claim))
        journal.append(line_of(2))
        print(sorted(ids_in(read_all(journal))))
        """,
        tmp_path,
    )
    assert printed == "Refusal.LIVE True\n[0, 2]\n"


def test_a_child_never_keeps_a_mark_of_its_parent(tmp_path: Path) -> None:
    """Forks at any moment, while threads claim segments and let go of them: the child holds no claim."""
    printed = run(
        """
        journal, _ = journal_at(home, segment_bytes=300)
        for number in range(20): journal.append(line_of(number))
        journal.close()
        stop = False
        def deliver(first):
            while not stop:
                for path in segments(journal.directory)[first::2]:
                    made = claim(path, SINK, count=ignore)
                    made.take(1, 1)
                    made.close()
        threads = [threading.Thread(target=deliver, args=(first,)) for first in (0, 1)]
        for each in threads: each.start()
        held = 0
        for _ in range(60):
            pid = os.fork()
            if pid == 0:
                known = {os.stat(each).st_ino for each in journal.directory.iterdir()}
                ours = 0
                for fd in range(3, 100):
                    try: ours += os.fstat(fd).st_ino in known
                    except OSError: continue
                os._exit(min(ours, 100))
            held += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        stop = True
        for each in threads: each.join()
        print(held)
        """,
        tmp_path,
    )
    assert printed == "0\n"


def test_a_finished_segment_is_free_even_if_a_child_has_its_file(tmp_path: Path) -> None:
    """The writer unlocks what it has finished: a copy of its file somewhere does not keep the lock."""
    journal, _ = journal_at(tmp_path)
    journal.append(line_of(0))
    (own,) = journal.own()
    copies = [os.dup(fd) for fd in range(3, 1024) if is_file(fd, own.path)]
    journal.close()
    try:
        assert isinstance(claim(own.path, SINK, count=ignore), Claim)
        assert copies
    finally:
        for each in copies:
            os.close(each)


def is_file(fd: int, path: Path) -> bool:
    """Whether a descriptor is open, and that file."""
    try:
        return os.fstat(fd).st_ino == path.stat().st_ino
    except OSError:
        return False


def test_a_program_that_closes_all_its_files_loses_nothing(tmp_path: Path) -> None:
    """What a would-be daemon opens after closing everything is never written to, and events go on."""
    printed = run(
        """
        journal, counters = journal_at(home)
        journal.append(line_of(0))
        before = [own.path for own in journal.own()]
        os.closerange(3, 4096)
        files = [open(home / f"file-{number}", "wb") for number in range(20)]
        journal.append(line_of(1))
        for each in files: each.close()
        print(sum((home / f"file-{number}").stat().st_size for number in range(20)))
        print(ids_in(read_all(journal)) == once(2), counters.snapshot())
        """,
        tmp_path,
    )
    assert printed == "0\nTrue {}\n"


# --- reading ----------------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A segment of ten events for two sinks that its process has left behind."""
    journal = Journal(tmp_path, sinks=[SINK, "callable:other"], counters=Counters())
    for number in range(10):
        journal.append(line_of(number))
    journal.close()
    (segment,) = segments(journal.directory)
    return segment


def claimed(segment: Path, sink: str = SINK, count: claims.Count = ignore) -> Claim:
    """A claim that has to succeed."""
    made = claim(segment, sink, count=count)
    assert isinstance(made, Claim)
    return made


def test_a_claim_goes_on_where_the_sink_was(left: Path) -> None:
    """What one process delivered, the next does not deliver again; another sink begins at the beginning."""
    first = claimed(left)
    assert ids_in(first.take(4, 10**6)) == once(4)
    assert ids_in(first.take(4, 10**6)) == once(4)
    first.advance(4)
    first.close()
    second = claimed(left)
    assert ids_in(second.take(100, 10**6)) == once(6, start=4)
    other = claimed(left, "callable:other")
    assert ids_in(other.take(100, 10**6)) == once(10)


def test_a_batch_is_bounded_in_bytes(left: Path) -> None:
    """A batch ends before its size is passed, and has one event at least."""
    made = claimed(left)
    assert len(made.take(100, 3 * len(line_of(0)))) == 3
    assert len(made.take(100, 1)) == 1


def test_one_delivers_at_a_time(left: Path) -> None:
    """While one claim is held there is no other for the same sink."""
    first = claimed(left)
    assert claim(left, SINK, count=ignore) is Refusal.TAKEN
    first.close()
    claimed(left).close()


def test_only_the_named_sinks_and_only_a_known_format(left: Path) -> None:
    """A sink that a segment does not name, or one of a later format, leaves it as it is."""
    assert claim(left, "callable:stranger", count=ignore) is Refusal.FOREIGN
    left.write_bytes(record(b'{"format":"cmdrdata.journal/9"}'))
    assert claim(left, SINK, count=ignore) is Refusal.FOREIGN
    assert not remove_if_delivered(left)
    assert left.exists()


def test_a_segment_of_a_live_writer_is_not_adopted(tmp_path: Path) -> None:
    """The lock that a writer holds says that it is alive, in whatever process or container it runs."""
    journal, _ = journal_at(tmp_path)
    journal.append(line_of(0))
    (segment,) = segments(journal.directory)
    assert claim(segment, SINK, count=ignore) is Refusal.LIVE
    assert [each.live for each in backlog(journal.directory)] == [True]
    journal.close()
    claimed(segment)


@pytest.mark.parametrize("mark", [b"", b"garbage\n", b"\0" * 21, b"-5\n"], ids=repr)
def test_a_mark_that_cannot_be_read_counts_as_none(left: Path, mark: bytes) -> None:
    """Rather twice than never."""
    mark_of(left, SINK).write_bytes(mark)
    assert marked(left, SINK) == 0
    assert ids_in(claimed(left).take(100, 10**6)) == once(10)


def test_damage_is_passed_set_aside_and_counted_once(left: Path) -> None:
    """A damaged record costs nobody else anything, and two sinks that pass it count it once."""
    data = bytearray(left.read_bytes())
    middle = data.index(b"event-5")
    data[middle : middle + 7] = b"\nvents\n"
    left.write_bytes(data)
    counters = Counters()
    for sink in (SINK, "callable:other"):
        made = claimed(left, sink, counters.count)
        assert ids_in(made.take(100, 10**6)) == once(10) - once(1, start=5)
        made.close()
    assert counters.snapshot() == {"torn": 1}
    (torn,) = left.parent.glob("*.torn")
    assert b"\nvents\n" in torn.read_bytes()


def test_a_damaged_end_is_passed_when_nothing_can_follow(left: Path) -> None:
    """What a dying process half wrote does not keep its segment for ever."""
    with left.open("ab") as file:
        file.write(b"\n0000")
    for sink in (SINK, "callable:other"):
        made = claimed(left, sink)
        made.advance(len(made.take(100, 10**6)))
        assert made.take(100, 10**6) == []
        assert made.done
        made.close()
    assert remove_if_delivered(left)


def test_a_segment_without_a_header_is_set_aside(left: Path) -> None:
    """Nobody can say whom it was for: it is kept under another name, and counted."""
    left.write_bytes(b"\0" * 100)
    counters = Counters()
    assert not remove_if_delivered(left)
    assert claim(left, SINK, count=counters.count) is Refusal.UNREADABLE
    assert counters.snapshot() == {"torn": 1}
    assert [each.suffix for each in left.parent.iterdir()] == [".torn"]
    assert claim(left, SINK, count=ignore) is Refusal.GONE


def test_a_segment_goes_when_every_named_sink_has_it(left: Path) -> None:
    """One sink alone does not remove what another still needs."""
    for sink, gone in ((SINK, False), ("callable:other", True)):
        made = claimed(left, sink)
        made.advance(len(made.take(100, 10**6)))
        made.close()
        assert remove_if_delivered(left) is gone
    assert list(left.parent.iterdir()) == []
    assert remove_if_delivered(left)


def test_a_record_larger_than_what_is_read_at_once_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading in pieces of any size gives the same events."""
    monkeypatch.setattr(records, "READ_BYTES", 64)
    journal, _ = journal_at(tmp_path)
    for number in range(3):
        journal.append(line_of(number, metadata={"note": "x" * 1000}))
    made = claim(segments(journal.directory)[0], SINK, count=ignore, finished=bool)
    assert isinstance(made, Claim)
    lines: list[bytes] = []
    while taken := made.take(10, 10**6):
        lines += taken
        made.advance(len(taken))
    assert ids_in(lines) == once(3)


def test_litter_goes_and_what_is_fresh_stays(left: Path) -> None:
    """Files that nobody can need any more are removed after an hour, and no others."""
    old = time.time() - 4000
    litter = [left.parent / ".1.new", left.parent / "1.0123456789ab.mark"]
    claimed(left).close()
    kept = [left.parent / ".2.new", left.parent / "2.0123456789ab.mark", left, mark_of(left, SINK)]
    for each in (*litter, *kept[:2]):
        each.touch()
    for each in (*litter, left, mark_of(left, SINK)):
        os.utime(each, (old, old))
    clear_litter(left.parent)
    assert sorted(left.parent.iterdir()) == sorted(kept)
    clear_litter(left.parent / "nowhere")


def test_the_backlog_is_counted_without_touching_it(left: Path) -> None:
    """What waits, for whom, since when: read from the files, which stay as they are."""
    made = claimed(left)
    made.take(4, 10**6)
    made.advance(4)
    made.close()
    before = {each: each.read_bytes() for each in left.parent.iterdir()}
    told = {each.sink: (each.events, each.live, each.tracker) for each in backlog(left.parent)}
    assert told == {SINK: (6, False, "default"), "callable:other": (10, False, "default")}
    assert {each: each.read_bytes() for each in left.parent.iterdir()} == before
    assert FORMAT.encode() in before[left]
    assert backlog(left.parent / "nowhere") == []
