"""Events of a ledger, one a line, the newest last; and those that land from now on."""

from __future__ import annotations

import sys
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING

from cmdrdata_transport.cli.reading import opened
from cmdrdata_transport.cli.view import event_header, event_line
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from rich.console import Console

    from cmdrdata_transport.event import UsageEvent

LOOK_EVERY_SECONDS = 0.3


def show(
    out: Console, where: str, *, home: Path, lines: int, since: datetime | None, follow: bool, as_json: bool
) -> None:
    """Show the last `lines` events, or all `since` a moment; then, with `follow`, the new ones, for ever.

    With `follow` a ledger that is not there yet is waited for.
    """
    if follow:
        _wait_for(where, home)
    with opened(where, home) as ledger:
        tell = _teller(out, as_json=as_json)
        position = ledger.last()
        if since is not None:
            for entry in ledger.events(since=since):
                position = max(position, entry.position)
                tell(entry.event)
        elif lines:
            for entry in ledger.newest(lines):
                position = max(position, entry.position)
                tell(entry.event)
        while follow:
            for entry in ledger.tail(position):
                position = entry.position
                tell(entry.event)
            sleep(LOOK_EVERY_SECONDS)


def _wait_for(where: str, home: Path) -> None:
    while True:
        with suppress(TrackingSetupError):
            return Ledger.open(where, home=home).close()
        sleep(LOOK_EVERY_SECONDS)


def _teller(out: Console, *, as_json: bool) -> Callable[[UsageEvent], None]:
    if as_json:
        return _tell_json
    width = out.width
    out.print(event_header(width))
    return lambda event: out.print(event_line(event, width))


def _tell_json(event: UsageEvent) -> None:
    sys.stdout.write(event.to_json().decode() + "\n")
    sys.stdout.flush()
