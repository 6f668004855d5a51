"""A lane: the way of events to one sink.

Knows what is next for the sink, moves the sink's mark when it has taken it, pauses longer and longer
while the sink fails, and buries what the sink refuses for ever (`dead_letters.py`), with the reason.
It delivers this process's segments, those that dead processes left, and what is held in memory while
no file takes it.

Does not know how a segment looks, what a sink does with an event, or of any other lane.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import monotonic

from cmdrdata_transport.counters import Counters
from cmdrdata_transport.dead_letters import write_dead_letter
from cmdrdata_transport.descriptors import Watch
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.home import journals
from cmdrdata_transport.journal import HELD_EVENTS, Journal, OwnSegment
from cmdrdata_transport.seen import Seen
from cmdrdata_transport.segments import (
    Claim,
    Refusal,
    claim,
    clear_litter,
    remove_if_delivered,
    segments,
    taken,
)
from cmdrdata_transport.sinks import Damaged, Outlet, Unauthorized

BATCH_BYTES = 1024 * 1024
"""A batch has no more than this, or one event: what a database takes at once without complaint."""

BUSY_SECONDS = 0.1
"""Pause after a delivery. A shorter one makes smaller batches, and each costs a commit."""

IDLE_SECONDS = 1.0
"""The longest pause when there is nothing: how late an event may reach a sink after a quiet time."""

SCAN_SECONDS = 5.0
"""How often a lane looks for segments that dead processes left."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
"""The pause after a failure doubles from the one to the other, less a random part of up to a half, so
that many processes do not come back at the same moment."""

OPEN_AT_ONCE = 16
"""Segments that a lane has open while they are written or wait, two files each: while a sink is down, or for
many processes that leave delivery to one, there come to be more than a process may have files."""

LONGEST_ASKED_SECONDS = 900.0
"""The longest pause that a receiver can ask for: some ask for days."""


class Memory:
    """Events that no file takes, in a queue for each sink. They go to a file as soon as one takes them."""

    def __init__(self, journal: Journal, sinks: Iterable[str], counters: Counters) -> None:
        self._journal = journal
        self._counters = counters
        self._queues: dict[str, deque[bytes]] = {sink: deque() for sink in sinks}

    def of(self, sink: str) -> deque[bytes]:
        """What waits for `sink`; whoever delivers it takes it from the left."""
        return self._queues[sink]

    def tend(self) -> None:
        """Have the journal write what it holds, or take it over, to be delivered from memory."""
        if not self._journal.held or self._journal.recover():
            return
        lines = self._journal.take_held()
        for sink, queue in self._queues.items():
            room = max(0, HELD_EVENTS - len(queue))
            queue.extend(lines[:room])
            self._count_lost(sink, len(lines[room:]))

    def spill(self, sink: str) -> bool:
        """Write what waits for `sink` to a segment for it alone; False when no file takes it."""
        queue = self._queues[sink]
        lines = list(queue)
        if lines and not self._journal.spill(lines, sink):
            return False
        self.take_off(sink, lines)
        return True

    def take_off(self, sink: str, lines: Iterable[bytes]) -> None:
        """Have these wait for `sink` no more; a thread that hung in it and is back may have seen to that."""
        for line in lines:
            with contextlib.suppress(ValueError):
                self._queues[sink].remove(line)

    def give_up(self, sink: str) -> None:
        """Write what waits for `sink`, or count it as lost, since nobody is left to deliver it."""
        if not self.spill(sink):
            self._count_lost(sink, len(self._queues[sink]))

    def _count_lost(self, sink: str, number: int) -> None:
        if number:
            self._counters.count("memory_dropped", sink, number)


