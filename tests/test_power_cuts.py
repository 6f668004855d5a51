"""A failure of power: what the disk was given is delivered afterwards, and nothing that never was."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journals import SINK, Setup, line_of, program, set_up, until_killed
from power import Machine, RealDisk, machine

from cmdrdata_transport import housekeeping
from cmdrdata_transport.adopting import drain
from cmdrdata_transport.dead_letters import read_letter
from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.replaying import letters, resend
from cmdrdata_transport.sinks.sqlite import connect

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing here says what is open")

LINES = "jsonl:///usage.jsonl"

OLD, GONERS = 7, 11
"""Every seventh event is of last year, every eleventh of somebody who asks to be forgotten."""

THINGS = ("append", "append", "sync", "sync", "flush", "resend", "prune", "erase")


def recorded(number: int) -> bytes:
    """The event of that number."""
    old: dict[str, Any] = {} if number % OLD else {"timestamp": "2025-12-01T12:00:00Z"}
    return line_of(number, **old, **({} if number % GONERS else {"customer_id": "goner"}))


def number_of(line: bytes) -> int:
    """The number of an event, which is as it was recorded."""
    number = int(decode(line)["event_id"].removeprefix("event-"))
    assert line == recorded(number)
    return number


@dataclass
class Picky:
    """A receiver far away, which no failure here touches. It refuses every fifth event."""

    name: str = "picky"
    got: Counter[int] = field(default_factory=Counter)

    def __call__(self, events: list[UsageEvent]) -> None:
        """Take all of them, or none."""
        numbers = [int(each.event_id.removeprefix("event-")) for each in events]
        if any(number % 5 == 0 for number in numbers):
            raise Rejected("one of those")
        self.got.update(numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What was so when the power failed: what is left of home, what has to be there or was told before."""

    home: Path
    call: str
    known: int
    promised: set[int]
    told: Counter[int]

    def missing(self) -> dict[str, set[int]]:
        """What sinks lack when all that is left is delivered. None has what never was, or was not so."""
        picky = Picky(got=self.told.copy())
        sinks: list[str | Picky] = [SINK, LINES, picky]
        drain(self.home, sinks, environ={})
        assert [(each.delivered, each.pending, each.trouble) for each in drain(self.home, sinks)] == [
            (0, 0, None)
        ] * 3
        with closing(connect(self.home / "usage.db")) as ledger:
            stored = ledger.execute("SELECT event FROM usage_events")
            kept = Counter(number_of(event.encode()) for (event,) in stored)
        has = {
            SINK: set(kept),
            LINES: set(lines_in(self.home / "usage.jsonl")),
            picky.name: {*picky.got, *refused_in(self.home)},
        }
        assert set(kept.values()) <= {1}
        assert all(each <= set(range(self.known)) for each in has.values())
        return {sink: self.promised - each for sink, each in has.items() if self.promised - each}


