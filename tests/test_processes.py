"""What programs do with processes and files: nothing is lost by it, and nothing is written elsewhere."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from journals import once, run

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.descriptors import Watch
from cmdrdata_transport.event import decode
from cmdrdata_transport.segments import backlog

LEDGER = "sqlite:///usage.db"

LINES = "jsonl:///usage.jsonl"


def in_ledger(home: Path) -> Counter[int]:
    """How often each event is in the ledger, when what is left has been delivered."""
    deadline = monotonic() + 50
    while backlog(home / "journal") and monotonic() < deadline:  # what has ended may be gone a moment later
        assert [each.trouble for each in drain(home, environ={}) if each.trouble] == []
    assert backlog(home / "journal") == []
    with closing(sqlite3.connect(home / "usage.db")) as connection:
        found = connection.execute("SELECT event_id FROM usage_events")
        return Counter(int(each.removeprefix("event-")) for (each,) in found)


# --- all files are closed ---------------------------------------------------------------------------


class Taken:
    """A receiver of events that keeps its connections open."""

    def __init__(self) -> None:
        self.events: Counter[int] = Counter()

    def __call__(self, call: Call) -> Answer:
        """Take one."""
        self.events[int(call.json()["event_id"].removeprefix("event-"))] += 1
        return Answer(status=201)


@pytest.fixture
def receiver() -> Iterator[tuple[Taken, str]]:
    """It, and where it is."""
    taken = Taken()
    with Loopback(taken) as server:
        yield taken, f"{server.url}/events"


CLOSE_ALL = """
setup = set_up(home, *sys.argv[3:])
setup.delivery.ensure_running()
setup.append(50)
assert setup.delivery.flush(60)
setup.append(5, 50)
time.sleep(0.3)  # it is delivered, or is about to be
{become}
mine = [open(home / f"mine-{{number}}", "w+b", buffering=0) for number in range(60)]
for each in mine: each.write(b"mine" * 25)
for number in range(55, 155, 5):
    setup.delivery.ensure_running()
    setup.append(5, number)
    time.sleep(0.02)
setup.delivery.flush(1)
for each in mine:
    assert os.path.samestat(os.fstat(each.fileno()), os.stat(each.name)), "somebody has closed it"
    assert os.pread(each.fileno(), 1000, 0) == b"mine" * 25
print(setup.counters.snapshot().get("files_closed", 0))
"""
"""What a program does that closes what it does not know, and then opens what is its own."""


@pytest.mark.parametrize("number", [pytest.param(256, marks=pytest.mark.slow), 4096])
def test_a_program_that_closes_all_files_finds_its_own_as_it_wrote_them(
    tmp_path: Path, receiver: tuple[Taken, str], number: int
) -> None:
    """Beside threads that deliver: no record, mark, page or request lands in what it opens then."""
    taken, url = receiver
    become = f"os.closerange(3, {number})"
    assert int(run(CLOSE_ALL.format(become=become), tmp_path, "", LEDGER, LINES, url)) >= 3
    for each in range(60):
        assert (tmp_path / f"mine-{each}").read_bytes() == b"mine" * 25, "at its exit"
    # The ledger may not be used again by that process: SQLite goes by locks that it remembers.
    assert in_ledger(tmp_path) == once(155)
    assert taken.events.keys() == once(155).keys()
    lines = (tmp_path / "usage.jsonl").read_bytes().splitlines()
    assert {decode(line)["event_id"] for line in lines} == {f"event-{each}" for each in range(155)}


BECOME_A_DAEMON = """
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/")
os.closerange(3, 4096)
"""
"""As Stevens has it, and python-daemon: only the grandchild lives on."""


def test_a_daemon_goes_on_where_its_grandparent_was(tmp_path: Path, receiver: tuple[Taken, str]) -> None:
    """It was forked while threads delivered, is nobody's child, and has closed what it inherited."""
    taken, url = receiver
    run(CLOSE_ALL.format(become=BECOME_A_DAEMON), tmp_path, "", LEDGER, url)
    assert in_ledger(tmp_path) == once(155)
    assert taken.events.keys() == once(155).keys()


