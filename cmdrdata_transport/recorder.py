"""Watches one answer, from the request's start to the first sign of its end, and writes the event.

Knows what the tee shows it: the head, the chunks, how it ended. Everything here runs inside somebody's
call, so everything runs behind the wall: whatever goes wrong is counted, and nothing is raised. Takes
no lock and starts nothing, because an answer may end in garbage collection. Does not know where
events go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from time import gmtime, perf_counter, strftime, time
from typing import Any, Protocol

from cmdrdata_transport.attribution import Attribution
from cmdrdata_transport.body import Body, Refusal, body_for
from cmdrdata_transport.event import FORMAT, encode
from cmdrdata_transport.providers.reading import Answer, Part
from cmdrdata_transport.providers.routing import Route
from cmdrdata_transport.wire.coding import Decoder, decoder_for
from cmdrdata_transport.wire.json import parse

LARGEST_REQUEST = 1024 * 1024
"""A larger request body is not searched for its model."""

LARGEST_EVENT = 256 * 1024
"""An event that would be larger leaves its raw usage out."""

LONGEST_TEXT = 512
"""Ids and names from a provider are cut to this many characters."""

PATIENCE = 64
"""How many calm chunks of a stream may pass before we read them."""

WAITING = 128 * 1024
"""How many bytes of them, judged by those before."""

CALM = b"}\n\n"
"""How a chunk ends that ends an ordinary event; `data: [DONE]` does not, nor does half an event."""

SUCCESS, REDIRECT, FAILURE = 200, 300, 400

NEVER_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
    }
)
"""Exceptions of httpx and httpx2 after which no provider can have seen the request."""

CANCELLED = frozenset({"GeneratorExit", "CancelledError", "Cancelled", "KeyboardInterrupt", "SystemExit"})
"""Exceptions by which a caller, a task or a person gives up (asyncio, trio, Python)."""

Headers = list[tuple[bytes, bytes]]


class Request(Protocol):
    """What httpx.Request and httpx2.Request have in common, as far as we look."""

    method: str

    @property
    def url(self) -> Any:
        """With `raw_host` and `raw_path`."""
        ...

    @property
    def headers(self) -> Any:
        """With `raw`."""
        ...

    @property
    def content(self) -> bytes:
        """The body; raises where it is a stream."""
        ...

    @property
    def extensions(self) -> Any:
        """A mapping."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a tracker tells its meters and recorders."""

    record: Callable[[bytes], None]
    """Takes one event as a line of JSON; must not raise, nor take a lock."""
    count: Callable[..., None]
    ready: Callable[[], None]
    """Called where a request starts, never where it ends; may start threads."""
    epoch: Callable[[], int]
    """Changes in a forked child: a call that its parent began is its parent's to record."""
    library_version: str
    service: str | None = None
    require_customer: bool = False
    record_error_messages: bool = False
    disabled: bool = False


_metered: ContextVar[Any] = ContextVar("cmdrdata_metered", default=None)
"""The URL of the request that a tracked transport is sending, so that a second one below it is quiet."""


def is_being_metered(url: Any) -> bool:
    """Whether a tracked transport above is sending a request to this URL."""
    outer = _metered.get()
    return outer is not None and bool(outer == url)


