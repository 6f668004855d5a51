"""Functions that are frozen between two calls, thawed hours later, or never: AWS Lambda and the like."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
from journals import until_killed

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback

FUNCTION = """
import json, sys, time

passed = {"wall": 0.0, "all": 0.0}
clock, steady = time.time, time.monotonic
time.time = lambda: clock() + passed["wall"] + passed["all"]
time.monotonic = lambda: steady() + passed["all"]

from cmdrdata_transport import Tracker

home, sink, delivery = sys.argv[1:]
tracker = Tracker([sink], home=home, delivery=delivery)

def handler(name):
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme", response_id=name)
    return tracker.flush(50)

for line in sys.stdin:
    name, clocks = json.loads(line)
    if clocks:
        passed[clocks] += 3 * 3600
    print(json.dumps(handler(name)), flush=True)
"""
"""Answers one invocation after the other; `clocks` says which of them have gone on while it was frozen."""

Clocks = Literal["wall", "all"]

DELIVERIES = ("flush", pytest.param("background", marks=pytest.mark.slow))


class Receiver:
    """Takes events over connections that can die: with a word, or silently."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.silent_up_to = 0
        self.last = 0
        self._over = threading.Event()

    def __call__(self, call: Call) -> Answer | None:
        """Take one, unless it comes by a connection that nobody listens to any more."""
        if call.connection <= self.silent_up_to:
            self._over.wait(60)
            return None
        self.last = call.connection
        self.taken.add(call.json()["response_id"])
        return Answer(status=201)

    def end(self) -> None:
        """Let go of those that wait for ever."""
        self._over.set()


@contextmanager
def receiving() -> Iterator[tuple[Receiver, Loopback]]:
    """A receiver on this machine."""
    receiver = Receiver()
    with Loopback(receiver) as server:
        yield receiver, server
        receiver.end()


@contextmanager
def function(home: Path, sink: str, delivery: str) -> Iterator[subprocess.Popen[str]]:
    """A function's process, frozen until it is invoked."""
    with until_killed(
        subprocess.Popen(
            [sys.executable, "-c", FUNCTION, str(home), sink, delivery],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    ) as process:
        yield process


def invoke(process: subprocess.Popen[str], name: str, clocks: Clocks | None = None) -> bool:
    """Thaw it, let it handle one call, and freeze it as soon as it has answered; what `flush` said."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.send_signal(signal.SIGCONT)
    process.stdin.write(json.dumps([name, clocks]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    return bool(json.loads(answer))


def hang_up(server: Loopback) -> None:
    """Close every connection, as a receiver does that has waited long enough."""
    for peer, _ in list(server._connections.values()):
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("clocks", ["wall", "all"])
@pytest.mark.parametrize("dies", ["", "closed", pytest.param("silent", marks=pytest.mark.slow)])
def test_each_invocation_delivers_its_own(
    tmp_path: Path, delivery: str, clocks: Clocks | None, dies: str
) -> None:
    """Whatever has become of its connection, and of the time, while it was frozen."""
    with (
        receiving() as (receiver, server),
        function(tmp_path, f"{server.url}/?timeout=1", delivery) as frozen,
    ):
        for number in range(3):
            assert invoke(frozen, f"call-{number}", clocks)
            assert f"call-{number}" in receiver.taken
            if dies == "closed":
                hang_up(server)
            elif dies == "silent":
                receiver.silent_up_to = receiver.last


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_what_flush_has_said_true_of_survives_the_loss_of_everything(tmp_path: Path, delivery: str) -> None:
    """Functions are killed while frozen, some with their disk; what they leave the next one delivers."""
    chance = random.Random(1)
    home = tmp_path / "home"
    delivered: set[str] = set()
    with receiving() as (receiver, server):
        for instance in range(4):
            with function(home, f"{server.url}/", delivery) as frozen:
                for number in range(chance.randrange(1, 6)):
                    name = f"call-{instance}-{number}"
                    if invoke(frozen, name, chance.choice((None, "wall", "all"))):
                        delivered.add(name)
                    if chance.random() < 0.5:
                        hang_up(server)
            if chance.random() < 0.5:
                shutil.rmtree(home)
        assert len(delivered) > 4
        assert delivered <= receiver.taken


def test_what_could_not_be_delivered_is_the_next_ones(tmp_path: Path) -> None:
    """`flush` says that it is not; where home is a disk that stays, another process delivers it."""
    with receiving() as (receiver, server):
        receiver.silent_up_to = 1_000_000
        with function(tmp_path, f"{server.url}/?timeout=1", "flush") as frozen:
            assert frozen.stdin is not None
            frozen.stdin.write(json.dumps(["lost?", None]) + "\n")
            frozen.stdin.flush()
            while not server.calls:
                os.sched_yield()
            frozen.send_signal(signal.SIGSTOP)  # out of time, in the middle of it
        receiver.silent_up_to = 0
        [done] = drain(tmp_path, environ={}, timeout=30)
        assert (done.delivered, done.pending) == (1, 0)
        assert receiver.taken == {"lost?"}
