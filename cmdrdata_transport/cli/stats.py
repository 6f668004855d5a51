"""How it stands with a home: as a table for people, as JSON, as OpenMetrics for collectors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cmdrdata_transport.cli.view import duration, number, printable, table_of
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.metrics import Metrics, openmetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console


def as_table(out: Console, metrics: Metrics) -> None:
    """Each sink, then what was counted, and what it means where that is bad."""
    sinks = table_of("sink", "waiting", "oldest", "refused", numbers=("waiting", "refused"))
    for each in metrics.sinks:
        oldest = f"{duration(each.lag_seconds)} ago" if each.events else "-"
        sinks.add_row(printable(each.sink), number(each.events), oldest, number(each.dead_letters))
    out.print(sinks, "")
    counted = table_of("counted", "number", "", numbers=("number",))
    for (tracker, service), counts in metrics.counts.items():
        whose = printable(" ".join(filter(None, (service, "" if tracker == "default" else tracker))))
        for name, count in counts.items():
            counted.add_row(" ".join(filter(None, (whose, name))), number(count), WARNINGS.get(name, ""))
    out.print(counted, "")
    who = "process" if metrics.processes == 1 else "processes"
    out.print(
        f"{number(metrics.processes)} {who} heard of in the last minute; "
        f"{metrics.events_per_second:,.1f} events a second since they began"
    )


def _as_json(metrics: Metrics) -> str:
    return f"{json.dumps(metrics.to_dict(), ensure_ascii=False, indent=2)}\n"


TEXTS: Mapping[str, Callable[[Metrics], str]] = {"json": _as_json, "openmetrics": openmetrics}
"""What programs read, by its name."""
