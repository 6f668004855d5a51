"""What a ledger keeps of an event in columns of its own, in any database.

Every field that a report sums, groups by or filters on is a column, and the event is kept as the JSON
it came in. Columns, and not expressions over the JSON, because a sum over a million events then parses
no JSON, the same SQL serves any database, and users can write it by hand.

Knows which fields these are and what makes a line of the journal an event that can be stored. Does not
know a database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import FORMAT, UNITS, decode

TEXTS = (
    "timestamp",
    "customer_id",
    "service",
    "provider",
    "model",
    "request_model",
    "operation",
    "api",
    "host",
    "response_id",
    "request_id",
    "finish_reason",
    "service_tier",
    "usage_status",
    "usage_source",
    "outcome",
    "error_type",
    "error_code",
    "provider_cost",
)
NUMBERS = (
    "part",
    "attempt",
    "streaming",
    "status_code",
    "request_duration_ms",
    "time_to_first_byte_ms",
    *UNITS,
)

_REQUIRED = ("event_id", "provider", "usage_status", "outcome")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def event_in(line: bytes) -> dict[str, Any]:
    """The event of a line. Raises `Rejected`, naming what is missing."""
    try:
        event: dict[str, Any] = decode(line)
        get = event.get
    except (AttributeError, ValueError):
        raise Rejected("the event is not a JSON object") from None
    if get("format") != FORMAT:
        raise Rejected(f"the event is not of the format {FORMAT}")
    for name in _REQUIRED:
        if not isinstance(get(name), str):
            raise Rejected(f"the event has no {name}")
    return event


def moment_of(timestamp: object) -> datetime:
    """The time that an event states, in UTC. Raises `Rejected` for one that is none."""
    try:
        at = datetime.fromisoformat(timestamp)  # type: ignore[arg-type]
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Rejected("timestamp is not a time in ISO 8601") from None


def microseconds(at: datetime) -> int:
    """The time since 1970; one without a zone is in UTC."""
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
