"""What each process of a home has counted, in a small file of its own, for others to see.

Knows how to keep a process's counts on disk every few seconds, written whole or not at all, and how to
add up those of all processes of the last month. Does not know what the names mean.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time

from cmdrdata_transport.event import decode, encode

EVERY_SECONDS = 5.0

KEPT_SECONDS = 30 * 24 * 3600
"""How long the counts of a process that has ended are added to the others'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one process has counted, by name; times are seconds since 1970."""

    tracker: str
    service: str | None
    pid: int
    started: float
    updated: float
    counts: Mapping[str, int]


class Tallies:
    """Keeps the counts of this process. Used by delivery threads; no call raises."""

    def __init__(self, home: Path, *, tracker: str, service: str | None) -> None:
        self._directory = home / "stats"
        self._tracker = tracker
        self._service = service
        self._path: Path | None
        self._next: float
        self._kept: Mapping[str, int]
        self._begin()

    def keep(self, counts: Mapping[str, int], *, now: bool = False) -> None:
        """Write the counts, if they have changed and some seconds have passed, or `now`."""
        if os.getpid() != self._pid:
            self._begin()
        at = monotonic()
        if counts == self._kept or not (now or at >= self._next):
            return
        self._next = at + EVERY_SECONDS
        said = {
            "tracker": self._tracker,
            "service": self._service,
            "pid": self._pid,
            "started": self._started,
            "updated": time(),
            "counts": dict(counts),
        }
        with contextlib.suppress(OSError):
            self._write(encode(said))
            self._kept = dict(counts)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._started = time()
        self._path = None
        self._kept = {}
        self._next = 0.0

    def _write(self, said: bytes) -> None:
        if self._path is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _forget_old(self._directory)
            self._path = self._directory / f"{self._pid}-{os.urandom(4).hex()}.json"
        half = self._path.with_suffix(".new")
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, said)
        finally:
            os.close(fd)
        half.replace(self._path)


def tallies(home: Path) -> list[Tally]:
    """What the processes of this home have counted, in the last month, the newest first."""
    found: list[Tally] = []
    for path in (home / "stats").glob("*.json"):
        try:
            said = decode(path.read_bytes())
            tally = Tally(**said)
            if tally.updated > time() - KEPT_SECONDS and Counter(tally.counts).total() >= 0:
                found.append(tally)
        except (OSError, ValueError, TypeError):  # it is none
            continue
    return sorted(found, key=lambda each: -each.updated)


def totals(found: list[Tally]) -> dict[str, int]:
    """The sums of all counts, by name."""
    summed = Counter[str]()
    for each in found:
        summed.update(each.counts)
    return dict(summed)


def _forget_old(directory: Path) -> None:
    old = time() - KEPT_SECONDS
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < old:
                path.unlink()
