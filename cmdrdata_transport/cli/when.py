"""Moments as people type them: dates, times, and how long ago.

Reads no clock: the caller says what time it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

EXAMPLES = "2026-11-01, 2026-11-01T09:30, 2026-11-01T09:30+01:00, today, yesterday, 36h or 7d"

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """The moment in UTC: a date (its midnight), a time, `today`, `yesterday`, or `36h`: so long before `now`.

    What has no time zone is in UTC. Raises `ValueError` with examples for anything else.
    """
    wanted = text.strip().lower()
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if wanted in ("today", "yesterday"):
        return midnight - timedelta(days=wanted == "yesterday")
    try:
        if ago := _AGO.fullmatch(wanted):
            return now.astimezone(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        given = datetime.fromisoformat(text.strip())
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time. These are: {EXAMPLES}") from None
