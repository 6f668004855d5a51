"""Delivery: what is in the journal reaches every sink, whenever that sink can take it.

Knows when lanes run: each in a daemon thread, started lazily, made again after a fork, which owns
nothing that can be lost. Threads poll; the request path signals nobody. A sink that is down delays
no other, nor the application, nor its exit by more than the caller allows. `drain` delivers what dead
processes left, without an application.

Does not know how a lane delivers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from cmdrdata_transport import forks
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.journal import Journal, OwnSegment, journals
from cmdrdata_transport.lanes import Lane, Memory
from cmdrdata_transport.seen import Seen
from cmdrdata_transport.segments import (
    Backlog,
    backlog,
    marked,
    remove_if_delivered,
    segments,
    sinks_awaited,
)
from cmdrdata_transport.sinks import Outlet, Sink, open_sink
from cmdrdata_transport.syncing import Durability, Syncing
from cmdrdata_transport.tallies import Tallies

FOLLOWER = "drain --follow"
"""The tracker under whose name is counted what such a process does."""

FOLLOW_SECONDS = 0.5
"""How often whoever follows looks for sinks that it does not know yet."""

STOP_SECONDS = 5.0
"""How long whoever follows waits for what is being delivered when it is told to end."""

Mode = Literal["background", "flush", "external"]


class Delivery:
    """Delivers one tracker's journal to its sinks.

    With `mode="flush"` nothing runs by itself: `flush` delivers, in the thread that calls it. With
    "external" nothing is delivered here: another process does (`follow`), and `flush` waits for it.
    With `durability="fsync"` the disk is given the journal every few moments, or, where nothing runs by
    itself, when `flush` is called.
    """

    def __init__(
        self,
        journal: Journal,
        outlets: Mapping[str, Outlet],
        counters: Counters,
        *,
        mode: Mode = "background",
        durability: Durability = "process",
    ) -> None:
        self._journal = journal
        self._counters = counters
        self._mode = mode
        self._syncing = Syncing(journal) if durability == "fsync" else None
        self._closed = False
        self._starting = threading.Lock()
        self._lanes = _lanes(() if mode == "external" else outlets.values(), journal, counters)
        self._running = False
        self.used = False
        """Whether it ever had something to do."""
        self._pid = os.getpid()
        forks.register(self)

    def ensure_running(self) -> None:
        """Start the threads and the first segment, unless they are there. Called where a request starts.

        Costs two comparisons when there is nothing to do. Never raises: an interpreter that is going
        down starts no thread, and the journal keeps what the next process will deliver.
        """
        if self._running and self._pid == os.getpid():
            return
        self._closed = False
        self.used = True
        with contextlib.suppress(Exception):
            self._start()
            self._journal.prepare()

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what was journaled before this call; True when every sink has it, or has refused it.

        Waits `timeout` seconds at most, or, without one, for as long as it takes. A sink that asked
        for a pause is not asked before; one that merely failed is.
        """
        deadline = _deadline(timeout)
        self._look_for_removed()
        awaited = [(own, size) for own in self._journal.own() if (size := _size(own.path)) > own.start]
        if self._have_all(awaited):
            return True
        if self._syncing is not None:
            self._journal.sync()
        if not self._closed:
            self._start()
        for lane in self._lanes:
            lane.hurry()
        while not self._have_all(awaited):
            if deadline is not None and monotonic() >= deadline:
                return False
            self._advance(awaited, deadline)
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Finish the segment, flush, and stop the threads, in `timeout` seconds altogether.

        A thread that hangs in a sink is left behind; what it did not deliver is in the journal, and
        the next process delivers it. `ensure_running` starts all again. Says what `flush` says.
        """
        deadline = _deadline(timeout)
        self._look_for_removed()
        self._journal.close()
        delivered = self.flush(timeout)
        self._closed, self._running = True, False
        if self._syncing is not None:
            self._syncing.stop()
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.join(None if deadline is None else max(0.0, deadline - monotonic()))
        for own in self._journal.own():
            with contextlib.suppress(OSError):
                if own.finished() and remove_if_delivered(own.path):
                    self._journal.forget(own.path)
        self._counters.settle()
        return delivered

    def backlog(self) -> list[Backlog]:
        """What is in the home's journal and not delivered yet, by any process."""
        return _backlog(self._journal.home)

    def after_fork_in_child(self) -> None:
        """The threads are the parent's, and so are all files and locks: start anew at the next request."""
        outlets = [lane.abandon() for lane in self._lanes]
        self._lanes = _lanes(outlets, self._journal, self._counters)
        if self._syncing is not None:
            self._syncing.after_fork_in_child()
        self._starting = threading.Lock()
        self._running = False
        self._pid = os.getpid()

    def __del__(self) -> None:
        # Only a flag: a finaliser may run inside the very call that would wake the thread.
        for lane in getattr(self, "_lanes", ()):
            lane.dropped = True
        if (syncing := getattr(self, "_syncing", None)) is not None:
            syncing.dropped = True

    def _start(self) -> None:
        if self._pid != os.getpid():
            forks.notice()
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._mode == "background":
                for lane in self._lanes:
                    lane.start()
            if self._syncing is not None and self._mode != "flush":
                self._syncing.start()
            self._running = True
        except RuntimeError:
            pass  # no more threads: whoever flushes delivers, or the next process
        finally:
            self._starting.release()

    def _look_for_removed(self) -> None:
        for own in self._journal.own():
            if not {lane.identity for lane in self._lanes if lane.reads(own.path)}.issuperset(own.sinks):
                self._journal.miss(own)

    def _have_all(self, awaited: Sequence[tuple[OwnSegment, int]]) -> bool:
        if self._mode == "external":
            return all(
                marked(own.path, sink) >= size or not own.path.exists()
                for own, size in awaited
                for sink in own.sinks
            )
        return not self._journal.held and all(_has_all(lane, awaited) for lane in self._lanes)

    def _advance(self, awaited: Sequence[tuple[OwnSegment, int]], deadline: float | None) -> None:
        idle = [lane for lane in self._lanes if not lane.alive]
        behind = [lane for lane in idle if not _has_all(lane, awaited)]
        moved = [more for _, more in _in_turn(behind or idle, deadline)]
        self._counters.settle()
        if not any(moved):
            # By this name: where gevent comes late, it is another function then.
            time.sleep(0.01 if deadline is None else max(0.0, min(0.01, deadline - monotonic())))


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
            for sink in sinks_awaited(directory) - lanes.keys():
                try:
                    (lane,) = _lanes([open_sink(sink, home=home, environ=environ)], journal, counters)
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
    named = {each.sink for each in _backlog(home) if not each.live}
    for spec in sorted(named) if sinks is None else sinks:
        try:
            outlets.append(open_sink(spec, home=home, environ=environ))
        except TrackingSetupError as error:
            if sinks is not None:
                raise
            troubles[str(spec)] = str(error)
    lanes = _lanes(outlets, journal, counters)
    _run_dry(lanes, timeout, progress)
    for lane in lanes:
        lane.join(0)
        if lane.trouble:
            troubles[lane.identity] = lane.trouble
    return _summed(lanes, troubles, _backlog(home))


