"""How events and sums look in a terminal: lines and tables of rich, for any width.

Knows no command and reads nothing. Values that came from outside (customers, models, metadata) are
shown as text and never as markup or control codes.
"""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_transport.ledger.query import ENDS, SHARES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cmdrdata_transport.event import UsageEvent

WIDE = 100
"""Columns from which there is room for more than the necessary."""

_PLAIN_WIDTH = 140
"""Columns where no terminal cuts lines off."""

_NOTHING = "-"

_ALWAYS = ("calls", "input_tokens", "output_tokens", "total_tokens")
_FIRST = (*_ALWAYS, "errors", "cache_read_tokens", "output_reasoning_tokens", "cache_write_tokens")
_LAST = {"attempts": "calls", "events": "attempts"}
"""Sums in the order in which they are given room: those first, these last, the others as they come.

These are left out where they equal another.
"""

_HEADINGS = {"output_reasoning_tokens": "reasoning", "customer_id": "customer"}


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or error; text that its encoding lacks is escaped."""
    stream: Any = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _PLAIN_WIDTH
    return made


def printable(value: Any) -> str:
    """A value as text that moves no cursor: what is not printable is escaped."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def heading(name: str) -> str:
    """The words for a field."""
    return _HEADINGS.get(name) or name.removesuffix("_tokens").replace("_", " ")


def number(value: float | Decimal | str | None) -> str:
    """A count, or a decimal string, with its thousands set apart; seconds are cut to three digits."""
    if value is None:
        return _NOTHING
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{Decimal(value):,f}" if isinstance(value, str) else f"{value:,}"


