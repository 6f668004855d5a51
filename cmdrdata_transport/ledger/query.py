"""The query of a report: the same SQL for every database, but for a few words.

Knows what a report can be by and what it sums. Does not know a database: each brings its `Words`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import FRACTIONAL_UNITS
from cmdrdata_transport.sinks.columns import TEXTS

Bounds = tuple[int | None, int | None]
"""From when on and until before when, in microseconds since 1970."""

COLUMNS = frozenset({"seq", "event_id", "at", "event", "customer_id"})
"""Those that every version of a ledger has; a table of this name without them is another's."""

_FIELDS = frozenset({*TEXTS, "streaming", "status_code", "attempt"}) - {"timestamp", "provider_cost"}


class NotBegun(TrackingSetupError):
    """There is no ledger in a database, yet: nothing has been delivered to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a database says its own way."""

    bound: str
    """Where a value is bound."""
    moment: str
    """The same for a time, given in microseconds since 1970."""
    day: str
    """The event's day in UTC, as `2026-11-01`."""
    metadata: str
    """The value under a bound key of the metadata; true and false as texts."""
    streaming: str
    """As 0 and 1."""
    exact_sum: str
    """The function that adds counts and costs of any size."""
    percentile: str
    """The share `{share}` of the durations, as they are when in order, with the next ones interpolated."""


ENDS = {
    "answered": "outcome = 'ok'",
    "errors": "outcome = 'error'",
    "given_up": "outcome NOT IN ('ok', 'error')",
}
"""How attempts end; what is neither an answer nor an error was given up, or nobody knows."""

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def check_groups(by: Sequence[str]) -> None:
    """Raises `TrackingSetupError` for a name that no report can be by; needs no ledger."""
    for name in by:
        if (
            name != "day"
            and name not in _FIELDS
            and (name == "metadata." or not name.startswith("metadata."))
        ):
            raise TrackingSetupError(
                f"a report cannot be by {name!r}: there are day, metadata.KEY, {', '.join(sorted(_FIELDS))}"
            )


def between(words: Words, bounds: Bounds) -> tuple[str, list[int]]:
    """The condition that an event is of a time, and its values."""
    told = [
        (f"at {sign} {words.moment}", at)
        for sign, at in zip((">=", "<"), bounds, strict=True)
        if at is not None
    ]
    return " AND ".join(["1 = 1", *(condition for condition, _ in told)]), [at for _, at in told]


def sums(
    words: Words, by: Sequence[str], units: Sequence[str], bounds: Bounds, *, whole_sum: str = "sum"
) -> tuple[str, list[str | int]]:
    """The query of a report, and its values: for each group its values, the counts and the sums.

    `whole_sum` is the function that adds up counts.

    Raises:
        TrackingSetupError: a name that no report can be by.
    """
    groups, keys, grouped = _groups(words, by)
    wanted = [
        *groups,
        f"count(*) FILTER (WHERE {_FIRST_PART} AND coalesce(attempt, 0) = 0)",
        f"count(*) FILTER (WHERE {_FIRST_PART})",
        "count(*)",
        "count(*) FILTER (WHERE outcome = 'error')",
        *(f"{'sum' if unit in FRACTIONAL_UNITS else whole_sum}({unit})" for unit in units),
        f"{words.exact_sum}(provider_cost) FILTER (WHERE provider_cost IS NOT NULL)",
    ]
    where, moments = between(words, bounds)
    sql = f"SELECT {', '.join(wanted)} FROM usage_events WHERE {where} {grouped}"  # noqa: S608 - values are bound
    return sql, [*keys, *moments]


def durations(words: Words, by: Sequence[str], bounds: Bounds) -> tuple[str, list[str | int]]:
    """The query of how long attempts took: for each group and end their number and the percentiles.

    Raises:
        TrackingSetupError: a name that no report can be by.
    """
    groups, keys, grouped = _groups(words, by)
    wanted = [*groups]
    for ends in ENDS.values():
        where = f"FILTER (WHERE {ends} AND {_FIRST_PART} AND request_duration_ms IS NOT NULL)"
        wanted.append(f"count(*) {where}")
        wanted += [f"{words.percentile.format(share=share)} {where}" for share in SHARES.values()]
    condition, moments = between(words, bounds)
    sql = f"SELECT {', '.join(wanted)} FROM usage_events WHERE {condition} {grouped}"  # noqa: S608 - values are bound
    return sql, [*keys, *moments]


_FIRST_PART = "coalesce(part, 0) = 0 AND NOT (usage_status = 'none' AND outcome = 'ok')"
"""An answer that is not there yet is no call of its own: the one that tells it is."""


def _groups(words: Words, by: Sequence[str]) -> tuple[list[str], list[str | int], str]:
    """What stands for each group, the keys of metadata among them, and how they are grouped."""
    check_groups(by)
    own = {"day": words.day, "streaming": words.streaming}
    groups = [words.metadata if name.startswith("metadata.") else own.get(name, name) for name in by]
    keys: list[str | int] = [name.removeprefix("metadata.") for name in by if name.startswith("metadata.")]
    grouped = (
        f"GROUP BY {', '.join(str(place + 1) for place in range(len(by)))}" if by else "HAVING count(*) > 0"
    )
    return groups, keys, grouped
