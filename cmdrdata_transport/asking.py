"""Asks for the usage of a stream that did not ask, and hides the answer to that from the application.

Knows one option, `stream_options.include_usage` of chat completions and of the completions before them,
and the one event by which servers answer it: no choices, and usage. Everything else of a request and of
an answer stays as it is, to the byte. No I/O, no clock.

What cannot be hidden stays: with this option the other events have a member `"usage": null`.
"""

from __future__ import annotations

import re
from typing import Any

from cmdrdata_transport.wire import sse
from cmdrdata_transport.wire.coding import Decoder, decoder_for
from cmdrdata_transport.wire.json import parse
from cmdrdata_transport.wire.recoding import Encoder

LARGEST_REQUEST = 1024 * 1024
"""A larger body is sent as it is: it would be copied."""

LONGEST_WAIT = 1024 * 1024
"""Of an event that has no end after so many bytes nothing is held back any more."""

REFUSALS = frozenset({400, 422})
"""How servers answer what they do not know: OpenAI-like ones, and those built on pydantic."""

REFUSAL_READ = 64 * 1024
"""How much of a refusal is read to find out why."""

_STREAMS = re.compile(rb'"stream"\s*:\s*true')
_OPTIONS = re.compile(rb'"stream_options"\s*:\s*(\{\s*(?=(\}?))|null)')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_NAMES_IT = re.compile(rb"stream_options|include_usage")

_OPTION = b'"include_usage":true'


def asking(content: bytes) -> bytes | None:
    """The body that asks for usage too; None where it need not, or where it does so or not by itself."""
    if len(content) > LARGEST_REQUEST or not _STREAMS.search(content):
        return None
    try:
        document = parse(content)
    except ValueError:
        return None
    if type(document) is not dict or document.get("stream") is not True:
        return None
    if "stream_options" in document:
        return _with_options(content, document)
    body = content.rstrip()
    return body[:-1] + b',"stream_options":{' + _OPTION + b"}" + content[len(body) - 1 :]


def _with_options(content: bytes, document: dict[str, Any]) -> bytes | None:
    options = document["stream_options"]
    if options is not None and (type(options) is not dict or "include_usage" in options):
        return None
    wanted = {**document, "stream_options": {**(options or {}), "include_usage": True}}
    # The same words may stand in a prompt: whether it was the right place shows in the result.
    for found in _OPTIONS.finditer(content):
        if found[1] == b"null":
            put = b"{" + _OPTION + b"}"
            start = found.start(1)
        else:
            put = _OPTION + (b"" if found[2] else b",")
            start = found.end()
        body = content[:start] + put + content[found.end() :]
        try:
            if parse(body) == wanted:
                return body
        except ValueError:
            continue
    return None


def names_the_option(refusal: bytes) -> bool:
    """Whether the body of a refusal is about what we asked for."""
    return _NAMES_IT.search(refusal) is not None


class Veil:
    """Shows the bytes of a stream of events, except the one event that has usage and no choices.

    An event is shown when it is there whole.
    """

    def __init__(self) -> None:
        self.hidden = 0
        """How many events have been hidden."""
        self._waiting = bytearray()
        self._looked = 0
        self._swallow = False
        self._open = False

    def show(self, chunk: bytes) -> bytes:
        """What is to be seen now that this chunk is there; may be empty."""
        if self._open:
            return chunk
        if (
            not self._waiting
            and not self._swallow
            and chunk[-2:] == b"\n\n"
            and not _NO_CHOICES.search(chunk)
        ):
            return chunk
        if self._swallow:
            self._swallow = False
            chunk = chunk.removeprefix(b"\n")
        waiting = self._waiting
        waiting += chunk
        end = sse.boundary(waiting, max(0, self._looked - 3))
        if not end:
            self._looked = len(waiting)
            if self._looked > LONGEST_WAIT:
                self._open = True
                return self.left()
            return b""
        whole = bytes(waiting[:end])
        del waiting[:end]
        self._looked = len(waiting)
        return self._without_usage(whole) if _NO_CHOICES.search(whole) else whole

    def rest(self) -> bytes:
        """What is left to be seen when no more comes."""
        left = self.left()
        return b"" if self._is_usage(left) else left

    def left(self) -> bytes:
        """Every byte that waits, as it came; none waits any more."""
        left = bytes(self._waiting)
        self._waiting.clear()
        return left

    def _without_usage(self, block: bytes) -> bytes:
        shown: list[bytes] = []
        while end := sse.first_end(block):
            event, block = block[:end], block[end:]
            if not self._is_usage(event):
                shown.append(event)
            else:
                # The LF of its last CRLF may be still to come.
                self._swallow = not block and event.endswith(b"\r")
        return b"".join((*shown, block))

    def _is_usage(self, event: bytes) -> bool:
        if not _NO_CHOICES.search(event):
            return False
        try:
            document = parse(sse.data(sse.normalise(event)))
        except ValueError:
            return False
        found = (
            type(document) is dict and document.get("choices") == [] and type(document.get("usage")) is dict
        )
        self.hidden += found
        return found


class CodedVeil(Veil):
    """The same over a stream that came in a content coding, though it was asked for without."""

    def __init__(self, decoder: Decoder, encoder: Encoder) -> None:
        super().__init__()
        self._decoder = decoder
        self._encoder = encoder

    def show(self, chunk: bytes) -> bytes:
        """What is to be seen, in its coding, flushed."""
        return self._encoder.encode(b"".join(map(super().show, self._decoder.decode(chunk))))

    def rest(self) -> bytes:
        """What is left, and the end of the coding."""
        return self._encoder.encode(super().rest()) + self._encoder.end()


def veil_for(content_encoding: str) -> Veil | None:
    """What hides the answer in a stream of this coding; None where nothing can."""
    if content_encoding.strip().lower() in ("", "identity"):
        return Veil()
    decoder = decoder_for(content_encoding)
    try:
        return None if decoder is None else CodedVeil(decoder, Encoder(content_encoding))
    except LookupError:
        return None
