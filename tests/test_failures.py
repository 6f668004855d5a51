"""Storage, clocks and receivers that fail: nothing is lost that is anywhere, and what is has a number."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from journals import Receiver, Setup, line_of, once, set_up
from typer.testing import CliRunner

from cmdrdata_transport import Tracker, UsageEvent, journal, lanes
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks.damage import opening

LEDGER = "sqlite:///usage.db"

PAGE = 4096
"""The bytes of a page of SQLite's."""


def stored(path: Path) -> Counter[int]:
    """The numbers of the events in a ledger."""
    with Ledger.open(path) as ledger:
        return Counter(int(each.event.event_id.removeprefix("event-")) for each in ledger.events())


def whole(path: Path) -> bool:
    """Whether SQLite finds nothing to complain of."""
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def damage(path: Path, begin: int = 4096) -> None:
    """What a bad disk, or a copy in the middle of a write, makes of a ledger: pages of something else."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xa5" * (size - begin))


def aside(home: Path) -> list[Path]:
    """The ledgers that were set aside."""
    return [
        path for path in sorted(home.glob("usage.db.corrupt-*")) if not path.name.endswith(("wal", "shm"))
    ]


def half_delivered(home: Path) -> Setup:
    """Fifty events in the ledger and no more in the journal; fifty that another sink still waits for."""
    first = set_up(home, LEDGER, mode="flush")
    first.append(50)
    assert first.delivery.close(50)
    down = Receiver(raises=[OSError()] * 1000)
    second = set_up(home, LEDGER, down, mode="flush")
    second.append(50, start=50)
    fill_the_ledger(second)
    assert stored(home / "usage.db") == once(100)
    return second


def fill_the_ledger(setup: Setup) -> None:
    """Deliver until the ledger has what is journaled; the other sink is down."""
    deadline = time.monotonic() + 50
    while any(each.events for each in setup.delivery.backlog() if each.sink != "callable:receiver"):
        assert time.monotonic() < deadline
        setup.delivery.flush(0.2)


@pytest.mark.parametrize("begin", [0, 4096], ids=["all of it", "all but the schema"])
def test_a_damaged_ledger_is_set_aside_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begin: int
) -> None:
    """The journal fills the new one again; the log says once what only the old one has."""
    setup = half_delivered(tmp_path)
    damage(tmp_path / "usage.db", begin)
    if begin == 0:
        (tmp_path / "usage.db").write_bytes(bytes(8192))
    caplog.set_level(logging.WARNING)
    setup.append(10, start=100)
    fill_the_ledger(setup)
    setup.counters.settle()
    assert stored(tmp_path / "usage.db") == once(60, start=50)
    assert whole(tmp_path / "usage.db")
    (old,) = aside(tmp_path)
    assert old.stat().st_mode & 0o777 == 0o600
    assert setup.counters.snapshot()["ledger_corrupt"] == 1
    (said,) = [each.message for each in caplog.records if "ledger_corrupt" in each.message]
    assert f"{old} has 0 events that are nowhere else, and what cannot be read" in said


def test_it_is_said_what_can_be_read_in_the_one_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How many events, and of which time: an index may be gone and the events still there."""
    setup = half_delivered(tmp_path)
    with closing(sqlite3.connect(tmp_path / "usage.db")) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_usage_events_1'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "usage.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    caplog.set_level(logging.WARNING)
    setup.append(1, start=100)
    fill_the_ledger(setup)
    setup.counters.settle()
    moment = "2026-11-21T12:00:00.250000Z"
    assert f"has 50 events of {moment} to {moment} that are nowhere else" in caplog.text
    assert stored(tmp_path / "usage.db") == once(51, start=50)


@pytest.mark.parametrize(
    ("noise", "around", "said"),
    [
        pytest.param(b"\xa5" * PAGE, 30, "malformed", id="a page"),
        pytest.param(b"x" * 20, 0, "1 events are damaged", id="an event"),
        pytest.param(b"\xff" * 20, 0, "no UTF-8", id="bytes that are no text"),
    ],
)
def test_what_is_whole_behind_damage_is_read(tmp_path: Path, noise: bytes, around: int, said: str) -> None:
    """A ledger gives all events but the damaged ones, and behind the last an error that says so."""
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.append(2000)
    assert setup.delivery.close(30)
    path = tmp_path / "usage.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        place = file.read().index(line_of(1000))
        file.seek(place - place % len(noise) if len(noise) == PAGE else place)
        file.write(noise)
    found: list[int] = []
    with Ledger.open(path) as ledger, pytest.raises(Unavailable, match=said):
        found.extend(int(each.event.event_id.removeprefix("event-")) for each in ledger.events())
    assert found == sorted(found)
    missing = {*range(2000)} - {*found}
    assert 1000 in missing
    assert missing <= {*range(1000 - around, 1001 + around)}


