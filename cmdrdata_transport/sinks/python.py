"""A sink that is a function of the user's, or an object with `send`: it is given `UsageEvent`s."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.event import UsageEvent


class PythonOutlet:
    """Turns lines into events and hands them over. Errors of the function pass to delivery as they are."""

    batch = 500
    keyed = False

    def __init__(self, function: Callable[[list[UsageEvent]], object], identity: str) -> None:
        self.identity = identity
        self._function = function

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:  # noqa: ARG002 - it is their code
        """Call the function once, with all of them."""
        try:
            events = [UsageEvent.from_json(line) for line in lines]
        except ValueError as error:
            raise Rejected(f"not an event: {error}") from None
        try:
            self._function(events)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            # SystemExit, or a CancelledError of some event loop: it would end the delivery thread.
            raise Unavailable(type(error).__name__) from None

    def close(self) -> None:
        """Nothing of ours is open."""

    def forget(self) -> None:
        """Nothing of ours is open."""
