"""Nothing lost, nothing twice: programs that are killed, forked and crowded, and one ledger."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from journals import program

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.event import decode
from cmdrdata_transport.segments import segments

SINKS = ("sqlite:///usage.db", "jsonl:///usage.jsonl")

WORK = """
setup = set_up(home, *sys.argv[3:])
setup.delivery.ensure_running()
first = int(sys.argv[2])
for number in range(first, first + 100_000):
    setup.journal.append(line_of(number))
    os.write(1, b"%d\\n" % number)  # the application has seen the end of the answer
    if number % 50 == 0:
        time.sleep(0.001)
"""


def in_ledger(home: Path) -> list[int]:
    """The events of the ledger."""
    with closing(sqlite3.connect(home / "usage.db")) as connection:
        found = connection.execute("SELECT event_id FROM usage_events")
        return [int(each.removeprefix("event-")) for (each,) in found]


def in_file(home: Path) -> list[int]:
    """The events of the file of lines; whoever is killed while it writes leaves the beginning of one."""
    lines = [each for each in (home / "usage.jsonl").read_bytes().splitlines() if each.endswith(b"}")]
    return [int(decode(line)["event_id"].removeprefix("event-")) for line in lines]


def kill_at_random(home: Path, first: int, chance: random.Random) -> list[int]:
    """Kill a program after some of its answers; what it had seen the end of by then."""
    process = program(WORK, home, str(first), *SINKS)
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(chance.randrange(1, 3000))]
    process.send_signal(signal.SIGKILL)
    whole = process.stdout.read().rpartition("\n")[0]
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL
    return seen + [int(each) for each in whole.split()]


def kills(home: Path, number: int) -> None:
    """Kill so many programs, one after the other, and clear up: every answer is in the ledger once."""
    chance = random.Random(number)
    seen = [each for run in range(number) for each in kill_at_random(home, run * 100_000, chance)]
    assert all(each.pending == 0 and each.trouble is None for each in drain(home, environ={}))
    stored = in_ledger(home)
    assert len(stored) == len(set(stored))
    assert set(seen) <= set(stored)
    # An event may be journaled and its end not yet seen, when the kill falls between the two.
    assert len(stored) - len(set(seen)) <= number
    assert set(in_file(home)) == set(stored)
    assert segments(home / "journal") == []


def test_killed_programs_lose_nothing(tmp_path: Path) -> None:
    """SIGKILL at a random moment, between the end of an answer and its delivery or in the middle of one."""
    kills(tmp_path, 4)


@pytest.mark.slow
def test_many_killed_programs_lose_nothing(tmp_path: Path) -> None:
    """The same, sixty times in one home."""
    kills(tmp_path, 60)


def test_a_program_killed_before_any_delivery_loses_nothing(tmp_path: Path) -> None:
    """No sink has seen anything: the journal alone brings it all."""
    process = program(
        """
        setup = set_up(home, *sys.argv[2:], mode="flush")
        setup.append(500)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        *SINKS,
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert sorted(each.delivered for each in drain(tmp_path, environ={})) == [500, 500]
    assert sorted(in_ledger(tmp_path)) == sorted(in_file(tmp_path)) == list(range(500))


def test_a_program_killed_between_a_delivery_and_its_mark_tells_the_ledger_once(tmp_path: Path) -> None:
    """The worst moment: the sink has the events and nobody has noted it. `event_id` keeps it to one."""
    process = program(
        """
        from cmdrdata_transport import segments as module
        module.Claim.advance = lambda self, taken: os.kill(os.getpid(), signal.SIGKILL)
        setup = set_up(home, *sys.argv[2:], mode="flush")
        setup.append(100)
        setup.delivery.flush()
        """,
        tmp_path,
        SINKS[0],
    )
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(in_ledger(tmp_path)) == 100
    assert [each.delivered for each in drain(tmp_path, environ={})] == [100]
    assert sorted(in_ledger(tmp_path)) == list(range(100))


def test_eight_processes_share_one_ledger(tmp_path: Path) -> None:
    """They open it at the same moment, write side by side, and end as they like; sums are exact."""
    code = """
    setup = set_up(home, *sys.argv[3:])
    first = int(sys.argv[2])
    while not home.joinpath("go").exists(): time.sleep(0.001)
    for start in range(first, first + 500, 50):
        setup.delivery.ensure_running()
        setup.append(50, start)
        time.sleep(0.01)
    if first % 1000: os.kill(os.getpid(), signal.SIGKILL)
    assert setup.delivery.close(60)
    """
    programs = [program(code, tmp_path, str(number * 500), *SINKS) for number in range(8)]
    (tmp_path / "go").touch()
    for each in programs:
        each.communicate(timeout=120)
    assert [each.returncode for each in programs] == [0, -signal.SIGKILL] * 4
    drain(tmp_path, environ={})
    assert sorted(in_ledger(tmp_path)) == list(range(4000))
    assert set(in_file(tmp_path)) == set(range(4000))
    assert segments(tmp_path / "journal") == []


def test_prefork_workers_deliver_their_own(tmp_path: Path) -> None:
    """A master that recorded before it forked, four workers, one of them killed: each event is there once."""
    process = program(
        """
        setup = set_up(home, *sys.argv[2:])
        setup.delivery.ensure_running()
        setup.append(100)
        workers = []
        for number in range(1, 5):
            pid = os.fork()
            if pid == 0:
                setup.delivery.ensure_running()
                setup.append(300, number * 1000)
                if number == 2: os.kill(os.getpid(), signal.SIGKILL)
                os._exit(0 if setup.delivery.close(60) else 1)
            workers.append(pid)
        setup.append(100, 100)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers] == [0, -9, 0, 0]
        assert setup.delivery.close(60)
        """,
        tmp_path,
        *SINKS,
    )
    process.communicate(timeout=120)
    assert process.returncode == 0
    drain(tmp_path, environ={})
    expected = [*range(200), *(worker * 1000 + number for worker in range(1, 5) for number in range(300))]
    assert sorted(in_ledger(tmp_path)) == expected
    assert segments(tmp_path / "journal") == []


def test_a_child_that_lives_on_does_not_keep_its_dead_parents_events(tmp_path: Path) -> None:
    """The lock on a segment ends with its writer, whatever the writer's children do."""
    process = program(
        """
        setup = set_up(home, *sys.argv[2:], mode="flush")
        setup.append(10)
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            os.close(1)
            time.sleep(60)
            os._exit(0)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        *SINKS,
    )
    child = int(process.communicate(timeout=60)[0])
    try:
        assert sorted(each.delivered for each in drain(tmp_path, environ={})) == [10, 10]
    finally:
        os.kill(child, signal.SIGKILL)
