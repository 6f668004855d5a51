"""Real applications in processes of their own, killed while they work, and the account of what they saw.

An application is a program that notes each answer whose end it has seen: `seen(id)` appends its process
and the answer's id to a file, in one write. Whoever runs it kills what it likes, by those numbers: some
moment after an answer, or just when something is delivered. The account is right when the ledger has every
answer that was seen, once, and a receiver that fails half of the time has each at least once.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import segments

LEDGER = "sqlite:///usage.db"

PATIENCE_SECONDS = 60.0
"""How long something may take that takes a second on a machine with nothing else to do."""

CLIENTS = 4
"""How many clients a web application has at once."""

FOLLOW = ("-m", "cmdrdata_transport", "drain", "--follow")
"""A sidecar: delivers for applications that only write."""

SETTING_UP = """
import asyncio, json, multiprocessing, os, sys, threading
from cmdrdata_transport import configure, customer_context, tracked_async_http_client, tracked_http_client

configure(**json.loads(os.environ["OPTIONS"]))
URL = os.environ["PROVIDER"]
USAGE = {"include_usage": True}
ASK = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}
ends = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND)

def seen(response_id):
    os.write(ends, b"%d %b\\n" % (os.getpid(), response_id.encode()))  # the end of this answer has been seen

def use(client):
    with customer_context("acme"):
        seen(client.post(URL + "/v1/chat/completions", json=ASK).json()["id"])
        asked = {**ASK, "stream": True, "stream_options": USAGE}
        with client.stream("POST", URL + "/v1/chat/completions", json=asked) as response:
            events = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
        seen(json.loads(events[-1])["id"])
"""
"""What every application starts with. `use` makes two calls, one of them streamed."""

WORKERS = """
mine = {}

def app(environ, start_response):
    if os.getpid() not in mine:
        mine[os.getpid()] = tracked_http_client()
    use(mine[os.getpid()])
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"done"]
"""
"""A web application, whose workers have a client each."""

PRELOADED = """
with tracked_http_client() as client:
    use(client)  # in the master, before it forks
