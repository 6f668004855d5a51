"""From the bytes of one body to what its answer used.

Knows framings (one document, server-sent events) and bounds; reads by the provider's table. Holds
what it has not read yet, and nothing else: the bytes of a body pass through here on a copy, so a bound
that is passed costs the reading and never the caller. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cmdrdata_transport.providers.reading import Answer, read_error
from cmdrdata_transport.providers.table import Shape
from cmdrdata_transport.wire import sse
from cmdrdata_transport.wire.json import parse

LARGEST_DOCUMENT = 16 * 1024 * 1024
"""The largest document or event that is read, in bytes: embeddings of a full batch fit."""

LARGEST_REFUSAL = 64 * 1024
"""More of an error's body is not kept."""

CONDENSE_AT = 64 * 1024
"""A stream's bytes are read and dropped when this many wait."""

TAIL_EVENTS = 8
"""Events at the end of a stretch that are always read: they hold the finish reason, or an error."""

DONE = b"[DONE]"

_EVENT_STREAM_STARTS = frozenset(b"deir:")
"""First letters of `data`, `event`, `id`, `retry` and a comment."""


class Body(Protocol):
    """Takes a body's decoded bytes in order; `answer` holds what they said."""

    answer: Answer
    streaming: bool
    over: bool
    """Whether the protocol says that nothing more comes."""
    eager: bool
    """Whether every piece must be seen at once, because the end is near."""
    whole: bool
    """Once finished: whether the answer came to its end."""

    def add(self, pieces: Iterable[bytes], /) -> None:
        """Take more bytes."""
        ...

    def finish(self, *, at_end: bool) -> None:
        """Read what is left; nothing more comes. `at_end`: the body was read to its last byte."""
        ...


class Document:
    """A body that is one JSON document; a list is a stream whose server was not asked for events."""

    over = False
    eager = False

    def __init__(self, shape: Shape, lose: Callable[[str], None]) -> None:
        self.answer = Answer(shape)
        self.streaming = False
        self.whole = False
        self._lose = lose
        self._bytes = bytearray()
        self._given_up = False

    def add(self, pieces: Iterable[bytes]) -> None:
        """Keep the bytes, up to the bound."""
        if self._given_up:
            return
        for piece in pieces:
            self._bytes += piece
        if len(self._bytes) > LARGEST_DOCUMENT:
            self._given_up = True
            self._bytes = bytearray()
            self._lose("too_large")

    def finish(self, *, at_end: bool) -> None:
        """Read the document; one that was cut short is no loss of ours."""
        self.whole = at_end
        if self._given_up or not self._bytes:
            return
        body, self._bytes = self._bytes, bytearray()
        try:
            document = parse(body)
        except ValueError:
            if at_end:
                self._lose("unparsed")
            return
        self.whole = True
        if type(document) is list:
            self.streaming = True
            for each in reversed(document):
                self.answer.absorb(each)
                if self.answer.satisfied():
                    break
        else:
            self.answer.absorb(document)


