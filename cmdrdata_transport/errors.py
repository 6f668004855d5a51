"""The errors a caller of ours can meet.

    TrackingError
    ├── TrackingSetupError    wrong construction or configuration; says what to type instead
    ├── AttributionError      a customer id or metadata that cannot be recorded (also a ValueError)
    ├── Rejected              raised by a sink: never send this batch again
    └── Unavailable           raised by a sink: try again later

The first two reach the developer where a client, a tracker or a context is made. None of them ever
reaches a call to a provider.
"""

from __future__ import annotations


class TrackingError(Exception):
    """What every error of this library is."""


class TrackingSetupError(TrackingError):
    """A client, a tracker or a sink was asked for in a way that cannot work; the message says what can."""


class AttributionError(TrackingError, ValueError):
    """A customer id or metadata that no event could carry; raised where the caller sets it."""


class Rejected(TrackingError):
    """A sink will never take this batch: it goes to the dead-letter file with this reason."""


class Unavailable(TrackingError):
    """A sink cannot take this batch now.

    `retry_after` is the number of seconds the receiver asked us to wait, if it did. `taken` says how
    many of the batch, from the first on, it has taken all the same: these are not sent again.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, taken: int = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.taken = taken
