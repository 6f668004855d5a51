"""What is known of one call, and the events that it gives.

Knows the head of the request and of the answer, whose call it is, and how to say it in the published
format. An answer that can be asked for again is told once, when it is done, for whoever started it.
Does not see the bytes: `recorder` does, and `body` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, time
from types import MappingProxyType
from typing import Any, Protocol

from cmdrdata_transport.attribution import Attribution, check_customer
from cmdrdata_transport.batch import Result
from cmdrdata_transport.body import Body
from cmdrdata_transport.event import FORMAT, encode
from cmdrdata_transport.identity import derived_event_id, new_event_id, timestamp
from cmdrdata_transport.providers.reading import LONGEST_TEXT, Answer, Part, pick, read_headers, read_request
from cmdrdata_transport.providers.routing import Route
from cmdrdata_transport.providers.table import Job
from cmdrdata_transport.wire.json import parse

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

    def _write(self, body: Body | None, error: BaseException | None, *, closed: bool) -> None:
        settings, route = self._settings, self._route
        if route.guesses or route.shape.results is not None:
            return  # it looked like nothing we know; or each result has its own event
        answer = body.answer if body is not None else Answer(route.shape)
        asked = self._asked()
        resource: str | None = None
        if route.shape.job is not None:
            resource = self._resource(route.shape.job, answer, asked)
            if not self._is_to_be_told(resource, body, answer, asked):
                return
        parts = answer.parts(self._report)
        source = "body" if parts[0].counts else None
        if (source is None or route.shape.headers_add) and (
            self._status is not None and self._status < REDIRECT
        ):
            elsewhere, parts[0] = self._count_elsewhere(parts[0], asked)
            source = source or elsewhere
        if route.poll and source is None and not answer.failed and not answer.free:
            return  # it is over, and its usage is still to come
        status, outcome = self._judge(
            body, parts, error, closed=closed, elsewhere=source in ("header", "request")
        )
        tells_again = route.shape.again or (route.shape.headers and not route.shape.headers_add)
        if status == "complete" and source == "body" and tells_again:
            self._compare(answer, parts[0])
        if resource is not None and (status in ("partial", "missing") or answer.pending):
            self._remember(resource, self._begun(asked, answer))
            parts = [parts[0]._replace(counts={})]  # all of it is told when it is done
            resource = None
        event = self._head(resource, answer, status, outcome)
        event["request_duration_ms"] = round((perf_counter() - self._ticks) * 1000, 3)
        details = answer.details
        if route.shape.header_details:
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
        self._write_parts(event, parts, source, resource)
        if route.poll and resource is not None:
            settings.jobs.finish(route.scope, resource, self._who.customer, parts[0].counts)

    def _head(self, resource: str | None, answer: Answer, status: str, outcome: str) -> dict[str, Any]:
        """An event: what it is of, whose it is, and what the answer says of itself beside the counts."""
        settings, route, who = self._settings, self._route, self._who
        event: dict[str, Any] = {
            "format": FORMAT,
            "event_id": new_event_id(self._started)
            if resource is None
            else derived_event_id(route.scope, resource),
            "timestamp": timestamp(self._started),
            "library_version": settings.library_version,
            **route.constants,
            **answer.found,
            "usage_status": status,
            "outcome": outcome,
        }
        if who.customer is not None:
            event["customer_id"] = who.customer
        if who.metadata:
            event["metadata"] = who.metadata
        if settings.service is not None:
            event["service"] = settings.service
        for name, value in answer.errors.items():
            if name != "error_message" or settings.record_error_messages:
                event[name] = value[:LONGEST_TEXT]
        return event

    def _write_parts(
        self, event: dict[str, Any], parts: list[Part], source: str | None, resource: str | None
    ) -> None:
        """One event for each model that took part: the first has the call's own facts, each its counts."""
        if len(parts) == 1:
            _line(self._settings, event, parts[0], source)
            return
        shared = {name: event[name] for name in _SHARED if name in event}
        _line(self._settings, event | {"part": 0}, parts[0], source)
        for number, part in enumerate(parts[1:], start=1):
            own = shared | {
                "event_id": new_event_id(self._started)
                if resource is None
                else derived_event_id(self._route.scope, resource, number),
                "part": number,
            }
            if part.operation is not None:
                own["operation"] = part.operation
                own.pop("request_model", None)  # nobody asked for the tool's model
            if part.model is not None:
                own["model"] = part.model[:LONGEST_TEXT]
            _line(self._settings, own, part, source)

    # --- what can be asked for again ---

    def _resource(self, job: Job, answer: Answer, asked: Mapping[str, Any]) -> str | None:
        """The name of what this answer is of, if it can be asked for again."""
        if not self._route.known or not answer.is_job:
            return None
        name = answer.job_id if job.asked is None else pick(asked, (job.asked,)) or answer.job_id
        # xAI does not repeat what it was asked for: the path says it.
        return name if type(name) is str else self._route.job

    def _is_to_be_told(
        self, resource: str | None, body: Body | None, answer: Answer, asked: Mapping[str, Any]
    ) -> bool:
        """Whether this answer gives an event. One that is still to come is remembered instead; of one
        that was asked for, it is whoever started it who pays.
        """
        route, jobs = self._route, self._settings.jobs
        fine = self._status is not None and self._status < REDIRECT and body is not None and body.whole
        if route.poll and (resource is None or not fine):
            return False
        begun: Mapping[str, Any] = {}
        if route.poll and resource is not None:
            begun = jobs.recall(route.scope, resource)
        if fine and resource is not None:
            known = begun if "customer_id" in begun else self._begun(asked, answer)
            for name in answer.yields:
                self._remember(name, {key: known[key] for key in known if key != "told"} | {"of": resource})
        if not route.shape.units and not route.shape.lists:  # it only says that there is something
            if fine and resource is not None and not route.poll:
                self._remember(resource, self._begun(asked, answer))
            return False
        if not route.poll:
            return True
        if answer.pending:
            return False
        self._take_over(begun)
        if "told" in begun and (begun["told"] is not None or self._who.customer is None):
            self._lose("duplicates")
            if begun.get("counts") not in (None, answer.parts(lambda _: None)[0].counts):
                self._lose("conflicts")
            return False
        return self._has_owner()

    def _has_owner(self) -> bool:
        """Whether what turns out to be a call only now is to be recorded, as the meter asks of others."""
        settings = self._settings
        if self._who.customer is not None:
            return True
        settings.count("skipped_no_customer" if settings.require_customer else "unattributed")
        return not settings.require_customer

    def _take_over(self, begun: Mapping[str, Any]) -> None:
        """From here on the call is that of whoever started what it asks for."""
        if "customer_id" in begun:
            self._begun_as = begun
            self._who = Attribution(
                customer=begun.get("customer_id"), metadata=begun.get("metadata") or {}, track=True
            )

    def _begun(self, asked: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """What to remember of this call until what it started is done."""
        said: dict[str, Any] = {}
        self._describe_request(said, asked, answer.details)
        said.pop("attempt", None)
        return said | {
            "customer_id": self._who.customer,
            "metadata": dict(self._who.metadata),
            "provider": self._route.provider,
            "api": self._route.shape.api,
            "timestamp": timestamp(self._started),
        }

    def _remember(self, name: str, begun: Mapping[str, Any]) -> None:
        self._settings.jobs.remember(self._route.scope, name, begun)

    def _write_results(self, results: list[Result]) -> None:
        """The events of the results of a batch, each of them an answer of its own."""
        settings, route = self._settings, self._route
        if route.job is not None and self._begun_as is None:
            self._begun_as = {}
            self._take_over(settings.jobs.recall(route.scope, route.job))
        starter = self._who
        for result in results:
            self._who = self._owner_of(result, starter)
            if not self._has_owner():
                continue
            answer = result.answer
            self._spoiled = False
            parts = answer.parts(self._report)
            status = "none" if answer.failed else "missing"
            if parts[0].counts:
                status = "partial" if self._spoiled else "complete"
            elif not answer.failed:
                self._lose("missing")
            own_name = result.place if result.custom_id is None else result.custom_id
            name = result.id or f"{route.job}/{own_name}"
            asked_model = (self._begun_as or {}).get("request_model")
            event = self._head(name, answer, status, "error" if answer.failed else "ok")
            event |= {
                "operation": result.shape.operation,
                "api": result.shape.api,
                "service_tier": result.service_tier,
                "streaming": False,
            }
            if asked_model is not None:
                event["request_model"] = asked_model
                event.setdefault("model", asked_model)
            if details := {**answer.details, **result.details}:
                event["details"] = details
            self._write_parts(event, parts, "body", name)
        self._who = starter

    def _owner_of(self, result: Result, starter: Attribution) -> Attribution:
        """Whose one result of a batch is: whom the application names for it, else the batch's starter."""
        settings = self._settings
        if settings.batch_customers is None or result.custom_id is None:
            return starter
        try:
            customer = settings.batch_customers(result.custom_id)
            return starter if customer is None else starter._replace(customer=check_customer(customer))
        except Exception as error:
            settings.count("bad_attribution", type(error).__name__)
            return starter._replace(customer=None)

    def _finish_results(self, yields: frozenset[str]) -> None:
        """All results have been seen, of which some may be in further resources."""
        route, jobs = self._route, self._settings.jobs
        for name in yields:
            self._remember(
                name, {**(self._begun_as or self._begun({}, Answer(route.shape))), "of": route.job}
            )
        for told in (route.job, (self._begun_as or {}).get("of")):
            if told is not None:
                jobs.finish(route.scope, told, self._who.customer, None)

    # --- what an event says ---

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


_CACHES = ("cache_read_tokens", "cache_write_tokens")

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
