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
from uuid import NAMESPACE_DNS, uuid5

from cmdrdata_transport.event import decode, encode

KEPT_SECONDS = 60 * 24 * 3600
"""How long a job is remembered: providers keep results for 30 days at most."""

TIDIED_AT_MOST = 1000
"""How many files one look for old ones takes in."""


class Jobs:
    """The jobs of one home; None keeps them in memory. No call raises; `count` is told what fails."""

    def __init__(self, home: Path | None, count: Callable[..., None]) -> None:
        self._directory = None if home is None else home / "jobs"
        self._count = count
        self._held: dict[str, Mapping[str, Any]] = {}
        self._tidied = False

    def remember(self, scope: str, name: str, begun: Mapping[str, Any]) -> None:
        """Keep who started it and what was asked for, unless that is known already."""
        self._keep(_key(scope, name), {"scope": scope, "name": name, **begun})

    def finish(
        self, scope: str, name: str, customer: str | None, counts: Mapping[str, Any] | None
    ) -> None:
        """It has been told, for this customer, to have used this."""
        self._keep(f"{_key(scope, name)}.told", {"told": customer, "counts": counts})

    def recall(self, scope: str, name: str) -> Mapping[str, Any]:
        """What was kept of it, with `told` if it has been; empty where nothing was."""
        key = _key(scope, name)
        return {**self._read(key), **self._read(f"{key}.told")}

    def waiting(self) -> Iterator[Mapping[str, Any]]:
        """The jobs that were started and have not been told of, without the files they yield."""
        if self._directory is None or not self._directory.is_dir():
            return
        for path in sorted(self._directory.glob("*.json")):
            key = path.name.removesuffix(".json")
            begun = self._read(key)
            if not key.endswith(".told") and begun and "of" not in begun and not self._read(f"{key}.told"):
                yield begun

    def _keep(self, key: str, said: Mapping[str, Any]) -> None:
        if self._directory is None:
            self._held.setdefault(key, said)
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
            self._held.setdefault(key, said)
            self._count("job_not_kept", error.strerror or type(error).__name__)

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
        """Once in a process: forget what no provider keeps any more."""
        if self._tidied or self._directory is None:
            return
        self._tidied = True
        old = time() - KEPT_SECONDS
        with os.scandir(self._directory) as found:
            for entry, _ in zip(found, range(TIDIED_AT_MOST), strict=False):
                with contextlib.suppress(OSError):
                    if entry.stat().st_mtime < old:
                        Path(entry.path).unlink()


def _key(scope: str, name: str) -> str:
    return str(uuid5(uuid5(NAMESPACE_DNS, scope), name))
