"""Reading back what a ledger holds: sums by customer, model or day, and events one by one.

Opens for reading only and changes nothing. Does not know prices, nor a database: `query.py` knows what
a report asks for, and one module for each kind of database how to ask it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, Self

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.event import FRACTIONAL_UNITS, UNITS, UsageEvent
from cmdrdata_transport.ledger.query import ENDS, SHARES, Bounds, NotBegun, check_groups
from cmdrdata_transport.ledger.sqlite import SqliteReader
from cmdrdata_transport.sinks import file_of, url_of
from cmdrdata_transport.sinks.columns import microseconds

__all__ = ["ALWAYS", "READABLE", "Entry", "Ledger", "NotBegun", "When", "check_groups"]

When = str | datetime | None
"""A moment: a datetime, or ISO 8601 as text. Without a zone it is in UTC; a date is its midnight."""

ALWAYS = ("input_tokens", "output_tokens", "total_tokens")
"""The sums that every row of a report has."""

READABLE = ("sqlite:", "postgresql:", "postgres:")
"""What the URLs of sinks begin with that can be read back."""

_TAILED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event of the ledger. Later ones have a greater `position`."""

    position: int
    event: UsageEvent


class Reader(Protocol):
    """A ledger in one kind of database. Its methods raise `Unavailable` when it cannot be read."""

    def columns(self) -> set[str]:
        """The names of the ledger's columns."""
        ...

    def sums(self, by: Sequence[str], units: Sequence[str], bounds: Bounds) -> list[tuple[Any, ...]]:
        """What `query.sums` asks for, in any order."""
        ...

    def durations(self, by: Sequence[str], bounds: Bounds) -> list[tuple[Any, ...]]:
        """What `query.durations` asks for, in any order."""
        ...

    def entries(self, bounds: Bounds) -> Iterator[tuple[int, str]]:
        """Position and JSON of the events of a time, in the order of their positions."""
        ...

    def after(self, position: int, most: int) -> list[tuple[int, str]]:
        """The first so many behind a position, such that none before the last of them can still come."""
        ...

    def newest(self, most: int) -> list[tuple[int, str]]:
        """The last so many, in order."""
        ...

    def last(self) -> int:
        """The position behind which `after` finds what is new from now on; 0 when there is none."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Ledger:
    """A ledger, open for reading. Use it in one thread and one process; close it, or use it in `with`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @classmethod
    def open(
        cls, where: str | Path, *, home: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> Ledger:
        """The ledger at `where`: a file, or a URL of one of the kinds `READABLE`.

        A file's URL, `sqlite:///usage.db`, is relative to `home`. `environ` is where a password is
        looked up that a URL leaves out, the process's environment by default.

        Raises:
            TrackingSetupError: there is none; the message says why.
            Unavailable: a database cannot be reached.
        """
        if isinstance(where, Path) or "://" not in where:
            return cls(SqliteReader(Path(where).expanduser()))
        if (scheme := f"{where.partition('://')[0].strip().lower()}:") not in READABLE:
            raise TrackingSetupError(
                "a ledger that can be read is sqlite:///usage.db or postgresql://user@host/database, "
                f"not {scheme}"
            )
        url = url_of(where)
        if url.scheme == "sqlite":
            return cls(SqliteReader(file_of(url, home or Path())))
        from cmdrdata_transport.ledger.postgresql import PostgresReader  # noqa: PLC0415 - where it is used
        from cmdrdata_transport.sinks.postgresql.target import target_of  # noqa: PLC0415 - see above

        return cls(PostgresReader(target_of(url, os.environ if environ is None else environ)))

    def close(self) -> None:
        """Let go of the file or the connection."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def report(
        self, by: Sequence[str] = ("customer_id",), *, since: When = None, until: When = None
    ) -> list[dict[str, Any]]:
        """Sums of all events from `since` on and before `until`, one row for each group, in order.

        `by` names fields of the event (`customer_id`, `model`, `provider`, `operation`, `service`,
        `outcome` …), `day` (in UTC) or `metadata.` and a key. A row has the group's values, None where
        an event has none; then `calls` (answers, whatever their parts and attempts), `attempts`,
        `events` and `errors`; then the sums of `input_tokens`, `output_tokens`, `total_tokens` and of
        every other unit that any event of the report has; then, if any has, the sum of
        `provider_cost`, exact, as a decimal string.

        Raises:
            TrackingSetupError: a name or a time that means nothing.
            Unavailable: the ledger cannot be read just now.
        """
        known = self._reader.columns()
        units = [unit for unit in UNITS if unit in known]
        return _shown(self._reader.sums(by, units, _bounds(since, until)), by, units)

    def latency(
        self, by: Sequence[str] = ("provider", "model"), *, since: When = None, until: When = None
    ) -> list[dict[str, Any]]:
        """How long attempts took, in milliseconds, from the request to the end of the answer.

        One row for each group, as in `report`, with the numbers of attempts that were `answered`, that
        were `errors` and that were `given_up` (cancelled, or nobody knows), and for each of the three the
        percentiles `p50`, `p95` and `p99`: `answered_p50` and so on, None where there is none.

        Raises what `report` raises.
        """
        rows = self._reader.durations(by, _bounds(since, until))
        names = [*by, *(name for end in ENDS for name in (end, *(f"{end}_{share}" for share in SHARES)))]
        in_order = sorted(rows, key=lambda row: [*map(_rank, row[: len(by)])])
        return [dict(zip(names, row, strict=True)) for row in in_order]

    def events(self, *, since: When = None, until: When = None) -> Iterator[Entry]:
        """The events from `since` on and before `until`, in the order in which they were stored.

        Damaged ones are left out, and `Unavailable` is raised at the end where there were some.
        """
        return _whole(self._reader.entries(_bounds(since, until)))

    def tail(self, after: int = 0, *, most: int = _TAILED) -> list[Entry]:
        """The events stored after `position`, at most so many. `last()` says where to begin."""
        return list(_read(self._reader.after(after, most), []))

    def newest(self, most: int) -> list[Entry]:
        """The last events, at most so many, the newest last."""
        return list(_read(self._reader.newest(most), []))

    def last(self) -> int:
        """The position of the newest event; 0 when there is none.

        Where many write at once, it is that of the newest before which none can still come.
        """
        return self._reader.last()


def _whole(rows: Iterable[tuple[int, str]]) -> Iterator[Entry]:
    damaged: list[int] = []
    yield from _read(rows, damaged)
    if damaged:
        raise Unavailable(f"{len(damaged)} events are damaged")


def _read(rows: Iterable[tuple[int, str]], damaged: list[int]) -> Iterator[Entry]:
    """The events; `damaged` is told the positions of what is none."""
    for position, text in rows:
        try:
            event = UsageEvent.from_json(text.encode())
        except ValueError:
            damaged.append(position)
        else:
            yield Entry(position=position, event=event)


def _bounds(since: When, until: When) -> Bounds:
    return None if since is None else _moment(since), None if until is None else _moment(until)


def _moment(when: str | datetime) -> int:
    try:
        at = when if isinstance(when, datetime) else datetime.fromisoformat(when.strip())
    except ValueError:
        raise TrackingSetupError(
            f"{when!r} is not a time: write 2026-11-01, or 2026-11-01T12:00:00Z"
        ) from None
    return microseconds(at if at.tzinfo else at.replace(tzinfo=UTC))


def _shown(rows: Sequence[tuple[Any, ...]], by: Sequence[str], units: Sequence[str]) -> list[dict[str, Any]]:
    names = [*by, "calls", "attempts", "events", "errors", *units, "provider_cost"]
    in_order = sorted(rows, key=lambda row: [*map(_rank, row[: len(by)])])
    told = [dict(zip(names, row, strict=True)) for row in in_order]
    summed = [*ALWAYS, *(unit for unit in units if unit not in ALWAYS), "provider_cost"]
    present = [name for name in summed if name in ALWAYS or any(row.get(name) is not None for row in told)]
    counted = [*by, "calls", "attempts", "events", "errors"]
    return [
        {**{name: row[name] for name in counted}, **{name: _sum_of(name, row) for name in present}}
        for row in told
    ]


def _rank(value: Any) -> tuple[int, Any]:
    """Nothing, then numbers, then texts, each as it compares."""
    if value is None:
        return 0, 0
    return (2, value) if isinstance(value, str) else (1, value)


def _sum_of(name: str, row: Mapping[str, Any]) -> int | float | str:
    value = row.get(name)
    if name == "provider_cost":
        return "0" if value is None else f"{Decimal(value):f}"
    if name in FRACTIONAL_UNITS:
        return float(value or 0)
    return int(Decimal(value or 0))
