"""Makes the file of an SQLite database, readable for this user alone; and says how one is opened to be read.

Knows a rule of SQLite's: its locks belong to the process, so to close any descriptor of a file drops all
that the process holds on that file, whoever took them (https://sqlite.org/howtocorrupt.html, 2.2). Another
process may then take away the log that this one goes on to write. So nobody but SQLite opens a database.

Does not know what is in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from urllib.parse import quote

from cmdrdata_transport.disk import keep_name

_EFFECTIVE = os.access in os.supports_effective_ids


def only_to_read(path: Path) -> str:
    """The URI by which SQLite opens the database at `path`, whatever that is called, and changes nothing."""
    return f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"


def make_private_file(path: Path) -> None:
    """Make an empty file at `path` unless there is one. Raises `OSError` where none can be used."""
    if path.exists():
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=_EFFECTIVE):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    # Under another name: at once another thread may have SQLite open what stands under this one.
    half_made = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    os.close(os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(half_made, path)
            keep_name(path)
    finally:
        half_made.unlink()