class Recorder:
    """Watches one answer.

    The tee appends each chunk to `kept` and asks `look` to read them: for every chunk or, where `calm`
    or `mark` is set, only for a chunk that does not end in `calm`, or holds `mark`. `end` may be called
    from anywhere, any number of times; the first call counts.
    """

    __slots__ = (
        "_attempt",
        "_body",
        "_content_type",
        "_decoder",
        "_epoch",
        "_first_byte",
        "_headers",
        "_open",
        "_outer",
        "_request",
        "_route",
        "_settings",
        "_started",
        "_status",
        "_ticks",
        "_unreadable",
        "_who",
        "calm",
        "kept",
        "mark",
    )

    def __init__(
        self, settings: Settings, route: Route, who: Attribution, request: Request, attempt: bytes | None
    ) -> None:
        self._settings = settings
        self._route = route
        self._who = who
        self._request = request
        self._attempt = attempt
        self._epoch = settings.epoch()
        self._status: int | None = None
        self._first_byte: float | None = None
        self._headers: dict[bytes, bytes] = {}
        self._content_type = ""
        self._decoder: Decoder | None = None
        self._body: Body | None = None
        self._unreadable = False
        self.kept: list[bytes] = []
        self.calm: bytes | None = None
        self.mark: bytes | None = None
        # Popping from a list is one step in CPython: of two threads that end this, one wins.
        self._open = [True]
        self._outer = _metered.get()
        _metered.set(request.url)
        self._started = time()
        self._ticks = perf_counter()

    def sent(self) -> None:
        """The transport below has returned or raised; what it sends from here on is another matter."""
        _metered.set(self._outer)

    def answered(self, status: int, headers: Headers, content: bytes | None) -> bool:
        """The head of the answer. True when its body is to be watched.

        `content` is the whole body, its coding undone, where it has been read already: a mock's or a
        cache's answer gives no other sign of its end.
        """
        try:
            return self._begin(status, headers, content)
        except Exception as error:
            self._fail(error)
            return False

    def look(self) -> int:
        """Read what the tee kept. How many chunks it may keep before the next look."""
        try:
            return self._look()
        except Exception as error:
            self._fail(error)
            self.kept.clear()
            return PATIENCE

    def end(self, error: BaseException | None = None, *, closed: bool = False) -> None:
        """The answer is over: read to its end, or closed before that, or broken by `error`."""
        try:
            self._open.pop()
        except IndexError:
            return
        try:
            if self._epoch == self._settings.epoch():
                self._finish(error, closed=closed)
        except Exception as failure:
            self._fail(failure)

    def __del__(self) -> None:
        # An answer that nobody read or closed leaves no other trace: httpx calls nothing then.
        if self._open:
            self._settings.count("abandoned")
            self.end(closed=True)

    def _fail(self, error: Exception) -> None:
        self._settings.count("internal_errors", type(error).__name__)
        self._unreadable = True

    def _lose(self, name: str) -> None:
        self._settings.count(name, f"{self._route.provider} {self._route.shape.api}")

    def _begin(self, status: int, raw: Headers, content: bytes | None) -> bool:
        self._first_byte = perf_counter()
        self._status = status
        if REDIRECT <= status < FAILURE:
            self._open.clear()
            return False
        headers = self._headers = {name.lower(): value for name, value in raw}
        self._content_type = headers.get(b"content-type", b"").decode("latin-1").lower()
        if status >= FAILURE:
            self._body = Refusal(self._route.shape)
        if content is not None:
            self._feed((content,))
            self.end()
            return False
        if (coding := headers.get(b"content-encoding")) is not None:
            try:
                self._decoder = decoder_for(coding.decode("latin-1"))
            except ValueError:
                self._undecodable()
        stream = self._route.shape.stream
        if stream is not None and self._decoder is None and "event-stream" in self._content_type:
            self.calm = CALM if stream.done else None
            self.mark = stream.mark
        return True

    def _look(self) -> int:
        kept = self.kept
        waiting, chunks = sum(map(len, kept)), len(kept)
        self._take_kept()
        body = self._body
        if body is None:
            return 0
        if body.over:
            self.end()
        if body.eager:
            return -1
        return min(PATIENCE, chunks * WAITING // (waiting + 1))

    def _take_kept(self) -> None:
        kept = self.kept
        if self._open and not self._unreadable:
            self._undo_coding_and_feed(kept)
        kept.clear()

    def _undo_coding_and_feed(self, chunks: list[bytes]) -> None:
        if self._decoder is None:
            self._feed(chunks)
            return
        try:
            for chunk in chunks:
                self._feed(self._decoder.decode(chunk))
        except ValueError:
            self._undecodable()

    def _undecodable(self) -> None:
        self._unreadable = True
        self._lose("undecodable")

    def _feed(self, pieces: Iterable[bytes]) -> None:
        pieces = iter(pieces)
        while self._body is None and not self._unreadable and (piece := next(pieces, None)) is not None:
            if start := piece.lstrip(b" \t\r\n\xef\xbb\xbf"):
                self._body = body_for(start[0], self._content_type, self._route.shape, self._lose)
                if self._body is None:
                    self._unreadable = True
                    self._lose("unparsed")
                else:
                    self._body.add((piece,))
        if self._body is not None:
            self._body.add(pieces)

    def _finish(self, error: BaseException | None, *, closed: bool) -> None:
        if self.kept and not self._unreadable:
            self._undo_coding_and_feed(self.kept)
        self.kept.clear()
        body, self._body = self._body, None
        if body is not None:
            body.finish(at_end=error is None and not closed)
        self._write(body, error, closed=closed)

    # --- the event ---

    def _write(self, body: Body | None, error: BaseException | None, *, closed: bool) -> None:
        settings, route, who = self._settings, self._route, self._who
        answer = body.answer if body is not None else Answer(route.shape)
        parts = answer.parts(self._report)
        errors = answer.errors
        if error is not None and not errors and type(error).__name__ not in CANCELLED:
            errors = {"error_type": type(error).__name__}
        found = answer.found
        event: dict[str, Any] = {
            "format": FORMAT,
            "event_id": new_event_id(self._started),
            "timestamp": timestamp(self._started),
        }
        if who.customer is not None:
            event["customer_id"] = who.customer
        if who.metadata:
            event["metadata"] = who.metadata
        if settings.service is not None:
            event["service"] = settings.service
        event["library_version"] = settings.library_version
        event["provider"] = route.provider
        request_model = route.model or self._request_model()
        model = _text(found.get("model")) or request_model
        if model is not None:
            event["model"] = model
        if request_model is not None:
            event["request_model"] = request_model
        event["operation"] = route.shape.operation
        event["api"] = route.shape.api
        event["host"] = route.host
        if self._status is not None:
            event["streaming"] = body is not None and body.streaming
            event["status_code"] = self._status
        for name in ("response_id", "finish_reason"):
            if (value := _text(found.get(name))) is not None:
                event[name] = value
        if (value := self._header(route.table.request_id)) is not None:
            event["request_id"] = value
        if (value := _text(found.get("service_tier")) or self._header(route.table.service_tier)) is not None:
            event["service_tier"] = value
        if self._attempt is not None and self._attempt.isdigit():
            event["attempt"] = int(self._attempt)
        details = {name: found[name] for name in route.shape.details if name in found}
        if details:
            event["details"] = details
        status, outcome = self._judge(body, parts, errors, error, closed=closed)
        event["usage_status"] = status
        event["outcome"] = outcome
        now = perf_counter()
        event["request_duration_ms"] = round((now - self._ticks) * 1000, 3)
        if self._first_byte is not None:
            event["time_to_first_byte_ms"] = round((self._first_byte - self._ticks) * 1000, 3)
        for name, value in errors.items():
            if name != "error_message" or settings.record_error_messages:
                event[name] = value[:LONGEST_TEXT]
        self._send(event, parts)

    def _send(self, event: dict[str, Any], parts: list[Part]) -> None:
        """One event a part: the first has the call's own facts, the others their model and counts."""
        settings = self._settings
        first, *others = parts
        if others:
            event["part"] = 0
        settings.count("events")
        _line(settings, event, first)
        for number, part in enumerate(others, start=1):
            shared = {name: event[name] for name in _SHARED if name in event}
            shared["event_id"] = new_event_id(self._started)
            shared["part"] = number
            shared["model"] = _text(part.model) or event.get("model")
            settings.count("events")
            _line(settings, shared, part)

    def _judge(
        self,
        body: Body | None,
        parts: list[Part],
        errors: dict[str, str],
        error: BaseException | None,
        *,
        closed: bool,
    ) -> tuple[str, str]:
        """`usage_status` and `outcome`: what is true of this answer, not what is likely."""
        given_up = closed or (error is not None and type(error).__name__ in CANCELLED)
        if self._status is None:
            sent = error is None or type(error).__name__ not in NEVER_SENT
            return "none", "cancelled" if given_up else "unknown" if sent else "error"
        if self._status >= FAILURE:
            return "none", "error"
        whole = body.whole if body is not None else not given_up and error is None
        counted = bool(parts[0].counts)
        if not whole:
            self._settings.count("partial")
            return "partial", "error" if errors else "cancelled" if given_up else "unknown"
        if counted:
            return "complete", "error" if errors else "ok"
        if errors or (body is not None and body.answer.found.get("pending")):
            return "none", "error" if errors else "ok"
        self._lose("missing")
        return "missing", "ok"

    def _report(self, unit: str) -> None:
        self._settings.count("bad_counts", f"{self._route.provider} {unit}")

    def _header(self, names: tuple[str, ...]) -> str | None:
        for name in names:
            if (value := self._headers.get(name.encode())) is not None:
                return value.decode("latin-1")[:LONGEST_TEXT]
        return None

    def _request_model(self) -> str | None:
        try:
            content = self._request.content
        except Exception:
            return None  # a body that is sent as it is made is not ours to read
        if not content.startswith(b"{") or len(content) > LARGEST_REQUEST:
            return None
        try:
            document = parse(content)
        except ValueError:
            return None
        return _text(document.get("model"))


_SHARED = (
    "format",
    "timestamp",
    "customer_id",
    "metadata",
    "service",
    "library_version",
    "provider",
    "request_model",
    "operation",
    "api",
    "host",
    "streaming",
    "status_code",
    "response_id",
    "request_id",
    "attempt",
    "usage_status",
    "outcome",
)
"""What every part of one answer says; time and finish reason are the first part's."""


def _line(settings: Settings, event: dict[str, Any], part: Part) -> None:
    if part.counts:
        event.update(part.counts)
        event["usage_source"] = "body"
    if part.raw is not None:
        event["raw_usage"] = part.raw
    line = encode(event)
    if len(line) > LARGEST_EVENT and "raw_usage" in event:
        settings.count("raw_usage_dropped")
        del event["raw_usage"]
        line = encode(event)
    settings.record(line)


def _text(value: Any) -> str | None:
    return value[:LONGEST_TEXT] if type(value) is str and value else None


def new_event_id(seconds: float) -> str:
    """A random id that sorts by time: a UUID of version 7 (RFC 9562)."""
    random = int.from_bytes(os.urandom(10))
    value = (
        int(seconds * 1000) << 80
        | 7 << 76
        | (random >> 68) << 64
        | 2 << 62
        | (random & 0x3FFF_FFFF_FFFF_FFFF)
    )
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def timestamp(seconds: float) -> str:
    """A moment as ISO 8601 in UTC, to the microsecond."""
    whole = int(seconds)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{int((seconds - whole) * 1_000_000):06d}Z"
