"""Real SDKs end to end: every call that people make, sync and async, tracked in every way.

Each is made twice, by a bare client and by a tracked one, against servers that answer alike: what the
SDK shows and what goes over the wire must be the same, and the events must be exactly what was stated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from sdks import CALLS, TRACKED_WAYS, SdkCall, Way, connected

from cmdrdata_transport import __version__, customer_context
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.testing import capture_usage

pytestmark = pytest.mark.usefixtures("one_certificate")

DIFFERENT_EACH_RUN = ("event_id", "timestamp", "request_duration_ms", "time_to_first_byte_ms")
CUSTOMER, METADATA = "acme GmbH & Söhne", {"feature": "billing", "seats": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of a call: what the SDK showed, what went over the wire, what was recorded and stated."""

    shown: Any
    wire: list[tuple[str, str, list[tuple[bytes, bytes]], bytes]]
    events: list[dict[str, Any]]
    stated: list[dict[str, Any]]


class Noted:
    """A provider, with a note of what each of its answers states, in the event's words."""

    def __init__(self, call: SdkCall) -> None:
        self._provider = Provider(seed=11)
        self._answers: Callable[[Call], Answer] = call.answers() if call.answers else self._provider
        self._stated = list(call.stated)
        self.stated: list[dict[str, Any]] = []

    def __call__(self, call: Call) -> Answer:
        """The answer; what it states is noted."""
        before = len(self._provider.stated)
        answer = self._answers(call)
        stated: dict[str, Any] = self._stated.pop(0) if self._stated else {}
        for each in self._provider.stated[before:]:
            stated = {"model": each.model, "response_id": each.response_id, **each.units}
            if each.provider == "google":  # it says of which kind, too: all of it is text
                stated["input_text_tokens"] = each.units["input_tokens"]
        headers = dict(answer.headers)
        self.stated.append({**stated, "request_id": headers.get("x-request-id") or headers.get("request-id")})
        return answer


def wire(calls: list[Call]) -> list[tuple[str, str, list[tuple[bytes, bytes]], bytes]]:
    """What went over the wire, without the port in it."""
    return [
        (call.method, call.target, [pair for pair in call.headers if pair[0] != b"host"], call.body)
        for call in calls
    ]


def see(call: SdkCall, way: Way | None, *, asynchronous: bool, own_library: bool = True) -> Seen:
    """Make the call, tracked in this way, or with None not at all."""

    async def run(url: str) -> Any:
        async with connected(
            call.sdk, url, way, asynchronous=asynchronous, own_library=own_library
        ) as client:
            with customer_context(CUSTOMER, metadata=METADATA):
                shown = await call.make(client)
            # Nothing has been closed yet: what the SDK has shown must have been recorded by now.
            return shown, [event.to_dict() for event in events]

    provider = Noted(call)
    with Loopback(provider) as server, capture_usage() as events:
        shown, recorded = asyncio.run(run(server.url))
        assert [event.to_dict() for event in events] == recorded
    return Seen(shown=shown, wire=wire(server.calls), events=recorded, stated=provider.stated)


@cache
def bare(call: SdkCall, *, asynchronous: bool, own_library: bool) -> Seen:
    """What the same call looks like without us."""
    return see(call, None, asynchronous=asynchronous, own_library=own_library)


COMPATIBLE = {
    "openai": "openai-compatible",
    "groq": "openai-compatible",
    "anthropic": "anthropic-compatible",
    "google-genai": "google-compatible",
}


def expected(call: SdkCall, stated: dict[str, Any]) -> dict[str, Any]:
    """The whole event, but for what differs each run and the provider's own object."""
    event = {
        "format": "cmdrdata.usage/1",
        "library_version": __version__,
        "customer_id": CUSTOMER,
        "metadata": METADATA,
        "provider": COMPATIBLE[call.sdk],
        "host": "127.0.0.1",
        "api": call.api,
        "operation": call.operation,
        "request_model": call.model,
        "model": call.model,
        "finish_reason": call.finish_reason,
        "service_tier": call.service_tier,
        "details": call.details,
        "streaming": call.streaming,
        "status_code": 200,
        "attempt": None if call.sdk == "google-genai" else 0,
        "usage_status": call.status,
        "outcome": "ok",
        "usage_source": "body" if call.status == "complete" else None,
        **stated,
    }
    return {name: value for name, value in event.items() if value not in (None, "")}


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what differs each run, and without counts of zero, which nobody adds up."""
    return {
        name: value
        for name, value in event.items()
        if name not in (*DIFFERENT_EACH_RUN, "raw_usage") and (value or not name.endswith("_tokens"))
    }


@pytest.mark.parametrize("way", TRACKED_WAYS)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_a_tracked_call_is_a_bare_call_and_its_event(call: SdkCall, way: Way, *, asynchronous: bool) -> None:
    """The SDK shows and sends what it does without us, and exactly what was stated is recorded."""
    without = bare(call, asynchronous=asynchronous, own_library=way != "client of the other library")
    seen = see(call, way, asynchronous=asynchronous)

    assert seen.shown == without.shown
    assert seen.wire == without.wire
    assert without.events == []
    assert len(seen.events) == len(seen.stated)
    for event, stated in zip(seen.events, seen.stated, strict=True):
        assert comparable(event) == expected(call, stated)
    assert all(("raw_usage" in event) == (call.status == "complete") for event in seen.events)
