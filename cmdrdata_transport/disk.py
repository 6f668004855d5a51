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
        OSError: it does not take that of the file.
    """
    own, *above = path.absolute().parents
    _sync(own)
    for directory in above:
        # It may be somebody else's, or on a disk that nobody writes: then what is in it was there before us.
        with contextlib.suppress(OSError):
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