def lines_in(path: Path) -> Iterator[int]:
    """The events of a file of lines, of which a part may never have come to the disk."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError):
            decode(line.strip())
            yield number_of(line.strip())


def refused_in(home: Path) -> Iterator[int]:
    """The events that are dead letters."""
    for path in (home / "dead").glob("*.jsonl"):
        for letter in map(read_letter, path.read_bytes().splitlines()):
            if letter is not None:
                yield number_of(letter.line)


@dataclass
class Work:
    """Programs in one home, one after the other; the power fails now and then, and afterwards has not."""

    on: Machine
    chance: random.Random
    share: float
    cuts: list[Cut] = field(default_factory=list[Cut])
    known: int = 0
    promised: set[int] = field(default_factory=set[int])
    gone: set[int] = field(default_factory=set[int])
    picky: Picky = field(default_factory=Picky)

    @property
    def home(self) -> Path:
        """A place of which nothing is there when the first one starts."""
        return self.on.root / "state" / "cmdrdata"

    def cut(self, call: str) -> None:
        """Here the power may fail."""
        if self.promised and self.chance.random() < self.share:
            left = self.on.root.with_name(f"cut-{len(self.cuts)}")
            with self.on.unwatched():
                self.on.after(left, self.chance)
            self.cuts.append(
                Cut(
                    home=left / self.home.relative_to(self.on.root),
                    call=call,
                    known=self.known,
                    promised=self.promised.copy(),
                    told=self.picky.got.copy(),
                )
            )

    def run(self, programs: int) -> None:
        """So many programs."""
        self.on.cut = self.cut
        for _ in range(programs):
            sinks = (SINK, LINES, self.picky)
            setup = set_up(self.home, *sinks, mode="flush", durability="fsync", segment_bytes=2500)
            for _ in range(self.chance.randint(5, 15)):
                self.do(self.chance.choice(THINGS), setup)
            setup.delivery.close(self.chance.choice((0, 60)))

    def do(self, what: str, setup: Setup) -> None:
        """One thing."""
        match what:
            case "append":
                for _ in range(self.chance.randint(1, 12)):
                    self.known += 1
                    setup.journal.append(recorded(self.known - 1))
            case "sync":
                setup.journal.sync()
                self.promised = set(range(self.known)) - self.gone
            case "flush":
                setup.delivery.flush(self.chance.choice((0, 60)))
            case "resend":
                for each in letters(self.home):
                    resend(self.home, each)
            case "prune":
                self.lose(OLD)
                for place in housekeeping.old(self.home, [SINK], datetime(2026, 1, 1, tzinfo=UTC)):
                    place.remove()
            case _:
                self.lose(GONERS)
                for place in housekeeping.of_customer(self.home, [SINK, LINES], "goner"):
                    place.remove()

    def lose(self, each: int) -> None:
        """These may be gone from now on."""
        self.gone |= {number for number in range(self.known) if number % each == 0}
        self.promised -= self.gone


def fail(tmp_path: Path, seed: int, *, programs: int, share: float) -> None:
    """Let the power fail at random moments, and see what each time has left."""
    (root := tmp_path / "machine").mkdir()
    with machine(root) as on:
        work = Work(on, random.Random(seed), share)
        work.run(programs)
    assert work.cuts
    assert {cut.home.parents[1].name: (cut.call, lost) for cut in work.cuts if (lost := cut.missing())} == {}


def test_what_was_synced_survives_a_failure_of_power(tmp_path: Path) -> None:
    """Each sink has it in the end, the ledger once, whatever the disk had of what was not synced."""
    fail(tmp_path, 6, programs=3, share=0.004)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_what_was_synced_survives_many_failures_of_power(tmp_path: Path, seed: int) -> None:
    """The same, some fifty times in each home."""
    fail(tmp_path, seed, programs=6, share=0.02)


JOURNALING = """
setup = set_up(home, sys.argv[2], sys.argv[3], mode=sys.argv[4], durability="fsync", segment_bytes=100_000)
synced = os.open(sys.argv[5], os.O_WRONLY | os.O_CREAT)
number = 0
def sync():
    while True:
        known = number
        setup.journal.sync()
        if {"sync_failed", "journal_failed"} & setup.counters.snapshot().keys():
            return  # the disk has failed
        os.pwrite(synced, b"%09d" % known, 0)
        time.sleep(0.02)
setup.delivery.ensure_running()
threading.Thread(target=sync, daemon=True).start()
while True:
    setup.append(1, start=number)
    number += 1
    if number % 50 == 0:
        print(number, flush=True)
        time.sleep(0.002)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["background", "flush"])
@pytest.mark.parametrize("options", ["data=ordered", "data=writeback,noauto_da_alloc", "data=journal"])
def test_what_was_synced_survives_on_a_file_system_that_fails(
    tmp_path: Path, options: str, mode: str, record_property: Callable[[str, object], None]
) -> None:
    """The same of ext4, for real, some times: what its log has it has, and no more."""
    chance = random.Random(options)
    told: list[int] = []
    for each in range(5):
        disk = RealDisk(tmp_path / f"{each}.img", tmp_path / f"{each}")
        try:
            disk.make()
            with disk.mounted(options):
                pass
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no right to make a file system here")
        promised = tmp_path / f"{each}.synced"
        with (
            disk.mounted(options) as place,
            until_killed(program(JOURNALING, place / "home", SINK, LINES, mode, str(promised))) as process,
        ):
            assert process.stdout is not None
            for _ in range(chance.randrange(10, 60)):
                process.stdout.readline()
            disk.fail()
            told.append(int(promised.read_bytes() or 0))
        with disk.mounted(options) as place:
            drain(place / "home", [SINK, LINES], environ={})
            with closing(connect(place / "home" / "usage.db")) as ledger:
                rows = ledger.execute("SELECT event FROM usage_events").fetchall()
            has = Counter(int(decode(event.encode())["event_id"].removeprefix("event-")) for (event,) in rows)
            assert all(event.encode() == line_of(number) for number, (event,) in zip(has, rows, strict=True))
            assert set(range(told[-1])) <= set(has)
    record_property(
        "says", f"{sum(told)} events had been synced when {len(told)} disks failed, and are there"
    )
