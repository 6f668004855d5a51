"""How it stands with a home: as a table for people, as JSON, as OpenMetrics for collectors."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from cmdrdata_transport.cli.view import number, printable, table_of
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.metrics import Metrics, openmetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console


def as_table(out: Console, metrics: Metrics) -> None:
    """Each sink, then what was counted, and what it means where that is bad."""
    sinks = table_of("sink", "waiting", "oldest", "refused")
    for each in metrics.sinks:
        oldest = f"{number(round(each.lag_seconds))} s ago" if each.events else "-"
        sinks.add_row(printable(each.sink), number(each.events), oldest, number(each.dead_letters))
    out.print(sinks, "")
    counted = table_of("counted", "number", "")
    for (tracker, service), counts in metrics.counts.items():
        whose = printable(" ".join(filter(None, (service, "" if tracker == "default" else tracker))))
        for name, count in counts.items():
            counted.add_row(" ".join(filter(None, (whose, name))), number(count), WARNINGS.get(name, ""))
    out.print(counted, "")
    out.print(
        f"{number(metrics.processes)} processes heard of in the last minute; "
        f"{metrics.events_per_second:,.1f} events a second since they began"
    )


def as_json(_: Console, metrics: Metrics) -> None:
    """One object."""
    json.dump(metrics.to_dict(), sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def as_openmetrics(_: Console, metrics: Metrics) -> None:
    """For Prometheus and the like."""
    sys.stdout.write(openmetrics(metrics))


FORMATS: Mapping[str, Callable[[Console, Metrics], None]] = {
    "table": as_table,
    "json": as_json,
    "openmetrics": as_openmetrics,
}
