"""Durability beyond the process: a thread has the disk take what is in the journal, ten times a second.

Knows when. Nobody waits for it: an answer's end is passed on when its event is written, so a failure of
power or of the system may take the events of the last moments, as long as `SYNC_SECONDS` and the time
that the disk takes. Does not know what is in the journal, or who delivers it.
"""

from __future__ import annotations

import threading
from typing import Literal

from cmdrdata_transport.greenlets import apart
from cmdrdata_transport.journal import Journal

SYNC_SECONDS = 0.1
"""The pause between two looks: how old an event may be that the disk has not been given yet."""

Durability = Literal["process", "fsync"]


class Syncing:
    """Syncs a journal in a daemon thread of its own, after `start`."""

    def __init__(self, journal: Journal) -> None:
        self.dropped = False
        """Set to have the thread end at its next look."""
        self._journal = journal
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` when the interpreter starts none any more."""
        self._wake.clear()
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, args=(self._wake,), name="cmdrdata sync", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Sync once more, here, and have the thread end."""
        self._wake.set()
        self._journal.sync()

    def after_fork_in_child(self) -> None:
        """The thread is the parent's. If it is a greenlet, and so in the child as well, it ends."""
        self._thread = None
        self._wake = threading.Event()

    def _run(self, stopped: threading.Event) -> None:
        while not (stopped.wait(SYNC_SECONDS) or self.dropped or stopped is not self._wake):
            apart(self._journal.sync)
        apart(self._journal.sync)
