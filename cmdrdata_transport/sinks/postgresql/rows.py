"""Events as rows: the lines of the journal as PostgreSQL's COPY takes them.

Written here and not by the driver, which looks at the type of each of sixty values; most are absent.
(The text format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2)

A row is the event to the last digit, with one exception: PostgreSQL stores no NUL character, so U+FFFD
stands in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, NamedTuple

from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import encode
from cmdrdata_transport.sinks.columns import NUMBERS, TEXTS, event_in, moment_of

_ALWAYS = ("event_id", "at", "event", "provider_cost")
_FIELDS = tuple(name for name in (*TEXTS, *NUMBERS) if name not in ("timestamp", "provider_cost"))

_NESTED = ("metadata", "details", "raw_usage")

LONGEST_ID = 512
"""Ours have 36 characters; an index takes no more than some two thousand."""

_LONGEST_COST = 40
"""Digits before or behind the point, beyond which a number is no bill."""

_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_NOTHING = r"\N"


class Telling(NamedTuple):
    """An event that came in, as what it is and as what it came in. (A tuple is made in no time.)"""

    event_id: str
    at: str
    month: tuple[int, int]
    customer: str | None
    event: Mapping[str, Any]
    line: bytes


def telling_in(line: bytes) -> Telling:
    """The event of a line. Raises `Rejected`, naming what is missing."""
    event = event_in(line)
    if rb"\u0000" in line:
        event = storable(event)
        line = encode(event)
    event_id: str = event["event_id"]
    if len(event_id) > LONGEST_ID or not event_id.isprintable():
        raise Rejected(f"event_id has more than {LONGEST_ID} characters, or some that cannot be printed")
    # They are in the line; a thousand of them alive would keep the garbage collector busy.
    for name in _NESTED:
        event.pop(name, None)
    at = moment_of(event.get("timestamp"))
    month = (at.year, at.month)
    return Telling(event_id, at.isoformat(), month, event.get("customer_id"), event, line)


def columns_of(tellings: Iterable[Telling]) -> tuple[str, ...]:
    """The columns that any of them fills, less than half of all as a rule: the others cost nothing then."""
    present = set(chain.from_iterable(telling.event for telling in tellings))
    return (*_ALWAYS, *(name for name in _FIELDS if name in present))


def rows_of(tellings: Iterable[Telling], columns: Sequence[str]) -> bytes:
    """Their rows, with these columns. Raises `Rejected`, naming what cannot be stored."""
    fields = columns[len(_ALWAYS) :]
    try:
        return "".join([_row(telling, fields) for telling in tellings]).encode()
    except UnicodeEncodeError:
        raise Rejected("it cannot be stored: a text has half of a surrogate pair") from None


def storable(value: Any) -> Any:
    """The same without NUL characters."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {storable(name): storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [storable(each) for each in value]
    return value


def _row(telling: Telling, fields: Sequence[str]) -> str:
    get = telling.event.get
    cost = get("provider_cost")
    try:
        cells = [
            _NOTHING if value is None else str(value) if type(value) is int else _cell(value)
            for value in map(get, fields)
        ]
    except TypeError:
        wrong = ", ".join(name for name in fields if isinstance(get(name), dict | list))
        raise Rejected(f"it cannot be stored: {wrong} is no plain value") from None
    always = (
        _text(telling.event_id),
        telling.at,
        _json(telling.line),
        _NOTHING if cost is None else _cost(cost),
    )
    return "\t".join((*always, *cells)) + "\n"


def _json(line: bytes) -> str:
    # A line of the journal has no line's end, and needs none of this; one of somebody else's may.
    if b"\\" in line or b"\n" in line or b"\t" in line or b"\r" in line:
        return line.decode().translate(_ESCAPED)
    return line.decode()


def _text(value: str) -> str:
    return value if "\\" not in value and value.isprintable() else value.translate(_ESCAPED)


def _cell(value: Any) -> str:
    """What the column takes; whether it does is the database's to say."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return str(int(value) if value.is_integer() else value)
    if isinstance(value, int):
        return str(value)
    raise TypeError


def _cost(value: Any) -> str:
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return _NOTHING
    return str(cost) if cost.is_finite() and abs(cost.adjusted()) <= _LONGEST_COST else _NOTHING
