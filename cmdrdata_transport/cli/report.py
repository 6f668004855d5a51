"""Sums of a ledger: as a table for people, as JSON (a list of objects), as CSV for spreadsheets."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Any

from cmdrdata_transport.cli.view import latency_table, report_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

    Rows = Sequence[Mapping[str, Any]]


def as_table(out: Console, rows: Rows, by: Sequence[str]) -> None:
    """With totals, and as many sums as there is room for."""
    out.print(report_table(rows, by, out.width) if rows else "No events.")


def as_latency_table(out: Console, rows: Rows, by: Sequence[str]) -> None:
    """How long attempts took, of what was answered, what failed and what was given up apart."""
    out.print(latency_table(rows, by) if rows else "No events.")


def as_json(_: Console, rows: Rows, by: Sequence[str]) -> None:  # noqa: ARG001 - as all formats are called
    """The group's keys first, then every sum."""
    json.dump(list(rows), sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def as_csv(_: Console, rows: Rows, by: Sequence[str]) -> None:
    """A heading, then a line for each group; a cell is empty where an event has no such value."""
    writer = csv.DictWriter(sys.stdout, rows[0] if rows else by, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


FORMATS: Mapping[str, Callable[[Console, Rows, Sequence[str]], None]] = {
    "table": as_table,
    "json": as_json,
    "csv": as_csv,
}

LATENCY_FORMATS = {**FORMATS, "table": as_latency_table}
