"""An answer of which nothing but its looks tells what it is.

Knows the shapes that it may turn out to have, and keeps its bytes until the first document of it shows
which; then it is read as any other. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cmdrdata_transport.body import LARGEST_DOCUMENT, Body, Document, Events
from cmdrdata_transport.providers.reading import Answer, says_one_of
from cmdrdata_transport.providers.routing import UNKNOWN
from cmdrdata_transport.providers.table import Shape
from cmdrdata_transport.wire import sse
from cmdrdata_transport.wire.json import parsed

Guesses = tuple[tuple[str, Shape], ...]

EVENTS = 8
"""How many events of a stream may pass before one looks like something."""

LONGEST_END = 4
"""Bytes that end an event: CR LF CR LF."""


class Guess:
    """A body that shows what it is, or does not. `found` is then the provider to record and the shape."""

    over = False
    streaming = False

    def __init__(self, guesses: Guesses, lose: Callable[[str], None], *, streaming: bool) -> None:
        self.answer = Answer(UNKNOWN)
        self.whole = False
        self.eager = streaming
        self.found: tuple[str, Shape] | None = None
        self.body: Body | None = None
        """What reads it, once that is known."""
        self._guesses = guesses
        self._lose = lose
        self._streaming = streaming
        self._waiting = bytearray()
        self._searched = 0
        """How much of it has been searched for the ends of events."""
        self._looked = 0
        """How much of it were events, and have been looked at."""
        self._events = 0
        self._given_up = False

    def add(self, pieces: Iterable[bytes]) -> None:
        """Take more bytes."""
        for piece in pieces:
            if self._given_up:
                return
            self._waiting += piece
            if self._streaming:
                self._look_at_events()
            elif len(self._waiting) > LARGEST_DOCUMENT:
                self._give_up()

    def finish(self, *, at_end: bool) -> None:
        """Read what is left."""
        if self.body is None and self._waiting:
            if self._streaming:
                self._look_at_events()
            else:
                self._settle(parsed(self._waiting), Document)
        self.whole = at_end
        self._waiting.clear()

    def _look_at_events(self) -> None:
        """Look at the events that are whole now and were not before."""
        waiting = self._waiting
        # An event's end may have been cut in two.
        end = sse.boundary(waiting, max(self._looked, self._searched - LONGEST_END))
        self._searched = len(waiting)
        if end:
            block = sse.normalise(bytes(waiting[self._looked : end]))
            events = list(sse.newest_first(block if self._looked else block.removeprefix(sse.BOM)))
            for event in events[::-1][: EVENTS - self._events]:
                if self._settle(parsed(sse.data(event)), Events):
                    return
            self._looked = end
            self._events += len(events)
        if self._events >= EVENTS or len(waiting) > LARGEST_DOCUMENT:
            self._give_up()

    def _settle(self, document: Any, kind: Callable[[Shape, Callable[[str], None]], Body]) -> bool:
        for guess in self._guesses:
            if says_one_of(document, guess[1].looks):
                self.found = guess
                self.body = kind(guess[1], self._lose)
                self.body.add((bytes(self._waiting),))
                self._waiting.clear()
                return True
        return False

    def _give_up(self) -> None:
        self._given_up = True
        self._waiting.clear()