@pytest.mark.parametrize(
    "command",
    ["report", "report --latency", "tail", "prune --before 2026-01-01 --yes", "erase --customer acme --yes"],
)
def test_of_a_damaged_ledger_every_command_says_what_to_type(tmp_path: Path, command: str) -> None:
    """The file's name, and how another is begun and what can be read comes back, as the doctor says it."""
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.append(2000)
    assert setup.delivery.close(30)
    path = tmp_path / "usage.db"
    damage(path, PAGE)
    environ = {"CMDRDATA_HOME": str(tmp_path), "CMDRDATA_SINKS": LEDGER}
    done = CliRunner().invoke(app, command.split(), env=environ)
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert f"{path}: database disk image is malformed. If it stays so, move it away" in said
    assert f"replay --from-ledger --ledger FILE --sink {LEDGER}" in said


def test_what_can_be_read_of_the_one_set_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor says what to type; that brings the events whose pages are whole, and says where it ended."""
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.append(2000)
    assert setup.delivery.close(30)
    path = tmp_path / "usage.db"
    damage(path, path.stat().st_size // 2)
    setup.append(1, start=2000)
    setup.delivery.close(30)
    monkeypatch.setenv("CMDRDATA_SINKS", LEDGER)
    (problem,) = examine(tmp_path).problems
    assert f"{aside(tmp_path)[0]} was set aside" in problem
    typed = problem.partition("cmdrdata-transport ")[2].partition(";")[0].split()
    done = CliRunner().invoke(app, [*typed, "--yes"], env={"CMDRDATA_HOME": str(tmp_path), "COLUMNS": "300"})
    assert "Not all of the ledger can be read: database disk image is malformed" in done.output
    assert done.exit_code == 1
    found = stored(path)
    assert set(found.values()) == {1}
    assert 200 < len(found) < 2001
    assert found[2000] == 1


def deliver(home: Path, number: int) -> None:
    """One of many processes with one ledger."""
    setup = set_up(home, LEDGER, mode="flush")
    setup.append(20, start=number * 20)
    os._exit(0 if setup.delivery.close(30) else 1)


def test_of_many_processes_one_sets_it_aside(tmp_path: Path) -> None:
    """They find the damage at the same moment; no new ledger is set aside, and none of their events lost."""
    set_up(tmp_path, LEDGER, mode="flush").delivery.close()
    half_delivered(tmp_path)
    damage(tmp_path / "usage.db")
    context = multiprocessing.get_context("fork")
    with opening(tmp_path / "usage.db"):  # nobody begins anew before all are there
        processes = [context.Process(target=deliver, args=(tmp_path, number)) for number in range(10, 16)]
        for each in processes:
            each.start()
    for each in processes:
        each.join(60)
    assert [each.exitcode for each in processes] == [0] * 6
    assert len(aside(tmp_path)) == 1
    assert stored(tmp_path / "usage.db") == once(50, start=50) + once(120, start=200)


def test_who_reads_waits_until_the_ledger_is_exchanged(tmp_path: Path) -> None:
    """Else it might take the new one's log for the old one's, as both have one name."""
    for home in (tmp_path, tmp_path / "new"):
        setup = set_up(home, LEDGER, mode="flush")
        setup.append(50)
        assert setup.delivery.close(50)
    ledger = tmp_path / "usage.db"
    damage(ledger)
    with ThreadPoolExecutor(1) as threads:
        with opening(ledger, fcntl.LOCK_EX):
            told = threads.submit(stored, ledger)
            time.sleep(0.1)  # it would have read by then
            (tmp_path / "new" / "usage.db").replace(ledger)
        assert told.result(50) == once(50)


def test_a_ledger_whose_directory_somebody_keeps_locked_can_be_read(tmp_path: Path) -> None:
    """A backup, say, or a process that was stopped: only what is exchanged meanwhile would be misread."""
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.append(3)
    assert setup.delivery.close(50)
    with opening(tmp_path / "usage.db", fcntl.LOCK_EX):
        assert stored(tmp_path / "usage.db") == once(3)


def cut_in_half(path: Path) -> None:
    """A copy that did not end."""
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path: Path) -> None:
    """As with a log that somebody empties."""
    os.truncate(path, 0)


def spoil_the_header(path: Path) -> None:
    """It says that it is a database, and nothing that is true of it."""
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"\xa5" * 84)


def spoil_the_middle(path: Path) -> None:
    """One page of many."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)