def test_a_watch_tells_each_closing_once() -> None:
    """Also where the number has been given to another file since."""
    watch = Watch()
    assert [watch.is_lost(), watch.is_lost()] == [False, False]
    os.close(watch._fd)
    assert [watch.is_lost(), watch.is_lost()] == [True, False]
    taken = watch._fd
    os.close(taken)
    with open(os.devnull, "rb") as mine:  # noqa: PTH123 - the number is what it is about
        assert mine.fileno() <= taken
        assert [watch.is_lost(), watch.is_lost()] == [True, False]
        watch.close()
        os.fstat(mine.fileno())


# --- another program takes the place, or is started -------------------------------------------------

OPEN_FILES = """
import os, sys

there = {each.inode() for at in (sys.argv[1], sys.argv[1] + "/journal") for each in os.scandir(at)}
for fd in range(3, 1024):
    try:
        if os.fstat(fd).st_ino in there:
            print(fd, flush=True)
    except OSError:
        pass
"""
"""Prints which files below a directory it was given open."""

NEXT = """
from journals import *

home = Path(sys.argv[1])
setup = set_up(home, *sys.argv[2:])
setup.delivery.ensure_running()
setup.append(10, 100)
while len(setup.segments()) > 1:
    __import__("time").sleep(0.05)
assert setup.delivery.close(50)
"""


def test_after_exec_the_next_program_delivers_what_waited(tmp_path: Path) -> None:
    """`os.execv` in the middle of a delivery: no file of ours stays open, and no lock is kept."""
    (tmp_path / "next.py").write_text(OPEN_FILES + NEXT, "utf-8")
    printed = run(
        """
        busy = set_up(home, sys.argv[2])
        busy.delivery.ensure_running()
        waiting = set_up(home, sys.argv[2], mode="flush")
        waiting.append(60)
        busy.append(40, 60)
        os.execv(sys.executable, [sys.executable, home / "next.py", home, sys.argv[2]])
        """,
        tmp_path,
        LEDGER,
    )
    assert printed == ""
    assert in_ledger(tmp_path) == once(110)


def test_a_program_that_is_started_is_given_no_file_of_ours(tmp_path: Path) -> None:
    """However it is started: so it keeps no lock when we die."""
    (tmp_path / "look.py").write_text(OPEN_FILES, "utf-8")
    printed = run(
        """
        import subprocess
        setup = set_up(home, sys.argv[2])
        setup.delivery.ensure_running()
        setup.append(20)
        command = [sys.executable, home / "look.py", home]
        subprocess.run(command, close_fds=False, check=True)
        assert os.waitpid(os.posix_spawn(sys.executable, command, os.environ), 0)[1] == 0
        assert setup.delivery.close(50)
        """,
        tmp_path,
        LEDGER,
    )
    assert printed == ""
    assert in_ledger(tmp_path) == once(20)


# --- workers ----------------------------------------------------------------------------------------

POOL = """
import multiprocessing, sys
from cmdrdata_transport import Tracker

tracker = Tracker([sys.argv[2]], home=sys.argv[1])

def work(number):
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, event_id=f"event-{number}", customer_id="acme")

if __name__ == "__main__":
    work(0)
    context = multiprocessing.get_context(sys.argv[3])
    with context.Pool(3, maxtasksperchild=4) as pool:
        pool.map(work, range(1, 40), chunksize=1)
    work(40)
"""


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(each, marks=pytest.mark.slow) for each in ("forkserver", "spawn"))]
)
def test_what_the_workers_of_a_pool_record_is_there(tmp_path: Path, method: str) -> None:
    """They are replaced after some tasks, and terminated in the end, as they are without more ado."""
    (tmp_path / "pool.py").write_text(POOL, "utf-8")
    command = [sys.executable, str(tmp_path / "pool.py"), str(tmp_path), LEDGER, method]
    subprocess.run(command, check=True, timeout=120)
    assert in_ledger(tmp_path) == once(41)


