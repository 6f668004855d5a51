"""What OpenTelemetry's conventions for GenAI call what is in an event, and how they measure it.

(opentelemetry-semantic-conventions 0.66b2, which is release 1.44.) Where they have a name it is theirs, else
ours. Of `server.port` an event says nothing. Does not know how anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

_TOKENS = tuple(4**power for power in range(14))
_SECONDS = tuple(0.01 * 2**power for power in range(14))
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

METRICS: tuple[tuple[str, str, str, Sequence[float]], ...] = (
    ("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", _TOKENS),
    ("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS),
    ("gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", _FIRST),
)
"""Name, unit, description and bounds of buckets, as the conventions state them."""

_OPERATIONS = {"completion": "text_completion", "agent": "invoke_agent"}
_PROVIDERS = {"aws": "aws.bedrock", "azure": "azure.ai.openai", "mistral": "mistral_ai", "x-ai": "x_ai"}
"""Where the conventions have another name than we."""


def measures_of(event: Mapping[str, Any]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """What an event adds to `METRICS`: name, value, and the attributes that only this metric has."""
    tokens, duration, first = (name for name, *_ in METRICS)
    for kind in ("input", "output"):
        if is_number(count := event.get(f"{kind}_tokens")):
            yield tokens, count, {"gen_ai.token.type": kind}
    if is_number(took := event.get("request_duration_ms")):
        yield duration, took / 1000, {"error.type": error_type_of(event)}
    if event.get("streaming") is True and is_number(waited := event.get("time_to_first_byte_ms")):
        yield first, waited / 1000, {}


def subject_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Who was asked for what: the attributes of every signal. What is not known is None."""
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


def error_type_of(event: Mapping[str, Any]) -> str | None:
    """What kind of error a call ended with: the provider's, or the status; None if it did not."""
    if event.get("outcome") not in ("error", "cancelled"):
        return None
    return str(event.get("error_type") or event.get("status_code") or event["outcome"])


def is_number(value: object) -> TypeGuard[float]:
    """Whether it can be measured. JSON's `true` cannot, nor can what a sum would have no room for."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _BEYOND


_BEYOND = 1e300