def _run_dry(
    lanes: Sequence[Lane], timeout: float | None, progress: Callable[[str, int], None] | None
) -> None:
    deadline = None if timeout is None else monotonic() + timeout
    running = list(lanes)
    while running:
        if deadline is not None and monotonic() >= deadline:
            return
        moved = False
        for lane, more in _in_turn(running.copy(), deadline):
            moved = moved or more
            if not more and (lane.trouble is None or deadline is None):
                running.remove(lane)
            if progress is not None:
                progress(lane.identity, lane.delivered)
        if running and not moved:
            time.sleep(0.05)


def _summed(lanes: Sequence[Lane], troubles: Mapping[str, str], waiting: Sequence[Backlog]) -> list[Drained]:
    by_identity = {lane.identity: lane for lane in lanes}
    pending, live = Counter[str](), Counter[str]()
    for each in waiting:
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


def _lanes(outlets: Iterable[Outlet], journal: Journal, counters: Counters) -> list[Lane]:
    outlets = list(outlets)
    identities = [outlet.identity for outlet in outlets]
    if len(set(identities)) < len(identities):
        raise TrackingSetupError(f"a sink is there twice: {', '.join(sorted(identities))}")
    memory = Memory(journal, identities, counters)
    seen = Seen(journal.home, counters.count)
    return [Lane(outlet, journal, memory, counters, seen) for outlet in outlets]


def _backlog(home: Path) -> list[Backlog]:
    return [each for directory in journals(home) for each in backlog(directory)]


def _has_all(lane: Lane, awaited: Iterable[tuple[OwnSegment, int]]) -> bool:
    return not lane.queued and all(
        marked(own.path, lane.identity) >= size or not (own.path.exists() or lane.reads(own.path))
        for own, size in awaited
        if lane.identity in own.sinks
    )


def _in_turn(lanes: Sequence[Lane], deadline: float | None) -> Iterator[tuple[Lane, bool]]:
    """One step of each lane, and whether it has more to do at once.

    A sink that hangs is given an equal share of the time, so that those behind it have theirs.
    """
    for number, lane in enumerate(lanes):
        left = None if deadline is None else max(0.0, deadline - monotonic())
        yield lane, lane.step(None if left is None else left / (len(lanes) - number))


def _deadline(timeout: float | None) -> float | None:
    # Python waits no longer than this, some centuries, and raises where it is asked to.
    return None if timeout is None or timeout >= threading.TIMEOUT_MAX else monotonic() + timeout


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return sys.maxsize  # it has been removed: all that can be read of it
