"""Delivering what dead processes left, saying what waits still, and giving it up."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from rich.text import Text

from cmdrdata_transport.adopting import Drained, drain, follow
from cmdrdata_transport.cli.bars import bars, counts
from cmdrdata_transport.cli.counting import counted
from cmdrdata_transport.cli.view import number, printable
from cmdrdata_transport.home import backlog_of
from cmdrdata_transport.segments import Claim, claim, remove_if_delivered

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from types import FrameType

    from rich.console import Console

LINE_SECONDS = 10.0
"""Where there is no terminal to show a bar, a line says how far it is, so often at most."""

_AT_ONCE = 10_000
_AT_ONCE_BYTES = 16 * 1024 * 1024


def show(out: Console, err: Console, *, home: Path, timeout: float, command: str = "drain") -> bool:
    """Deliver, with a progress bar on `err`; whether all was taken: none waits, is refused or set aside.

    What comes of it is counted under the name of the command.
    """
    waiting = [each for each in backlog_of(home) if not each.live]
    totals = {
        sink: sum(each.events for each in waiting if each.sink == sink)
        for sink in sorted({each.sink for each in waiting})
    }
    with counted(home, command) as counters:
        with _progress(err, totals) as progress:
            done = drain(home, timeout=timeout, progress=progress, counters=counters)
        torn = counters.snapshot().get("torn", 0)
    for each in done:
        out.print(_line(each), soft_wrap=True)
    if torn:
        said = f"damaged pieces of the journal, set aside: {number(torn)}; see cmdrdata-transport doctor"
        out.print(Text(said, style="yellow"), soft_wrap=True)
    elif not done:
        out.print("Nothing waits.")
    return not torn and not any(each.pending or each.rejected for each in done)


def keep_on(err: Console, *, home: Path) -> None:
    """Deliver as events come, until the process is told to end; a line on `err` says how many so far."""
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, stop)
    with _progress(err) as progress:
        follow(home, stop=stopped.is_set, progress=progress)


@contextmanager
def _progress(err: Console, totals: dict[str, int] | None = None) -> Generator[Callable[[str, int], None]]:
    """What is to be told of a sink and how many events it has taken; `totals` is how many it is to take."""
    if not err.is_terminal:
        lines = _Lines(err, totals or {})
        yield lines.tell
        lines.end()
        return
    with bars(err) if totals is not None else counts(err, "delivered") as shown:
        tasks = {sink: shown.add_task(printable(sink), total=total) for sink, total in (totals or {}).items()}

        def tell(sink: str, delivered: int) -> None:
            if sink not in tasks:
                tasks[sink] = shown.add_task(printable(sink), total=None)
            shown.update(tasks[sink], completed=delivered)

        yield tell


class _Lines:
    """Says now and then how many events a sink has taken, where that has changed: for logs."""

    def __init__(self, err: Console, totals: dict[str, int]) -> None:
        self._err = err
        self._totals = totals
        self._delivered: dict[str, int] = {}
        self._said: dict[str, int] = {}
        self._next = monotonic() + LINE_SECONDS

    def tell(self, sink: str, delivered: int) -> None:
        self._delivered[sink] = delivered
        if monotonic() >= self._next:
            self._next = monotonic() + LINE_SECONDS
            self._say()

    def end(self) -> None:
        """Say the rest. Where all is over before the first line, whoever asked is told anyway."""
        if self._said or not self._totals:
            self._say()

    def _say(self) -> None:
        for sink, delivered in self._delivered.items():
            if delivered != self._said.get(sink, 0):
                self._said[sink] = delivered
                of = f" of {self._totals[sink]:,}" if sink in self._totals else ""
                self._err.print(Text(printable(f"{sink}: {delivered:,}{of} delivered")), soft_wrap=True)


def _line(each: Drained) -> Text:
    parts = [f"{number(each.delivered)} delivered"]
    if each.rejected:
        parts.append(f"{number(each.rejected)} rejected (they are kept in dead/)")
    if each.pending:
        parts.append(f"{number(each.pending)} waiting ({_reason(each)})")
    if each.live:
        parts.append(f"{number(each.live)} of processes at work, which deliver them")
    style = "yellow" if each.pending or each.rejected else ""
    return Text(printable(f"{each.sink}: {', '.join(parts)}"), style=style)


def _reason(each: Drained) -> str:
    if each.sink.startswith("callable:"):
        return "a function, which only its own program can call"
    return each.trouble or "out of time"


def give_up(out: Console, *, home: Path, sink: str) -> bool:
    """Let nothing wait for a sink any more, except of processes at work; False when nothing waited."""
    backlog = backlog_of(home)
    waiting = [each for each in backlog if each.sink == sink]
    given_up = sum(_give_up(each.segment, sink) for each in waiting if not each.live)
    out.print(Text(printable(f"{sink}: {number(given_up)} events given up")), soft_wrap=True)
    if not waiting:
        others = sorted({each.sink for each in backlog})
        out.print(Text(printable(f"Events wait for: {', '.join(others) or 'no sink'}")), soft_wrap=True)
    return given_up > 0


def _give_up(segment: Path, sink: str) -> int:
    given_up = 0

    def count(name: str, detail: str) -> None:
        """Damage is told by whoever delivers."""

    claimed = claim(segment, sink, count=count)
    if not isinstance(claimed, Claim):
        return 0
    try:
        while lines := claimed.take(_AT_ONCE, _AT_ONCE_BYTES):
            claimed.advance(len(lines))
            given_up += len(lines)
        if claimed.done:
            remove_if_delivered(segment)
    finally:
        claimed.close()
    return given_up
