"""A question before something is done that cannot be undone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from cmdrdata_transport.errors import TrackingSetupError

if TYPE_CHECKING:
    from rich.console import Console


def agreed(err: Console, question: str, *, yes: bool) -> bool:
    """Whether the user wants it: said beforehand with `--yes`, or typed now.

    Raises `TrackingSetupError` where nobody could type.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise TrackingSetupError("nothing has been done: nobody is there to be asked. Type --yes as well.")
    if typer.confirm(question, err=True):
        return True
    err.print("Nothing has been done.")
    return False
