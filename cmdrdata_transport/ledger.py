"""Reading back what a ledger holds: sums by customer, model or day, and events one by one.

Knows the ledger's schema (`sinks/sqlite.py` writes it) and the few words in which databases differ,
which all stand in `_Sqlite`. Opens for reading only and changes nothing. Does not know prices.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.event import FRACTIONAL_UNITS, UNITS, UsageEvent
from cmdrdata_transport.sinks import file_of
from cmdrdata_transport.sinks.sqlite import TEXTS, columns, microseconds

When = str | datetime | None
"""A moment: a datetime, or ISO 8601 as text. Without a zone it is in UTC; a date is its midnight."""

ALWAYS = ("input_tokens", "output_tokens", "total_tokens")
"""The sums that every row of a report has."""

_DIGITS = Context(prec=80)
_FETCHED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event of the ledger. Later ones have a greater `position`."""

    position: int
    event: UsageEvent


class Ledger:
    """A ledger, open for reading. Use it in one thread and one process; close it, or use it in `with`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, where: str | Path, *, home: Path | None = None) -> Ledger:
        """The ledger at `where`: a file, or a URL such as `sqlite:///usage.db`, relative to `home`.

        Raises:
            TrackingSetupError: there is none; the message says why.
        """
        return cls(_Sqlite.open(_path_of(where, home)))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

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
        groups, parameters = _groups_of(by)
        where, bounds = _between(since, until)
        try:
            units = [unit for unit in UNITS if unit in columns(self._connection)]
            try:
                rows = self._sums(groups, units, where, (*parameters, *bounds), exact=False)
            except sqlite3.OperationalError as error:
                if "overflow" not in str(error):
                    raise
                # A count that no answer can have, but that a provider once stated.
                rows = self._sums(groups, units, where, (*parameters, *bounds), exact=True)
        except sqlite3.Error as error:
            raise Unavailable(str(error)) from None
        return _shown(rows, by, units)

    def events(self, *, since: When = None, until: When = None) -> Iterator[Entry]:
        """The events from `since` on and before `until`, in the order in which they were stored."""
        where, bounds = _between(since, until)
        return self._entries(where, bounds, "")

    def tail(self, after: int = 0, *, most: int = _FETCHED) -> list[Entry]:
        """The events stored after `position`, at most so many. `last()` says where to begin."""
        return list(self._entries("seq > ?", (after,), f"LIMIT {most:d}"))

    def last(self) -> int:
        """The position of the newest event; 0 when there is none."""
        return int(self._connection.execute("SELECT coalesce(max(seq), 0) FROM usage_events").fetchone()[0])

    def _entries(self, where: str, parameters: Sequence[object], limit: str) -> Iterator[Entry]:
        sql = f"SELECT seq, event FROM usage_events WHERE {where} ORDER BY seq {limit}"  # noqa: S608 - our own words
        with closing(self._connection.execute(sql, parameters)) as found:
            while rows := found.fetchmany(_FETCHED):
                for position, text in rows:
                    yield Entry(position=position, event=UsageEvent.from_json(text.encode()))

    def _sums(
        self,
        groups: Sequence[str],
        units: Sequence[str],
        where: str,
        parameters: Sequence[object],
        *,
        exact: bool,
    ) -> list[tuple[Any, ...]]:
        whole = "exact_sum" if exact else "sum"
        # An answer that is not there yet is no call of its own: the one that tells it is.
        first_part = "coalesce(part, 0) = 0 AND NOT (usage_status = 'none' AND outcome = 'ok')"
        wanted = [
            *groups,
            f"count(*) FILTER (WHERE {first_part} AND coalesce(attempt, 0) = 0)",
            f"count(*) FILTER (WHERE {first_part})",
            "count(*)",
            "count(*) FILTER (WHERE outcome = 'error')",
            *(f"{'sum' if unit in FRACTIONAL_UNITS else whole}({unit})" for unit in units),
            "exact_sum(provider_cost) FILTER (WHERE provider_cost IS NOT NULL)",
        ]
        numbers = ", ".join(str(number + 1) for number in range(len(groups)))
        grouped = f"GROUP BY {numbers} ORDER BY {numbers}" if groups else "HAVING count(*) > 0"
        sql = f"SELECT {', '.join(wanted)} FROM usage_events WHERE {where} {grouped}"  # noqa: S608 - values are bound
        return self._connection.execute(sql, parameters).fetchall()


class _Sqlite:
    """What only SQLite says this way."""

    DAY = "date(at / 1000000, 'unixepoch')"

    METADATA = (
        "(SELECT CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE value END "
        "FROM json_each(event, '$.metadata') WHERE key = ? LIMIT 1)"
    )
    """The key is bound: it may hold anything. True and false would be 1 and 0, as numbers are."""

    @staticmethod
    def open(path: Path) -> sqlite3.Connection:
        if not path.exists():
            raise TrackingSetupError(f"there is no ledger at {path}: nothing has been delivered to it yet")
        try:
            connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5.0)
        except sqlite3.Error as error:
            raise TrackingSetupError(f"{path} cannot be opened: {error}") from None
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection.create_aggregate("exact_sum", 1, _ExactSum)  # type: ignore[arg-type]  # its result is typed loosely
            try:
                known = columns(connection)
            except sqlite3.Error as error:
                raise TrackingSetupError(f"{path} cannot be read as a ledger: {error}") from None
            if not known:
                raise TrackingSetupError(f"{path} is not a ledger: it has no table usage_events")
            undo.pop_all()
        return connection


class _ExactSum:
    """Adds numbers of any size and decimal strings, without rounding; what is neither is left out."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, value: object) -> None:
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return
        if number.is_finite() and abs(number.adjusted()) <= _DIGITS.prec // 2:
            self._sum = _DIGITS.add(self._sum or Decimal(0), number)

    def finalize(self) -> str | None:
        return None if self._sum is None else f"{self._sum:f}"


