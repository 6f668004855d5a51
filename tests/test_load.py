"""A fleet at full speed: many processes, one ledger, exact sums."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import segments

PROCESSES = 8

WORKER = """
import sys
from cmdrdata_transport import Tracker

number, events = int(sys.argv[2]), int(sys.argv[3])
tracker = Tracker(["sqlite:///usage.db"], home=sys.argv[1], service=f"worker-{number}")
for each in range(events):
    usage = {"input_tokens": each, "output_tokens": number, "total_tokens": each + number}
    tracker.record(provider="x-ai", model="grok-4", usage=usage, customer_id=f"customer-{each % 10}")
assert tracker.flush(600)
tracker.close()
"""


def load(home: Path, events: int) -> None:
    """Record so many events in each of the processes, at once; all of them are in the ledger, once."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(home), str(number), str(events)])
        for number in range(PROCESSES)
    ]
    assert [each.wait(900) for each in workers] == [0] * PROCESSES
    drain(home, environ={})
    with Ledger.open("sqlite:///usage.db", home=home) as ledger:
        (all_of_them,) = ledger.report(by=())
        by_worker = ledger.report(by=("service",))
        by_customer = ledger.report(by=("customer_id",))
    inputs = events * (events - 1) // 2
    assert all_of_them["events"] == events * PROCESSES
    assert all_of_them["input_tokens"] == inputs * PROCESSES
    assert all_of_them["output_tokens"] == events * sum(range(PROCESSES))
    assert {(row["service"], row["events"], row["input_tokens"]) for row in by_worker} == {
        (f"worker-{number}", events, inputs) for number in range(PROCESSES)
    }
    assert [row["events"] for row in by_customer] == [events * PROCESSES // 10] * 10
    assert segments(home / "journal") == []


def test_eight_processes_fill_one_ledger(tmp_path: Path) -> None:
    """Real trackers, as fast as they can: the sums are those of what was recorded, to the token."""
    load(tmp_path, 1000)


@pytest.mark.slow
def test_eight_processes_fill_one_ledger_with_very_many(tmp_path: Path) -> None:
    """Four hundred thousand events, which is more than a busy day of most."""
    load(tmp_path, 50_000)
