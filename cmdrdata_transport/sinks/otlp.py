"""A receiver of OpenTelemetry, over OTLP/HTTP in protobuf: logs, which say all, and metrics, for watching.

Each event is a log record: its body is the event as published, and its attributes are what one looks for,
`cmdrdata.event_id` first. What is told twice has the same id there.

The metrics are those of the semantic conventions for GenAI (opentelemetry-semantic-conventions 0.66b2,
which is release 1.44): `gen_ai.client.token.usage`, `gen_ai.client.operation.duration` and, of streams,
`gen_ai.client.operation.time_to_first_chunk`. They are histograms of what one batch brought (delta
temporality), at the time it was sent. A batch that is sent again after a failure is counted again.
Nobody should bill by them.

The customer is an attribute of metrics too, so that each customer makes series of their own:
`?customer=0` leaves it out.

Protobuf, and not JSON, because some receivers take nothing else. `opentelemetry-proto` has the messages.
"""

from __future__ import annotations

import base64
import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, time, time_ns
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode
from uuid import uuid4

from cmdrdata_transport import __version__
from cmdrdata_transport.errors import Rejected, TrackingSetupError
from cmdrdata_transport.event import decode
from cmdrdata_transport.sinks.posting import Connections, judge, post
from cmdrdata_transport.sinks.remote import is_loopback, timeout_of

if TYPE_CHECKING:
    import httpx
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

SIGNALS = ("logs", "metrics")

OPTIONS = ("signals", "customer", "timeout", "insecure")

WARN_EVERY_SECONDS = 60.0

REMEMBERED = 5000
"""Events of which one signal was taken and another was not, yet."""

_TOKENS = tuple(4**power for power in range(14))
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_METRICS: tuple[tuple[str, str, str, Sequence[float]], ...] = (
    ("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", _TOKENS),
    ("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS),
    ("gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", _FIRST),
)
"""Name, unit, description and bounds of buckets, as the conventions state them."""

_OPERATIONS = {"completion": "text_completion", "agent": "invoke_agent"}
_PROVIDERS = {"aws": "aws.bedrock", "azure": "azure.ai.openai", "mistral": "mistral_ai", "x-ai": "x_ai"}
"""Where the conventions have another name than we."""

_logger = logging.getLogger("cmdrdata_transport")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the signals go. `identity` is the URL without what is secret."""

    url: str
    identity: str
    scheme: str
    host: str
    timeout: float
    signals: tuple[str, ...]
    customer: bool
    headers: Mapping[str, Mapping[str, str]] = field(repr=False)
    """Of each signal, what it is sent with."""


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> OtlpOutlet:  # noqa: ARG001
    """The outlet of `otlp+https://host:4318`; `/v1/logs` and `/v1/metrics` are added to its path.

    Headers, a key say, are in `OTEL_EXPORTER_OTLP_HEADERS`, as for every exporter of OpenTelemetry, or
    user and password in the URL. `?signals=logs` sends logs only; `?customer=0` leaves the customer out of
    metrics; `?timeout=5` is how many seconds a POST may take. `otlp+http:` needs `?insecure=1`, except to
    this machine, and then carries no headers.
    """
    target = target_of(url, environ)
    if not _is_installed():
        raise TrackingSetupError(
            f"{target.identity} needs OpenTelemetry's messages: pip install 'cmdrdata-transport[otel]', "
            "or opentelemetry-proto"
        )
    return OtlpOutlet(target)


def target_of(url: SplitResult, environ: Mapping[str, str]) -> Target:
    """What a URL means. Raises `TrackingSetupError`, which never shows user, password or headers."""
    if "@" in url.path + url.query or url.fragment:  # a piece of a password, say: never to be shown
        raise TrackingSetupError("in a password write %2F for /, %3F for ?, %23 for #, and %40 for @")
    user_info, _, authority = url.netloc.rpartition("@")
    scheme, host, path = url.scheme.removeprefix("otlp+"), url.hostname or "", url.path.rstrip("/")
    where = f"{url.scheme}://{authority}{path}"
    if not host:
        raise TrackingSetupError(f"{where} has no host: write otlp+https://collector:4318")
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := set(options).difference(OPTIONS):
        raise TrackingSetupError(f"{where}: there is no ?{min(unknown)}=; there are {', '.join(OPTIONS)}")
    trusted = scheme == "https" or is_loopback(host)
    if not trusted and options.get("insecure") != "1":
        raise TrackingSetupError(
            f"{where} is not encrypted: write otlp+https, or add ?insecure=1, "
            "which sends the events in the open, and never a header with a key"
        )
    signals = tuple(options.get("signals", "logs,metrics").split(","))
    if not set(signals).issubset(SIGNALS):
        raise TrackingSetupError(f"{where}: write ?signals=logs, or metrics, or leave it out for both")
    timeout = timeout_of(options.pop("timeout", None), where)
    return Target(
        url=f"{scheme}://{authority}{path}",
        identity=f"{where}?{urlencode(options, safe=',')}" if options else where,
        scheme=scheme,
        host=host,
        timeout=timeout,
        signals=signals,
        customer=options.get("customer") != "0",
        headers={each: _headers(each, user_info, environ) if trusted else {} for each in signals},
    )


class OtlpOutlet:
    """Posts logs, then metrics. One that was taken is not sent again because the other was not."""

    batch = 500
    keyed = False

    def __init__(self, target: Target) -> None:
        self.identity = target.identity
        self._target = target
        self._connections = Connections(target.scheme, target.host)
        self._taken: dict[str, set[bytes]] = {each: set() for each in target.signals}
        self._instance = str(uuid4())
        self._since = time_ns()
        self._warned_at = -WARN_EVERY_SECONDS

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Post what each signal has not taken before.

        Raises:
            Rejected: the receiver will never take one of them.
            Unavailable: it cannot be reached, is busy, or does not know our key.
        """
        patience = self._target.timeout if timeout is None else min(timeout, self._target.timeout)
        events = [(line, event_of(line)) for line in lines]
        for signal in self._target.signals:
            taken = self._taken[signal]
            if len(taken) > REMEMBERED:
                taken.clear()
            if todo := [event for line, event in events if line not in taken]:
                self._post(signal, todo, patience)
                taken.update(lines)
        for taken in self._taken.values():
            taken.difference_update(lines)

    def close(self) -> None:
        """Close the connections. The next `send` opens new ones."""
        self._connections.close()

    def forget(self) -> None:
        """The connections are the parent's; and series need an origin of their own."""
        self._connections.forget()
        self._instance = str(uuid4())

    def _post(self, signal: str, events: Sequence[Mapping[str, Any]], patience: float) -> None:
        now = time_ns()
        if signal == "logs":
            body = logs_of(events, self._instance, now)
        else:
            body = metrics_of(events, self._instance, (self._since, now), customer=self._target.customer)
        answered = post(
            self._connections.opened(),
            f"{self._target.url}/v1/{signal}",
            headers={**_HEADERS, **self._target.headers[signal]},
            content=body,
            patience=patience,
        )
        refusal = judge(answered.status, answered.retry_after, now=time())
        if refusal is not None:
            raise Rejected(f"{signal}: {refusal}")
        number = _refused_of(signal, answered.start)
        if signal == "logs" and number:
            # Which of them it does not say: each is asked about by itself, and some come twice, by one id.
            raise Rejected(f"logs: {number} of {len(events)} were refused")
        if signal == "metrics":
            self._since = now
            if number and monotonic() - self._warned_at > WARN_EVERY_SECONDS:
                self._warned_at = monotonic()
                _logger.warning(
                    "%s refused %d points of metrics; the events are in the logs", self.identity, number
                )


_PARENTS: list[httpx.HTTPTransport] = []

_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Accept": "application/x-protobuf",
    "User-Agent": f"cmdrdata-transport/{__version__}",
}


