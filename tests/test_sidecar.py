"""`drain --follow` beside applications that only write: whichever dies, whenever it starts, whoever it is."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from time import monotonic, sleep

import pytest
from fleet import FOLLOW, fleet
from journals import program, run, set_up, until_killed
from rich.console import Console

from cmdrdata_transport import Tracker
from cmdrdata_transport.adopting import FOLLOWER, follow
from cmdrdata_transport.cli import drain as command
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.event import decode
from cmdrdata_transport.segments import backlog
from cmdrdata_transport.tallies import tallies

LEDGER = "sqlite:///usage.db"

ASYNC = """
async def work():
    async with tracked_async_http_client() as client:
        while True:
            with customer_context("acme"):
                seen((await client.post(URL + "/v1/chat/completions", json=ASK)).json()["id"])
            await asyncio.sleep(0.002)

async def main():
    await asyncio.gather(work(), work(), work())

asyncio.run(main())
"""


@pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_whichever_is_killed_nothing_is_lost(
    tmp_path: Path, times: int, record_property: Callable[[str, object], None]
) -> None:
    """Two sidecars, there before the application, and all three killed at deliveries and between them."""
    with fleet(tmp_path, seed=times, failing=True, delivery="external") as made:
        made.kill_either_side(ASYNC, times)
        made.check()
        record_property("says", made.says())


@contextmanager
def sidecar(home: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, in a process of its own."""
    with until_killed(
        subprocess.Popen(
            [sys.executable, *FOLLOW, "--home", str(home)],
            env={**os.environ, "CMDRDATA_HOME": str(home)},
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        yield process


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for it, and no longer than is sensible."""
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.02)


def record(home: Path, *sinks: str) -> Tracker:
    """An application that has written one event and is at work."""
    tracker = Tracker(sinks, home=home, delivery="external")
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    return tracker


def test_it_may_be_there_before_home_is_and_says_in_a_log_what_it_did(tmp_path: Path) -> None:
    """It waits for the directory; where no terminal shows a bar there is a line, and its counts are kept."""
    home = tmp_path / "not" / "yet"
    with sidecar(home) as process:
        sleep(0.5)
        tracker = record(home, LEDGER)
        assert tracker.flush(60)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == f"{LEDGER}: 1 delivered\n"
    [counted] = [each for each in tallies(home) if each.tracker == FOLLOWER]
    assert counted.counts == {"delivered": 1}
    tracker.close(0)


def test_a_long_drain_says_in_a_log_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line now and then where no terminal shows a bar; here, after each batch."""
    left = set_up(tmp_path, "jsonl:///usage.jsonl", mode="flush")
    left.append(1200)
    left.journal.close()
    monkeypatch.setattr(command, "LINE_SECONDS", 0.0)
    out, err = (Console(file=StringIO(), width=100) for _ in range(2))
    assert command.show(out, err, home=tmp_path, timeout=60)
    said = err.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is a StringIO
    assert len(said) > 1
    assert said[-1] == "jsonl:///usage.jsonl: 1,200 of 1,200 delivered"
    assert all(line.endswith(" of 1,200 delivered") for line in said)


def test_what_is_being_delivered_when_it_is_told_to_end_is_delivered_once(tmp_path: Path) -> None:
    """SIGTERM comes while a receiver thinks: its answer is waited for, and noted."""
    asked, answer = threading.Event(), threading.Event()

    def think(_: Call) -> Answer:
        asked.set()
        answer.wait(60)
        return Answer(status=201)

    with Loopback(think) as server, sidecar(tmp_path) as process:
        tracker = record(tmp_path, f"{server.url}/events")
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        sleep(0.7)  # longer than it takes to look whether it is to end
        answer.set()
        assert process.wait(60) == 0
        assert backlog(tmp_path / "journal") == []
        assert len(server.calls) == 1
    tracker.close(0)


def test_a_sink_that_cannot_be_opened_here_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The application has a key and the sidecar has none; other sinks are delivered to all the same."""
    monkeypatch.setenv("CMDRDATA_API_KEY", "cmd-live-secret")
    tracker = record(tmp_path, LEDGER, "https://api.cmdrdata.ai/api/events")

    def stop() -> bool:
        told_of = [each.getMessage() for each in caplog.records if "CMDRDATA_API_KEY" in each.getMessage()]
        delivered = LEDGER not in {each.sink for each in backlog(tmp_path / "journal")}
        return bool(told_of) and delivered

    caplog.set_level(logging.WARNING)
    thread = threading.Thread(target=follow, args=(tmp_path,), kwargs={"stop": stop, "environ": {}})
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert "secret" not in caplog.text
    tracker.close(0)


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user of this machine may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_files_of_another_user_are_told_of(common: Path) -> None:
    """A sidecar that runs as somebody else sees nothing of a private home: it says so, and does not end."""
    printed = run(
        """
        import logging
        from cmdrdata_transport.counters import Counters
        from cmdrdata_transport.adopting import follow
        logging.disable()
        journal, _ = journal_at(home / "usage")
        journal.append(line_of(0))
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        else:
            (home / "usage").chmod(0)
        counters = Counters()
        counted = {}
        def stop():
            counted.update(counters.snapshot())
            return bool(counted)
        follow(home / "usage", stop=stop, counters=counters)
        print(set(counted))
        if os.geteuid() != 65534:
            (home / "usage").chmod(0o700)
        """,
        common,
    )
    assert printed == "{'segment_blocked'}\n"


@pytest.mark.slow
def test_more_programs_than_it_may_have_files_are_all_delivered(tmp_path: Path) -> None:
    """What is written now and then takes turns; and nothing of it is delivered twice."""
    trackers = [record(tmp_path, "jsonl:///usage.jsonl", LEDGER) for _ in range(60)]
    following = program(
        """
        from cmdrdata_transport.adopting import follow
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        follow(home, stop=(home / "stop").exists)
        """,
        tmp_path,
    )
    for _ in range(2):
        wait_until(lambda: not backlog(tmp_path / "journal"))
        for each in trackers:
            each.record(provider="openai", usage={"input_tokens": 1})
    wait_until(lambda: not backlog(tmp_path / "journal"))
    (tmp_path / "stop").touch()
    following.communicate(timeout=60)
    assert following.returncode == 0
    ids = [decode(line)["event_id"] for line in (tmp_path / "usage.jsonl").read_bytes().splitlines()]
    assert len(ids) == len(set(ids)) == 180
