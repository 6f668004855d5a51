"""Applications that are killed while they deliver to PostgreSQL: each answer that they saw is there once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from fleet import fleet
from postgres import Server, running
from test_fleet import APPLICATIONS

from cmdrdata_transport.segments import segments

RESTART_SECONDS = 1.0


def kill(
    home: Path, application: str, times: int, server: Server, meanwhile: AbstractContextManager[object]
) -> str:
    """Kill an application so many times, settle the account, and say what that was."""
    # By its socket, where no password is asked for: what dead ones left is delivered by whoever comes.
    where = f"host={server.directory}&port={server.port}&user=postgres"
    with fleet(home, seed=times, ledger=f"postgresql:///{server.new_database()}?{where}") as made:
        with meanwhile:
            APPLICATIONS[application](made, times)
        made.check()
        assert segments(home / "journal") == []
        return made.says()


@contextmanager
def dying(server: Server, say: Callable[[str, object], None]) -> Iterator[None]:
    """Kill the server again and again, and start it."""
    deaths = 0
    done = threading.Event()

    def restart() -> None:
        nonlocal deaths
        while not done.wait(RESTART_SECONDS):
            server.stop(signal.SIGKILL)
            server.start()
            deaths += 1

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        yield
    finally:
        done.set()
        restarting.join()
    say("says", f"the server was killed {deaths} times")


def test_what_a_killed_application_has_seen_is_in_the_database_once(
    tmp_path: Path, postgres_server: Server, record_property: Callable[[str, object], None]
) -> None:
    """SIGKILL at moments of chance, and of deliveries: half a batch is none, and a whole one counts once."""
    record_property("says", kill(tmp_path, "gunicorn", 3, postgres_server, nullcontext()))


@pytest.mark.slow
@pytest.mark.parametrize("application", APPLICATIONS)
def test_nor_is_anything_lost_when_the_server_is_killed_as_well(
    tmp_path: Path, application: str, record_property: Callable[[str, object], None]
) -> None:
    """The same, ten times, while the server dies every few seconds and comes back."""
    with running() as server:
        said = kill(tmp_path, application, 10, server, dying(server, record_property))
    record_property("says", said)