def duration(seconds: float) -> str:
    """How long, in the unit that tells most: 90 s, 15 min, 36 h, 9 days."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 72)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} days"


def event_header(width: int) -> Text:
    """What stands above the lines of `event_line`."""
    return _line(
        width, "time", "customer", "provider", "model", "operation", "input", "output", "", style="dim"
    )


def event_line(event: UsageEvent, width: int) -> Text:
    """An event on one line. `~` marks a stream."""
    usage = event.usage
    problem = _problem(event)
    notes = [problem] if problem else []
    if event.request_duration_ms is not None and not problem:
        notes.append(f"{event.request_duration_ms:,.0f} ms")
    if width >= WIDE:
        parts = {"cached": usage.cache_read_tokens, "reasoning": usage.output_reasoning_tokens}
        notes += [f"{name} {number(count)}" for name, count in parts.items() if count]
    return _line(
        width,
        event.timestamp[11:19],
        printable(event.customer_id or _NOTHING),
        event.provider,
        printable(event.model or event.request_model or _NOTHING),
        f"{event.operation or _NOTHING}{' ~' if event.streaming else ''}",
        number(usage.input_tokens),
        number(usage.output_tokens),
        printable("  ".join(notes)),
        style="red" if event.outcome == "error" else "yellow" if problem else "",
    )


def _problem(event: UsageEvent) -> str:
    """What is not as it should be, in a few words."""
    if event.outcome == "error":
        return " ".join(str(each) for each in (event.status_code, event.error_type) if each is not None)
    if event.outcome != "ok":
        return event.outcome
    return "" if event.usage_status == "complete" else f"usage {event.usage_status}"


def _line(  # noqa: PLR0917 - the columns, in order
    width: int,
    time: str,
    customer: str,
    provider: str,
    model: str,
    operation: str,
    given: str,
    answered: str,
    note: str,
    *,
    style: str,
) -> Text:
    wide = width >= WIDE
    flexible = width - (58 if wide else 47)
    model_width = max(10, min(28, flexible - 9))
    line = Text(no_wrap=True, overflow="crop")
    line.append(_fitted(time, 8), style="dim")
    line.append(_fitted(customer, 10), style=style or "cyan")
    if wide:
        line.append(_fitted(provider, 10), style=style)
    line.append(_fitted(model, model_width), style=style)
    line.append(_fitted(operation, 10), style=style or "dim")
    line.append(f"{given:>7} {answered:>6} ", style=style or "bold")
    line.append(_cut(note, max(0, width - cell_len(line.plain))), style=style or "dim")
    line.rstrip()
    line.truncate(width)
    return line


def _fitted(text: str, width: int) -> str:
    return f"{set_cell_size(_cut(text, width), width)} "


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, max(0, width - 1)).rstrip()}…" if width else ""


def sums_of(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[str]:
    """The sums that rows of a report have, the most important first, without those that say nothing."""
    known = [name for row in rows for name in row if name not in by and name not in _LAST]
    return [name for name in dict.fromkeys([*_FIRST, *known, *_LAST]) if _says_something(name, rows)]


def _says_something(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    if name in _LAST:
        return any(row.get(name) != row.get(_LAST[name]) for row in rows)
    return name in _ALWAYS or any(row.get(name) not in {None, 0, "0"} for row in rows)


def report_table(rows: Sequence[Mapping[str, Any]], by: Sequence[str], width: int) -> Table:
    """A report as a table with its totals; sums for which there is no room are named below it."""
    sums = sums_of(rows, by)
    totals = {name: _total([row.get(name) for row in rows]) for name in sums}
    lines = [*rows, totals] if len(rows) > 1 else [*rows]
    cells = {name: [number(row.get(name)) for row in lines] for name in sums}
    groups = {name: [_group(row.get(name)) for row in rows] for name in by}
    shown = _that_fit(sums, cells, width - sum(_width(name, groups[name]) for name in by))

    table = table_of(*map(heading, by))
    for name in shown:
        table.add_column(heading(name), justify="right", no_wrap=True)
    previous = None
    for index in range(len(rows)):
        first, *others = [groups[name][index] for name in by] or [""]
        once = "" if others and first == previous else first
        previous = first
        named = [Text(once, style="cyan"), *map(Text, others)][: len(by)]
        table.add_row(*named, *(cells[name][index] for name in shown))
    if len(rows) > 1:
        table.add_section()
        blank = [""] * (len(by) - 1)
        table.add_row("all", *blank, *(cells[name][-1] for name in shown), style="bold")
    if left_out := [heading(name) for name in sums if name not in shown]:
        table.caption = f"Also counted: {', '.join(left_out)} (a wider terminal or --format json)"
    return table


def latency_table(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> Table:
    """How long attempts took: a line for each group and each way in which they ended."""
    table = table_of(*map(heading, by), "ended")
    for name in ("attempts", *SHARES):
        table.add_column(name if name == "attempts" else f"{name} ms", justify="right", no_wrap=True)
    for row in rows:
        groups = [Text(_group(row[name])) for name in by]
        for end in ENDS:
            if row[end]:
                times = [number(round(row[f"{end}_{share}"], 1)) for share in SHARES]
                table.add_row(*groups, heading(end), number(row[end]), *times)
                groups = [Text("") for _ in by]
    return table


def table_of(*headings: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table in the style of all of ours; columns of `numbers` are to the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, caption_justify="left")
    for each in headings:
        table.add_column(each, overflow="fold", justify="right" if each in numbers else "left")
    return table


def _total(values: Sequence[Any]) -> Any:
    """The sum of a column; strings are exact decimals."""
    known = [value for value in values if value is not None]
    return sum(map(Decimal, known)) if any(isinstance(value, str) for value in known) else sum(known)


def _group(value: Any) -> str:
    return _NOTHING if value is None else printable(value)


def _width(name: str, cells: Iterable[str]) -> int:
    return max(cell_len(text) for text in (heading(name), *cells)) + 2


def _that_fit(sums: Sequence[str], cells: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """As many sums, in their order, as there is room for; the first three always."""
    shown: list[str] = []
    for place, name in enumerate(sums):
        width -= _width(name, cells[name])
        if width < 0 and place >= 3:  # noqa: PLR2004
            break
        shown.append(name)
    return shown
