"""What each process of a home has counted, in a small file of its own, for others to see.

Knows how to keep a process's counts on disk every few seconds, written whole or not at all, and how to
add up those of all processes there have been, so that no sum ever falls. Files that have not changed for
a while are folded into one, of sums by month, so that there are never many. It names what is in it, so that
whoever is killed over that leaves nothing that counts twice; a process that finds its file gone begins
another, with what it has counted since. A lock on the directory keeps who folds from all others.

Does not know what the names mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time
from typing import Any

from cmdrdata_transport.descriptors import locked
from cmdrdata_transport.event import decode, encode

EVERY_SECONDS = 5.0

RECENT_SECONDS = 60.0
"""A process that was heard of in this time is shown by itself, also when it has ended."""

PATIENCE_SECONDS = 1.0
"""How long another process may be at the files, which takes milliseconds."""

SUMS = "sums.of-months"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one process has counted, by name; times are seconds since 1970.

    `sinks` are those that it delivers to, or leaves its events for. What is folded has the `pid` 0: the sums
    of a month, `updated` when the last of its processes was.
    """

    tracker: str
    service: str | None
    pid: int
    started: float
    updated: float
    counts: Mapping[str, int]
    sinks: Sequence[str] = ()


class Tallies:
    """Keeps the counts of this process. Used by delivery threads; no call raises."""

    def __init__(self, home: Path, *, tracker: str, service: str | None, sinks: Sequence[str] = ()) -> None:
        self._directory = home / "stats"
        self._tracker = tracker
        self._service = service
        self._sinks = sinks
        self._next = 0.0
        self._begin()

    def keep(self, counts: Mapping[str, int], *, now: bool = False) -> None:
        """Write the counts, if they have changed and some seconds have passed, or `now`."""
        if os.getpid() != self._pid:
            self._begin()
        at = monotonic()
        if counts == self._kept or not (now or at >= self._next):
            return
        self._next = at + EVERY_SECONDS
        with contextlib.suppress(OSError):
            self._write(dict(counts), PATIENCE_SECONDS if now else 0.0)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._path: Path | None = None
        self._started = time()
        self._next = 0.0
        self._kept: Mapping[str, int] = {}
        self._before: Mapping[str, int] = {}
        """What former files of this process have."""

    def _write(self, counts: Mapping[str, int], patience: float) -> None:
        if self._path is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fold(self._directory)
        with locked(self._directory, fcntl.LOCK_SH, patience):
            if self._path is None or not self._path.exists():
                self._path = self._directory / f"{self._pid}-{os.urandom(4).hex()}.json"
                self._before = self._kept
                self._started = self._started if not self._before else time()
            said = Tally(
                tracker=self._tracker,
                service=self._service,
                pid=self._pid,
                started=self._started,
                updated=time(),
                counts={name: number - self._before.get(name, 0) for name, number in counts.items()},
                sinks=self._sinks,
            )
            _put(self._path, asdict(said))
            self._kept = counts


def tallies(home: Path) -> list[Tally]:
    """What the processes of this home have counted, the newest first; of those long silent, by month."""
    directory = home / "stats"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # to be read all the same
            held.enter_context(locked(directory, fcntl.LOCK_SH, PATIENCE_SECONDS))
        sums, folded = _sums(directory)
        try:
            found = [_read(path) for path in _files(directory) if path.name not in folded]
        except OSError:  # there are none, or none for us to see
            found = []
    return sorted([*sums, *filter(None, found)], key=lambda each: -each.updated)


def totals(found: Iterable[Tally]) -> dict[str, int]:
    """The sums of all counts, by name."""
    summed = Counter[str]()
    for each in found:
        summed.update(each.counts)
    return dict(summed)


def fold(directory: Path) -> None:
    """Add what has not changed for a while to the sums; not if somebody else has done so just now."""
    with contextlib.suppress(OSError):
        if abs(time() - _changed(directory / SUMS)) > EVERY_SECONDS:
            with locked(directory, fcntl.LOCK_EX, 0.0):
                _fold(directory)


def _fold(directory: Path) -> None:
    sums, folded = _sums(directory)
    for name in folded:  # by somebody who was killed over it
        (directory / name).unlink(missing_ok=True)
    silent = time() - RECENT_SECONDS
    taken: list[Path] = []
    for path in _files(directory):
        if path.suffix == _TAKEN:
            taken.append(path)
        elif _changed(path) < silent:
            taken.append(path.rename(path.with_suffix(_TAKEN)))  # from here on its process begins another
    if not taken:
        return
    added = _added_up([*sums, *filter(None, map(_read, taken))])
    names = [path.name for path in taken]
    _put(directory / SUMS, {"folded": names, "sums": list(map(asdict, added))}, sync=True)
    for path in taken:
        path.unlink(missing_ok=True)


_TAKEN = ".taken"


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.suffix in (".json", _TAKEN) and path.is_file()]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _added_up(found: Iterable[Tally]) -> list[Tally]:
    added: dict[tuple[str, str | None, str], Tally] = {}
    for each in found:
        key = each.tracker, each.service, f"{datetime.fromtimestamp(each.updated, UTC):%Y-%m}"
        others = [added[key]] if key in added else []
        added[key] = Tally(
            tracker=each.tracker,
            service=each.service,
            pid=0,
            started=min(one.started for one in (each, *others)),
            updated=max(one.updated for one in (each, *others)),
            counts=totals([*others, each]),
            sinks=sorted({*each.sinks, *(sink for one in others for sink in one.sinks)}),
        )
    return list(added.values())


def _sums(directory: Path) -> tuple[list[Tally], set[str]]:
    """The sums, and the names of the files that are in them."""
    try:
        said = decode((directory / SUMS).read_bytes())
        return [_checked(each) for each in said["sums"]], set(said["folded"])
    except (OSError, ValueError, TypeError, KeyError):  # there are none
        return [], set()


def _read(path: Path) -> Tally | None:
    try:
        return _checked(decode(path.read_bytes()))
    except (OSError, ValueError, TypeError, OverflowError):  # it is none
        return None


def _checked(said: Any) -> Tally:
    tally = Tally(**said)
    datetime.fromtimestamp(tally.updated, UTC)
    Counter(tally.counts).total()
    ", ".join(tally.sinks)
    return tally


def _put(path: Path, said: Mapping[str, Any], *, sync: bool = False) -> None:
    """Write a file whole or not at all."""
    half = path.with_suffix(".new")
    fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(encode(said))
        file.flush()
        if sync:
            os.fsync(fd)
    half.replace(path)
