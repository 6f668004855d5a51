"""Watches one answer, from the request's start to the first sign of its end, and has its event written.

Knows what the tee shows it: the head, the chunks, how it ended. Everything here runs inside somebody's
call, so everything runs behind the wall: whatever goes wrong is counted, and nothing is raised. Takes
no lock and starts nothing, because an answer may end in garbage collection. Does not know where
events go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from time import perf_counter
from types import MappingProxyType
from typing import Any

from cmdrdata_transport.account import FAILURE, REDIRECT, Headers, Request, Settings
from cmdrdata_transport.asking import REFUSALS, Veil, names_the_option, veil_for
from cmdrdata_transport.attribution import Attribution
from cmdrdata_transport.batch import Batch
from cmdrdata_transport.body import CALM, Body, Events, Refusal, body_for, is_stream
from cmdrdata_transport.guess import Guess
from cmdrdata_transport.providers.routing import NOBODY, Route
from cmdrdata_transport.teller import Teller
from cmdrdata_transport.wire.coding import Decoder, decoder_for

PATIENCE = 64
"""How many calm chunks of a stream may pass before we read them."""

WAITING = 128 * 1024
"""How many bytes of them, judged by those before."""

FEW = 3
"""How many chunks of one document may pass before we read them: most come in fewer."""

_metered: ContextVar[list[Any] | None] = ContextVar("cmdrdata_metered", default=None)
"""The URL of the request that a tracked transport is sending, so that a second one below it is quiet.