def event_of(line: bytes) -> Mapping[str, Any]:
    """The event of a line, with the line as `body`. Raises `Rejected` if it is none."""
    try:
        event: dict[str, Any] = decode(line)
        when = datetime.fromisoformat(event["timestamp"])
        at = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        return {
            **event,
            "event_id": str(event["event_id"]),
            _BODY: line.decode(),
            _AT: int(at * 1_000_000) * 1000,
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Rejected("it is not an event") from None


_BODY, _AT = "\0body", "\0at"
"""What `event_of` adds; no field of an event is called so."""


def logs_of(events: Iterable[Mapping[str, Any]], instance: str, now: int) -> bytes:
    """An `ExportLogsServiceRequest`: a record for each event, under the service that it is of."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportLogsServiceRequest,
    )

    request = ExportLogsServiceRequest()
    for service, theirs in _by_service(events).items():
        resource = request.resource_logs.add()
        resource.resource.attributes.extend(_attributes(_resource(service, instance)))
        scope = resource.scope_logs.add()
        scope.scope.name, scope.scope.version = "cmdrdata_transport", __version__
        for event in theirs:
            record = scope.log_records.add(
                time_unix_nano=event[_AT],
                observed_time_unix_nano=now,
                severity_number=9,
                severity_text="INFO",
                event_name="cmdrdata.usage",
                attributes=_attributes(
                    {
                        "cmdrdata.event_id": event["event_id"],
                        "cmdrdata.customer_id": event.get("customer_id"),
                        **_subject(event),
                        "gen_ai.usage.input_tokens": event.get("input_tokens"),
                        "gen_ai.usage.output_tokens": event.get("output_tokens"),
                        "gen_ai.response.id": event.get("response_id"),
                        "error.type": _error_type(event),
                    }
                ),
            )
            record.body.string_value = event[_BODY]
    return bytes(request.SerializeToString())


def metrics_of(
    events: Iterable[Mapping[str, Any]], instance: str, span: tuple[int, int], *, customer: bool
) -> bytes:
    """An `ExportMetricsServiceRequest`: what the events brought, between two times in nanoseconds."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA  # noqa: PLC0415

    request = ExportMetricsServiceRequest()
    for service, theirs in _by_service(events).items():
        resource = request.resource_metrics.add()
        resource.resource.attributes.extend(_attributes(_resource(service, instance)))
        scope = resource.scope_metrics.add()
        scope.scope.name, scope.scope.version = "cmdrdata_transport", __version__
        series: defaultdict[str, defaultdict[_Labels, list[float]]] = defaultdict(lambda: defaultdict(list))
        for event in theirs:
            whose = {"cmdrdata.customer_id": event.get("customer_id")} if customer else {}
            for name, value, label in _measures(event):
                labels = {**_subject(event), **whose, **label}
                series[name][tuple((key, each) for key, each in labels.items() if each is not None)].append(
                    value
                )
        for name, unit, description, bounds in _METRICS:
            if name in series:
                metric = scope.metrics.add(name=name, unit=unit, description=description)
                metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
                for point, values in series[name].items():
                    _add_point(metric, point, values, bounds, span)
    return bytes(request.SerializeToString())


_Labels = tuple[tuple[str, Any], ...]


def _add_point(
    metric: Metric, labels: _Labels, values: Sequence[float], bounds: Sequence[float], span: tuple[int, int]
) -> None:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    metric.histogram.data_points.add(
        attributes=_attributes(dict(labels)),
        start_time_unix_nano=span[0],
        time_unix_nano=span[1],
        count=len(values),
        sum=sum(values),
        min=min(values),
        max=max(values),
        bucket_counts=counts,
        explicit_bounds=bounds,
    )


def _measures(event: Mapping[str, Any]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    tokens, duration, first = (name for name, *_ in _METRICS)
    for kind in ("input", "output"):
        if _is_number(count := event.get(f"{kind}_tokens")):
            yield tokens, count, {"gen_ai.token.type": kind}
    if _is_number(took := event.get("request_duration_ms")):
        yield duration, took / 1000, {"error.type": _error_type(event)}
    if event.get("streaming") is True and _is_number(waited := event.get("time_to_first_byte_ms")):
        yield first, waited / 1000, {}


def _subject(event: Mapping[str, Any]) -> dict[str, Any]:
    provider, operation, host = (event.get(name) for name in ("provider", "operation", "host"))
    if provider == "google":
        provider = "gcp.vertex_ai" if "aiplatform" in str(host) else "gcp.gemini"
    if event.get("api") == "google.generate_content":
        operation = "generate_content"
    return {
        "gen_ai.operation.name": _OPERATIONS.get(str(operation), operation),
        "gen_ai.provider.name": _PROVIDERS.get(str(provider), provider),
        "gen_ai.request.model": event.get("request_model"),
        "gen_ai.response.model": event.get("model"),
        "server.address": host,
    }


def _error_type(event: Mapping[str, Any]) -> str | None:
    if event.get("outcome") not in ("error", "cancelled"):
        return None
    return str(event.get("error_type") or event.get("status_code") or event["outcome"])


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _by_service(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        found.setdefault(str(event.get("service") or "unknown_service"), []).append(event)
    return found


def _resource(service: str, instance: str) -> dict[str, str]:
    return {"service.name": service, "service.instance.id": instance}


def _attributes(named: Mapping[str, Any]) -> list[KeyValue]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue  # noqa: PLC0415 - an extra

    found: list[KeyValue] = []
    for key, value in named.items():
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _BEYOND:
            found.append(KeyValue(key=key, value=AnyValue(int_value=value)))
        elif _is_number(value):
            found.append(KeyValue(key=key, value=AnyValue(double_value=value)))
        elif value is not None:
            found.append(KeyValue(key=key, value=AnyValue(string_value=str(value))))
    return found


_BEYOND = 2**63


def _refused_of(signal: str, answer: bytes) -> int:
    """How many records or points the receiver says it has left out of what it took."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportLogsServiceResponse,
    )
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportMetricsServiceResponse,
    )

    try:
        if signal == "logs":
            return int(ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records)
        return int(ExportMetricsServiceResponse.FromString(answer).partial_success.rejected_data_points)
    except Exception:  # protobuf's own: it took them, and said so in other words
        return 0


def _headers(signal: str, user_info: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What the environment says for all signals, and for this one (OpenTelemetry, OTLP exporter)."""
    found: dict[str, str] = {}
    if user_info:
        found["authorization"] = "Basic " + base64.b64encode(unquote(user_info).encode()).decode()
    for variable in ("OTEL_EXPORTER_OTLP_HEADERS", f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS"):
        for pair in filter(None, map(str.strip, environ.get(variable, "").split(","))):
            name, equals, value = pair.partition("=")
            name, value = name.strip().lower(), unquote(value.strip())
            if not (equals and name.isascii() and name and value.isascii() and value.isprintable()):
                raise TrackingSetupError(f"{variable} is written name=value,name=value")
            found[name] = value
    return found


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.proto") is not None
    except (ImportError, ValueError):
        return False
