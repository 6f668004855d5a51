"""Sending again what sinks have refused, what can be read of a damaged journal, or a ledger's events.

First it is said what, then comes a question.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from rich.text import Text

from cmdrdata_transport.cli.asking import agreed
from cmdrdata_transport.cli.bars import bars
from cmdrdata_transport.cli.counting import counted
from cmdrdata_transport.cli.drain import show as deliver
from cmdrdata_transport.cli.reading import identity_of
from cmdrdata_transport.cli.view import number, printable
from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.replaying import Letters, copy, letters, resend
from cmdrdata_transport.salvaging import salvage, torn_pieces
from cmdrdata_transport.sinks import open_sink

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from datetime import datetime
    from pathlib import Path

    from rich.console import Console

COMMAND = "replay"
"""Under this name is counted what comes of it."""

_REASONS_SHOWN = 3


def dead_letters(
    out: Console, err: Console, *, home: Path, sink: str | None, timeout: float, yes: bool
) -> bool:
    """Send dead letters again; whether nothing of them waits or was refused once more."""
    if sink is None or sink.startswith("callable:"):
        named = sink
    else:
        named = open_sink(sink, home=home, environ=os.environ).identity
    found = letters(home, named)
    if not found:
        out.print("No sink has refused anything." if named is None else f"{named} has refused nothing.")
        return True
    for each in found:
        for line in _told(each):
            out.print(Text(printable(line)), soft_wrap=True)
    if not agreed(err, "Send these to their sinks again?", yes=yes):
        return False
    before = {each.path for each in found}
    for each in found:
        sent = resend(home, each)
        out.print(Text(printable(f"{each.sink}: {number(sent)} events are in the journal again")))
    good = deliver(out, err, home=home, timeout=timeout, command=COMMAND)
    return good and not any(each.path in before for each in letters(home, named))


def damaged(
    out: Console,
    err: Console,
    *,
    home: Path,
    sink: str | None,
    sinks: Sequence[str],
    timeout: float,
    yes: bool,
) -> bool:
    """Send what can be read of damaged pieces of the journal; whether all of that was taken.

    To `sink`, or to whom a piece says that it was for, or, where that cannot be read, to all `sinks`.
    """
    pieces = torn_pieces(home)
    if not pieces:
        out.print("Nothing of the journal is damaged.")
    named = None if sink is None else [identity_of(sink, home)]
    receivers = {each.path: named or each.sinks or sinks for each in pieces}
    for each in pieces:
        said = f"{each.path}: nothing can be read of it; look at the disk, then remove it"
        if each.events:
            to = ", ".join(receivers[each.path])
            said = f"{each.path}: {number(each.events)} events can be read, for {to}"
        out.print(Text(printable(said)), soft_wrap=True)
    whole = [each for each in pieces if each.events]
    if not whole:
        return True
    out.print(
        "What a sink has already it takes once, if it knows ids: a ledger does, a file of lines does not."
    )
    if not agreed(err, "Send these?", yes=yes):
        return False
    for each in whole:
        sent = salvage(home, each, receivers[each.path])
        out.print(
            Text(printable(f"{each.path}: {number(sent)} events are in the journal again")), soft_wrap=True
        )
    return deliver(out, err, home=home, timeout=timeout, command=COMMAND)


def _told(each: Letters) -> list[str]:
    first, last = (f"{time[:19].replace('T', ' ')}Z" for time in (each.first, each.last))
    told = [f"{each.sink}: {number(each.number)} events, refused {first} to {last}"]
    for reason, count in sorted(each.reasons.items(), key=lambda item: -item[1])[:_REASONS_SHOWN]:
        told.append(f"  {number(count)}: {reason}")
    if len(each.reasons) > _REASONS_SHOWN:
        told.append(f"  and {len(each.reasons) - _REASONS_SHOWN} other reasons")
    if each.unreadable:
        told.append(f"  {number(each.unreadable)} are no events, and stay where they are: {each.path}")
    return told


def from_ledger(
    out: Console,
    err: Console,
    *,
    home: Path,
    ledger: str,
    sink: str,
    since: datetime | None,
    until: datetime | None,
    timeout: float,
    yes: bool,
) -> bool:
    """Send a ledger's events of a time to a sink; whether it has taken all of them."""
    outlet = open_sink(sink, home=home, environ=os.environ)
    shown = ledger  # as it was typed, but for what is secret in it
    if "://" in ledger:
        shown = open_sink(ledger, home=home, environ=os.environ).identity
        _not_itself(shown, outlet.identity)
    cut: list[str] = []
    with Ledger.open(ledger, home=home) as opened:
        total = _total(opened, since, until, cut)
        times = "".join(
            f" {word} {moment:%Y-%m-%d %H:%M:%S}Z"
            for word, moment in (("since", since), ("until", until))
            if moment
        )
        said = f"{number(total)} events{times} of {shown} go to {outlet.identity}"
        if not outlet.keyed:
            said += ", which has events twice that it has already"
        out.print(Text(printable(said)), soft_wrap=True)
        if not total:
            return _is_whole(out, cut)
        cut.clear()
        if not agreed(err, "Send them?", yes=yes):
            return False
        with (
            counted(home, COMMAND) as counters,
            closing(_lines(opened, since, until, cut)) as lines,
            bars(err) as moving,
        ):
            task = moving.add_task(printable(outlet.identity), total=total)
            written, stopped = copy(
                home,
                lines,
                sink,
                identity=outlet.identity,
                environ=os.environ,
                timeout=timeout,
                progress=lambda more: moving.advance(task, more),
                counters=counters,
            )
            refused = counters.snapshot().get("rejected", 0)
    if stopped is None:
        out.print(f"{number(written)} sent")
        if refused:
            out.print(Text(f"{number(refused)} rejected (they are kept in dead/)", style="yellow"))
        return _is_whole(out, cut) and not refused
    taken = written - stopped.pending
    told = f"{number(taken)} sent; {number(stopped.pending)} wait in the journal ({stopped.trouble})"
    out.print(Text(printable(f"{told}, and {number(total - written)} were not begun with"), style="yellow"))
    return False


def _is_whole(out: Console, cut: list[str]) -> bool:
    for reason in cut:
        out.print(
            Text(printable(f"Not all of the ledger can be read: {reason}"), style="yellow"), soft_wrap=True
        )
    return not cut


def _total(ledger: Ledger, since: datetime | None, until: datetime | None, cut: list[str]) -> int:
    try:
        return sum(row["events"] for row in ledger.report(by=(), since=since, until=until))
    except Unavailable:  # a damaged one: as many as can be read
        with closing(_lines(ledger, since, until, cut)) as lines:
            return sum(1 for _ in lines)


def _lines(
    ledger: Ledger, since: datetime | None, until: datetime | None, cut: list[str]
) -> Generator[bytes]:
    """The events that can be read; `cut` is told why it is not all of them."""
    try:
        for entry in ledger.events(since=since, until=until):
            yield entry.event.to_json()
    except (sqlite3.Error, Unavailable) as error:
        cut.append(str(error))


def _not_itself(ledger: str, sink: str) -> None:
    if ledger == sink:
        raise TrackingSetupError(
            f"{sink} has its own events already: name another --sink, or another --ledger"
        )
