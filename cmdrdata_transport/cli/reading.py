"""Which ledger a command reads, and what is not in it yet."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.text import Text

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.cli.counting import counted
from cmdrdata_transport.cli.homes import home_of
from cmdrdata_transport.cli.view import printable
from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.home import backlog_of
from cmdrdata_transport.ledger import READABLE, Ledger
from cmdrdata_transport.remedies import of_damaged_ledger
from cmdrdata_transport.replaying import letters
from cmdrdata_transport.sinks import file_of, open_sink
from cmdrdata_transport.tallies import tallies

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rich.console import Console

    from cmdrdata_transport.tracker import Tracker

_ADOPT_SECONDS = 5.0


def ledger_of(tracker: Tracker) -> str:
    """The first of the environment's sinks that can be read. Raises `TrackingSetupError` if none can."""
    for sink in tracker.sinks:
        if sink.startswith(READABLE):
            return sink
    raise TrackingSetupError(
        f"none of the sinks can be read back ({', '.join(tracker.sinks)}); say which ledger to read: "
        "--ledger sqlite:///usage.db"
    )


def unnamed(home: Path, sinks: Sequence[str]) -> list[str]:
    """Other sinks than these that processes of this home have, of which only their code may tell.

    A file that is not there any more is none of them.
    """
    found = {sink for each in tallies(home) for sink in each.sinks}
    found |= {each.sink for each in backlog_of(home)} | {each.sink for each in letters(home)}
    return sorted(each for each in found.difference(sinks) if not is_gone(each, home))


def is_gone(sink: str, home: Path) -> bool:
    """Whether this sink is a file that is not there."""
    return sink.startswith(("sqlite:", "jsonl:")) and not file_of(urlsplit(sink), home).exists()


def is_there(err: Console, home: Path, ledger: str) -> bool:
    """Whether a ledger has been made; if not, that is said on `err`, and is no error."""
    place = _place_of(ledger, home)
    if isinstance(place, Path):
        if not place.exists():
            say(err, f"There is no ledger in {home} yet: nothing has been recorded in {ledger}.")
            for sink in unnamed(home, [ledger]):
                if sink.startswith(READABLE):
                    say(err, f"Programs here record in {sink}: type --ledger, and its URL as they have it.")
        return place.exists()
    try:
        Ledger.open(ledger, home=home).close()
    except TrackingSetupError as error:
        say(err, str(error))
        return False
    return True


@contextmanager
def opened(ledger: str, home: Path) -> Generator[Ledger]:
    """A ledger, open for reading; where its file turns out to be damaged, the error says what to type."""
    with Ledger.open(ledger, home=home) as reader:
        try:
            yield reader
        except Unavailable as error:
            file = _place_of(ledger, home)
            if not isinstance(file, Path):
                raise
            sink = ledger if "://" in ledger else f"sqlite:///{file}"
            raise Unavailable(of_damaged_ledger(file, sink, error)) from None


@contextmanager
def delivered(err: Console, tracker: Tracker, ledger: str | None) -> Generator[Ledger | None]:
    """The ledger that was typed, else the environment's, with what dead processes left for it; as `opened`.

    What is not in it yet is said on `err`, and so is, where none was typed, that there is none: None then.
    """
    home = home_of(tracker, to_write=False)
    where = ledger or ledger_of(tracker)
    adopt(err, home, where)
    if ledger is None and not is_there(err, home, where):
        yield None
        return
    with opened(where, home) as reader:
        yield reader


def adopt(err: Console, home: Path, ledger: str) -> None:
    """Deliver to `ledger` what dead processes left for it, and say on `err` what is not in it yet."""
    place = _place_of(ledger, home)
    waiting = {each.sink for each in backlog_of(home) if each.sink.startswith(READABLE)}
    if isinstance(place, Path):
        files = {sink for sink in waiting if sink.startswith("sqlite:")}
        same = specs = [sink for sink in files if _place_of(sink, home) == place]
    else:
        same = [sink for sink in waiting if sink == place]
        specs = [ledger for _ in same]  # as it was typed: only there may be the password
    if not same:
        return
    with counted(home, "report") as counters:
        done = drain(home, specs, timeout=_ADOPT_SECONDS, counters=counters)
    for each in done:
        if each.sink not in same:
            continue
        if each.rejected:
            say(err, f"{each.rejected} events were rejected by {each.sink}; they are kept in dead/")
        if each.pending:
            reason = f" ({each.trouble})" if each.trouble else ""
            say(err, f"{each.pending} events of processes that have ended still wait for {each.sink}{reason}")
        if each.live:
            say(err, f"{each.live} events of processes at work are on their way to {each.sink}")


def _place_of(ledger: str, home: Path) -> Path | str:
    """The file of a ledger, or what a database's URL is without secrets."""
    if ledger.startswith("sqlite:"):
        return file_of(urlsplit(ledger), home).absolute()
    if ledger.startswith(READABLE):
        return open_sink(ledger, home=home, environ=os.environ).identity
    return Path(ledger).absolute()


def identity_of(sink: str, home: Path) -> str:
    """What a journal calls a sink, however it was typed; what is none is taken for such a name itself."""
    with suppress(TrackingSetupError):
        return open_sink(sink, home=home, environ=os.environ).identity
    return sink


def say(err: Console, text: str) -> None:
    """A remark beside the answer."""
    err.print(Text(printable(text), style="yellow"), soft_wrap=True)
