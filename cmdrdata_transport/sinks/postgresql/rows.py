"""Events as rows: the lines of the journal as PostgreSQL's COPY takes them.

Written here and not by the driver, which looks at the type of each of sixty values; most are absent.
(The text format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2) As a rule rows
are what JSON would say, with tabs for its commas and without its quotes, and nobody writes JSON faster;
only rows with a value that would not be the same get more care.

A row is the event to the last digit, with one exception: PostgreSQL stores no NUL character, so U+FFFD
stands in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, NamedTuple

import orjson

from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import FRACTIONAL_UNITS, encode
from cmdrdata_transport.sinks.columns import NUMBERS, TEXTS, event_in, moment_of

_FRACTIONS = ("request_duration_ms", "time_to_first_byte_ms", *sorted(FRACTIONAL_UNITS))
_WHOLE = tuple(name for name in NUMBERS if name not in _FRACTIONS)
FIELDS = ("event_id", "at", *_WHOLE, *(name for name in TEXTS if name != "timestamp"), *_FRACTIONS)
"""The columns that an event may fill, beside the one that has all of it."""

_NESTED = ("metadata", "details", "raw_usage")

LONGEST_ID = 512
"""Ours have 36 characters; an index takes no more than some two thousand."""

_HALF = re.compile("[\ud800-\udfff]")

_LONGEST_COST = 40
"""Digits before or behind the point, beyond which a number is no bill."""

_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Telling(NamedTuple):
    """An event that came in, as what it is and as what it came in. (A tuple is made in no time.)"""

    event_id: str
    at: datetime
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
    if len(event_id) > LONGEST_ID or not (event_id.isascii() or _HALF.search(event_id) is None):
        raise Rejected(f"event_id has more than {LONGEST_ID} characters, or half of a surrogate pair")
    # They are in the line; a thousand of them alive would keep the garbage collector busy.
    for name in _NESTED:
        event.pop(name, None)
    at = event["at"] = moment_of(event.get("timestamp"))
    if "provider_cost" in event:
        event["provider_cost"] = _cost(event["provider_cost"])
    return Telling(event_id, at, event.get("customer_id"), event, line)


def fields_of(tellings: Iterable[Telling]) -> set[str]:
    """The names of all that any of them states."""
    return set(chain.from_iterable(telling.event for telling in tellings))


def columns_of(fields: AbstractSet[str]) -> tuple[str, ...]:
    """The columns for these fields, less than half of all as a rule: the others cost nothing then."""
    return (*(name for name in FIELDS if name in fields), "event")


def rows_of(tellings: Sequence[Telling], columns: Sequence[str]) -> bytes:
    """Their rows, with these columns. Raises `Rejected`, naming what cannot be stored."""
    fields = columns[:-1]
    values = [list(map(telling.event.get, fields)) for telling in tellings]
    whole = sum(name in _WHOLE for name in fields)
    rows = _as_json(values, whole) or [_with_care(row, fields) for row in values]
    return b"".join(
        [b"%b\t%b\n" % (row, _json(telling.line)) for row, telling in zip(rows, tellings, strict=True)]
    )


def array_of(values: Sequence[str | datetime]) -> str:
    """An array as a value of a statement: JSON's but for the brackets, and for what a backslash means."""
    told = orjson.dumps(values)[1:-1].decode()
    if "\\" in told:
        told = ",".join('"' + str(each).replace("\\", r"\\").replace('"', r"\"") + '"' for each in values)
    return f"{{{told}}}"


def storable(value: Any) -> Any:
    """The same without NUL characters."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {storable(name): storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [storable(each) for each in value]
    return value


def _as_json(rows: Sequence[Sequence[Any]], whole: int) -> list[bytes] | None:
    """The rows, unless a value of them would be something else to COPY; so many are whole numbers."""
    if any(float in map(type, row[2 : 2 + whole]) for row in rows):
        return None  # 5.0 is no whole number to a database
    try:
        told = orjson.dumps(rows)
    except TypeError:
        return None
    commas, brackets = len(rows) * len(rows[0]) - 1, len(rows) + 1
    if told.count(b",") > commas or told.count(b"[") > brackets or b"{" in told or b"\\" in told:
        return None
    return told.replace(b",null", b",\\N").replace(b",", b"\t").replace(b'"', b"")[2:-2].split(b"]\t[")


def _with_care(row: Sequence[Any], fields: Sequence[str]) -> bytes:
    if wrong := [name for name, value in zip(fields, row, strict=True) if isinstance(value, dict | list)]:
        raise Rejected(f"it cannot be stored: {', '.join(wrong)} is no plain value")
    try:
        return "\t".join(map(_cell, row)).encode()
    except UnicodeEncodeError:
        raise Rejected("it cannot be stored: a text has half of a surrogate pair") from None


def _cell(value: Any) -> str:
    """What the column takes; whether it does is the database's to say."""
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).translate(_ESCAPED)


def _json(line: bytes) -> bytes:
    # A line of the journal has no line's end, and needs none of this; one of somebody else's may.
    if b"\\" in line or b"\n" in line or b"\t" in line or b"\r" in line:
        return line.decode().translate(_ESCAPED).encode()
    return line


def _cost(value: Any) -> str | None:
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return str(cost) if cost.is_finite() and abs(cost.adjusted()) <= _LONGEST_COST else None
