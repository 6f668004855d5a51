"""How it stands with a home: what has been counted, what waits for which sink, how long, what was refused.

Reads what processes leave for others to see, and changes nothing: the counts that each keeps of itself, a
few seconds old, the journal and the dead letters. Gives it as data, and as text of OpenMetrics 1.0
(https://github.com/prometheus/OpenMetrics), for a collector that reads files, or a small server of yours.

Does not know what the counts mean.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from cmdrdata_transport.adopting import FOLLOWER
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import decode
from cmdrdata_transport.home import backlog_of
from cmdrdata_transport.replaying import letters
from cmdrdata_transport.segments import Backlog
from cmdrdata_transport.sinks.columns import moment_of
from cmdrdata_transport.tallies import RECENT_SECONDS, Tally, tallies

_ALWAYS = ("events", "delivered", *WARNINGS)

COMMANDS = ("drain", FOLLOWER, "replay", "report")
"""The trackers under whose names commands count what they deliver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How it stands with one sink.

    `events` and `size` (bytes) wait in the journal; `lag_seconds` is how long ago the call was made that the
    oldest of them tells of. `dead_letters` are those that it has refused and that are kept.
    """

    sink: str
    events: int
    size: int
    lag_seconds: float
    dead_letters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """`counts` by (tracker, service), then by name, of all processes there have been; then each sink.

    `processes` were heard of in the last minute, and `events_per_second` is theirs, each since its start.
    """

    counts: Mapping[tuple[str, str], Mapping[str, int]]
    processes: int
    events_per_second: float
    sinks: Sequence[Waiting]

    def to_dict(self) -> dict[str, Any]:
        """As an object for JSON."""
        return {
            "processes": self.processes,
            "events_per_second": round(self.events_per_second, 3),
            "counts": [
                {"tracker": tracker, "service": service or None, **counts}
                for (tracker, service), counts in self.counts.items()
            ],
            "sinks": [
                {
                    "sink": each.sink,
                    "pending_events": each.events,
                    "pending_bytes": each.size,
                    "lag_seconds": round(each.lag_seconds, 3),
                    "dead_letters": each.dead_letters,
                }
                for each in self.sinks
            ],
        }


def measure(home: Path, sinks: Iterable[str] = ()) -> Metrics:
    """How it stands now. `sinks` are shown even if nothing was ever sent to them."""
    now = time()
    kept = tallies(home)
    by_service: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for each in kept:
        by_service[each.tracker, each.service or ""].update(each.counts)
    recent = [each for each in kept if each.pid and each.updated > now - RECENT_SECONDS]
    return Metrics(
        counts={key: dict(sorted(by_service[key].items())) for key in sorted(by_service)},
        processes=len(recent),
        events_per_second=sum(map(_rate, recent)),
        sinks=_waiting(home, sinks, now),
    )


def openmetrics(metrics: Metrics) -> str:
    """The same as OpenMetrics text: counters by their names, and a gauge of each kind for each sink."""
    return "".join(f"{line}\n" for line in (*_counters(metrics), *_gauges(metrics), "# EOF"))


def _rate(tally: Tally) -> float:
    return tally.counts.get("events", 0) / max(1.0, tally.updated - tally.started)


def _waiting(home: Path, sinks: Iterable[str], now: float) -> list[Waiting]:
    events, size, refused = Counter[str](), Counter[str](), Counter[str]()
    waiting = backlog_of(home)
    lag = lag_seconds(waiting, now)
    for each in waiting:
        events[each.sink] += each.events
        size[each.sink] += each.size
    for letter in letters(home):
        refused[letter.sink] += letter.number
    return [
        Waiting(
            sink=sink,
            events=events[sink],
            size=size[sink],
            lag_seconds=lag.get(sink, 0.0),
            dead_letters=refused[sink],
        )
        for sink in sorted({*sinks, *events, *refused})
    ]


def lag_seconds(waiting: Iterable[Backlog], now: float) -> dict[str, float]:
    """How old the oldest of what waits for each sink is. `now` is in seconds since 1970."""
    lag: dict[str, float] = {}
    for each in waiting:
        lag[each.sink] = max(lag.get(each.sink, 0.0), now - _began(each))
    return lag


def _began(waiting: Backlog) -> float:
    """When the call was made that the oldest of these tells of, in seconds since 1970."""
    with suppress(ValueError, AttributeError, Rejected):
        return moment_of(decode(waiting.oldest).get("timestamp")).timestamp()
    return waiting.created


def _counters(metrics: Metrics) -> Iterator[str]:
    # What has not happened yet is 0: who is to be woken by it sees the first time, too, also of a command.
    counted = {**{(command, ""): {} for command in COMMANDS}, **metrics.counts}
    for name in sorted({*_ALWAYS, *(name for counts in metrics.counts.values() for name in counts)}):
        family = f"cmdrdata_{re.sub('[^a-zA-Z0-9_]', '_', name)}"
        yield f"# TYPE {family} counter"
        if about := WARNINGS.get(name):
            yield f"# HELP {family} {_escaped(about)}"
        for (tracker, service), counts in counted.items():
            yield f"{family}_total{_labels(tracker=tracker, service=service)} {counts.get(name, 0)}"


def _gauges(metrics: Metrics) -> Iterator[str]:
    yield from _family("cmdrdata_processes", "Processes heard of in the last minute.")
    yield f"cmdrdata_processes {metrics.processes}"
    yield from _family("cmdrdata_events_per_second", "What these record, each since its start.")
    yield f"cmdrdata_events_per_second {metrics.events_per_second:g}"
    for name, about, values in (
        ("cmdrdata_pending_events", "Events that wait.", [each.events for each in metrics.sinks]),
        ("cmdrdata_pending_bytes", "How large they are.", [each.size for each in metrics.sinks]),
        ("cmdrdata_lag_seconds", "The age of the oldest.", [each.lag_seconds for each in metrics.sinks]),
        ("cmdrdata_dead_letters", "Events refused and kept.", [each.dead_letters for each in metrics.sinks]),
    ):
        yield from _family(name, about)
        for each, value in zip(metrics.sinks, values, strict=True):
            yield f"{name}{_labels(sink=each.sink)} {value}"


def _family(name: str, about: str) -> Iterator[str]:
    yield f"# TYPE {name} gauge"
    if (unit := name.rpartition("_")[2]) in ("bytes", "seconds"):
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {about}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
