"""Delivery: what is in the journal reaches every sink, whenever that sink can take it.

Knows when lanes run: each in a daemon thread, started lazily, made again after a fork, which owns
nothing that can be lost. Threads poll; the request path signals nobody. A sink that is down delays
no other, nor the application, nor its exit by more than the caller allows.

Does not know how a lane delivers. What happens without an application is in `adopting.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Literal

from cmdrdata_transport import forks
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.home import backlog_of
from cmdrdata_transport.journal import Journal, OwnSegment
from cmdrdata_transport.lanes import Lane, in_turn, lanes_to
from cmdrdata_transport.segments import (
    Backlog,
    marked,
    remove_if_delivered,
)
from cmdrdata_transport.sinks import Outlet
from cmdrdata_transport.syncing import Durability, Syncing

TEND_SECONDS = 5.0
"""Where no threads run, how often one is started for a moment."""

Mode = Literal["background", "flush", "external"]


class Delivery:
    """Delivers one tracker's journal to its sinks.

    With `mode="flush"` nothing runs by itself: `flush` delivers, in the thread that calls it. With
    "external" nothing is delivered here: another process does (`follow`), and `flush` waits for it. A
    thread looks after the journal for a moment, now and then (`tend`).
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
        self._lanes = lanes_to(() if mode == "external" else outlets.values(), journal, counters)
        self._sinks = tuple(outlets)
        self.delivers = bool(self._lanes) or mode == "flush"
        """Whether it delivers itself, which looks after the journal and the counts as well."""
        self._tend_at = monotonic() + TEND_SECONDS
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

    def tend(self) -> None:
        """Where nothing is delivered: now and then have what memory holds written, and what was counted told.

        Called where a request starts, which neither waits for a disk nor for a handler of logs.
        """
        now = monotonic()
        if now >= self._tend_at:
            self._tend_at = now + TEND_SECONDS
            with contextlib.suppress(RuntimeError):  # an interpreter that is going down starts no thread
                threading.Thread(target=self._look_after, name="cmdrdata journal", daemon=True).start()

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver what was journaled before this call; True when every sink has it, or has refused it.

        Waits `timeout` seconds at most, or, without one, for as long as it takes. A sink that asked
        for a pause is not asked before; one that merely failed is.
        """
        deadline = _deadline(timeout)
        self._look_for_removed()
        if self._mode == "external" and not self._write_held(deadline):
            return False
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
        if self._mode == "external":
            self._give_up_held()
        for own in self._journal.own():
            with contextlib.suppress(OSError):
                if own.finished() and remove_if_delivered(own.path):
                    self._journal.forget(own.path)
        self._counters.settle()
        return delivered

    def backlog(self) -> list[Backlog]:
        """What is in the home's journal and not delivered yet, by any process."""
        return backlog_of(self._journal.home)

    def after_fork_in_child(self) -> None:
        """The threads are the parent's, and so are all files and locks: start anew at the next request."""
        outlets = [lane.abandon() for lane in self._lanes]
        self._lanes = lanes_to(outlets, self._journal, self._counters)
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

    def _look_after(self) -> None:
        with contextlib.suppress(Exception):
            self._look_for_removed()
            self._journal.recover()
        self._counters.settle()

    def _look_for_removed(self) -> None:
        for own in self._journal.own():
            if not {lane.identity for lane in self._lanes if lane.reads(own.path)}.issuperset(own.sinks):
                self._journal.miss(own)

    def _write_held(self, deadline: float | None) -> bool:
        """Have the journal write what it holds in memory, as lanes do elsewhere; False if it could not."""
        while self._journal.held and not self._journal.recover():
            if deadline is not None and monotonic() >= deadline:
                return False
            _pause(deadline)
        return True

    def _give_up_held(self) -> None:
        """Write what the journal holds in memory, or count it as lost, since nobody is left to do it."""
        self._journal.close()
        lines = self._journal.take_held()
        for sink in self._sinks if lines else ():
            if not self._journal.spill(lines, sink):
                self._counters.count("memory_dropped", sink, len(lines))

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
        moved = [more for _, more in in_turn(behind or idle, deadline)]
        self._counters.settle()
        if not any(moved):
            _pause(deadline)


def _has_all(lane: Lane, awaited: Iterable[tuple[OwnSegment, int]]) -> bool:
    return not lane.queued and all(
        marked(own.path, lane.identity) >= size or not (own.path.exists() or lane.reads(own.path))
        for own, size in awaited
        if lane.identity in own.sinks
    )


def _pause(deadline: float | None) -> None:
    # By this name: where gevent comes late, it is another function then.
    time.sleep(0.01 if deadline is None else max(0.0, min(0.01, deadline - monotonic())))


def _deadline(timeout: float | None) -> float | None:
    # Python waits no longer than this, some centuries, and raises where it is asked to.
    return None if timeout is None or timeout >= threading.TIMEOUT_MAX else monotonic() + timeout


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return sys.maxsize  # it has been removed: all that can be read of it