def check_groups(by: Sequence[str]) -> None:
    """Raises `TrackingSetupError` for a name that no report can be by; needs no ledger."""
    _groups_of(by)


def _path_of(where: str | Path, home: Path | None) -> Path:
    if isinstance(where, Path) or "://" not in where:
        return Path(where).expanduser()
    url = urlsplit(where)
    if url.scheme != "sqlite":
        raise TrackingSetupError(f"a ledger that can be read is sqlite:///usage.db, not {url.scheme}:")
    return file_of(url, home or Path())


def _groups_of(by: Sequence[str]) -> tuple[list[str], list[str]]:
    groups: list[str] = []
    parameters: list[str] = []
    for name in by:
        if name == "day":
            groups.append(_Sqlite.DAY)
        elif name in _GROUPED:
            groups.append(name)
        elif name.startswith("metadata.") and name != "metadata.":
            groups.append(_Sqlite.METADATA)
            parameters.append(name.removeprefix("metadata."))
        else:
            raise TrackingSetupError(
                f"a report cannot be by {name!r}: there are day, metadata.KEY, {', '.join(sorted(_GROUPED))}"
            )
    return groups, parameters


_GROUPED = frozenset({*TEXTS, "streaming", "status_code", "attempt"}) - {"timestamp", "provider_cost"}


def _between(since: When, until: When) -> tuple[str, tuple[int, ...]]:
    bounds = [("at >= ?", since), ("at < ?", until)]
    told = [(words, _moment(when)) for words, when in bounds if when is not None]
    return " AND ".join(["1 = 1", *(words for words, _ in told)]), tuple(moment for _, moment in told)


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
    told = [dict(zip(names, row, strict=True)) for row in rows]
    summed = [*ALWAYS, *(unit for unit in units if unit not in ALWAYS), "provider_cost"]
    present = [name for name in summed if name in ALWAYS or any(row.get(name) is not None for row in told)]
    counted = [*by, "calls", "attempts", "events", "errors"]
    return [
        {**{name: row[name] for name in counted}, **{name: _sum_of(name, row) for name in present}}
        for row in told
    ]


def _sum_of(name: str, row: Mapping[str, Any]) -> int | float | str:
    value = row.get(name)
    if name == "provider_cost":
        return value or "0"
    if name in FRACTIONAL_UNITS:
        return float(value or 0)
    return int(Decimal(value or 0))
