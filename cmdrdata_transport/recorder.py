"""Watches one answer, from the request's start to the first sign of its end, and writes the event.

Knows what the tee shows it: the head, the chunks, how it ended. Everything here runs inside somebody's
call, so everything runs behind the wall: whatever goes wrong is counted, and nothing is raised. Takes
no lock and starts nothing, because an answer may end in garbage collection. Does not know where
events go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from time import gmtime, perf_counter, strftime, time
from types import MappingProxyType
from typing import Any, Protocol

from cmdrdata_transport.attribution import Attribution
from cmdrdata_transport.body import CALM, Body, Events, Refusal, body_for, is_stream
from cmdrdata_transport.event import FORMAT, encode
from cmdrdata_transport.providers.reading import LONGEST_TEXT, Answer, Part, pick, read_headers, read_request
from cmdrdata_transport.providers.routing import Route
from cmdrdata_transport.wire.coding import Decoder, decoder_for
from cmdrdata_transport.wire.json import parse

LARGEST_REQUEST = 1024 * 1024
"""A larger request body is not searched for its model."""

LARGEST_EVENT = 256 * 1024
"""An event that would be larger leaves its raw usage out."""

PATIENCE = 64
"""How many calm chunks of a stream may pass before we read them."""

WAITING = 128 * 1024
"""How many bytes of them, judged by those before."""

FEW = 3
"""How many chunks of one document may pass before we read them: most come in fewer."""

LONGEST_ATTEMPT = 9
"""Digits; a header with more is not the number of an attempt."""

REDIRECT, FAILURE = 300, 400

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


class Recorder:
    """Watches one answer.

    The tee appends each chunk to `kept` and asks `look` to read them: for every chunk or, where `calm`
    or `mark` is set, only for a chunk whose third byte from the end is not `calm`, or that holds `mark`.
    `end` may be called from anywhere, any number of times; the first call counts.
    """

    # Defaults on the class: most answers need few of them changed.
    calm: int | None = None
    mark: bytes | None = None
    patience = 0
    _status: int | None = None
    _first_byte = 0.0
    _headers: Mapping[bytes, bytes] = MappingProxyType({})
    _content_type = ""
    _decoder: Decoder | None = None
    _body: Body | None = None
    _unreadable = False
    _spoiled = False

    def __init__(
        self, settings: Settings, route: Route, who: Attribution, request: Request, attempt: bytes | None
    ) -> None:
        self._settings = settings
        self._route = route
        self._who = who
        self._request = request
        self._attempt = attempt
        self._epoch = settings.epoch()
        self.kept: list[bytes] = []
        # Popping from a list is one step in CPython: of two threads that end this, one wins.
        self._open = [True]
        self._outer = _metered.get()
        self._sending = [request.url]
        _metered.set(self._sending)
        self._started = time()
        self._ticks = perf_counter()

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
                self._feed((content,))
                self.end()
                return False
            if b"content-encoding" in said:
                self._decoder = decoder_for(said[b"content-encoding"].decode("latin-1"))
            if "event-stream" not in kind:
                self.patience = -1 if is_stream(kind) else FEW
            elif self._decoder is None and (stream := self._route.shape.stream) is not None:
                self.calm = CALM if stream.done else None
                self.mark = stream.mark
        except Exception as error:
            self._fail(error)
        return True

    def look(self) -> int:
        """Read what the tee kept. How many chunks it may keep before the next look."""
        try:
            kept = self.kept
            if not self._open or self._unreadable:
                kept.clear()
                return FEW
            chunks, waiting = len(kept), sum(map(len, kept))
            self._read_kept()
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
        try:
            self._open.pop()
        except IndexError:
            return
        try:
            if self._epoch == self._settings.epoch():
                if self.kept and not self._unreadable:
                    self._read_kept()
                body, self._body = self._body, None
                if body is not None:
                    body.finish(at_end=error is None and not closed)
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

    def _lose(self, name: str) -> None:
        self._settings.count(name, f"{self._route.provider} {self._route.shape.api}")

    def _read_kept(self) -> None:
        kept = self.kept
        if self._decoder is not None:
            try:
                for chunk in kept:
                    for piece in self._decoder.decode(chunk):
                        self._feed((piece,))
            except ValueError:
                self._undecodable()
        elif self.calm is not None and isinstance(self._body, Events):
            # All but the newest were calm, or the tee had asked before.
            newest = kept.pop()
            if kept:
                self._body.add_ordinary(kept)
            self._body.add((newest,))
        elif kept:
            self._feed(kept if len(kept) == 1 else (b"".join(kept),))
        kept.clear()

    def _undecodable(self) -> None:
        self._unreadable = True
        self._lose("undecodable")

    def _feed(self, pieces: Sequence[bytes]) -> None:
        if self._body is None and not self._unreadable:
            self._choose_body(pieces)
        if self._body is not None:
            self._body.add(pieces)

    def _choose_body(self, pieces: Sequence[bytes]) -> None:
        """By the first byte that is no blank; blanks before it may be left out."""
        for piece in pieces:
            if start := piece.lstrip(b" \t\r\n\xef\xbb\xbf"):
                self._body = body_for(start[0], self._content_type, self._route.shape, self._lose)
                if self._body is None:
                    self._unreadable = True
                    if not (self._route.shape.headers or self._route.shape.request):
                        self._lose("unparsed")
                return

    # --- the event ---

    def _write(self, body: Body | None, error: BaseException | None, *, closed: bool) -> None:
        settings, route, who = self._settings, self._route, self._who
        answer = body.answer if body is not None else Answer(route.shape)
        parts = answer.parts(self._report)
        asked = self._asked()
        source = "body" if parts[0].counts else None
        if source is None and self._status is not None and self._status < REDIRECT:
            source, parts[0] = self._count_elsewhere(parts[0], asked)
        status, outcome = self._judge(
            body, parts, error, closed=closed, elsewhere=source in ("header", "request")
        )
        found, errors = answer.found, answer.errors
        if outcome != "ok" and not errors and error is not None and type(error).__name__ not in CANCELLED:
            errors = {"error_type": type(error).__name__}
        now = perf_counter()
        event: dict[str, Any] = {
            "format": FORMAT,
            "event_id": new_event_id(self._started),
            "timestamp": timestamp(self._started),
            "library_version": settings.library_version,
            **route.constants,
            **found,
            "usage_status": status,
            "outcome": outcome,
            "request_duration_ms": round((now - self._ticks) * 1000, 3),
        }
        if who.customer is not None:
            event["customer_id"] = who.customer
        if who.metadata:
            event["metadata"] = who.metadata
        if settings.service is not None:
            event["service"] = settings.service
        self._describe_request(event, asked, answer.details)
        if self._status is not None:
            self._describe_answer(event, body)
        for name, value in errors.items():
            if name != "error_message" or settings.record_error_messages:
                event[name] = value[:LONGEST_TEXT]
        if len(parts) == 1:
            _line(settings, event, parts[0], source)
            return
        # One event for each model that took part: the first has the call's own facts, every one its counts.
        shared = {name: event[name] for name in _SHARED if name in event}
        _line(settings, event | {"part": 0}, parts[0], source)
        for number, part in enumerate(parts[1:], start=1):
            own = shared | {"event_id": new_event_id(self._started), "part": number}
            if part.model is not None:
                own["model"] = part.model[:LONGEST_TEXT]
            _line(settings, own, part, source)

    def _describe_request(
        self, event: dict[str, Any], asked: Mapping[str, Any], details: Mapping[str, Any]
    ) -> None:
        shape = self._route.shape
        key = shape.request_model_key
        model = self._route.model or (pick(asked, shape.request_model) if key is None else asked.get(key))
        if type(model) is str and model:
            event["request_model"] = model = model[:LONGEST_TEXT]
            event.setdefault("model", model)
        if self._attempt is not None and self._attempt.isdigit() and len(self._attempt) <= LONGEST_ATTEMPT:
            event["attempt"] = int(self._attempt)
        for name, paths in shape.request_details.items():
            if name not in details and (value := pick(asked, paths)) is not None:
                details = {**details, name: value}
        if details:
            event["details"] = details

    def _describe_answer(self, event: dict[str, Any], body: Body | None) -> None:
        table = self._route.table
        event["status_code"] = self._status
        event["streaming"] = "event-stream" in self._content_type if body is None else body.streaming
        event["time_to_first_byte_ms"] = round((self._first_byte - self._ticks) * 1000, 3)
        if (value := self._header(table.request_id)) is not None:
            event["request_id"] = value
        if table.service_tier and (value := self._header(table.service_tier)) is not None:
            event["service_tier"] = value

    def _judge(
        self,
        body: Body | None,
        parts: list[Part],
        error: BaseException | None,
        *,
        closed: bool,
        elsewhere: bool,
    ) -> tuple[str, str]:
        """`usage_status` and `outcome`: what is true of this answer, not what is likely."""
        given_up = closed or (error is not None and type(error).__name__ in CANCELLED)
        if self._status is None:
            sent = error is None or type(error).__name__ not in NEVER_SENT
            return "none", "cancelled" if given_up else "unknown" if sent else "error"
        if self._status >= FAILURE:
            return "none", "error"
        failed = body is not None and body.answer.failed
        whole = body.whole if body is not None else not given_up and error is None
        if elsewhere:
            return "complete", "error" if failed else "ok" if whole else "cancelled" if given_up else "error"
        if not whole or (failed and not parts[0].counts and body is not None and body.streaming):
            self._settings.count("partial")
            if failed or (error is not None and not given_up):
                return "partial", "error"
            return "partial", "cancelled" if given_up else "unknown"
        if parts[0].counts:
            # A count that was no count is a part of the usage that is not known.
            return "partial" if self._spoiled else "complete", "error" if failed else "ok"
        if failed or (body is not None and body.answer.pending):
            return "none", "error" if failed else "ok"
        self._lose("missing")
        return "missing", "ok"

    def _report(self, unit: str) -> None:
        self._spoiled = True
        self._settings.count("bad_counts", f"{self._route.provider} {unit}")

    def _header(self, names: tuple[bytes, ...]) -> str | None:
        for name in names:
            if (value := self._headers.get(name)) is not None:
                return value.decode("latin-1")[:LONGEST_TEXT]
        return None

    def _count_elsewhere(self, part: Part, asked: Mapping[str, Any]) -> tuple[str | None, Part]:
        """The counts of an answer whose body states none: of its headers, else of what was asked."""
        shape = self._route.shape
        if shape.headers and (counts := read_headers(shape.headers, self._headers)):
            told = {
                name.decode(): self._headers[name].decode("latin-1")
                for name in shape.headers
                if name in self._headers
            }
            return "header", part._replace(counts=counts, raw=part.raw or told)
        if shape.request and (counts := read_request(shape.request, asked, self._report)):
            return "request", part._replace(counts=counts)
        return None, part

    def _asked(self) -> Mapping[str, Any]:
        """The request's JSON, or the text fields of its form; empty where it is not in memory."""
        try:
            content = self._request.content
        except Exception:
            # A form is made as it is sent. httpx keeps its fields in the stream; a file has no such value.
            fields = getattr(getattr(self._request, "stream", None), "fields", ())
            return {each.name: each.value for each in fields if type(getattr(each, "value", None)) is str}
        if content[:1] != b"{" or len(content) > LARGEST_REQUEST:
            return {}
        try:
            document = parse(content)
        except ValueError:
            return {}
        return document if type(document) is dict else {}


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


