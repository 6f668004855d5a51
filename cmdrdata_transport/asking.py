"""Asks for the usage of a stream that did not ask, and hides the answer to that from the application.

Knows one option, `stream_options.include_usage` of chat completions and of the completions before them,
and the one event by which servers answer it: no choices, and usage. Everything else of a request and of
an answer stays as it is, to the byte. No I/O, no clock.

What cannot be hidden stays: with this option the other events have a member `"usage": null`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from cmdrdata_transport.wire import sse
from cmdrdata_transport.wire.coding import Decoder, decoder_for
from cmdrdata_transport.wire.json import parse, parsed
from cmdrdata_transport.wire.recoding import CODINGS, Encoder

LARGEST_REQUEST = 1024 * 1024
"""A larger body is sent as it is: it would be copied."""

LONGEST_WAIT = 16 * 1024 * 1024
"""Of an event that has no end after so many bytes nothing is held back any more."""

REFUSALS = frozenset({400, 422})
"""How servers answer what they do not know: OpenAI-like ones, and those built on pydantic."""

REFUSAL_READ = 64 * 1024
"""How much of a refusal is read to find out why."""

PLACES = 8
"""How many places in a body are tried for the caller's own options."""

ORDINARY_END = b"}\n\n"
"""How nearly every chunk ends: with its last event."""

LIST, OBJECT = b"[", ord("{")
"""Where a chunk has one list alone and that begins with an object, no choices are missing from it."""

_STREAMS = re.compile(rb'"stream"\s*:\s*true')
_OPTIONS = re.compile(rb'"stream_options"\s*:\s*(\{\s*(?=(\}?))|null)')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_NAMES_IT = re.compile(rb"stream_options|include_usage")
_DOCUMENT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")

_SIGNATURES = re.compile(rb"signature|digest|hmac|sha256|content-md5")
"""Names of headers that hold a signature or a digest (RFC 9421, RFC 9530, AWS, Oracle)."""

_SIGNED = re.compile(rb"AWS4-|Signature\b|Digest\b|Hawk\b|.*\bSignature=", re.IGNORECASE | re.DOTALL)
"""Values of an Authorization header that depend on the body, or may."""

_OPTION = b'"include_usage":true'

_SAYING = ("error", "moderation", "prompt_filter_results", "citations", "search_results")
"""What else an event without choices may have to say: OpenAI, Azure, xAI, Perplexity."""


def may_change(names: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the body of a request with these headers may be another: it is not coded, and nothing
    signs it. `names` are those of all headers, in lower case.
    """
    if b"content-encoding" in names or _SIGNATURES.search(names):
        return False
    return b"authorization" not in names or not any(
        _SIGNED.match(value) for name, value in headers if name.lower() == b"authorization"
    )


def asking(content: bytes) -> bytes | None:
    """The body that asks for usage too; None where it need not, or where it does so or not by itself."""
    if len(content) > LARGEST_REQUEST or not _STREAMS.search(content):
        return None
    document = parsed(content)
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
    for found in islice(_OPTIONS.finditer(content), PLACES):
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

    An event is shown when it is there whole; what is no stream of events, at once. `lose` is told what
    went wrong when nothing can be hidden any more: from then on everything is shown as it comes.
    """

    idle = True
    """Whether nothing waits: a chunk of ordinary events may be passed on without asking `show`."""

    def __init__(self, lose: Callable[[str], None]) -> None:
        self._lose = lose
        self._failed = False
        self._open = False
        self._waiting = bytearray()
        self._looked = 0
        self._line_feed: bytes | None = None
        """What is shown of an LF that comes next: it belongs to the CR that ended the last event."""

    def show(self, chunk: bytes) -> bytes:
        """What is to be seen now that this chunk is there; may be empty."""
        if self._failed:
            return chunk
        try:
            return self._show(chunk)
        except Exception as error:
            self._fail(error)
            return self.left() + chunk

    def rest(self) -> bytes:
        """What is left to be seen when no more comes; nothing when asked again."""
        if self._failed:
            return b""
        try:
            return self._rest()
        except Exception as error:
            self._fail(error)
            return self.left()

    def left(self) -> bytes:
        """Every byte that waits, as it came; none waits any more."""
        return self._take()

    def _take(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self._lose(type(error).__name__)

    def _show(self, chunk: bytes) -> bytes:
        if self._open or not chunk:
            return chunk
        before = b""
        if self._line_feed is not None:
            if chunk[:1] == b"\n":
                before, chunk = self._line_feed, chunk[1:]
            self._line_feed = None
        waiting = self._waiting
        waiting += chunk
        # A blank line is four bytes at most, of which the last is new.
        end = sse.boundary(waiting, max(0, self._looked - 3))
        if not end:
            if _DOCUMENT.match(waiting) or len(waiting) > LONGEST_WAIT:
                return before + self._lift()
            shown = b""
        else:
            whole = bytes(waiting[:end])
            del waiting[:end]
            shown, hidden = _without_usage(whole)
            if not waiting and whole.endswith(b"\r"):
                self._line_feed = b"" if hidden else b"\n"
        self._looked = len(waiting)
        self.idle = not waiting and self._line_feed is None
        return before + shown if before else shown

    def _lift(self) -> bytes:
        """It is a document, which is no loss, or an event that is too large."""
        self._open = self.idle = True
        if len(self._waiting) > LONGEST_WAIT:
            self._lose("too_large")
        return self._take()

    def _rest(self) -> bytes:
        left = self._take()
        return b"" if _is_usage(left) else left


def _without_usage(block: bytes) -> tuple[bytes, bool]:
    """What is to be seen of whole events, and whether the last one is not."""
    if not _NO_CHOICES.search(block):
        return block, False
    shown: list[bytes] = []
    start, hidden = 0, False
    for end in sse.ends(block):
        event = block[start:end]
        start = end
        if not (hidden := _is_usage(event)):
            shown.append(event)
    return b"".join(shown), hidden


def _is_usage(event: bytes) -> bool:
    """Whether it says what was used, and nothing else."""
    if not _NO_CHOICES.search(event):
        return False
    document = parsed(sse.data(sse.normalise(event)))
    return (
        type(document) is dict
        and document.get("choices") == []
        and type(document.get("usage")) is dict
        and not any(map(document.get, _SAYING))
    )


class CodedVeil(Veil):
    """The same over a stream that came in a content coding, though it was asked for without."""

    idle = False

    def __init__(self, lose: Callable[[str], None], decoder: Decoder, encoder: Encoder) -> None:
        super().__init__(lose)
        self._decoder = decoder
        self._encoder = encoder
        self._ended = False

    def left(self) -> bytes:
        """Every byte that waits, in its coding."""
        return self._encoder.encode(self._take())

    def _show(self, chunk: bytes) -> bytes:
        shown = b"".join(map(super()._show, self._decoder.decode(chunk)))
        self.idle = False
        return self._encoder.encode(shown)

    def _rest(self) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        return self._encoder.encode(super()._rest()) + self._encoder.end()


def veil_for(content_encoding: str, lose: Callable[[str], None]) -> Veil | None:
    """What hides the answer in a stream of this coding; None where nothing can."""
    if not content_encoding:
        return Veil(lose)
    # Names that mean no coding are passed over, as the clients do: servers say `utf-8` there.
    names = [name.strip() for name in content_encoding.lower().split(",")]
    coding = ",".join(name for name in names if name in CODINGS or name == "x-gzip")
    if not coding:
        return Veil(lose)
    decoder = decoder_for(coding)
    try:
        return None if decoder is None else CodedVeil(lose, decoder, Encoder(coding))
    except LookupError:
        return None
