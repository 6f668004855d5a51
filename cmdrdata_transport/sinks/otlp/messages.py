"""Events as messages of OTLP: a record of the log for each, and histograms of what a batch brought.

With the classes of `opentelemetry-proto`, which are imported where they are used. Does not know where
messages go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cmdrdata_transport import __version__
from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import decode
from cmdrdata_transport.sinks.otlp.conventions import (
    METRICS,
    error_type_of,
    is_number,
    measures_of,
    subject_of,
)

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


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
            _AT: int(at * 1_000_000) * 1000 if 0 <= at < _LATEST else 0,
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Rejected("it is not an event") from None


_BODY, _AT = "\0body", "\0at"
"""What `event_of` adds; no field of an event is called so."""

_LATEST = 2**64 // 10**9
"""In seconds: of a time behind that, or before 1970, a record says 0, which means that it is not known."""


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
                        **subject_of(event),
                        "gen_ai.usage.input_tokens": event.get("input_tokens"),
                        "gen_ai.usage.output_tokens": event.get("output_tokens"),
                        "gen_ai.response.id": event.get("response_id"),
                        "error.type": error_type_of(event),
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
            for name, value, label in measures_of(event):
                labels = {**subject_of(event), **whose, **label}
                whole = tuple((key, _plain(each)) for key, each in labels.items() if each is not None)
                series[name][whole].append(value)
        for name, unit, description, bounds in METRICS:
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
        match None if value is None else _plain(value):
            case int(number):
                found.append(KeyValue(key=key, value=AnyValue(int_value=number)))
            case float(number):
                found.append(KeyValue(key=key, value=AnyValue(double_value=number)))
            case str(text):
                found.append(KeyValue(key=key, value=AnyValue(string_value=text)))
            case None:
                pass
    return found


def _plain(value: Any) -> str | int | float:
    """As an attribute can be, also what is no plain value, or no text that can be sent."""
    if not is_number(value):
        text = str(value)
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
    return value if isinstance(value, float) or abs(value) < _BEYOND else float(value)


_BEYOND = 2**63


def refused_of(signal: str, answer: bytes) -> tuple[int, str]:
    """How many records or points the receiver says it has left out of what it took, and why."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportLogsServiceResponse,
    )
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportMetricsServiceResponse,
    )

    try:
        if answer.lstrip().startswith(b"{"):  # some answer in JSON, whatever they are asked in
            partly = decode(answer).get("partialSuccess") or {}
            number = partly.get("rejectedLogRecords" if signal == "logs" else "rejectedDataPoints", 0)
            return int(number), str(partly.get("errorMessage", ""))
        if signal == "logs":
            logs = ExportLogsServiceResponse.FromString(answer).partial_success
            return logs.rejected_log_records, logs.error_message
        metrics = ExportMetricsServiceResponse.FromString(answer).partial_success
    except Exception:  # protobuf's own: it took them, and said so in other words
        return 0, ""
    return metrics.rejected_data_points, metrics.error_message
