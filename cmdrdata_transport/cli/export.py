"""The events of a ledger, one by one: as JSON lines, or in columns for spreadsheets and warehouses."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TextIO

from rich.text import Text

from cmdrdata_transport.cli.bars import counts
from cmdrdata_transport.cli.output import writing
from cmdrdata_transport.cli.view import number, printable
from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.event import Usage, UsageEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from rich.console import Console

    from cmdrdata_transport.ledger import Ledger

COLUMNS = (
    *(each.name for each in fields(UsageEvent) if each.name not in ("usage", "extra")),
    *(each.name for each in fields(Usage)),
)
"""Every field of the format, whether an event has it or not: the heading is the same for every ledger."""


def export(
    out: Console,
    err: Console,
    ledger: Ledger,
    form: str,
    file: Path | None,
    *,
    since: datetime | None,
    until: datetime | None,
) -> bool:
    """Write the events of a time to a file, or to standard output; whether all of them can be read.

    Raises `TrackingSetupError` where the file cannot be written.
    """
    cut: Unavailable | None = None
    where = nullcontext(sys.stdout) if file is None else writing(file)
    with where as text, counts(err, "written") as moving:
        write = FORMATS[form](text)
        task = moving.add_task("events", total=None)
        try:
            for entry in ledger.events(since=since, until=until):
                write(entry.event)
                moving.advance(task)
        except Unavailable as error:
            cut = error
        done = int(moving.tasks[task].completed)
    if file is not None:
        out.print(Text(f"{number(done)} events in {printable(str(file))}"), soft_wrap=True)
    if cut is not None:
        err.print(
            Text(printable(f"Not all of the ledger can be read: {cut}"), style="yellow"), soft_wrap=True
        )
    return cut is None


def _as_lines(text: TextIO) -> Callable[[UsageEvent], object]:
    return lambda event: text.write(event.to_json().decode() + "\n")


def _as_csv(text: TextIO) -> Callable[[UsageEvent], object]:
    # What a later version of the format has added is in JSON lines only: columns are those that we know.
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    return lambda event: writer.writerow({name: _cell(value) for name, value in event.to_dict().items()})


def _cell(value: Any) -> Any:
    """As it is, or, where that is no text and no number, in JSON, the same whichever ledger it is from."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if plain else json.dumps(value, ensure_ascii=False, sort_keys=True)


FORMATS: Mapping[str, Callable[[TextIO], Callable[[UsageEvent], object]]] = {
    "jsonl": _as_lines,
    "csv": _as_csv,
}
"""What writes an event, by the name of the format."""
