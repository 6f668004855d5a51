"""From the bytes of one body to what its answer used.

Knows framings (one document, server-sent events) and bounds; reads by the provider's table. Holds
what it has not read yet, and nothing else: the bytes of a body pass through here on a copy, so a bound
that is passed costs the reading and never the caller. No I/O, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from cmdrdata_transport.providers.reading import Answer, is_one_of, pick, read_error
from cmdrdata_transport.providers.table import Shape, Stream
from cmdrdata_transport.wire import eventstream, lines, sse
from cmdrdata_transport.wire.json import parse, parsed

LARGEST_DOCUMENT = 16 * 1024 * 1024
"""The largest document or event that is read whole, in bytes."""

DOCUMENT_END = 64 * 1024
"""How much of the end of a larger document is kept, for what stands behind its content."""

LAST_MEMBERS = 32
"""How many places in it are tried as the beginning of a member."""

_MEMBER = re.compile(rb'[{,]\s*(?=")')

LARGEST_REFUSAL = 64 * 1024
"""More of an error's body is not kept."""

CONDENSE_AT = 64 * 1024
"""A stream's bytes are read and dropped when this many wait."""

DONE = b"[DONE]"

_DONE_LINE = re.compile(rb"[\r\n]data: *\[DONE\]")
"""A line of its own: text may say `data: [DONE]` too, but JSON has no line break inside a string."""

CALM = ord("}")
"""The third byte from the end of bytes in which `data: [DONE]` cannot have begun, behind an event: there
is room for a line end, or for the two that end the event, and for no more.
"""

CALM_BYTE = bytes((CALM,))

TAIL = 32
"""How many bytes of what went before are looked at again: the marks are shorter."""

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
    """A body that is one JSON document; a list may be a stream whose server was not asked for events."""

    __slots__ = ("_as_list", "_end", "_given_up", "_lose", "_pieces", "_size", "answer", "streaming", "whole")

    over = False
    eager = False

    def __init__(self, shape: Shape, lose: Callable[[str], None]) -> None:
        self.answer = Answer(shape)
        self.streaming = False
        self.whole = False
        self._as_list = shape.stream is not None and shape.stream.as_list
        self._lose = lose
        self._pieces: list[bytes] = []
        self._size = 0
        self._given_up = False
        self._end = b""

    def add(self, pieces: Iterable[bytes]) -> None:
        """Keep the bytes, up to the bound; of a larger document, its end."""
        for piece in pieces:
            if self._given_up:
                self._end = (self._end + piece)[-DOCUMENT_END:]
                continue
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > LARGEST_DOCUMENT:
                self._given_up = True
                self._end = b"".join(self._pieces[-8:])[-DOCUMENT_END:]
                self._pieces.clear()

    def finish(self, *, at_end: bool) -> None:
        """Read the document; one that was cut short is no loss of ours."""
        self.whole = at_end
        if self._given_up:
            members = last_members(self._end) if at_end else None
            self._end = b""
            if members is None:
                self._lose("too_large")
            else:
                self.answer.absorb(members)
            return
        # One piece alone, the usual case, is not copied.
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if not body:
            return
        try:
            document = parse(body)
        except ValueError:
            if at_end:
                self._lose("unparsed")
            return
        self.whole = True
        if type(document) is not list:
            self.answer.absorb(document)
            return
        self.streaming = self._as_list
        for each in reversed(document):
            self.answer.absorb(each)
            if self.answer.satisfied():
                break


def last_members(end: bytes) -> dict[str, Any] | None:
    """The last members of a document of which only the end is known: embeddings state usage behind them.

    What follows a member of the root closes the root and nothing else, so only such a rest is JSON again
    once it is opened; members of anything deeper leave a bracket too many.
    """
    starts = [match.end() for match in _MEMBER.finditer(end)]
    for start in starts[-LAST_MEMBERS:]:
        try:
            members = parse(b"{" + end[start:])
        except ValueError:
            continue
        if type(members) is dict:
            return members
    return None