class Lane:
    """Delivers to one sink: by itself in a daemon thread, after `start`, or step by step, for a caller."""

    def __init__(
        self, outlet: Outlet, journal: Journal, memory: Memory, counters: Counters, seen: Seen
    ) -> None:
        self.identity = outlet.identity
        self.stopping = False
        """Set to have the thread end at its next look, at the latest after a second."""
        self.dropped = False
        """Set to have it end as soon as there is nothing more that the sink takes now."""
        self.delivered = 0
        self.rejected = 0
        self.trouble: str | None = None
        """Why the sink does not take events just now."""
        self._outlet = outlet
        self._journal = journal
        self._memory = memory
        self._queue = memory.of(outlet.identity)
        self._counters = counters
        self._seen = None if outlet.keyed else seen
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stepping = threading.Lock()
        self._claims: dict[Path, Claim] = {}
        self._left: Claim | None = None
        self._left_paths: deque[Path] = deque()
        self._passed: set[Path] = set()
        self._scan_at = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._asked = False
        self._abandoned = False
        self._files = Watch()
        self._pause = BUSY_SECONDS

    @property
    def alive(self) -> bool:
        """Whether a thread delivers."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def queued(self) -> int:
        """How many events wait in memory."""
        return len(self._queue)

    def reads(self, path: Path) -> bool:
        """Whether it is delivering this segment, also when its file has been removed."""
        return path in self._claims

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` when the interpreter starts none any more."""
        self.stopping = False
        if not self.alive:
            thread = threading.Thread(target=self._run, name=f"cmdrdata {self.identity}", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Have the thread end after what it is doing."""
        self.stopping = True
        self._wake.set()

    def join(self, timeout: float | None) -> None:
        """Wait for the thread to end, or, where there is none, close the sink here."""
        if self._thread is not None:
            self._thread.join(timeout)
        if not self.alive:
            self._let_go()
        self._memory.give_up(self.identity)

    def hurry(self) -> None:
        """Try again now, unless the receiver asked for a pause."""
        if not self._asked:
            self._not_before = 0.0
        self._wake.set()

    def abandon(self) -> Outlet:
        """In a forked child: give the outlet back, with all that is the parent's left alone.

        A thread is not in the child, but gevent's greenlets are: this lane's ends at its next look.
        """
        self.stopping = self._abandoned = True
        self._files.close()
        self._outlet.forget()
        return self._outlet

    def step(self, timeout: float | None = None) -> bool:
        """Deliver one batch from each place that has some; True when there may be more at once.

        It takes `timeout` seconds, if the sink can tell. No error of a sink or a file is raised. Where
        another thread is at it, this one does not wait: where threads are greenlets, it might be the same.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if not self._stepping.acquire(blocking=False):
            return False
        try:
            self._look_after_files()
            self._memory.tend()
            return not self._is_pausing() and self._deliver(deadline)
        except OSError as error:
            self._fail(error.strerror or type(error).__name__)
        except Exception as error:
            self._counters.count("internal_errors", type(error).__name__)
            self._fail(type(error).__name__)
        finally:
            self._stepping.release()
        return False

    def _run(self) -> None:
        try:
            while not self.stopping:
                before, dropped = self.delivered, self.dropped
                more = self._step_on()
                self._counters.settle()
                if dropped and not more:
                    break
                if not more:
                    self._pause = (
                        BUSY_SECONDS if self.delivered > before else min(self._pause * 1.5, IDLE_SECONDS)
                    )
                    self._wake.wait(self._pause)
                    self._wake.clear()
        finally:
            self._let_go()

    def _step_on(self) -> bool:
        try:
            return self.step()
        except BaseException as error:
            # Nobody is at the keyboard of this thread: whatever a sink raises to end it is one more failure.
            self._fail(type(error).__name__)
            return False

    def _deliver(self, deadline: float | None) -> bool:
        more, tried = self._from_memory(deadline), False
        for own in self._journal.own():
            self._claim_own(own)
        # All that are claimed, and not only those: another lane may have seen the end of one before us.
        crowded = len(self._claims) >= OPEN_AT_ONCE
        for path, claimed in list(self._claims.items()):
            if not self._is_pausing() and not (tried and _is_over(deadline)):
                tried = True  # once at least: others may have used up the time
                left_over = self._from_claim(claimed, deadline)
                more = left_over or more
                if claimed.live and crowded and not left_over:
                    self._claims.pop(path).close()  # for another one; it is found again
                elif claimed.done:
                    del self._claims[path]
                    if self._conclude(claimed):
                        self._journal.forget(path)
        over, known = tried and _is_over(deadline), len(self._claims)
        if not (over or self._is_pausing()) and (left := self._claim_left()):
            self._from_claim(left, deadline)
            if left.done:
                self._left = None
                self._conclude(left)
            more = True
        more = more or len(self._claims) > known  # what is being written was found: its turn is the next one
        return (more or bool(self._left_paths)) and not self._is_pausing()

    def _from_memory(self, deadline: float | None) -> bool:
        lines = list(islice(self._queue, self._limit()))
        if not lines:
            return False
        self._memory.take_off(self.identity, lines[: self._send(lines, deadline)])
        if self.trouble:
            self._memory.spill(self.identity)
        return bool(self._queue)

    def _from_claim(self, claimed: Claim, deadline: float | None) -> bool:
        limit = self._limit()
        lines = claimed.take(limit, BATCH_BYTES)
        if lines:
            claimed.advance(self._send(lines, deadline))
        return len(lines) == limit

    def _limit(self) -> int:
        # A sink that failed is tried with one event, not with as many as it takes on a good day.
        return 1 if self._failures else self._outlet.batch

    def _send(self, lines: Sequence[bytes], deadline: float | None) -> int:
        """How many of the lines, from the first on, are done with: taken, buried, or told before."""
        again = self._seen.again(lines, self.identity) if self._seen is not None else None
        if not again:
            return self._send_new(lines, deadline)
        self._counters.count("duplicates", self.identity, len(again))
        places = [place for place in range(len(lines)) if place not in again]
        done = self._send_new([lines[place] for place in places], deadline) if places else 0
        return len(lines) if done == len(places) else places[done]

    def _send_new(self, lines: Sequence[bytes], deadline: float | None) -> int:
        try:
            self._outlet.send(lines, None if deadline is None else max(0.0, deadline - monotonic()))
        except Rejected as refusal:
            if len(lines) > 1:
                return self._send_singly(lines, deadline)
            if not self._bury(lines[0], str(refusal)):
                return 0
        except Damaged as damage:
            self._renew(damage)
            return 0
        except Unavailable as error:
            self._fail(
                str(error), retry_after=error.retry_after, unauthorized=isinstance(error, Unauthorized)
            )
            self._count_delivered(min(max(0, error.taken), len(lines)))
            return min(max(0, error.taken), len(lines))
        except Exception as error:
            # Its message may quote the event: the kind must do.
            self._fail(type(error).__name__)
            return 0
        else:
            self._count_delivered(len(lines))
        self._failures, self.trouble = 0, None
        return len(lines)

    def _renew(self, damage: Damaged) -> None:
        try:
            said = damage.renew(lambda: taken(self._journal.directory, self.identity))
        except Unavailable as error:
            self._fail(str(error))
        else:
            if said:
                self._counters.count("ledger_corrupt", said)

    def _send_singly(self, lines: Sequence[bytes], deadline: float | None) -> int:
        for number, line in enumerate(lines):
            enough = self.stopping or _is_over(deadline)
            if (enough and number) or not self._send_new([line], deadline):
                return number
        return len(lines)

    def _count_delivered(self, number: int) -> None:
        self.delivered += number
        self._counters.count("delivered", self.identity, number)

    def _fail(self, reason: str, *, retry_after: float | None = None, unauthorized: bool = False) -> None:
        self.trouble = reason
        self._failures += 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 16))
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._asked = retry_after is not None
        if retry_after is not None:
            pause = max(pause, min(retry_after, LONGEST_ASKED_SECONDS))
        self._not_before = monotonic() + pause
        self._counters.count("unauthorized" if unauthorized else "unavailable", f"{self.identity}: {reason}")
        if self._left is not None:
            # Another process may have a way to this sink.
            self._left_paths.appendleft(self._left.segment)
            self._left.close()
            self._left = None

    def _is_pausing(self) -> bool:
        return monotonic() < self._not_before

    def _bury(self, line: bytes, reason: str) -> bool:
        try:
            write_dead_letter(self._journal.home, self.identity, line, reason)
        except OSError as error:
            # Here and not further up: those of its batch that were buried before it are not buried again.
            self._fail(error.strerror or type(error).__name__)
            return False
        self.rejected += 1
        self._counters.count("rejected", self.identity)
        return True

    def _claim_own(self, own: OwnSegment) -> None:
        if (claimed := self._claims.get(own.path)) is not None:
            if claimed.is_orphan():
                self._journal.replace(own)
            return
        if self.identity not in own.sinks or own.path in self._passed:
            return
        if len(self._claims) >= OPEN_AT_ONCE:
            self._journal.miss(own)  # which is not to wait for its turn
            return
        made = self._claim(own.path, own)
        if isinstance(made, Claim):
            self._claims[own.path] = made
        elif made in (Refusal.GONE, Refusal.UNREADABLE):
            self._journal.miss(own)
            self._journal.replace(own)
            self._journal.forget(own.path)

    def _claim_left(self) -> Claim | None:
        if self._left is None and not self._left_paths and monotonic() >= self._scan_at:
            self._scan()
        while self._left is None and self._left_paths:
            path = self._left_paths.popleft()
            made = self._claim(path, None)
            if isinstance(made, Claim) and made.live and len(self._claims) >= OPEN_AT_ONCE:
                made.close()
                self._left_paths.append(path)
                break
            if isinstance(made, Claim) and made.live:
                self._claims[path] = made  # it has no end yet, and others shall not wait for that
            elif isinstance(made, Claim):
                self._left = made
            elif made is Refusal.FOREIGN:
                self._passed.add(path)
        return self._left

    def _claim(self, path: Path, own: OwnSegment | None) -> Claim | Refusal | None:
        try:
            return claim(
                path, self.identity, count=self._counters.count, finished=own.finished if own else None
            )
        except OSError as error:
            # One file that cannot be opened, another user's say, must not stop the others.
            self._counters.count("segment_blocked", error.strerror or type(error).__name__)
            return None

    def _scan(self) -> None:
        self._scan_at = monotonic() + SCAN_SECONDS
        self._passed = {path for path in self._passed if not self._remove(path)}
        for own in self._journal.own():
            if own.finished() and not own.path.exists():
                self._journal.forget(own.path)
        clear_litter(self._journal.directory)
        known = {own.path for own in self._journal.own()} | self._passed | self._claims.keys()
        found = [path for directory in journals(self._journal.home) for path in segments(directory)]
        self._left_paths.extend(path for path in found if path not in known)

    def _conclude(self, claimed: Claim) -> bool:
        removed = self._remove(claimed.segment)
        claimed.close()
        if not removed:
            self._passed.add(claimed.segment)
        return removed

    def _remove(self, path: Path) -> bool:
        try:
            return remove_if_delivered(path)
        except OSError as error:
            self._counters.count("segment_blocked", error.strerror or type(error).__name__)
            return False

    def _let_go(self) -> None:
        if self._abandoned:  # the outlet is another lane's now
            return
        self._look_after_files()
        self._drop_claims()
        self._outlet.close()
        self._files.close()

    def _look_after_files(self) -> None:
        if self._files.is_lost():
            self._counters.count("files_closed", self.identity)
            self._journal.close()  # its number is a high one, which nobody has so soon
            self._drop_claims()
            self._outlet.forget()

    def _drop_claims(self) -> None:
        for each in [*self._claims.values(), self._left]:
            if each is not None:
                each.close()
        self._claims.clear()
        self._left = None


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def lanes_to(outlets: Iterable[Outlet], journal: Journal, counters: Counters) -> list[Lane]:
    """A lane to each of the outlets. Raises `TrackingSetupError` where two of these are the same sink."""
    outlets = list(outlets)
    identities = [outlet.identity for outlet in outlets]
    if len(set(identities)) < len(identities):
        raise TrackingSetupError(f"a sink is there twice: {', '.join(sorted(identities))}")
    memory = Memory(journal, identities, counters)
    seen = Seen(journal.home, counters.count)
    return [Lane(outlet, journal, memory, counters, seen) for outlet in outlets]


def in_turn(lanes: Sequence[Lane], deadline: float | None) -> Iterator[tuple[Lane, bool]]:
    """One step of each lane, and whether it has more to do at once.

    A sink that hangs is given an equal share of the time, so that those behind it have theirs.
    """
    for number, lane in enumerate(lanes):
        left = None if deadline is None else max(0.0, deadline - monotonic())
        yield lane, lane.step(None if left is None else left / (len(lanes) - number))
