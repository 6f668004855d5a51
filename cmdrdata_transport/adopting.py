"""Delivers what other processes leave, without an application: once (`drain`), or on and on (`follow`).

Knows which sinks the segments of a home name, and opens those that can be opened here. Does not know how
a lane delivers.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from cmdrdata_transport.counters import Counters
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.home import backlog_of, journals
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.lanes import Lane, in_turn, lanes_to
from cmdrdata_transport.segments import (
    Backlog,
    clear_delivered,
    segments,
    set_aside_headless,
    sinks_awaited,
)
from cmdrdata_transport.sinks import Outlet, Sink, open_sink
from cmdrdata_transport.tallies import Tallies

FOLLOWER = "drain --follow"
"""The tracker under whose name is counted what such a process does."""

FOLLOW_SECONDS = 0.5
"""How often whoever follows looks for sinks that it does not know yet."""

STOP_SECONDS = 5.0
"""How long whoever follows waits for what is being delivered when it is told to end."""


def follow(
    home: Path,
    *,
    stop: Callable[[], bool],
    environ: Mapping[str, str] | None = None,
    progress: Callable[[str, int], None] | None = None,
    counters: Counters | None = None,
) -> None:
    """Deliver what processes leave in `home`, also while they write it, until `stop()` says so.

    For applications that deliver nothing themselves (`Tracker(delivery="external")`). To every sink that
    a segment names and that can be opened here; each in a thread of its own, so that a dead one delays no
    other. `progress` is called with a sink and the number of events it has taken so far. What is being
    delivered when it is told to end has `STOP_SECONDS`.

    `home` need not be there yet. A sink that cannot be opened here, and files that are another user's, are
    tried again, and told of once a minute.
    """
    counters = counters or Counters()
    environ = os.environ if environ is None else environ
    tallies = Tallies(home, tracker=FOLLOWER, service=None)
    counters.keep = tallies.keep
    journal = Journal(home, sinks=(), counters=counters)
    lanes: dict[str, Lane] = {}
    while not stop():
        for directory in journals(home):
            if (in_the_way := _in_the_way(directory)) is not None:
                counters.count("segment_blocked", f"{directory}: {in_the_way}")
            if not lanes:
                set_aside_headless(directory, counters.count)
            for sink in sinks_awaited(directory) - lanes.keys():
                try:
                    (lane,) = lanes_to([open_sink(sink, home=home, environ=environ)], journal, counters)
                except TrackingSetupError as error:
                    if not sink.startswith("callable:"):  # which only its own program can call
                        counters.count("unavailable", f"{sink}: {error}")
                    continue
                lanes[sink] = lane
                lane.start()
        counters.settle()
        _tell(progress, lanes)
        time.sleep(FOLLOW_SECONDS)
    for lane in lanes.values():
        lane.stop()
    deadline = monotonic() + STOP_SECONDS
    for lane in lanes.values():
        lane.join(max(0.0, deadline - monotonic()))
    _tell(progress, lanes)
    tallies.keep(counters.snapshot(), now=True)


def _tell(progress: Callable[[str, int], None] | None, lanes: Mapping[str, Lane]) -> None:
    if progress is not None:
        for sink, lane in lanes.items():
            progress(sink, lane.delivered)


def _in_the_way(directory: Path) -> str | None:
    """What keeps this user from delivering the segments in `directory`; None if nothing does, or none are."""
    try:
        found = os.listdir(directory)  # noqa: PTH208 - to see whether it can be read at all
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror
    if not found:
        return None
    unreadable = [each for each in segments(directory) if not os.access(each, os.R_OK) and each.exists()]
    writable = os.access(directory, os.W_OK | os.X_OK)
    return None if writable and not unreadable else os.strerror(errno.EACCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What `drain` did for one sink.

    `pending` events are in segments of dead processes, and wait still; `trouble` says why. `live` ones
    are in segments of processes that are at work, which deliver them.
    """

    sink: str
    delivered: int
    rejected: int
    pending: int
    live: int
    trouble: str | None


def drain(
    home: Path,
    sinks: Iterable[str | Sink | Callable[[list[UsageEvent]], object]] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    timeout: float | None = None,
    progress: Callable[[str, int], None] | None = None,
    counters: Counters | None = None,
) -> list[Drained]:
    """Deliver what dead processes left in `home`, to `sinks`, or to all that the segments name.

    A sink that fails is tried again until `timeout` seconds have passed; without one, it is tried
    once. A sink that cannot be opened here, such as another program's function, keeps its events
    waiting. `progress` is called with a sink and the number of events it has taken so far.
    """
    counters = counters or Counters()
    environ = os.environ if environ is None else environ
    journal = Journal(home, sinks=(), counters=counters)
    troubles: dict[str, str] = {}
    outlets: list[Outlet] = []
    for directory in journals(home):
        set_aside_headless(directory, counters.count)
        clear_delivered(directory)
    named = {each.sink for each in backlog_of(home) if not each.live}
    for spec in sorted(named) if sinks is None else sinks:
        try:
            outlets.append(open_sink(spec, home=home, environ=environ))
        except TrackingSetupError as error:
            if sinks is not None:
                raise
            troubles[str(spec)] = str(error)
    lanes = lanes_to(outlets, journal, counters)
    _run_dry(lanes, timeout, progress)
    for lane in lanes:
        lane.join(0)
        if lane.trouble:
            troubles[lane.identity] = lane.trouble
    return _summed(lanes, troubles, backlog_of(home))


def _run_dry(
    lanes: Sequence[Lane], timeout: float | None, progress: Callable[[str, int], None] | None
) -> None:
    deadline = None if timeout is None else monotonic() + timeout
    running = list(lanes)
    while running:
        if deadline is not None and monotonic() >= deadline:
            return
        moved = False
        for lane, more in in_turn(running.copy(), deadline):
            moved = moved or more
            if not more and (lane.trouble is None or deadline is None):
                running.remove(lane)
            if progress is not None:
                progress(lane.identity, lane.delivered)
        if running and not moved:
            time.sleep(0.05)


def _summed(lanes: Sequence[Lane], troubles: Mapping[str, str], backlogs: Sequence[Backlog]) -> list[Drained]:
    by_identity = {lane.identity: lane for lane in lanes}
    pending, live = Counter[str](), Counter[str]()
    for each in backlogs:
        (live if each.live else pending)[each.sink] += each.events
    return [
        Drained(
            sink=sink,
            delivered=by_identity[sink].delivered if sink in by_identity else 0,
            rejected=by_identity[sink].rejected if sink in by_identity else 0,
            pending=pending[sink],
            live=live[sink],
            trouble=troubles.get(sink),
        )
        for sink in sorted({*by_identity, *troubles, *pending, *live})
    ]
