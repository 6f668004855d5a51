"""Files that commands write: each is there whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from cmdrdata_transport.errors import TrackingSetupError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextmanager
def writing(file: Path) -> Generator[TextIO]:
    """A file to write to, which takes the place of the one at `file` when this ends well.

    Raises `TrackingSetupError` where it cannot be written.
    """
    if not file.name:
        raise TrackingSetupError(f"--output {file} names no file")
    half = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with half.open("w", encoding="utf-8", newline="") as text:
            yield text
        half.replace(file)
    except OSError as error:
        raise TrackingSetupError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            half.unlink()
