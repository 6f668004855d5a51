"""Counting what a command delivers and loses, as applications count, for `stats` and `doctor` to tell."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cmdrdata_transport.counters import Counters
from cmdrdata_transport.tallies import Tallies

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextmanager
def counted(home: Path, command: str) -> Generator[Counters]:
    """Counters that are kept in `home` at the end, under the command's name; warnings are logged."""
    counters = Counters()
    try:
        yield counters
    finally:
        Tallies(home, tracker=command, service=None).keep(counters.snapshot(), now=True)
