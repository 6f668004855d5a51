"""A file of JSON lines: one event, one line.

Any number of processes may write one file: each batch is appended under the file's lock, all of it or
nothing; but whoever is killed in the middle of that leaves a part, of which the last line may be cut, and
stands by itself. A file has no key, so a batch whose checkpoint was lost in a crash is there twice; its
`event_id`s tell. The file is opened anew for each batch, so it may be moved away at any time. It may be
`/dev/stdout`, too.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult

from cmdrdata_transport.appending import append
from cmdrdata_transport.descriptors import lock, release
from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.sinks import file_of

PATIENCE_SECONDS = 5.0
"""How long another writer may hold the file: it appends a batch and goes."""


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> JsonLinesOutlet:  # noqa: ARG001
    """The outlet of `jsonl:///usage.jsonl`."""
    return JsonLinesOutlet(file_of(url, home), f"jsonl://{url.path}")


class JsonLinesOutlet:
    """Appends to `path`, which is made, for this user alone, when it is not there."""

    batch = 500
    keyed = False

    def __init__(self, path: Path, identity: str) -> None:
        self.identity = identity
        self._path = path

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Append the lines. Raises `Unavailable` when the disk is full, or the file is locked for long."""
        patience = PATIENCE_SECONDS if timeout is None else min(timeout, PATIENCE_SECONDS)
        data = b"".join(line + b"\n" for line in lines)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                lock(fd, fcntl.LOCK_EX, patience)
                append(fd, data, self._path)
            finally:
                release(fd)
                os.close(fd)
        except BlockingIOError:
            raise Unavailable("another process holds the file") from None
        except OSError as error:
            raise Unavailable(error.strerror or type(error).__name__) from None

    def close(self) -> None:
        """Nothing is open between two batches."""

    def forget(self) -> None:
        """Nothing is open between two batches."""
