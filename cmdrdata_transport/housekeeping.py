"""What a home keeps, and taking out of it what is old, or what is a customer's.

Knows every place of a home that has events or says whose something is: ledgers, files of JSON lines, dead
letters, the journal, the jobs that are told of later, what was set aside as damaged; and the directory that
stood in for home when it could not be written. Each is counted first, so that it can be said what will be
done. What is left of a customer afterwards, in a ledger that is too damaged say, `remains` finds.

A customer's events that still wait in the journal are overwritten where they are, so that no sink is
sent them later; whole files stay readable, and nobody who delivers is disturbed. A process at work may
have read some already, or hold some in memory where no file took them: `at_work` says whether there is
one. Old events that wait are left alone: they are to be delivered first.

Does not know what sinks keep that are no files and no ledgers: `elsewhere` names them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cmdrdata_transport.appending import keep_only
from cmdrdata_transport.dead_letters import letter_box, read_letter
from cmdrdata_transport.errors import TrackingError
from cmdrdata_transport.event import decode
from cmdrdata_transport.home import journals
from cmdrdata_transport.ledger import READABLE, removing
from cmdrdata_transport.ledger.removing import Which
from cmdrdata_transport.segments import blank, in_use, lines_of, segments
from cmdrdata_transport.sinks import file_of, url_of
from cmdrdata_transport.sinks.columns import moment_of
from cmdrdata_transport.sinks.damage import aside_from
from cmdrdata_transport.traces import blank_lines, count_lines, holding, trace_of

DEAD_LETTERS = "rejected events"


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
    trace = trace_of(customer)

    def is_theirs(event: Mapping[str, Any]) -> bool:
        return event.get("customer_id") == customer

    def has_them(line: bytes) -> bool:
        """Of lines that may be damaged."""
        event = _event(line)
        return trace.search(line) is not None if event is None else is_theirs(event)

    places: list[Place] = []
    for each in _homes(home):
        here = sinks if each == home else [sink for sink in sinks if _is_below_home(sink)]
        places += [
            *_journal(each, is_theirs),
            *_lines("pieces of damaged records", sorted((each / "journal").glob("*.torn")), has_them),
            *_ledgers(each, here, Which(customer=customer)),
            *_copies(each, here, Which(customer=customer)),
            *_set_aside(each, here, Which(customer=customer)),
            *_lines("events", [_file(each, sink) for sink in here if sink.startswith("jsonl:")], has_them),
            *_dead_letters(each, is_theirs, trace),
            _files("jobs that were started", each / "jobs", lambda path: _names(path, customer)),
        ]
    return places


def elsewhere(sinks: Iterable[str]) -> list[str]:
    """The sinks that have such events too, which we cannot take out."""
    return [sink for sink in sinks if not sink.startswith((*READABLE, "jsonl:"))]


def remains(home: Path, sinks: Iterable[str], customer: str) -> list[Path]:
    """The files that still have as much as the customer's id, or cannot be read."""
    files = {path for each in _homes(home) for path in each.rglob("*") if path.is_file()}
    for file in (_file(home, sink) for sink in sinks if sink.startswith(("sqlite:", "jsonl:"))):
        name = escape(file.name)
        files |= {file, *file.parent.glob(f"{name}-wal"), *file.parent.glob(f"{name}.corrupt-*")}
    return holding(sorted(files), trace_of(customer))


def at_work(home: Path) -> bool:
    """Whether a process writes or delivers here, and may have in memory what is not in a file any more."""
    return any(in_use(each) for each in journals(home))


def _homes(home: Path) -> list[Path]:
    return [each.parent for each in journals(home)]


def _is_below_home(sink: str) -> bool:
    return sink.startswith(("sqlite:///", "jsonl:///")) and not url_of(sink).path.startswith("//")


def _file(home: Path, sink: str) -> Path:
    return file_of(url_of(sink), home)


def _ledgers(home: Path, sinks: Sequence[str], which: Which) -> Iterator[Place]:
    for sink in sinks:
        if sink.startswith(READABLE):
            yield Place(
                where=sink,
                what="events",
                number=removing.count(sink, which, home=home),
                remove=lambda sink=sink: removing.remove(sink, which, home=home),  # type: ignore[misc]
            )


def _copies(home: Path, sinks: Iterable[str], which: Which) -> Iterator[Place]:
    """What SQLite has left of rows that it has moved or that others have removed."""
    for sink in sinks:
        if sink.startswith("sqlite:") and not removing.count(sink, which, home=home):
            left = holding([_file(home, sink)], trace_of(which.customer or ""))
            yield Place(
                where=sink,
                what="left copies of events",
                number=len(left),
                remove=lambda sink=sink: removing.remove(sink, which, home=home) + 1,  # type: ignore[misc]
            )


def _set_aside(home: Path, sinks: Iterable[str], which: Which) -> Iterator[Place]:
    """Ledgers that were damaged; one of which SQLite takes nothing any more is among what remains."""
    for sink in sinks:
        if sink.startswith("sqlite:"):
            for path in aside_from(_file(home, sink)):
                with contextlib.suppress(TrackingError):
                    yield from _ledgers(home, [f"sqlite:///{quote(os.fsencode(path.absolute()))}"], which)


def _lines(what: str, paths: Iterable[Path], unwanted: Callable[[bytes], bool]) -> Iterator[Place]:
    for path in paths:
        yield Place(
            where=str(path),
            what=what,
            number=count_lines(path, unwanted),
            remove=lambda path=path: blank_lines(path, unwanted),  # type: ignore[misc]
        )


def _journal(home: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[Place]:
    def is_wanted(line: bytes) -> bool:
        event = _event(line)
        return event is not None and wanted(event)

    def remove() -> int:
        return sum(blank(segment, is_wanted) for segment in segments(home / "journal"))

    number = sum(is_wanted(line) for segment in segments(home / "journal") for line in lines_of(segment))
    yield Place(where=str(home / "journal"), what="events", number=number, remove=remove)


def _dead_letters(
    home: Path, wanted: Callable[[Mapping[str, Any]], bool], trace: re.Pattern[bytes] | None = None
) -> Iterator[Place]:
    def is_wanted(line: bytes) -> bool:
        letter = read_letter(line)
        if letter is not None:
            return wanted(letter.event)
        return trace is not None and trace.search(line.replace(b"\\", b"")) is not None

    for path in sorted((home / "dead").glob("*.jsonl")):
        number = 0
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # a replay has ended meanwhile
            number = sum(map(is_wanted, file))
        yield Place(
            where=str(path),
            what=DEAD_LETTERS,
            number=number,
            remove=lambda path=path: _rewrite(path, is_wanted),  # type: ignore[misc]
        )


def _rewrite(path: Path, unwanted: Callable[[bytes], bool]) -> int:
    """Leave these lines out of a file of dead letters; how many."""
    removed = 0

    def wanted(letters: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal removed
        for letter in letters:
            if unwanted(letter):
                removed += 1
            else:
                yield letter

    with contextlib.suppress(FileNotFoundError), letter_box(path, make=False), path.open("rb") as letters:
        keep_only(path, wanted(letters))
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
