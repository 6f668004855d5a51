"""Which home a command looks in: the one that is meant, also where this user may only read it.

Programs that cannot write home use a directory of their own instead. A command that did the same would
find nothing there, and say so of a home that is full.
"""

from __future__ import annotations

from pathlib import Path

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.tracker import Tracker


def home_of(tracker: Tracker, *, to_write: bool) -> Path:
    """The home of a command; what stands in for it where programs of this user have recorded only there.

    Raises:
        TrackingSetupError: home is in use, and this user may not read it, or not write it.
    """
    wanted, used = tracker.wanted_home, tracker.home
    if used == wanted:
        return used
    try:
        (wanted / "journal").lstat()
    except PermissionError:
        if (used / "journal").exists():
            return used
        raise TrackingSetupError(f"{wanted} cannot be read: {_INSTEAD}") from None
    except OSError:
        return used
    if to_write:
        raise TrackingSetupError(f"{wanted} cannot be written: {_INSTEAD}")
    return wanted


_INSTEAD = "type this as the user whose files these are, or name another with --home"
