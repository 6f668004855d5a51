"""Has the disk take what a file is called: `fsync` sees to what is in it, and to no more.

Without that a file of which the disk has every byte may have no name after a failure of power, or still
the one that it had before. Does not know what the files are.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def keep_name(path: Path) -> None:
    """Have the disk take the name of the file at `path`, and those of the directories that it is in.

    Raises:
        OSError: it does not.
    """
    for directory in path.absolute().parents:
        with contextlib.suppress(PermissionError):  # whose it is has made what is in it
            _sync(directory)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that knows no such thing for directories
            raise
    finally:
        os.close(fd)