def _line(settings: Settings, event: dict[str, Any], part: Part, source: str | None) -> None:
    if part.counts:
        event.update(part.counts)
        event["usage_source"] = source
    # Until its end an answer's cost is what has come up so far, or zero (Perplexity).
    if part.cost is not None and event["usage_status"] != "partial":
        event["provider_cost"] = part.cost
    if part.raw is not None:
        event["raw_usage"] = part.raw
    try:
        line = encode(event)
    except RecursionError:
        line = b""  # nested deeper than can be written
    if "raw_usage" in event and not 0 < len(line) <= LARGEST_EVENT:
        settings.count("raw_usage_dropped")
        del event["raw_usage"]
        line = encode(event)
    settings.record(line)
    settings.count("events")


_random = Random()  # noqa: S311 - an id is to be unique, not secret; asking the system each time costs more
_chance = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)


def new_event_id(seconds: float) -> str:
    """A random id that sorts by time: a UUID of version 7 (RFC 9562), 72 bits of it random."""
    when, chance = f"{int(seconds * 1000):012x}", f"{_chance(72):018x}"
    return f"{when[:8]}-{when[8:]}-7{chance[:3]}-8{chance[3:6]}-{chance[6:]}"


def timestamp(seconds: float) -> str:
    """A moment as ISO 8601 in UTC, to the microsecond."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))
