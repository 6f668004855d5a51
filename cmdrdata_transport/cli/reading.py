"""Which ledger a command reads, and what is not in it yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.text import Text

from cmdrdata_transport.cli.view import printable
from cmdrdata_transport.delivery import drain
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.segments import backlog
from cmdrdata_transport.sinks import file_of

if TYPE_CHECKING:
    from rich.console import Console

    from cmdrdata_transport.tracker import Tracker

READABLE = ("sqlite:",)
"""What the URLs of sinks begin with that can be read back."""

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


def file_behind(ledger: str, home: Path) -> Path:
    """The file of a ledger's URL. Raises `TrackingSetupError` for one that means no file."""
    return file_of(urlsplit(ledger), home) if ledger.startswith(READABLE) else Path(ledger)


def is_there(err: Console, home: Path, ledger: str) -> bool:
    """Whether the ledger of a home is there; if not, that is said on `err`, and is no error."""
    found = file_behind(ledger, home).exists()
    if not found:
        say(err, f"There is no ledger in {home} yet: nothing has been recorded.")
    return found


def adopt(err: Console, home: Path, ledger: str) -> None:
    """Deliver to `ledger` what dead processes left for it, and say on `err` what is not in it yet."""
    file = file_behind(ledger, home).absolute()
    waiting = {each.sink for each in backlog(home / "journal") if each.sink.startswith(READABLE)}
    same = [sink for sink in waiting if file_behind(sink, home).absolute() == file]
    for each in drain(home, same, timeout=_ADOPT_SECONDS) if same else ():
        if each.sink not in same:
            continue
        if each.pending:
            reason = f" ({each.trouble})" if each.trouble else ""
            say(err, f"{each.pending} events of processes that have ended still wait for {ledger}{reason}")
        if each.live:
            say(err, f"{each.live} events of processes at work are on their way to {ledger}")


def say(err: Console, text: str) -> None:
    """A remark beside the answer."""
    err.print(Text(printable(text), style="yellow"), soft_wrap=True)
