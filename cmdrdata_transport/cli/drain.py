"""Delivering what dead processes left, saying what waits still, and giving it up."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from cmdrdata_transport.cli.view import printable
from cmdrdata_transport.delivery import Drained, drain, follow
from cmdrdata_transport.segments import Claim, backlog, claim, remove_if_delivered

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from rich.console import Console

_AT_ONCE = 10_000
_AT_ONCE_BYTES = 16 * 1024 * 1024


def show(out: Console, err: Console, *, home: Path, timeout: float) -> bool:
    """Deliver, with a progress bar on `err`; whether nothing of dead processes waits any more."""
    waiting = [each for each in backlog(home / "journal") if not each.live]
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    ) as bars:
        tasks = {
            sink: bars.add_task(
                printable(sink), total=sum(each.events for each in waiting if each.sink == sink)
            )
            for sink in sorted({each.sink for each in waiting})
        }

        def progress(sink: str, delivered: int) -> None:
            if sink in tasks:
                bars.update(tasks[sink], completed=delivered)

        done = drain(home, timeout=timeout, progress=progress)
    for each in done:
        out.print(_line(each), soft_wrap=True)
    if not done:
        out.print("Nothing waits.")
    return not any(each.pending for each in done)


def keep_on(err: Console, *, home: Path) -> None:
    """Deliver as events come, until the process is told to end; a line on `err` says how many so far."""
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, stop)
    with Progress(
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:,.0f} delivered"),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(sink: str, delivered: int) -> None:
            if sink not in tasks:
                tasks[sink] = bars.add_task(printable(sink), total=None)
            bars.update(tasks[sink], completed=delivered)

        follow(home, stop=stopped.is_set, progress=progress)


def _line(each: Drained) -> Text:
    parts = [f"{each.delivered} delivered"]
    if each.rejected:
        parts.append(f"{each.rejected} rejected (they are kept in dead/)")
    if each.pending:
        parts.append(f"{each.pending} waiting ({_reason(each)})")
    if each.live:
        parts.append(f"{each.live} of processes at work, which deliver them")
    style = "yellow" if each.pending or each.rejected else ""
    return Text(printable(f"{each.sink}: {', '.join(parts)}"), style=style)


def _reason(each: Drained) -> str:
    if each.sink.startswith("callable:"):
        return "a function, which only its own program can call"
    return each.trouble or "out of time"


def give_up(out: Console, *, home: Path, sink: str) -> bool:
    """Let nothing wait for a sink any more, except of processes at work; False when nothing waited."""
    waiting = [each for each in backlog(home / "journal") if each.sink == sink]
    given_up = sum(_give_up(each.segment, sink) for each in waiting if not each.live)
    out.print(Text(printable(f"{sink}: {given_up} events given up")), soft_wrap=True)
    if not waiting:
        others = sorted({each.sink for each in backlog(home / "journal")})
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
