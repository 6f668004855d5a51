"""Events of calls that no transport can see: gRPC, requests, boto3, websockets, webhooks.

Knows how to make the same event from what an application states: counts by their unit, or a provider's
own answer, read by that provider's table. The application calls this by hand, so a wrong value is an
error here, where it can be seen. Does not know where events go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, TypeGuard

from cmdrdata_transport.attribution import Attribution
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import FORMAT, FRACTIONAL_UNITS, UNITS, Usage, encode
from cmdrdata_transport.identity import derived_event_id, new_event_id, timestamp
from cmdrdata_transport.providers.reading import LARGEST_COUNT, Answer, Part, says_one_of
from cmdrdata_transport.providers.table import Provider, Shape
from cmdrdata_transport.wire.json import parse

Counts = Mapping[str, int | float]

LONGEST_ID = 500
"""Characters of an event's id: databases have an index of it, and parts of an answer a number behind it."""

_BESIDE_COUNTS = ("provider_cost", "details", "raw_usage")


def stated_event(
    who: Attribution,
    *,
    library_version: str,
    service: str | None,
    provider: str,
    usage: Usage | Counts,
    event_id: str | None,
    facts: Mapping[str, Any],
) -> bytes:
    """One event, as a line of JSON. `facts` are further fields of the event; None leaves one out.

    Raises:
        TrackingSetupError: a unit that there is not, a count that is none, a fact that is no text, an id that
            is too long.
    """
    counts = _checked(usage)
    _check_id(event_id)
    for name, value in {"provider": provider, **facts}.items():
        if not isinstance(value, str) and (value is not None or name == "provider"):
            raise TrackingSetupError(f"{name}= takes a str, not {type(value).__name__}")
    event = _shared(who, library_version, service, provider) | {
        "usage_status": "complete" if counts else "missing",
        "outcome": "ok",
    }
    event.update((name, value) for name, value in facts.items() if value is not None)
    event.update(counts)
    if isinstance(usage, Usage):
        event.update((name, value) for name in _BESIDE_COUNTS if (value := getattr(usage, name)) is not None)
    if event_id:
        event["event_id"] = event_id
    return encode(event)


def answered_events(
    who: Attribution,
    *,
    library_version: str,
    service: str | None,
    table: Provider,
    body: Mapping[str, Any] | bytes | str,
    model: str | None,
    event_id: str | None,
    report: Callable[[str], None],
) -> list[bytes]:
    """The events of a provider's answer: its JSON, or the object parsed from it. `model` was asked for.

    Raises:
        TrackingSetupError: the answer is no JSON, or states no usage that the provider's table knows; or the
            id is too long.
    """
    _check_id(event_id)
    document = _document(body)
    shape, answer = _read(table, document)
    lines: list[bytes] = []
    parts = answer.parts(report)
    for number, part in enumerate(parts):
        event = _shared(who, library_version, service, table.id) | {
            "operation": shape.operation,
            "api": shape.api,
            "usage_status": "complete",
            "outcome": "error" if answer.failed else "ok",
            "usage_source": "body",
            **({} if model is None else {"model": model, "request_model": model}),
            **answer.found,
        }
        if len(parts) > 1:
            event["part"] = number
        if part.model is not None:
            event["model"] = part.model
        if answer.details:
            event["details"] = answer.details
        if event_id:
            event["event_id"] = event_id if number == 0 else f"{event_id}/{number}"
        elif answer.is_job and answer.job_id is not None and table.hosts:
            event["event_id"] = derived_event_id(table.hosts[0], answer.job_id, number)
        lines.append(encode(event | _told(part)))
    return lines


def table_of(provider: str, tables: Iterable[Provider]) -> Provider:
    """The table of a provider by its id. Raises `TrackingSetupError` for one that is not known."""
    known: dict[str, Provider] = {}
    for each in tables:
        known.setdefault(each.id, each)  # an application's own table comes before ours
    try:
        return known[provider]
    except KeyError:
        raise TrackingSetupError(
            f"provider={provider!r} is not known; known are {', '.join(sorted(known))}. "
            "For another one state the counts: tracker.record(provider=…, model=…, usage={…})"
        ) from None


def _shared(who: Attribution, library_version: str, service: str | None, provider: str) -> dict[str, Any]:
    now = time()
    event: dict[str, Any] = {
        "format": FORMAT,
        "event_id": new_event_id(now),
        "timestamp": timestamp(now),
        "library_version": library_version,
        "provider": provider,
    }
    if who.customer is not None:
        event["customer_id"] = who.customer
    if who.metadata:
        event["metadata"] = who.metadata
    if service is not None:
        event["service"] = service
    return event


def _told(part: Part) -> dict[str, Any]:
    told: dict[str, Any] = dict(part.counts)
    if part.raw is not None:
        told["raw_usage"] = part.raw
    if part.cost is not None:
        told["provider_cost"] = part.cost
    return told


def _document(body: Any) -> dict[str, Any]:
    document: Any = body
    if isinstance(body, bytes | str):
        try:
            document = parse(body.encode() if isinstance(body, str) else body)
        except ValueError as error:
            raise TrackingSetupError(f"the body is not JSON: {error}") from None
    if not _is_mapping(document):
        raise TrackingSetupError(
            f"the body is not a JSON object but a {type(document).__name__}; give one answer at a time, "
            "as JSON or as a dict: that of an SDK's object is answer.to_dict(), or answer.model_dump()"
        )
    return dict(document)


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _read(table: Provider, document: dict[str, Any]) -> tuple[Shape, Answer]:
    shapes = [endpoint.shape for endpoint in table.endpoints if endpoint.shape is not None]
    # What an answer looks like says more than that a shape finds some usage in it.
    for shape in sorted(shapes, key=lambda shape: not says_one_of(document, shape.looks)):
        answer = Answer(shape)
        answer.absorb(document)
        if answer.usage is None and not answer.pending:
            continue
        if answer.pending:
            raise TrackingSetupError(
                "this answer is not there yet, and states no usage until it is; record it when it is done"
            )
        return shape, answer
    raise TrackingSetupError(
        f"this answer states no usage that the table of {table.id!r} knows; give the whole JSON answer, or "
        "state the counts: tracker.record(provider=…, model=…, usage={…})"
    )


def _check_id(event_id: object) -> None:
    if not isinstance(event_id, str | None):
        raise TrackingSetupError(f"event_id= takes a str, not {type(event_id).__name__}")
    if event_id is not None and len(event_id) > LONGEST_ID:
        raise TrackingSetupError(
            f"event_id has {len(event_id)} characters, and at most {LONGEST_ID} fit: pass a shorter one"
        )


def _checked(usage: Any) -> dict[str, int | float]:
    if isinstance(usage, Usage):
        usage = {unit: count for unit in UNITS if (count := getattr(usage, unit)) is not None}
    if not _is_mapping(usage):
        raise TrackingSetupError(f"usage= takes counts by their unit, or a Usage, not {type(usage).__name__}")
    counts: dict[str, int | float] = {}
    for unit, count in usage.items():
        if unit not in UNITS:
            raise TrackingSetupError(f"usage has no unit {unit!r}; there are {', '.join(UNITS)}")
        whole = type(count) is int or (type(count) is float and unit in FRACTIONAL_UNITS)
        if not whole or not 0 <= count <= LARGEST_COUNT:
            raise TrackingSetupError(f"usage[{unit!r}] is {count!r}, which is no count")
        counts[unit] = count
    if "total_tokens" not in counts and ("input_tokens" in counts or "output_tokens" in counts):
        counts["total_tokens"] = counts.get("input_tokens", 0) + counts.get("output_tokens", 0)
    return counts
