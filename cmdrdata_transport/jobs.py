"""Who started what is told of later: background answers, batches, predictions, videos.

Knows a small file for each, below home, so that any process of this host finds it, next week too. The
first word counts: a file is made once and never changed. What is started rarely is written where it is
started, in a few tens of microseconds. Does not know what an answer says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any

from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.identity import id_of

KEPT_SECONDS = 60 * 24 * 3600
"""How long a job is remembered: providers keep results for 30 days at most."""

TIDIED_FIRST, TIDIED_EACH = 1000, 8
"""How many files are looked at when a process keeps its first, and with each one after that."""

HELD_AT_MOST = 10_000
"""Of how many jobs a process knows who started them where no file can: the oldest are forgotten."""


class Jobs:
    """The jobs of one home; None keeps them in memory. No call raises; `count` is told what fails."""

    def __init__(self, home: Path | None, count: Callable[..., None]) -> None:
        self._directory = None if home is None else home / "jobs"
        self._count = count
        self._held: dict[str, Mapping[str, Any]] = {}
        # Of two threads one pops it, and the other one goes on.
        self._tidying = [self._tidied()]

    def remember(self, scope: str, name: str, begun: Mapping[str, Any]) -> None:
        """Keep who started it and what was asked for, unless that is known already."""
        self._keep(id_of(scope, name), {"scope": scope, "name": name, **begun})

    def finish(self, scope: str, name: str, customer: str | None, counts: Mapping[str, Any] | None) -> None:
        """It has been told, for this customer, to have used this."""
        self._keep(f"{id_of(scope, name)}.told", {"told": customer, "counts": counts})

    def recall(self, scope: str, name: str) -> Mapping[str, Any]:
        """What was kept of it, with `told` if it has been; empty where nothing was."""
        key = id_of(scope, name)
        return {**self._read(key), **self._read(f"{key}.told")}

    def waiting(self) -> Iterator[Mapping[str, Any]]:
        """The jobs that were started and have not been told of, without the files they yield."""
        if self._directory is None or not self._directory.is_dir():
            return
        for path in sorted(each for each in self._directory.glob("*.json") if each.is_file()):
            key = path.name.removesuffix(".json")
            begun = self._read(key)
            if not key.endswith(".told") and begun and "of" not in begun and not self._read(f"{key}.told"):
                yield begun

    def _keep(self, key: str, said: Mapping[str, Any]) -> None:
        if self._directory is None:
            self._hold(key, said)
            return
        try:
            fd = self._made(self._directory / f"{key}.json")
            try:
                os.write(fd, encode(dict(said)))
            finally:
                os.close(fd)
            self._tidy()
        except FileExistsError:
            pass
        except OSError as error:
            self._hold(key, said)
            self._count("job_not_kept", error.strerror or type(error).__name__)

    def _hold(self, key: str, said: Mapping[str, Any]) -> None:
        self._held.setdefault(key, said)
        if len(self._held) > HELD_AT_MOST:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread does the same
                del self._held[next(iter(self._held))]

    def _made(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _read(self, key: str) -> Mapping[str, Any]:
        held = self._held.get(key)
        if held is not None or self._directory is None:
            return held or {}
        try:
            said = decode((self._directory / f"{key}.json").read_bytes())
        except (OSError, ValueError):  # it is not there, or its writer was killed over it
            return {}
        return said if isinstance(said, dict) else {}

    def _tidy(self) -> None:
        """Forget what no provider keeps any more, a few files at a time."""
        with contextlib.suppress(IndexError):
            tidying = self._tidying.pop()
            try:
                next(tidying)
            except (StopIteration, OSError):
                tidying = self._tidied()
            self._tidying.append(tidying)

    def _tidied(self) -> Iterator[None]:
        """Goes through all files, again and again, and rests after some."""
        assert self._directory is not None  # noqa: S101 - nothing is kept there otherwise
        left = TIDIED_FIRST
        while True:
            old = time() - KEPT_SECONDS
            with os.scandir(self._directory) as found:
                for entry in found:
                    with contextlib.suppress(OSError):
                        if entry.stat().st_mtime < old:
                            Path(entry.path).unlink()
                    left -= 1
                    if left <= 0:
                        yield
                        left = TIDIED_EACH
            yield
            left = TIDIED_EACH
