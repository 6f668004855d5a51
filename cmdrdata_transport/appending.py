"""Appends whole lines to a file that others append to as well: all of them, or nothing; and leaves some out.

For whoever holds the file's lock. Does not know what is in a line, or where the file is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from cmdrdata_transport.disk import keep_name


def append(fd: int, data: bytes, path: Path) -> None:
    """Write `data`, lines with their ends, to the file at `path`, which is open to read and to append.

    What somebody left unfinished at its end spoils no line of ours. When this returns, the disk has them.

    Raises:
        OSError: not all of it can be written; then nothing of it is there, except in a pipe or a terminal,
            which take nothing back.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        _write(fd, data)
        return
    size = found.st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        data = b"\n" + data  # somebody died in the middle of a line
    if not size:
        keep_name(path)  # now: when that fails nothing has been written
    try:
        _write(fd, data)
    except OSError:
        os.ftruncate(fd, size)
        raise
    os.fsync(fd)


def keep_only(path: Path, pieces: Iterable[bytes]) -> None:
    """Have a file hold these, which may be read from it meanwhile, and nothing else; without any, it goes.

    Whoever is killed over it leaves the file as it was, and so does a failure of power. Raises `OSError` when
    it cannot be written.
    """
    rest = path.with_suffix(".new")
    half = os.open(rest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(half, "wb") as file:
        file.writelines(pieces)
        file.flush()
        size = file.tell()
        os.fsync(half)
    if size:
        rest.replace(path)
    else:
        rest.unlink()
        path.unlink()
    keep_name(path)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
