"""Many processes and one topic: killed while they deliver, started again, and at full speed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from confluent_kafka import Message
from kafka_cluster import read

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.segments import segments

PATIENCE_SECONDS = 60.0

PROCESSES = 8

CLUSTER = """
import sys
from kafka_cluster import Cluster
cluster = Cluster(partitions=int(sys.argv[1]))
print(cluster.hosts, flush=True)
sys.stdin.read()
"""
"""Brokers in a process of their own, which outlive whoever is killed; they end with their input."""

APPLICATION = """
import os, sys, time
from cmdrdata_transport import Tracker

number, notes = int(sys.argv[2]), os.open(sys.argv[4], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tracker = Tracker([sys.argv[3]], home=sys.argv[1])
while True:
    usage = {"input_tokens": number, "output_tokens": 1, "total_tokens": number + 1}
    tracker.record(
        provider="x-ai", usage=usage, event_id=f"event-{number}", customer_id=f"customer-{number % 9}"
    )
    os.write(notes, b"%d\\n" % number)
    number += 1
    time.sleep(0.001)  # the brokers keep five megabytes of each partition
"""
"""Notes each event once it is recorded, and goes on until it is killed."""

WORKER = """
import sys
from cmdrdata_transport import Tracker

number, events = int(sys.argv[2]), int(sys.argv[4])
tracker = Tracker([sys.argv[3]], home=sys.argv[1], service=f"worker-{number}")
for each in range(events):
    usage = {"input_tokens": each, "output_tokens": number, "total_tokens": each + number}
    tracker.record(provider="x-ai", model="grok-4", usage=usage, customer_id=f"customer-{each % 500}")
assert tracker.flush(600)
tracker.close()
"""


@contextmanager
def brokers(partitions: int) -> Iterator[str]:
    """Brokers with a topic `usage`: their addresses."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(partitions)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        hosts = process.stdout.readline().strip()
        assert hosts
        yield hosts
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)


def told(messages: list[Message]) -> dict[str, dict[str, Any]]:
    """What a consumer knows that takes each id of CloudEvents once."""
    clouds = (json.loads(message.value() or b"") for message in messages)
    return {each["id"]: each["data"] for each in clouds}


def kill_deliverers(home: Path, times: int) -> None:
    """Kill the only application so many times, each time at another moment; another adopts what it left."""
    chance, notes = random.Random(times), home / "notes"
    notes.touch()
    with brokers(partitions=20) as hosts:
        url = f"kafka://{hosts}/usage"
        for number in range(times):
            arguments = [str(home / "home"), str(number * 1_000_000), url, str(notes)]
            process = subprocess.Popen([sys.executable, "-c", APPLICATION, *arguments])
            before, deadline = notes.stat().st_size, monotonic() + PATIENCE_SECONDS
            while notes.stat().st_size == before:
                assert process.poll() is None
                assert monotonic() < deadline
                sleep(0.01)
            sleep(chance.uniform(0.0, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_SECONDS)
        drained = drain(home / "home", environ={}, timeout=PATIENCE_SECONDS)
        assert [each.pending for each in drained] == [0]
        recorded = notes.read_text("utf-8").split()
        found = told(read(hosts, len(recorded)))
    assert segments(home / "home" / "journal") == []
    missing = [number for number in recorded if f"event-{number}" not in found]
    assert missing == []
    # The last event of each may be journaled, and the process killed before it could say so.
    assert len(found) - len(recorded) <= times
    assert all(f"event-{each['input_tokens']}" == name for name, each in found.items())


def test_what_a_killed_deliverer_recorded_is_in_the_topic(tmp_path: Path) -> None:
    """SIGKILL in the middle of deliveries: a consumer that drops known ids has each event exactly once."""
    kill_deliverers(tmp_path, times=2)


@pytest.mark.slow
def test_nor_is_anything_lost_when_deliverers_are_killed_many_times(tmp_path: Path) -> None:
    """The same, thirty times over one home."""
    kill_deliverers(tmp_path, times=30)


@pytest.mark.slow
def test_eight_processes_fill_one_topic(tmp_path: Path) -> None:
    """Real trackers, as fast as they can: the sums are those of what was recorded, to the token."""
    events = 25_000
    with brokers(partitions=200) as hosts:
        url = f"kafka://{hosts}/usage"
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(each), url, str(events)])
            for each in range(PROCESSES)
        ]
        assert [each.wait(600) for each in workers] == [0] * PROCESSES
        messages = read(hosts, events * PROCESSES)
    found = told(messages).values()
    assert len(messages) == len(found) == events * PROCESSES
    assert sum(each["input_tokens"] for each in found) == PROCESSES * events * (events - 1) // 2
    assert sum(each["output_tokens"] for each in found) == events * sum(range(PROCESSES))
    assert Counter(each["service"] for each in found) == {f"worker-{n}": events for n in range(PROCESSES)}
    assert {message.key() for message in messages} == {f"customer-{each}".encode() for each in range(500)}
    assert segments(tmp_path / "journal") == []