class Events:
    """A body of server-sent events, read in stretches, each from its newest event backwards."""

    streaming = True

    def __init__(self, shape: Shape, lose: Callable[[str], None]) -> None:
        self.answer = Answer(shape)
        self.over = False
        self.whole = False
        self._shape = shape
        self._stream = shape.stream
        self._lose = lose
        self._buffer = bytearray()
        self._condense_at = CONDENSE_AT
        self._seen = 0
        self._marked: int | None = None
        self._at_start = True
        self._skipping = False
        self._read_any = False

    def add(self, pieces: Iterable[bytes]) -> None:
        """Keep the bytes; read and drop what is whole when much waits; notice the end."""
        for piece in pieces:
            self._buffer += piece
            if len(self._buffer) > self._condense_at:
                self._notice_end()
                self._condense()
        self._notice_end()

    @property
    def eager(self) -> bool:
        """The event that ends the stream has begun."""
        return self._marked is not None

    def finish(self, *, at_end: bool) -> None:
        """Read what is left, a last event without its blank line included."""
        if self._buffer and not self._skipping:
            rest = bytes(self._buffer)
            self._buffer = bytearray()
            self._read(rest)
        self.whole = self.over or self.answer.ended or (self._is_finished() and (at_end or self._has_usage()))
        if at_end and not self._read_any:
            self._lose("unparsed")

    def _is_finished(self) -> bool:
        stream = self._stream
        return stream is not None and stream.finish_ends and "finish_reason" in self.answer.found

    def _has_usage(self) -> bool:
        return self.answer.usage is not None

    def _notice_end(self) -> None:
        stream, buffer = self._stream, self._buffer
        if stream is None or self.over:
            return
        if stream.done:
            found = buffer.rfind(DONE, max(0, self._seen - len(DONE)))
            if found >= 0 and bytes(buffer[max(0, found - 6) : found]).rstrip(b" ").endswith(b"data:"):
                self.over = True
        elif stream.mark is not None:
            found = buffer.rfind(stream.mark, max(0, self._seen - len(stream.mark)))
            if found >= 0:
                self._marked = found
            if self._marked is not None and sse.boundary(buffer, self._marked):
                self.over = self._is_end(self._marked)
                self._marked = None
        self._seen = len(buffer)

    def _is_end(self, marked: int) -> bool:
        block = sse.normalise(bytes(self._buffer[sse.boundary(self._buffer[:marked]) :]))
        document = self._document(sse.first(block))
        assert self._stream is not None  # noqa: S101 - only a stream has a mark
        return type(document) is dict and document.get("type") in self._stream.ends

    def _condense(self) -> None:
        end = sse.boundary(self._buffer)
        if end:
            block = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._seen = max(0, self._seen - end)
            self._marked = None if self._marked is None or self._marked < end else self._marked - end
            if self._skipping:
                self._skipping = False
            else:
                self._read(block)
        elif len(self._buffer) > LARGEST_DOCUMENT:
            if not self._skipping:
                self._lose("too_large")
            self._skipping = True
            # The last bytes may be the first half of the blank line that ends this event.
            del self._buffer[:-3]
            self._seen, self._marked = 0, None
        # A large event arrives in many pieces: looking for its end again and again must stay linear.
        self._condense_at = max(CONDENSE_AT, 2 * len(self._buffer))

    def _read(self, block: bytes) -> None:
        block = sse.normalise(block)
        if self._at_start:
            block = block.removeprefix(sse.BOM)
        newest = Answer(self._shape)
        for number, event in enumerate(sse.newest_first(block)):
            if number == TAIL_EVENTS:
                break
            self._absorb(newest, event)
            if newest.satisfied():
                break
        if self._stream is not None and not newest.satisfied():
            for event in sse.containing(block, self._stream.needle):
                if self._stream.needle + b":null" not in event:
                    self._absorb(newest, event)
                    if newest.satisfied():
                        break
        if self._at_start:
            self._at_start = False
            self._absorb(newest, sse.first(block))
        newest.absorb_older(self.answer)
        self.answer = newest

    def _absorb(self, answer: Answer, event: bytes) -> None:
        document = self._document(event)
        if document is not None:
            self._read_any = True
            answer.absorb(document)

    def _document(self, event: bytes) -> Any:
        carried = sse.data(event)
        if not carried:
            return None
        if carried.startswith(DONE):
            self.over = self._read_any = True
            return None
        try:
            return parse(carried)
        except ValueError:
            return None


class Refusal:
    """The body of an answer that is no success: an error's type and code, if it says them."""

    over = False
    eager = False
    streaming = False
    whole = True

    def __init__(self, shape: Shape) -> None:
        self.answer = Answer(shape)
        self._bytes = bytearray()

    def add(self, pieces: Iterable[bytes]) -> None:
        """Keep the first bytes."""
        for piece in pieces:
            self._bytes += piece[: LARGEST_REFUSAL - len(self._bytes)]

    def finish(self, *, at_end: bool) -> None:  # noqa: ARG002 - an error says the same, cut or not
        """Read the error, if it is one that we can read."""
        try:
            document = parse(self._bytes)
        except ValueError:
            return
        self.answer.errors.update(read_error(document))


def body_for(first: int, content_type: str, shape: Shape, lose: Callable[[str], None]) -> Body | None:
    """How to read a body, by its first byte that is no blank, and by its content type where that is not
    enough; None for what cannot be read. Servers mislabel streams, and error answers to streams.
    """
    if first in b"{[" and "event-stream" not in content_type:
        return Document(shape, lose)
    if first in _EVENT_STREAM_STARTS or "event-stream" in content_type:
        return Events(shape, lose)
    if "json" in content_type:
        return Document(shape, lose)
    return None
