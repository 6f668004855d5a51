"""Every loss and measure, counted under its name.

Knows how to count from anywhere: the request path, another thread, a finaliser that garbage
collection runs in the middle of anything. So `count` takes no lock and logs nothing: it appends to a
deque, which CPython does in one step, and adds up only when much waits. Whoever has a thread to spare
calls `settle`, which adds up and logs what a person should hear of, at most once a minute for each name.

Does not know what the names mean to a caller, except the few in `WARNINGS`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

from cmdrdata_transport import forks

logger = logging.getLogger("cmdrdata_transport")

LOG_EVERY_SECONDS = 60.0

DETAILS = 4
"""So many different ones are named in a line, the last: two sinks that fail are both to be read of."""

PATIENCE_SECONDS = 1.0
"""How long another thread may be adding up, which takes microseconds."""

UNSETTLED_LIMIT = 10_000
"""Counts that may wait when nobody settles them; some 80 KiB."""

WARNINGS: dict[str, str] = {
    "unattributed": "a call had no customer; use customer_context(), or customer_id= on the client",
    "skipped_no_customer": "a call had no customer and was not recorded, as require_customer asks",
    "bad_attribution": "a customer header or extension could not be read; a call so named is nobody's",
    "metadata_truncated": "merged metadata was over its bound; the farthest sources were left out",
    "signed_headers": "tracking headers in an AWS signature were sent as they are; use customer_context()",
    "unparsed": "an answer could not be read; its usage is not known",
    "undecodable": "an answer's content coding could not be undone; its usage is not known",
    "too_large": "an answer was larger than the bound for reading; its usage is not known",
    "bad_counts": "a provider sent a count that is no count; it was left out",
    "missing": "an answer carried no usage; for streams of OpenAI-like servers set include_usage=True",
    "injections_refused": "a host refused to be asked for the usage of streams; its streams are as before",
    "usage_shown": "what we asked for could not be hidden from the application",
    "internal_errors": "the meter failed inside; the call itself was not touched",
    "journal_failed": "an event could not be written to the journal",
    "journal_full": "an event was not written: as much waits as max_journal_bytes allows; is a sink down?",
    "sync_failed": "the disk did not take the journal when asked to",
    "files_closed": "the program closed files that it had not opened, ours too; they were opened anew",
    "temporary_home": "home cannot be written; journal and ledger are in a temporary directory",
    "segment_blocked": "a journal segment cannot be opened; its events wait",
    "segment_removed": "somebody removed a journal segment before it was delivered; its events are lost",
    "memory_dropped": "an event was lost: nothing could be written, and memory was full or the process ended",
    "conflicts": "a provider told the same thing twice, with other counts; the first telling counts",
    "job_not_kept": "who started a job could not be written down; another process will not know",
    "seen_unknown": "what was sent before could not be looked up; a sink may be told twice",
    "ledger_corrupt": "a ledger was damaged; it was set aside, and begun anew with what the journal had",
    "torn": "a piece of the journal was damaged and set aside; doctor says what can be read of it",
    "rejected": "a sink refused an event; it is in the dead-letter file",
    "unavailable": "a sink cannot be reached; its events wait in the journal",
    "unauthorized": "a sink refused our key, our user or its rights; its events wait in the journal",
}


def _nowhere(_: Mapping[str, int]) -> None:
    pass


class Counters:
    """The counts of one tracker. Safe in any thread and in a finaliser; a forked child starts at zero."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.keep: Callable[[Mapping[str, int]], None] = _nowhere
        """Called by `settle` with all counts."""
        self._clock = clock
        self._arrived: deque[tuple[str, str, int]] = deque()
        self._totals: Counter[str] = Counter()
        self._heard: dict[str, list[str]] = {}
        self._last_logged: dict[str, tuple[float, int]] = {}
        self._settling = threading.Lock()
        forks.register(self)

    def count(self, name: str, detail: str = "", number: int = 1) -> None:
        """Add `number` to `name`. `detail` is for the log only: sizes, kinds and hosts, never content."""
        self._arrived.append((name, detail, number))
        # Where every call is left out nothing else runs. This waits for nobody, and leaves the log alone.
        if len(self._arrived) > UNSETTLED_LIMIT and self._settling.acquire(blocking=False):
            try:
                self._add_up()
            finally:
                self._settling.release()

    def settle(self) -> None:
        """Add up what has arrived, and log what is in `WARNINGS`, once a minute for each name."""
        if not self._settling.acquire(blocking=False):
            return
        try:
            self._add_up()
            told = self._to_tell()
            self.keep(self._totals)
        finally:
            self._settling.release()
        _log(told)

    def snapshot(self) -> dict[str, int]:
        """All counts so far, by name; or as they stood, for the handler of a signal that came in between."""
        told: list[tuple[object, ...]] = []
        if self._settling.acquire(timeout=PATIENCE_SECONDS):
            try:
                self._add_up()
                told = self._to_tell()
            finally:
                self._settling.release()
        totals = dict(self._totals)
        _log(told)
        return totals

    def after_fork_in_child(self) -> None:
        """Start at zero, with a lock that no thread of the parent's holds."""
        self._settling = threading.Lock()
        self._totals.clear()
        self._arrived.clear()
        self._heard.clear()

    def _add_up(self) -> None:
        for _ in range(len(self._arrived)):
            name, detail, number = self._arrived.popleft()
            self._totals[name] += number
            if name in WARNINGS:
                details = self._heard.setdefault(name, [])
                if detail in details:
                    details.remove(detail)
                details.append(detail)
                del details[:-DETAILS]

    def _to_tell(self) -> list[tuple[object, ...]]:
        """What is to be logged now."""
        told: list[tuple[object, ...]] = []
        now = self._clock()
        for name in [*self._heard]:
            total = self._totals[name]
            when, logged = self._last_logged.get(name, (-LOG_EVERY_SECONDS, 0))
            if now - when >= LOG_EVERY_SECONDS:
                self._last_logged[name] = (now, total)
                details = "; ".join(filter(None, self._heard.pop(name)))
                about = f" ({details})" if details else ""
                told.append((name, total - logged, WARNINGS[name], about))
        return told


def _log(told: Iterable[tuple[object, ...]]) -> None:
    # Whoever has the lock must not: a handler of the application's may ask for the counts, or fail.
    for each in told:
        with contextlib.suppress(Exception):
            logger.warning("%s: %d more, %s%s", *each)
