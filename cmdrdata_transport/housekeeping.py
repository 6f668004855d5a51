"""What a home keeps, and taking out of it what is old, or what is a customer's.

Knows every place of a home that has events or says whose something is: ledgers, dead letters, the
journal, the jobs that are told of later. Each is counted first, so that it can be said what will be done.

A customer's events that still wait in the journal are overwritten where they are, so that no sink is
sent them later; whole files stay readable, and nobody who delivers is disturbed. A process at work may
have read some already, or hold some in memory where no file took them: `at_work` says whether there is
one. Old events that wait are left alone: they are to be delivered first.

Does not know what sinks keep that are no ledgers, nor what is in files that were set aside: `elsewhere`
names them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cmdrdata_transport.errors import TrackingError
from cmdrdata_transport.event import decode
from cmdrdata_transport.lanes import letter_box
from cmdrdata_transport.ledger import READABLE, removing
from cmdrdata_transport.ledger.removing import Which
from cmdrdata_transport.segments import blank, in_use, lines_of, segments
from cmdrdata_transport.sinks.columns import moment_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is, how many, and what takes it out; `remove` returns how many it took."""

    where: str
    what: str
    number: int
    remove: Callable[[], int]


def old(home: Path, sinks: Sequence[str], before: datetime) -> list[Place]:
    """What is older than `before`, of ledgers by the time of the call, of other files by their own."""
    return [
        *_ledgers(home, sinks, Which(before=before)),
        *_dead_letters(home, lambda event: _is_before(event, before)),
        _files("jobs that were started", home / "jobs", lambda path: _changed(path) < before.timestamp()),
    ]


def of_customer(home: Path, sinks: Sequence[str], customer: str) -> list[Place]:
    """What is this customer's."""

    def is_theirs(event: Mapping[str, Any]) -> bool:
        return event.get("customer_id") == customer

    return [
        *_journal(home, is_theirs),
        *_ledgers(home, sinks, Which(customer=customer)),
        *_dead_letters(home, is_theirs),
        _files("jobs that were started", home / "jobs", lambda path: _names(path, customer)),
    ]


def elsewhere(home: Path, sinks: Iterable[str]) -> list[str]:
    """Where such events may be too, that we cannot take out."""
    aside = [*sorted(home.glob("*.corrupt-*")), *sorted((home / "journal").glob("*.torn"))]
    return [*(sink for sink in sinks if not sink.startswith(READABLE)), *map(str, aside)]


def at_work(home: Path) -> bool:
    """Whether a process writes or delivers here, and may have in memory what is not in a file any more."""
    return in_use(home / "journal")


def _ledgers(home: Path, sinks: Sequence[str], which: Which) -> Iterator[Place]:
    for sink in sinks:
        if sink.startswith(READABLE):
            yield Place(
                where=sink,
                what="events",
                number=removing.count(sink, which, home=home),
                remove=lambda sink=sink: removing.remove(sink, which, home=home),  # type: ignore[misc]
            )


def _journal(home: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[Place]:
    def is_wanted(line: bytes) -> bool:
        event = _event(line)
        return event is not None and wanted(event)

    def remove() -> int:
        return sum(blank(segment, is_wanted) for segment in segments(home / "journal"))

    number = sum(is_wanted(line) for segment in segments(home / "journal") for line in lines_of(segment))
    yield Place(where=str(home / "journal"), what="events", number=number, remove=remove)


def _dead_letters(home: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[Place]:
    def is_wanted(letter: bytes) -> bool:
        said = _event(letter)
        event = None if said is None else said.get("event")
        return isinstance(event, dict) and wanted(event)

    for path in sorted((home / "dead").glob("*.jsonl")):
        with path.open("rb") as file:
            number = sum(map(is_wanted, file))
        yield Place(
            where=str(path),
            what="rejected events",
            number=number,
            remove=lambda path=path: _rewrite(path, is_wanted),  # type: ignore[misc]
        )


def _rewrite(path: Path, unwanted: Callable[[bytes], bool]) -> int:
    """Leave these lines out of a file of dead letters; how many."""
    rest = path.with_suffix(".new")
    removed = 0
    with letter_box(path), path.open("rb") as letters:
        fd = os.open(rest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            for letter in letters:
                if unwanted(letter):
                    removed += 1
                else:
                    file.write(letter)
        if rest.stat().st_size:
            rest.replace(path)
        else:
            rest.unlink()
            path.unlink()
    return removed


def _files(what: str, directory: Path, unwanted: Callable[[Path], bool]) -> Place:
    def found() -> list[Path]:
        return [path for path in directory.glob("*.json") if unwanted(path)]

    def remove() -> int:
        paths = found()
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    return Place(where=str(directory), what=what, number=len(found()), remove=remove)


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        said = decode(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _is_before(event: Mapping[str, Any], before: datetime) -> bool:
    try:
        return moment_of(event.get("timestamp")) < before
    except TrackingError:
        return False


def _changed(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return float("inf")


def _names(path: Path, customer: str) -> bool:
    with contextlib.suppress(OSError):
        said = _event(path.read_bytes()) or {}
        return customer in (said.get("customer"), said.get("customer_id"), said.get("told"))
    return False
