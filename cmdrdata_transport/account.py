"""What is known of one call, and the events that it gives.

Knows the head of the request and of the answer, whose call it is, and how to say it in the published
format. Which answers are told is `teller`'s to decide. Does not see the bytes: `recorder` does, and `body`
reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, time
from types import MappingProxyType
from typing import Any, Protocol

from cmdrdata_transport.attribution import Attribution
from cmdrdata_transport.body import Body
from cmdrdata_transport.event import FORMAT, encode
from cmdrdata_transport.identity import derived_event_id, new_event_id, timestamp
from cmdrdata_transport.providers.reading import LONGEST_TEXT, Answer, Part, pick, read_headers, read_request
from cmdrdata_transport.providers.routing import Route
from cmdrdata_transport.wire.json import parsed

LARGEST_REQUEST = 1024 * 1024
"""A larger request body is not searched for its model."""

LARGEST_EVENT = 256 * 1024
"""An event that would be larger leaves its raw usage out."""

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


class Jobs(Protocol):
    """What was started and is told of later, in this process or another."""

    def remember(self, scope: str, name: str, started: Mapping[str, Any], /) -> None:
        """Keep who started it, and what was asked for; the first word counts. Must not raise."""
        ...

    def recall(self, scope: str, name: str, /) -> Mapping[str, Any]:
        """What was kept; empty where nothing was. Must not raise."""
        ...

    def finish(
        self, scope: str, name: str, customer: str | None, counts: Mapping[str, Any] | None, /
    ) -> None:
        """It has been told, for this customer, to have used this. Must not raise."""
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
    jobs: Jobs
    declined: set[bytes] = field(default_factory=set[bytes])
    """Hosts that refused to be asked for usage; shared by all meters of a tracker."""
    service: str | None = None
    batch_customers: Callable[[str], str | None] | None = None
    """Whose a result of a batch is, by what its caller called it; None where that is not known."""
    drain_seconds: float | None = None
    """How long the rest of a stream is read on that was closed before its end; None: it is not."""
    require_customer: bool = False
    record_error_messages: bool = False
    disabled: bool = False

    def records_nobodys(self) -> bool:
        """Count a call that has no customer; whether it is recorded all the same."""
        self.count("skipped_no_customer" if self.require_customer else "unattributed")
        return not self.require_customer


class Account:
    """One call: what its events say."""

    # Defaults on the class: most answers need few of them changed.
    _status: int | None = None
    _first_byte = 0.0
    _headers: Mapping[bytes, bytes] = MappingProxyType({})
    _content_type = ""
    _spoiled = False
    _chunks = 0
    _bytes = 0
    """How much of the body came, as it was on the wire."""
    _begun_as: Mapping[str, Any] | None = None
    """What was remembered of the call that started what this one asks for."""

    def __init__(
        self, settings: Settings, route: Route, who: Attribution, request: Request, attempt: bytes | None
    ) -> None:
        self._settings = settings
        self._route = route
        self._who = who
        self._request = request
        self._attempt = attempt
        self._started = time()
        self._ticks = perf_counter()

    def _event(
        self,
        body: Body | None,
        answer: Answer,
        asked: Mapping[str, Any],
        error: BaseException | None,
        *,
        verdict: tuple[str, str],
        resource: str | None = None,
    ) -> dict[str, Any]:
        """The event of a call but for its counts. `verdict`: `usage_status` and `outcome`."""
        status, outcome = verdict
        event = self._head(resource, answer, status, outcome)
        event["request_duration_ms"] = round((perf_counter() - self._ticks) * 1000, 3)
        details = answer.details
        if self._route.shape.header_details:
            details = {**details, **self._header_details()}
        self._describe_request(event, asked, details)
        if self._status is not None:
            self._describe_answer(event, body)
            if status == "partial":
                # What came is a measure of its own, and no reason to guess at tokens.
                came = {"delivered_bytes": self._bytes, "delivered_chunks": self._chunks}
                event["details"] = {**event.get("details", {}), **came}
        unexplained = outcome != "ok" and not answer.errors and error is not None
        if unexplained and type(error).__name__ not in CANCELLED:
            event["error_type"] = type(error).__name__
        return event

    def _head(self, resource: str | None, answer: Answer, status: str, outcome: str) -> dict[str, Any]:
        """An event: what it is of, whose it is, and what the answer says of itself beside the counts."""
        settings, route, who = self._settings, self._route, self._who
        event: dict[str, Any] = {
            "format": FORMAT,
            "event_id": self._event_id(resource),
            "timestamp": timestamp(self._started),
        }
        if who.customer is not None:  # so early because the sink for Kafka reads no further
            event["customer_id"] = who.customer
        event |= {
            "library_version": settings.library_version,
            **route.constants,
            **answer.found,
            "usage_status": status,
            "outcome": outcome,
        }
        if who.metadata:
            event["metadata"] = who.metadata
        if settings.service is not None:
            event["service"] = settings.service
        for name, value in answer.errors.items():
            if name != "error_message" or settings.record_error_messages:
                event[name] = value[:LONGEST_TEXT]
        return event

    def _event_id(self, resource: str | None, part: int = 0) -> str:
        if resource is None:
            return new_event_id(self._started)
        return derived_event_id(self._route.scope, resource, part)

    def _write_parts(
        self, event: dict[str, Any], parts: list[Part], source: str | None, resource: str | None = None
    ) -> None:
        """One event for each model that took part: the first has the call's own facts, each its counts."""
        if len(parts) == 1:
            _line(self._settings, event, parts[0], source)
            return
        shared = {name: event[name] for name in _SHARED if name in event}
        _line(self._settings, event | {"part": 0}, parts[0], source)
        for number, part in enumerate(parts[1:], start=1):
            own = shared | {"event_id": self._event_id(resource, number), "part": number}
            if part.operation is not None:
                own["operation"] = part.operation
                own.pop("request_model", None)  # nobody asked for the tool's model
            if part.model is not None:
                own["model"] = part.model[:LONGEST_TEXT]
            _line(self._settings, own, part, source)

    def _describe_request(
        self, event: dict[str, Any], asked: Mapping[str, Any], details: Mapping[str, Any]
    ) -> None:
        shape = self._route.shape
        key = shape.request_model_key
        model = self._route.model or (pick(asked, shape.request_model) if key is None else asked.get(key))
        if shape.request_model_header is not None:
            model = model or _named(self._request.headers.raw, shape.request_model_header)
        if type(model) is str and model:
            event["request_model"] = model = model[:LONGEST_TEXT]
            event.setdefault("model", model)
        if self._attempt is not None and self._attempt.isdigit() and len(self._attempt) <= LONGEST_ATTEMPT:
            event["attempt"] = int(self._attempt)
        for name, paths in shape.request_details.items():
            if name not in details and (value := pick(asked, paths)) is not None:
                details = {**details, name: value}
        if begun := self._begun_as:
            if model := begun.get("request_model"):
                event["request_model"] = model
                event.setdefault("model", model)
            details = {**begun.get("details", {}), **details}
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
        if self._status is not None and self._status >= FAILURE:
            pauses = {name: said for name, header in _PAUSES.items() if (said := self._header((header,)))}
            if pauses:
                event["details"] = {**event.get("details", {}), **pauses}
        header = self._route.shape.model_header
        if header is not None and (value := self._header((header,))) is not None:
            event["model"] = value

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
        if failed or (body is not None and (body.answer.pending or body.answer.free)):
            return "none", "error" if failed else "ok"
        self._lose("missing")
        return "missing", "ok"

    def _lose(self, name: str) -> None:
        self._settings.count(name, f"{self._route.provider} {self._route.shape.api}")

    def _report(self, unit: str) -> None:
        self._spoiled = True
        self._settings.count("bad_counts", f"{self._route.provider} {unit}")

    def _header(self, names: tuple[bytes, ...]) -> str | None:
        for name in names:
            if (value := self._headers.get(name)) is not None:
                return value.decode("latin-1")[:LONGEST_TEXT]
        return None

    def _header_details(self) -> dict[str, str]:
        """What the answer's headers say was charged, as they write it."""
        stated = {name: self._header((header,)) for name, header in self._route.shape.header_details.items()}
        return {name: value for name, value in stated.items() if value is not None}

    def _count_elsewhere(self, part: Part, asked: Mapping[str, Any]) -> tuple[str | None, Part]:
        """The counts that the body does not state: those of the headers, else of what was asked."""
        shape = self._route.shape
        if shape.headers and (counts := read_headers(shape.headers, self._headers, part.counts)):
            told = {
                name.decode(): self._headers[name].decode("latin-1")
                for name in shape.headers
                if name in self._headers
            }
            raw = {**part.raw, **told} if part.counts else part.raw or told
            return "header", part._replace(counts=counts, raw=raw)
        if part.counts:
            return None, part
        if shape.request and (counts := read_request(shape.request, asked, self._report)):
            return "request", part._replace(counts=counts)
        # What was charged is stated, if in no unit of ours.
        return "header" if self._header_details() else None, part

    def _compare(self, answer: Answer, part: Part) -> None:
        """What is told twice ought to be the same. Where it is not the body's own usage counts."""
        for told in (read_headers(self._route.shape.headers, self._headers), answer.told_again()):
            # Whoever says nothing of caches leaves them out of all input.
            silent = any(part.counts.get(unit) and unit not in told for unit in _CACHES)
            if any(
                part.counts.get(unit, count) != count
                for unit, count in told.items()
                if unit != "total_tokens" and not (silent and unit == "input_tokens")
            ):
                self._lose("conflicts")
                return

    def _asked(self) -> Mapping[str, Any]:
        """The request's JSON, or the text fields of its form; empty where it is not in memory."""
        content = content_of(self._request)
        if content is None:
            # A form is made as it is sent. httpx keeps its fields in the stream; a file has no such value.
            fields = getattr(getattr(self._request, "stream", None), "fields", ())
            return {each.name: each.value for each in fields if type(getattr(each, "value", None)) is str}
        if content[:1] != b"{" or len(content) > LARGEST_REQUEST:
            return {}
        document = parsed(content)
        return document if type(document) is dict else {}


def content_of(request: Request) -> bytes | None:
    """The body, if it is in memory: that of a redirected request is, and has not been read."""
    try:
        return request.content
    except Exception:
        stream: Any = getattr(request, "stream", None)
        return b"".join(stream) if type(stream).__name__ == "ByteStream" else None


_CACHES = ("cache_read_tokens", "cache_write_tokens")

_PAUSES = {"retry_after": b"retry-after", "retry_after_ms": b"retry-after-ms"}
"""Response headers by which a provider asks for a pause (RFC 9110, 10.2.3, and OpenAI's own)."""

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


def _named(headers: Headers, name: bytes) -> str | None:
    """What a header of the request says."""
    return next((value.decode("latin-1") for each, value in headers if each.lower() == name), None)


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
