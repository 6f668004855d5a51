"""Reading the embedded ledger, the file that `sinks/sqlite.py` writes."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from cmdrdata_transport.databases import only_to_read
from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.ledger.query import COLUMNS, Bounds, Words, between, durations, sums
from cmdrdata_transport.sinks.damage import opening
from cmdrdata_transport.sinks.sqlite import columns

FETCHED = 500

TRIED = 100_000
"""How many positions are tried where a ledger is too damaged to say how many it has: a second or so."""

_WORDS = Words(
    bound="?",
    moment="?",
    day="date(at / 1000000, 'unixepoch')",
    # The key is bound: it may hold anything. True and false would be 1 and 0, as numbers are.
    metadata=(
        "(SELECT CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE value END "
        "FROM json_each(event, '$.metadata') WHERE key = ? LIMIT 1)"
    ),
    streaming="streaming",
    exact_sum="exact_sum",
    percentile="percentile(request_duration_ms, {share})",
)
_DIGITS = Context(prec=80)


class SqliteReader:
    """A file, open for reading."""

    def __init__(self, path: Path) -> None:
        self._connection = _opened(path)
        self._asked = self._behind = 0
        """What `after` was last asked for, and from where it looks because of that."""

    def columns(self) -> set[str]:
        """The names of the ledger's columns. Raises `Unavailable` when it cannot be read."""
        with _readable():
            return columns(self._connection)

    def sums(self, by: Sequence[str], units: Sequence[str], bounds: Bounds) -> list[tuple[Any, ...]]:
        """What `query.sums` asks for. Raises `Unavailable` when it cannot be read."""
        sql, values = sums(_WORDS, by, units, bounds)
        with _readable():
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "overflow" not in str(error):
                    raise
                # A count that no answer can have, but that a provider once stated.
                sql, values = sums(_WORDS, by, units, bounds, whole_sum="exact_sum")
                return self._connection.execute(sql, values).fetchall()

    def durations(self, by: Sequence[str], bounds: Bounds) -> list[tuple[Any, ...]]:
        """What `query.durations` asks for. Raises `Unavailable` when it cannot be read."""
        sql, values = durations(_WORDS, by, bounds)
        with _readable():
            return self._connection.execute(sql, values).fetchall()

    def entries(self, bounds: Bounds) -> Iterator[tuple[int, str]]:
        """Position and JSON of the events of a time, in order; damaged ones are left out.

        Raises `Unavailable` behind the last one where some were, or none can be read any more.
        """
        where, values = between(_WORDS, bounds)
        position = 0
        try:
            for position, text in self._entries(f"WHERE {where} ORDER BY seq", values):
                yield position, text
        except sqlite3.Error as error:
            if _is_damage(error):
                yield from self._one_by_one(where, values, position)
            # What Python says of text that is no UTF-8 quotes it.
            said = str(error) if hasattr(error, "sqlite_errorcode") else "an event is no UTF-8"
            raise Unavailable(said) from None

    def after(self, position: int, most: int) -> list[tuple[int, str]]:
        """The first so many behind a position.

        Where the newest have been removed, what comes has their positions: whoever goes on to ask for what
        is behind one of those has all that is behind what is left. Raises `Unavailable` as `last` does.
        """
        if position != self._asked:
            self._asked = self._behind = position
        self._behind = min(self._behind, self.last())
        with _readable():
            return list(self._entries("WHERE seq > ? ORDER BY seq LIMIT ?", [self._behind, most]))

    def newest(self, most: int) -> list[tuple[int, str]]:
        """The last so many, in order. Raises `Unavailable` as `last` does."""
        with _readable():
            return list(self._entries("ORDER BY seq DESC LIMIT ?", [most]))[::-1]

    def last(self) -> int:
        """The greatest position; 0 when there is none. Raises `Unavailable` when it cannot be read."""
        with _readable():
            found = self._connection.execute("SELECT coalesce(max(seq), 0) FROM usage_events")
            return int(found.fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _one_by_one(self, where: str, values: Sequence[object], position: int) -> Iterator[tuple[int, str]]:
        """Those behind a position of which each can be read by itself: a damaged page has few of them."""
        for each in range(position + 1, self._end(position) + 1):
            with suppress(sqlite3.Error):
                yield from self._connection.execute(
                    f"SELECT seq, event FROM usage_events WHERE seq = ? AND {where}",  # noqa: S608 - our own words
                    [each, *values],
                ).fetchall()

    def _end(self, position: int) -> int:
        """The greatest position that there is; where that is damaged, one that is worth trying up to."""
        for found_by in ("seq > 0", "event_id > ''"):  # in the table, or in an index
            sql = f"SELECT coalesce(max(seq), 0) FROM usage_events WHERE {found_by}"  # noqa: S608 - our own words
            with suppress(sqlite3.Error):
                return int(self._connection.execute(sql).fetchone()[0])
        return position + TRIED

    def _entries(self, rest: str, values: Sequence[object]) -> Iterator[tuple[int, str]]:
        sql = f"SELECT seq, event FROM usage_events {rest}"  # noqa: S608 - our own words
        with closing(self._connection.execute(sql, values)) as found:
            while rows := found.fetchmany(FETCHED):
                yield from rows


@contextmanager
def _readable() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(str(error)) from None


def _is_damage(error: sqlite3.Error) -> bool:
    # Text that is no UTF-8 is found by Python, which gives no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF == sqlite3.SQLITE_CORRUPT


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise TrackingSetupError(f"there is no ledger at {path}: nothing has been delivered to it yet")
    if path.is_dir():
        raise TrackingSetupError(f"{path} is a directory: name the file in it")
    with ExitStack() as held:
        # Without locks, or where somebody keeps one for long, it can be read nevertheless.
        with suppress(OSError, Unavailable):
            held.enter_context(opening(path))
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(only_to_read(path), uri=True, timeout=5.0)
    except sqlite3.Error as error:
        raise TrackingSetupError(f"{path} cannot be opened: {error}") from None
    with ExitStack() as undo:
        undo.callback(connection.close)
        connection.create_aggregate("exact_sum", 1, _ExactSum)  # type: ignore[arg-type]  # its result is typed loosely
        connection.create_aggregate("percentile", 2, _Percentile)  # type: ignore[arg-type]  # see above
        try:
            known = columns(connection)
        except sqlite3.Error as error:
            raise TrackingSetupError(f"{path} cannot be read as a ledger: {error}") from None
        if not known:
            raise TrackingSetupError(f"{path} is not a ledger: it has no table usage_events")
        if not known.issuperset(COLUMNS):
            raise TrackingSetupError(f"{path} is not a ledger of ours: its table usage_events is another's")
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


class _Percentile:
    """The value below which a share of the values lies, between two of them in proportion."""

    def __init__(self) -> None:
        self._values = array("d")
        self._share = 0.0

    def step(self, value: float, share: float) -> None:
        self._values.append(value)
        self._share = share

    def finalize(self) -> float | None:
        if not self._values:
            return None
        values = sorted(self._values)
        place = self._share * (len(values) - 1)
        below = int(place)
        above = min(below + 1, len(values) - 1)
        return values[below] + (values[above] - values[below]) * (place - below)
