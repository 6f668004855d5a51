"""The published event, format `cmdrdata.usage/1`: its fields, and JSON there and back.

Knows names and types. Does not know where an event comes from or goes to; reads no clock, does no
I/O. The transport writes events as plain dicts (it must be fast); whoever reads one gets these
classes. A field that is not known is absent, never zero.

Units are named as in genai-prices (https://github.com/pydantic/genai-prices), which prices them;
`images`, `videos` and `compute_seconds` are ours, for what it does not name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import orjson

FORMAT = "cmdrdata.usage/1"

UsageStatus = Literal["complete", "partial", "missing", "none"]
Outcome = Literal["ok", "error", "cancelled", "unknown"]
UsageSource = Literal["body", "header", "request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one answer used.

    `input_tokens` is all input, cache reads and writes and tool prompts included; `output_tokens`
    is all output, reasoning included; every other token count is a part of one of the two.
    `total_tokens` is their sum. `raw_usage` is the provider's own object, untouched.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_reasoning_tokens: int | None = None
    output_citation_tokens: int | None = None
    input_text_tokens: int | None = None
    output_text_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    cache_text_read_tokens: int | None = None
    cache_audio_read_tokens: int | None = None
    input_image_tokens: int | None = None
    output_image_tokens: int | None = None
    cache_image_read_tokens: int | None = None
    input_video_tokens: int | None = None
    output_video_tokens: int | None = None
    cache_video_read_tokens: int | None = None
    input_document_tokens: int | None = None
    input_tool_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    input_characters: int | None = None
    input_document_pages: int | None = None
    images: int | None = None
    videos: int | None = None
    rerank_searches: int | None = None
    web_searches: int | None = None
    web_fetches: int | None = None
    classifications: int | None = None
    audio_seconds: float | None = None
    video_seconds: float | None = None
    compute_seconds: float | None = None
    provider_cost: str | None = None
    """What the provider says it charged, as a decimal string in US dollars."""
    details: Mapping[str, Any] | None = None
    raw_usage: Any = None


UNITS: tuple[str, ...] = tuple(
    each.name for each in fields(Usage) if each.name not in ("provider_cost", "details", "raw_usage")
)
"""Every countable field of an event: what a report sums."""

FRACTIONAL_UNITS = frozenset(name for name in UNITS if name.endswith("_seconds"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """One billable answer, or one attempt that brought none, for one customer.

    Times are in UTC; durations are in milliseconds. `extra` holds fields that a newer version of the
    format added: they are kept and written again.
    """

    event_id: str
    timestamp: str
    provider: str
    usage_status: UsageStatus
    outcome: Outcome
    format: str = FORMAT
    part: int | None = None
    customer_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    service: str | None = None
    library_version: str | None = None
    model: str | None = None
    request_model: str | None = None
    operation: str | None = None
    api: str | None = None
    host: str | None = None
    streaming: bool | None = None
    status_code: int | None = None
    response_id: str | None = None
    request_id: str | None = None
    finish_reason: str | None = None
    service_tier: str | None = None
    attempt: int | None = None
    usage: Usage = field(default_factory=Usage)
    usage_source: UsageSource | None = None
    request_duration_ms: float | None = None
    time_to_first_byte_ms: float | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_dict(self) -> dict[str, Any]:
        """The event as published: one flat object, absent fields left out."""
        event = {name: value for name in _EVENT_FIELDS if (value := getattr(self, name)) not in (None, {})}
        event.update(
            (name, value) for name in _USAGE_FIELDS if (value := getattr(self.usage, name)) is not None
        )
        event.update(self.extra)
        return event

    def to_json(self) -> bytes:
        """`to_dict()` as one line of JSON, in UTF-8."""
        return encode(self.to_dict())

    @classmethod
    def from_dict(cls, event: Mapping[str, Any]) -> UsageEvent:
        """The event behind `to_dict()`.

        Raises:
            ValueError: the object is not an event of this format.
        """
        if event.get("format") != FORMAT:
            raise ValueError(f"not an event of the format {FORMAT}: {event.get('format')!r}")
        own = {name: event[name] for name in _EVENT_FIELDS if name in event}
        usage = {name: event[name] for name in _USAGE_FIELDS if name in event}
        extra = {name: value for name, value in event.items() if name not in own and name not in usage}
        try:
            return cls(usage=Usage(**usage), extra=extra, **own)
        except TypeError as error:
            raise ValueError(f"not a whole event: {error}") from None

    @classmethod
    def from_json(cls, line: bytes) -> UsageEvent:
        """The event behind `to_json()`. Raises `ValueError` as `from_dict` does."""
        event = decode(line)
        if not isinstance(event, dict):
            raise ValueError("not an event: a JSON object is expected")  # noqa: TRY004 - one error for bad lines
        return cls.from_dict(event)


_EVENT_FIELDS: tuple[str, ...] = tuple(
    each.name for each in fields(UsageEvent) if each.name not in ("usage", "extra")
)
_USAGE_FIELDS: tuple[str, ...] = tuple(each.name for each in fields(Usage))


def encode(event: Mapping[str, Any]) -> bytes:
    """An event's JSON, by orjson, or by the standard library for what orjson cannot write.

    Counts beyond 64 bits are written in full. A lone surrogate becomes U+FFFD and a number that is
    not finite becomes null: neither can stand in JSON that a database takes.
    """
    try:
        return orjson.dumps(event)
    except TypeError:
        return json.dumps(_storable(event), ensure_ascii=False, separators=(",", ":")).encode()


def decode(line: bytes) -> Any:
    """What `encode` wrote, whole numbers beyond 64 bits as floats; `ValueError` for what is not JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            return json.loads(line)
        except RecursionError:
            raise ValueError("JSON that is nested deeper than can be read") from None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float) and value - value != 0.0:
        return None
    if isinstance(value, Mapping):
        return {str(_storable(key)): _storable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    return value
