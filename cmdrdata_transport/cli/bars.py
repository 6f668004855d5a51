"""Bars that show how far something is; nothing where there is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

if TYPE_CHECKING:
    from rich.console import Console

_OTHERS = 45
"""Columns of the terminal that a bar, its numbers and its time take."""


def bars(err: Console) -> Progress:
    """How many of how many."""
    return _progress(err, BarColumn(bar_width=16), MofNCompleteColumn())


def counts(err: Console, done: str) -> Progress:
    """How many so far are what is `done` to them, where nobody knows of how many."""
    return _progress(err, TextColumn(f"{{task.completed:,.0f}} {done}"))


def _progress(err: Console, *columns: ProgressColumn) -> Progress:
    # The name of a sink gives way, however long it is: what moves is to be seen.
    name = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, err.width - _OTHERS))
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        *columns,
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    )