class Framing(Protocol):
    """How a stream's bytes part into events. The modules `sse`, `lines` and `eventstream` are such."""

    @property
    def BOM(self) -> bytes:  # noqa: N802 - a constant of those modules
        """What may stand before the first event."""
        ...

    @property
    def PLAIN(self) -> bool:  # noqa: N802 - see BOM
        """Whether bytes of a document can be found in a frame."""
        ...

    def normalise(self, block: bytes, /) -> bytes:
        """The same block as the other functions want it."""
        ...

    def boundary(self, buffer: bytes | bytearray, start: int = 0, /) -> int:
        """The index behind the last whole event; 0 when there is none yet."""
        ...

    def first_end(self, buffer: bytes, /) -> int:
        """The index behind the first event, of which the beginning may be missing; 0 when it has no end."""
        ...

    def newest_first(self, block: bytes, /) -> Iterator[bytes]:
        """The events, the last one first."""
        ...

    def containing(self, block: bytes, needle: bytes, /) -> Iterator[bytes]:
        """Those that hold `needle`, the last one first."""
        ...

    def first(self, block: bytes, /) -> bytes:
        """The first event."""
        ...

    def data(self, event: bytes, /) -> bytes:
        """The document that an event carries."""
        ...


class Events:
    """A body of events, in any framing, read in stretches, each from its newest event backwards."""

    __slots__ = (
        "_at_start",
        "_condense_at",
        "_framing",
        "_lose",
        "_marked",
        "_pieces",
        "_read_any",
        "_shape",
        "_size",
        "_skipping",
        "_stream",
        "_tail",
        "answer",
        "eager",
        "over",
        "whole",
    )

    streaming = True

    def __init__(self, shape: Shape, lose: Callable[[str], None], framing: Framing = sse) -> None:
        self.answer = Answer(shape)
        self.over = False
        self.eager = framing is not sse
        self._framing = framing
        self.whole = False
        self._shape = shape
        self._stream = shape.stream or _NO_STREAM
        self._lose = lose
        self._pieces: list[bytes] = []
        self._size = 0
        self._condense_at = CONDENSE_AT
        self._tail = b"\n"
        self._at_start = True
        self._read_any = False
        self._skipping = False
        self._marked = False

    def add_ordinary(self, block: bytes) -> None:
        """Keep what came in pieces of which each ended an ordinary event: none of them can be the last."""
        self._pieces.append(block)
        self._size += len(block)
        self._tail = b"\n"

    def add(self, pieces: Iterable[bytes]) -> None:
        """Keep the bytes; notice the end; read and drop what is whole when much waits."""
        for piece in pieces:
            self._pieces.append(piece)
            self._size += len(piece)
            self._notice_end(piece)
            if self._size > self._condense_at:
                self._condense()

    def finish(self, *, at_end: bool) -> None:
        """Read what is left, a last event without its blank line included."""
        waiting = self._take_waiting()
        if waiting and not self._skipping:
            self._read(waiting)
        answer = self.answer
        self.whole = (
            self.over
            or answer.ended
            or (
                self._stream.finish_ends
                and "finish_reason" in answer.found
                and (at_end or answer.usage is not None)
            )
        )
        if at_end and not self._read_any:
            self._lose("unparsed")

    def _notice_end(self, piece: bytes) -> None:
        """Look for the end in this piece and the few bytes before it, where it may have begun."""
        stream = self._stream
        if stream.done:
            if piece[-3:-2] == CALM_BYTE:
                self._tail = b"\n"
                return
            window = self._tail + piece
            self._tail = window[-TAIL:]
            if DONE in window and _DONE_LINE.search(window):
                self.over = True
        elif stream.mark is not None and self._framing.PLAIN:
            window = self._tail + piece
            self._tail = window[-TAIL:]
            if window.rfind(stream.mark) >= 0:
                self._marked = True
            if self._marked and (end := self._framing.boundary(window)):
                # A blank line in front of the mark is the end of the event before.
                self._marked = window.rfind(stream.mark, end) >= 0
                self.over = self._has_ended()
            # A mark may be cut in two only where a piece ends within a line.
            self.eager = self._marked or self._framing is not sse or not window.endswith(b"\n")

    def _has_ended(self) -> bool:
        """Whether one of the last events is one that ends the stream; text may hold the mark, too."""
        block = self._framing.normalise(b"".join(self._pieces))
        for event in islice(self._framing.newest_first(block[: self._framing.boundary(block)]), 2):
            document = self._document(event)
            if is_one_of(pick(document, (self._stream.kind,)), self._stream.ends):
                return True
        return False

    def _take_waiting(self) -> bytes:
        waiting = b"".join(self._pieces)
        self._pieces.clear()
        if not self._skipping:
            return waiting
        end = self._framing.first_end(waiting)
        self._skipping = not end
        # Of an event that is skipped, the last bytes may hold the first half of its end.
        return waiting[end:] if end else waiting[-TAIL:]

    def _condense(self) -> None:
        waiting = self._take_waiting()
        end = 0 if self._skipping else self._framing.boundary(waiting)
        rest = waiting[end:]
        if end:
            self._read(waiting[:end])
        elif len(rest) > LARGEST_DOCUMENT:
            self._lose("too_large")
            self._skipping = True
            rest = rest[-TAIL:]
        self._pieces, self._size = [rest], len(rest)
        # A large event arrives in many pieces: looking for its end again and again must stay linear.
        self._condense_at = len(rest) + max(CONDENSE_AT, len(rest) // 8)

    def _read(self, block: bytes) -> None:
        block = self._framing.normalise(block)
        stream, newest = self._stream, Answer(self._shape)
        if self._at_start:
            block = block.removeprefix(self._framing.BOM)
        stretches = (
            islice(self._framing.newest_first(block), stream.tail),
            *(self._framing.containing(block, needle) for needle in stream.needles),
        )
        any(self._satisfy(newest, events) for events in stretches)
        if not self._at_start:
            newest.absorb_older(self.answer)
        elif "model" not in newest.found:
            self._absorb(newest, self._framing.first(block))
        self._at_start = False
        self.answer = newest

    def _satisfy(self, answer: Answer, events: Iterable[bytes]) -> bool:
        for event in events:
            self._absorb(answer, event)
            if answer.satisfied():
                return True
        return False

    def _absorb(self, answer: Answer, event: bytes) -> None:
        document = self._document(event)
        if document is not None:
            self._read_any = True
            answer.absorb(document)

    def _document(self, event: bytes) -> Any:
        carried = self._framing.data(event)
        if not carried:
            return None
        if carried.startswith(DONE):
            self.over = self._read_any = True
            return None
        return parsed(carried)


_NO_STREAM = Stream(tail=1)


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
        self.answer.errors = read_error(document)


def is_stream(content_type: str) -> bool:
    """Whether a content type is that of a stream, in any framing."""
    if content_type.startswith(_PLAIN_JSON):
        return False
    return "event-stream" in content_type or any(word in content_type for word in _FRAMINGS)


def body_for(first: int, content_type: str, shape: Shape, lose: Callable[[str], None]) -> Body | None:
    """How to read a body, by its content type, and by its first byte that is no blank where that is
    wrong: servers mislabel streams, and error answers to streams. None for what cannot be read.
    """
    if first in b"{[" and content_type.startswith(_PLAIN_JSON):
        return Document(shape, lose)
    for word, framing in _FRAMINGS.items():
        if word in content_type and "event-stream" not in content_type:
            return Events(shape, lose, framing)
    if content_type.startswith(_MEDIA):
        return None
    if first in b"{[" and "event-stream" not in content_type:
        return Document(shape, lose)
    if first in _EVENT_STREAM_STARTS or "event-stream" in content_type:
        return Events(shape, lose)
    if "json" in content_type:
        return Document(shape, lose)
    return None


_FRAMINGS: Mapping[str, Framing] = {
    "vnd.amazon.eventstream": eventstream,
    "ndjson": lines,
    "jsonl": lines,
    "stream+json": lines,  # Cohere v1 (recorded)
}

_PLAIN_JSON = "application/json"

_MEDIA = ("audio/", "image/", "video/")
"""Never read: what they cost stands elsewhere."""