In a list that is emptied when it is sent: a task that was started meanwhile has this value for ever.
"""


def is_being_metered(url: Any) -> bool:
    """Whether a tracked transport above is sending a request to this URL."""
    outer = _metered.get()
    try:
        return outer is not None and bool(outer[0] == url)
    except IndexError:  # sent, perhaps just now and in another thread
        return False


class Recorder(Teller):
    """Watches one answer.

    The tee appends each chunk to `kept` and asks `look` to read them: for every chunk or, where `calm`
    or `mark` is set, only for a chunk whose third byte from the end is not `calm`, or that holds `mark`.
    `end` may be called from anywhere, any number of times; the first call counts.
    """

    # Defaults on the class: most answers need few of them changed.
    calm: int | None = None
    mark: bytes | None = None
    patience = 0
    asked: bytes | None = None
    """The body to send instead of the request's own: it asks for usage."""
    veil: Veil | None = None
    """What hides the answer to that."""
    drains = False
    """Whether the rest is to be read where the application closes it early."""
    connection: Mapping[str, Any] = MappingProxyType({})
    """What the transport below says of the one that is read then (httpx's response extensions); sync."""
    _draining = False
    shown: bytes | None = None
    """Of a body that has been read already: what is left of it without that."""
    _decoder: Decoder | None = None
    _body: Body | None = None
    _unreadable = False

    def __init__(
        self, settings: Settings, route: Route, who: Attribution, request: Request, attempt: bytes | None
    ) -> None:
        self._epoch = settings.epoch()
        self.kept: list[bytes] = []
        # Popping from a list is one step in CPython: of two threads that end this, one wins.
        self._open = [True]
        self._outer = _metered.get()
        self._sending = [request.url]
        _metered.set(self._sending)
        super().__init__(settings, route, who, request, attempt)

    def sent(self) -> None:
        """The transport below has returned or raised; what it sends from here on is another matter."""
        self._sending.clear()
        _metered.set(self._outer)

    def answered(self, status: int, headers: Headers, content: bytes | None) -> bool:
        """The head of the answer. True when its body is to be watched.

        `content` is the whole body, its coding undone, where it has been read already: a mock's or a
        cache's answer gives no other sign of its end.
        """
        try:
            self._first_byte = perf_counter()
            self._status = status
            if REDIRECT <= status < FAILURE:
                self._open.clear()
                return False
            said = self._headers = {name.lower(): value for name, value in headers}
            self._content_type = kind = said.get(b"content-type", b"").decode("latin-1").lower()
            if status >= FAILURE:
                self._body = Refusal(self._route.shape)
            if content is not None:
                if self.asked is not None and status < REDIRECT:
                    self._show_without(content)
                self._feed((content,))
                self.end()
                return False
            if self.asked is not None and status < REDIRECT:
                self._veil_answer(said.get(b"content-encoding", b""))
            if b"content-encoding" in said:
                self._decoder = decoder_for(said[b"content-encoding"].decode("latin-1"))
            self.drains = self._settings.drain_seconds is not None and status < REDIRECT and is_stream(kind)
            if "event-stream" not in kind:
                self.patience = -1 if is_stream(kind) else FEW
            elif self._decoder is None and (stream := self._route.shape.stream) is not None:
                self.calm = CALM if stream.done else None
                self.mark = stream.mark
        except Exception as error:
            self._fail(error)
        return True

    def ask(self, content: bytes) -> None:
        """Ask for usage too: this body does."""
        self.asked = content
        self._settings.count("injected")

    def is_refused(self, headers: Headers, refusal: bytes) -> bool:
        """Whether the answer is about what we asked; then the request is to be sent as it was."""
        try:
            said = {name.lower(): value for name, value in headers}
            decoder = decoder_for(said.get(b"content-encoding", b"").decode("latin-1"))
            if decoder is not None:
                refusal = b"".join(decoder.decode(refusal))
        except ValueError:
            return False  # it is damaged; the application sees it as it is
        except Exception as error:
            self._settings.count("internal_errors", type(error).__name__)
            return False
        if not names_the_option(refusal):
            return False
        self.asked = None
        return True

    def answered_without(self, status: int) -> None:
        """The same request was answered so as it was. If it was the option, this host is asked no more."""
        if status not in REFUSALS:
            self._settings.count("injections_refused", self._route.host)
            self._settings.declined.add(self._request.url.netloc)

    def _lose_veil(self, why: str) -> None:
        """What we asked for is seen from here on."""
        self._settings.count("usage_shown", why)

    def _veil_answer(self, content_encoding: bytes) -> None:
        self.veil = veil_for(content_encoding.decode("latin-1"), self._lose_veil)
        if self.veil is None:
            self._lose_veil(content_encoding.decode("latin-1"))

    def _show_without(self, content: bytes) -> None:
        veil = Veil(self._lose_veil)
        shown = veil.show(content) + veil.rest()
        if shown != content:
            self.shown = shown

    @property
    def drain_seconds(self) -> float:
        """How long reading the rest may take."""
        return self._settings.drain_seconds or 0.0

    def drain(self) -> bool:
        """The application closes its stream; whether the rest is still to be read for what it says."""
        if not self._open or self._unreadable or self._draining:
            return False
        self._draining = True
        return True

    def drained(self) -> None:
        """The rest has been read, or as much of it as may be."""
        if self._open:
            self._settings.count("drain_given_up")
            self._draining = False
            self.end(closed=True)
        else:
            self._settings.count("drained")

    def look(self) -> int:
        """Read what the tee kept. How many chunks it may keep before the next look."""
        try:
            kept = self.kept
            if not self._open or self._unreadable:
                kept.clear()
                return FEW
            chunks, waiting = len(kept), self._read_kept()
            body = self._body
            if body is None:
                return 0
            if body.over:
                self.end()
            if body.eager or (self._decoder is not None and body.streaming):
                return -1
            return min(PATIENCE, chunks * WAITING // (waiting + 1))
        except Exception as error:
            self._fail(error)
            self.kept.clear()
            return FEW

    def end(self, error: BaseException | None = None, *, closed: bool = False) -> None:
        """The answer is over: read to its end, or closed before that, or broken by `error`."""
        if not self._open:
            return
        # Whoever closes the stream has the rest of it read; so has whoever only drops its iterator first.
        if self.drains and (self._draining or type(error) is GeneratorExit) and (closed or error is not None):
            return
        try:
            self._open.pop()
        except IndexError:
            return
        try:
            if self._epoch == self._settings.epoch():
                if self.kept:
                    self._read_kept()
                body, self._body = self._body, None
                if body is not None:
                    body = self._finish(body, at_end=error is None and not closed)
                self._write(body, error, closed=closed)
        except Exception as failure:
            self._fail(failure)
        self.kept.clear()

    def __del__(self) -> None:
        # An answer that nobody read or closed leaves no other trace: httpx calls nothing then.
        if self._open:
            self._settings.count("abandoned")
            self.end(closed=True)

    def _fail(self, error: Exception) -> None:
        self._settings.count("internal_errors", type(error).__name__)
        self._unreadable = True

    def _read_kept(self) -> int:
        """Read what the tee kept, unless nothing can be read any more. How many bytes that was."""
        kept = self.kept
        self._chunks += len(kept)
        if self._unreadable or self._decoder is not None:
            waiting = sum(map(len, kept))
            self._bytes += waiting
            if self._decoder is not None and not self._unreadable:
                self._read_coded(self._decoder, kept)
        elif (self.calm is not None or self.mark is not None) and isinstance(self._body, Events):
            # All but the newest were calm, or without the mark, or the tee had asked before.
            newest = kept.pop()
            ordinary = b"".join(kept)
            waiting = len(ordinary) + len(newest)
            self._bytes += waiting
            if ordinary:
                self._body.add_ordinary(ordinary)
            self._body.add((newest,))
        else:
            whole = kept[0] if len(kept) == 1 else b"".join(kept)
            waiting = len(whole)
            self._bytes += waiting
            self._feed((whole,))
        kept.clear()
        return waiting

    def _read_coded(self, decoder: Decoder, chunks: list[bytes]) -> None:
        try:
            for chunk in chunks:
                for piece in decoder.decode(chunk):
                    self._feed((piece,))
        except ValueError:
            self._undecodable()

    def _finish(self, body: Body, *, at_end: bool) -> Body:
        body.finish(at_end=at_end)
        if type(body) is Guess and (known := self._recognise(body)) is not None:
            known.finish(at_end=at_end)
            return known
        if type(body) is Batch:
            self._write_results(body.take())
            if body.whole and (body.read or body.answer.yields):
                self._finish_results(body.answer.yields)
        return body

    def _recognise(self, guess: Guess) -> Body | None:
        """From here on the call is what its answer looks like, if that is known now."""
        if guess.found is None:
            return None
        if not self._has_owner():
            self._unreadable = True
            guess.found = None
            return None
        provider, shape = guess.found
        self._route = Route(provider=provider, host=self._route.host, shape=shape, table=NOBODY, known=False)
        return guess.body

    def _undecodable(self) -> None:
        self._unreadable = True
        self._lose("undecodable")

    def _feed(self, pieces: Sequence[bytes]) -> None:
        if self._body is None and not self._unreadable:
            self._choose_body(pieces)
        if self._body is not None:
            self._body.add(pieces)
            if type(self._body) is Batch:
                self._write_results(self._body.take())
            elif type(self._body) is Guess:
                self._body = self._recognise(self._body) or self._body

    def _choose_body(self, pieces: Sequence[bytes]) -> None:
        """By the first byte that is no blank; blanks before it may be left out."""
        for piece in pieces:
            if start := piece.lstrip(b" \t\r\n\xef\xbb\xbf"):
                self._body = self._body_for(start[0])
                if self._body is None:
                    self._unreadable = True
                    shape = self._route.shape
                    elsewhere = shape.headers or shape.header_details or shape.request
                    if not (elsewhere or self._route.guesses):
                        self._lose("unparsed")
                return

    def _body_for(self, first: int) -> Body | None:
        route, kind = self._route, self._content_type
        if route.shape.results is not None:
            return Batch(route.shape, route.shape.results, self._lose)
        if route.guesses:
            streaming = "event-stream" in kind
            return (
                Guess(route.guesses, self._lose, streaming=streaming) if streaming or "json" in kind else None
            )
        return body_for(first, kind, route.shape, self._lose)