def spoil_what_is_beside_it(path: Path) -> None:
    """A log and an index of another ledger, or of none."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"\xa5" * 32768)


@pytest.mark.parametrize("spoil", [cut_in_half, spoil_the_header, spoil_what_is_beside_it])
def test_a_ledger_that_is_spoiled_so_that_sqlite_says_so_is_begun_anew(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """What comes is stored, in a ledger that is whole; and what is not in it any more is named."""
    path = tmp_path / "usage.db"
    setup = at_rest(half_delivered(tmp_path))
    spoil(path)
    setup.append(10, start=100)
    fill_the_ledger(setup)
    assert whole(path)
    found = stored(path)
    assert set(found.values()) == {1}
    assert found >= once(60, start=50)  # what came, and what the journal had
    if once(100) - found:
        assert setup.counters.snapshot()["ledger_corrupt"] == 1
        assert len(aside(tmp_path)) == 1


def at_rest(setup: Setup) -> Setup:
    """Its ledger is one file, which nobody has open."""
    setup.delivery.close(0)
    with closing(sqlite3.connect(setup.home / "usage.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return setup


@pytest.mark.parametrize("spoil", [spoil_the_middle, cut_to_nothing])
def test_a_ledger_that_is_spoiled_unseen_takes_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    """SQLite sees it where it reads that page: the doctor then says which file, and what to type."""
    path = tmp_path / "usage.db"
    setup = at_rest(half_delivered(tmp_path))
    spoil(path)
    setup.append(10, start=100)
    fill_the_ledger(setup)
    with closing(sqlite3.connect(path)) as connection:
        new = "SELECT count(*) FROM usage_events WHERE seq > (SELECT max(seq) - 10 FROM usage_events)"
        assert connection.execute(new).fetchone() == (10,)
    monkeypatch.setenv("CMDRDATA_SINKS", LEDGER)
    told = [each for each in examine(tmp_path).problems if each.startswith(f"{path}: database disk image")]
    assert len(told) == (spoil is spoil_the_middle)
    assert all(f"replay --from-ledger --ledger FILE --sink {LEDGER}" in each for each in told)


def test_another_kind_of_file_is_left_where_it_is(tmp_path: Path) -> None:
    """Somebody's notes under the name of the ledger are not ours to set aside: the events wait."""
    (tmp_path / "usage.db").write_text("dear diary, " * 100)
    setup = set_up(tmp_path, LEDGER, mode="flush")
    setup.append(1)
    assert not setup.delivery.flush(0.2)
    assert (tmp_path / "usage.db").read_text().startswith("dear diary")
    (tmp_path / "usage.db").unlink()
    assert setup.delivery.flush(50)
    assert stored(tmp_path / "usage.db") == once(1)


LATER, EARLIER = 400 * 24 * 3600.0, -400 * 24 * 3600.0


@pytest.mark.parametrize(
    "jumps",
    [
        *(pytest.param(each, marks=pytest.mark.slow) for each in ((EARLIER, 0.0), (LATER, 0.0))),
        (0.0, LATER, EARLIER, 0.0),
    ],
)
def test_a_clock_that_jumps_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: tuple[float, ...]
) -> None:
    """Events have the time that the clock said, and ids of their own; none waits for a clock to come back."""
    now = [0.0]
    for module in ("stated", "journal", "segments.clearing", "tallies", "seen", "jobs"):
        monkeypatch.setattr(f"cmdrdata_transport.{module}.time", lambda: time.time() + now[0])
    monkeypatch.setattr(journal, "time_ns", lambda: int((time.time() + now[0]) * 1e9))
    receiver = Receiver("other", raises=[OSError()] * 3)
    events: list[UsageEvent] = []

    def collect(landed: list[UsageEvent]) -> None:
        if receiver.raises:
            raise receiver.raises.pop()
        events.extend(landed)

    tracker = Tracker([LEDGER, collect], home=tmp_path)
    for number, jump in enumerate(jumps):
        now[0] = jump
        for _ in range(10):
            tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id=f"customer-{number}")
        tracker._journal.close()  # the next event begins a segment, named by the clock
    assert tracker.flush(30)
    tracker.close(50)
    assert len({each.event_id for each in events}) == len(events) == 10 * len(jumps)
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        for number, jump in enumerate(jumps):
            middle = datetime.fromtimestamp(time.time() + jump, UTC)
            day = timedelta(days=1)
            (row, *_) = [
                row
                for row in ledger.report(since=middle - day, until=middle + day)
                if row["customer_id"] == f"customer-{number}"
            ]
            assert row["events"] == 10
    assert list((tmp_path / "journal").iterdir()) == []


def hang_up(_: Call) -> Answer | None:
    """The receiver took the event, and says nothing."""
    return None


def break_off(_: Call) -> Answer:
    """It says that all is well, and dies over it."""
    return Answer(status=201, headers=[("content-length", "500")], body=[b"{", b"}"], close_after=1)


def fail(_: Call) -> Answer:
    """It stored the event, and failed afterwards."""
    return Answer(status=500)


@pytest.mark.parametrize("trouble", [hang_up, break_off, fail])
def test_a_receiver_that_takes_an_event_and_fails_is_told_again_by_the_same_key(
    tmp_path: Path, trouble: Callable[[Call], Answer | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can know whether it has the event: it comes with the key that it came with, and none is lost."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE_SECONDS", 0.0)
    troubles = [trouble] * 4
    told: list[str | None] = []

    def answer(call: Call) -> Answer | None:
        told.append(call.header("idempotency-key"))
        return troubles.pop()(call) if troubles else Answer(status=201)

    with Loopback(answer) as server:
        setup = set_up(tmp_path, f"{server.url}/events", "jsonl:///usage.jsonl")
        setup.delivery.ensure_running()
        setup.append(10)
        assert setup.delivery.flush(30)
        setup.delivery.close(50)
    assert set(told) == {f"event-{number}" for number in range(10)}
    assert len((tmp_path / "usage.jsonl").read_bytes().splitlines()) == 10
    assert setup.segments() == []
