"""How a process ends: however it does, each call whose end it saw is in the ledger once, and in its time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from journals import APPLICATION, PRELUDE

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.demo.loopback import Call, Loopback
from cmdrdata_transport.ledger import Ledger

GENEROUS = 20.0
"""Seconds beyond what was promised, on a machine with other things to do."""

CALLING = """
seen = 0
def make(number):
    global seen
    for _ in range(number):
        call(client, 1)
        seen += 1
        os.write(1, b".")  # the application has seen the end of the answer
"""

MADE = """
tracker = Tracker(["sqlite:///usage.db", *sinks], home=home, exit_timeout=0.5)
client = calling(tracker)
"""

BEFORE_US = "import atexit\natexit.register(lambda: make(2))\n"
"""What is registered before we are imported runs after the tracker was closed, which starts anew then."""

AT_EXIT = "import atexit; atexit.register(lambda: make(3))\n"

SILENT = "sys.stderr = open(os.devnull, 'w')\n"

ENDINGS = {
    "returns": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an error": (f"{SILENT}raise RuntimeError('of the application')", 1),
    "os._exit": ("os._exit(3)", 3),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)", -signal.SIGTERM),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "SIGINT": (
        "sys.stderr = open(os.devnull, 'w')\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)",
        -signal.SIGINT,
    ),
    "exec": ("os.execv(sys.executable, [sys.executable, '-c', ''])", 0),
    "a daemon thread that goes on": (
        "threading.Thread(target=make, args=(10**6,), daemon=True).start()\ntime.sleep(0.2)",
        0,
    ),
    "calls at exit": (AT_EXIT, 0),
    "a call in a finaliser": (
        "class Last:\n    def __del__(self): make(1)\nsys.last = Last()",
        0,
    ),
}


def started(code: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
    """A program that is nothing but this."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )


def quickly(names: Iterable[str], *some: str) -> list[Any]:
    """These cases; where time is short some stand for all."""
    return [pytest.param(name, marks=() if name in some else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", quickly(ENDINGS, "returns", "SIGTERM", "calls at exit"))
def test_however_a_process_ends_each_call_is_in_the_ledger_once(tmp_path: Path, name: str) -> None:
    """What it did not deliver itself whoever comes next does; it ends as it would without us."""
    code, returned = ENDINGS[name]
    before = BEFORE_US if name == "calls at exit" else ""
    process = started(
        before + PRELUDE + APPLICATION + "sinks = []" + MADE + CALLING + "make(5)\n" + code, tmp_path
    )
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == returned
    assert all(each.trouble is None for each in drain(tmp_path, environ={}))
    with Ledger.open(tmp_path / "usage.db") as ledger:
        stored = [each.event.event_id for each in ledger.events()]
    assert len(stored) == len(set(stored))
    in_the_middle = 1 if name == "a daemon thread that goes on" else 0
    assert 0 <= len(stored) - printed.count(".") <= in_the_middle
    assert printed.count(".") >= 5


HANGING = {
    "a function": "def hang(events): time.sleep(600)\nsinks = [hang]",
    "two functions": "def hang(events): time.sleep(600)\ndef too(events): hang(events)\nsinks = [hang, too]",
    "a receiver": "sinks = [sys.argv[2] + '/in?timeout=300', 'otlp+' + sys.argv[2] + '?timeout=300']",
}


@pytest.mark.parametrize("name", quickly(HANGING, "a function"))
def test_a_sink_that_hangs_does_not_hold_an_exit(tmp_path: Path, name: str) -> None:
    """`exit_timeout` is what it may take, for all sinks together; the ledger has everything by then."""
    over = threading.Event()

    def hang(_: Call) -> None:
        over.wait(60)

    with Loopback(hang) as server:
        code = PRELUDE + APPLICATION + HANGING[name] + MADE + CALLING + "make(5)\n"
        process = started(code, tmp_path, server.url)
        try:
            printed, _ = process.communicate(timeout=0.5 + GENEROUS)
        finally:
            process.kill()
            over.set()
    assert process.returncode == 0
    assert printed.startswith(".....")
    with Ledger.open(tmp_path / "usage.db") as ledger:
        assert len(list(ledger.events())) == 5