@pytest.mark.slow
def test_children_of_children_and_children_by_the_dozen(tmp_path: Path) -> None:
    """A program forks in a loop while its threads record and deliver; each child forks another and goes."""
    run(
        """
        setup = set_up(home, *sys.argv[2:])
        setup.delivery.ensure_running()
        def record(first):
            for number in range(first, first + 500):
                setup.append(1, number)
                time.sleep(0.001)
        threads = [threading.Thread(target=record, args=(first,)) for first in range(0, 2000, 500)]
        for each in threads: each.start()
        children = []
        for child in range(30):
            first = 10_000 + child * 100
            pid = os.fork()
            if pid == 0:
                setup.delivery.ensure_running()
                setup.append(10, first)
                grandchild = os.fork()
                if grandchild == 0:
                    setup.append(10, first + 10)
                    os._exit(0)
                setup.append(10, first + 20)
                os.waitpid(grandchild, 0)
                os._exit(0)
            children.append(pid)
            time.sleep(0.01)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 30
        for each in threads: each.join()
        assert setup.delivery.close(60)
        """,
        tmp_path,
        LEDGER,
        LINES,
    )
    expected = once(2000)
    for child in range(30):
        expected += once(30, 10_000 + child * 100)
    assert in_ledger(tmp_path) == expected


def test_a_thread_that_delivers_imports_no_driver(tmp_path: Path) -> None:
    """A child that is forked in the middle of an import has half of the module for good."""
    printed = run(
        """
        outlets = [open_sink(sink, home=home, environ={}) for sink in sys.argv[2:]]
        for outlet in outlets:
            before = set(sys.modules)
            try: outlet.send([line_of(0)], 0.5)
            except Exception: pass  # nobody listens
            print([name for name in sys.modules if name not in before])
        """,
        tmp_path,
        LEDGER,
        LINES,
        "http://127.0.0.1:1/events",
        "otlp+http://127.0.0.1:1",
        "kafka://127.0.0.1:1/usage?insecure=1",
    )
    assert printed == "[]\n" * 5


def test_calls_of_a_child_that_python_knows_nothing_of_are_its_own(tmp_path: Path) -> None:
    """A fork in C after the first call: the child's events are not in a file that its parent removes."""
    printed = run(
        """
        from cmdrdata_transport import Tracker
        def record(first, last):
            for number in range(first, last):
                tracker.record(provider="openai", usage={"input_tokens": 1}, event_id=f"event-{number}")
        tracker = Tracker(["sqlite:///usage.db"], home=home, delivery="flush")
        record(0, 5)
        readable, writable = os.pipe()
        pid = fork_in_c()
        if pid == 0:
            record(5, 10)
            os.read(readable, 1)
            record(10, 20)
            os._exit(0)
        tracker.close(50)
        os.write(writable, b"x")
        print(os.waitpid(pid, 0)[1])
        """,
        tmp_path,
    )
    assert printed == "0\n"
    assert in_ledger(tmp_path) == once(20)


@pytest.mark.slow
def test_children_that_python_knows_nothing_of_give_different_ids(tmp_path: Path) -> None:
    """They inherit the same chance, and would name different events alike."""
    printed = run(
        """
        from cmdrdata_transport import Tracker, identity
        tracker = Tracker([Receiver()], home=home, delivery="flush")
        tracker.record(provider="openai", usage={})
        for _ in range(2):
            if fork_in_c() == 0:
                tracker.record(provider="openai", usage={})
                print(identity.new_event_id(1.0), flush=True)
                os._exit(0)
            os.wait()
        """,
        tmp_path,
    )
    assert len(set(printed.split())) == 2


def test_all_trackers_of_a_child_that_python_knows_nothing_of_deliver(tmp_path: Path) -> None:
    """Whichever of them notices it: the others have no threads there, either, until they start them."""
    printed = run(
        """
        from cmdrdata_transport import Tracker
        trackers = [Tracker([f"jsonl:///{name}.jsonl"], home=home, name=name) for name in "ab"]
        for each in trackers:
            each.record(provider="openai", usage={})
            each.flush(50)
        pid = fork_in_c()
        if pid == 0:
            for each in trackers:
                each.record(provider="openai", usage={})
            for name in "ab":
                deadline = time.monotonic() + 50
                while (home / f"{name}.jsonl").read_bytes().count(b"event_id") < 2:
                    time.sleep(0.02)
                    if time.monotonic() > deadline: os._exit(1)
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        """,
        tmp_path,
    )
    assert printed == "0\n"