"""
"""What its master does first."""


class Receiver:
    """Takes an event by POST, or says that it is busy, or hangs up before it has taken it, or after."""

    def __init__(self, chance: random.Random) -> None:
        self.taken: Counter[str] = Counter()
        """How often it has taken the event of which answer."""
        self.failures = 0
        self.calls = 0
        self.well = False
        """Set to have it fail no more."""
        self._chance = chance
        self._counting = threading.Lock()

    def __call__(self, call: Call) -> Answer | None:
        """Answer one POST."""
        with self._counting:
            self.calls += 1
            does = "take" if self.well else self._chance.choice(("take", "take", "busy", "hang up", "forget"))
            self.failures += does != "take"
            if does in ("take", "forget"):
                self.taken[call.json()["response_id"]] += 1
        return {"take": Answer(status=201), "busy": Answer(status=503)}.get(does)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A home, a provider, and all that applications have seen of it.

    `options`: what the applications' tracker is made with. `first`: what they do before all else.
    """

    home: Path
    url: str
    chance: random.Random
    provider: Provider
    receiver: Receiver
    ledger: str = LEDGER
    options: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    kills: int = 0
    at_delivery: int = 0

    @property
    def notes(self) -> Path:
        """The file in which applications note what they have seen."""
        return self.home / "seen"

    def seen(self) -> list[tuple[int, str]]:
        """Process and answer, in order."""
        whole = self.notes.read_text("utf-8").rpartition("\n")[0]
        return [(int(pid), answer) for pid, answer in (line.split() for line in whole.splitlines())]

    def wait_for_more(
        self, number: int, process: subprocess.Popen[bytes], *, workers: bool = False
    ) -> list[int]:
        """Until so many more ends have been seen, and a moment of chance longer; the processes they were in.

        `workers`: what the process itself has seen does not count.
        """
        own = process.pid if workers else 0
        before = len(self.seen())
        deadline = monotonic() + PATIENCE_SECONDS
        while len(pids := [pid for pid, _ in self.seen()[before:] if pid != own]) < number:
            if process.poll() or monotonic() > deadline:
                pytest.fail(f"the application ended with {process.returncode}, or does nothing")
            sleep(0.005)
        sleep(self.chance.uniform(0, 0.03))
        return sorted(set(pids))

    def wait_for_delivery(self, process: subprocess.Popen[bytes]) -> None:
        """Every other time until something is delivered, which is going on then; or the process has ended."""
        if self.chance.random() < 0.5:  # as chance has it
            return
        before = self._deliveries()
        deadline = monotonic() + PATIENCE_SECONDS
        while self._deliveries() == before:
            if process.poll() is not None:
                return
            if monotonic() > deadline:
                pytest.fail("nothing is delivered")
            sleep(0.0005)
        self.at_delivery += 1

    def kill(self, pid: int) -> None:
        """Kill one process."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1

    @contextmanager
    def running(self, *command: str, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """A program in a group of its own; whatever of the group is left at the end is killed."""
        environ = os.environ | {
            "CMDRDATA_HOME": str(self.home),
            "OPTIONS": json.dumps(self.options),
            "PROVIDER": self.url,
            "SEEN": str(self.notes),
        }
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environ,
            cwd=self.home,
            pass_fds=pass_fds,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            self.kills += process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_SECONDS)

    def kill_whole(self, code: str, times: int) -> None:
        """Run a program and kill it, with all its processes, so many times."""
        self._write(code)
        for _ in range(times):
            with self.running("application.py") as process:
                self.wait_for_more(self.chance.randrange(1, 60), process)
                self.wait_for_delivery(process)

    def kill_workers(self, code: str, times: int, *arguments: str) -> None:
        """Run a program that starts workers; kill so many of them, then all of it at once."""
        self._write(code)
        with self.running("application.py", *arguments) as process:
            self._kill_workers(process, times)

    def cut_short(self, code: str, times: int) -> None:
        """Run a program that ends by itself, and kill it around its end."""
        self._write(code)
        for _ in range(times):
            with self.running("application.py") as process:
                self.wait_for_more(1, process)
                self.wait_for_delivery(process)

    def kill_either_side(self, code: str, times: int) -> None:
        """Start two sidecars and then a program; kill one of the three so many times, and start it again."""
        self._write(code)
        commands = {"one": FOLLOW, "two": FOLLOW, "application": ("application.py",)}
        with ExitStack() as all_of_them:
            running = {
                name: all_of_them.enter_context(self.running(*command)) for name, command in commands.items()
            }
            for _ in range(times):
                self.wait_for_more(self.chance.randrange(1, 40), running["application"])
                self.wait_for_delivery(running["application"])
                name = self.chance.choice(list(commands))
                self.kill(running[name].pid)
                running[name] = all_of_them.enter_context(self.running(*commands[name]))

    def serve(self, code: str, command: Callable[[int], list[str]], times: int) -> None:
        """Run a web server with clients, kill so many of its workers, then all of it at once.

        `command` is given the number of the listening socket; the application is `application:app`.
        """
        self._write(code)
        stopped = threading.Event()
        with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
            port = listener.getsockname()[1]
            clients = [threading.Thread(target=_visit, args=(port, stopped)) for _ in range(CLIENTS)]
            try:
                with self.running(*command(listener.fileno()), pass_fds=[listener.fileno()]) as process:
                    for each in clients:
                        each.start()
                    self._kill_workers(process, times)
            finally:
                stopped.set()
        for each in clients:
            each.join(PATIENCE_SECONDS)

    def check(self) -> None:
        """Deliver what is left; every answer that was seen is in the ledger, once and to the token."""
        seen = [answer for _, answer in self.seen()]
        assert seen
        assert self.kills
        self._drain()
        with Ledger.open(self.ledger, home=self.home) as ledger:
            stored = [entry.event for entry in ledger.events()]
        whole = Counter(each.response_id for each in stored if each.usage_status == "complete")
        assert [each for each in seen if whole[each] != 1] == []
        assert max(Counter(each.event_id for each in stored).values()) == 1
        used = {each.response_id: (each.usage.input_tokens, each.usage.output_tokens) for each in stored}
        assert {each: used[each] for each in seen} == {each: self._stated[each] for each in seen}
        if len(self.options["sinks"]) > 1:
            assert [each for each in seen if not self.receiver.taken[each]] == []
            assert self.receiver.failures

    def says(self) -> str:
        """How much it was that was killed and seen."""
        return (
            f"{self.kills} kills, {self.at_delivery} of them at a delivery; {len(self.seen())} answers seen; "
            f"{self.receiver.failures} of {self.receiver.calls} POSTs failed"
        )

    def _deliveries(self) -> tuple[int, int, int]:
        """What changes when somebody delivers."""
        if self.ledger != LEDGER:
            with suppress(TrackingSetupError, Unavailable), Ledger.open(self.ledger) as ledger:
                return self.receiver.calls, ledger.last(), 0
        with suppress(FileNotFoundError):
            log = (self.home / "usage.db-wal").stat()
            return self.receiver.calls, log.st_size, log.st_mtime_ns
        return self.receiver.calls, 0, 0

    def _write(self, code: str) -> None:
        (self.home / "application.py").write_text(self.first + SETTING_UP + code, "utf-8")

    def _kill_workers(self, process: subprocess.Popen[bytes], times: int) -> None:
        for _ in range(times):
            workers = self.wait_for_more(self.chance.randrange(4, 40), process, workers=True)
            self.wait_for_delivery(process)
            self.kill(self.chance.choice(workers))

    def _drain(self) -> None:
        self.receiver.well = True
        # What was killed with its parent may take a moment to be gone.
        deadline = monotonic() + PATIENCE_SECONDS
        while segments(self.home / "journal") and monotonic() < deadline:
            assert [each.trouble for each in drain(self.home, environ={}) if each.trouble] == []
        assert segments(self.home / "journal") == []

    @property
    def _stated(self) -> dict[str, tuple[int, int]]:
        stated = self.provider.stated
        return {
            each.response_id: (each.units["input_tokens"], each.units["output_tokens"]) for each in stated
        }


def _visit(port: int, stopped: threading.Event) -> None:
    """One request after the other; what is killed meanwhile answers none."""
    while not stopped.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/", headers={"connection": "close"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            stopped.wait(0.02)
        finally:
            connection.close()


@contextmanager
def fleet(
    home: Path, seed: int, *, ledger: str = LEDGER, failing: bool = False, **options: Any
) -> Iterator[Fleet]:
    """A fleet without applications yet, beside a provider on this machine.

    Its sink is the ledger, and with `failing` a receiver, too, that fails half of the time.
    """
    provider = Provider(seed=seed, gzipped=0.3)
    receiver = Receiver(random.Random(seed))
    with Loopback(provider) as server, Loopback(receiver) as receiving:
        sinks = [ledger, f"{receiving.url}/events"] if failing else [ledger]
        made = Fleet(
            home=home,
            url=server.url,
            chance=random.Random(seed),
            provider=provider,
            receiver=receiver,
            ledger=ledger,
            options={"sinks": sinks, **options},
        )
        made.notes.touch()
        yield made
