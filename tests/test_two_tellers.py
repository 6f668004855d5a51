"""What an answer says twice is one event; where its two accounts disagree, somebody is told."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from exchange import WAYS, Way

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport import Tracker, UsageEvent

BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-x"
USAGE = {"input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 5}
MESSAGE = {
    "id": "msg_bdrk_1",
    "type": "message",
    "model": "claude-x",
    "stop_reason": "end_turn",
    "usage": USAGE,
}
HEADERS = {
    "x-amzn-bedrock-input-token-count": "4",
    "x-amzn-bedrock-output-token-count": "5",
    "x-amzn-bedrock-cache-read-input-token-count": "6",
}
METRICS = {"inputTokenCount": 4, "outputTokenCount": 5, "cacheReadInputTokenCount": 6}


def frame(event: Mapping[str, Any]) -> bytes:
    """One frame of Amazon's event stream around one of Anthropic's events."""
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    headers = b"".join(
        struct.pack("!B", len(name)) + name + b"\x07" + struct.pack("!H", len(value)) + value
        for name, value in ((b":message-type", b"event"), (b":event-type", b"chunk"))
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack("!I", binascii.crc32(prelude))
    return prelude + headers + payload + struct.pack("!I", binascii.crc32(prelude + headers + payload))


def stream(metrics: Mapping[str, int]) -> bytes:
    """A stream whose last event has the metrics."""
    events = [
        {"type": "message_start", "message": {**MESSAGE, "usage": {**USAGE, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics},
    ]
    return b"".join(map(frame, events))


def told(way: Way, home: Path, url: str, headers: Mapping[str, str], body: bytes) -> tuple[list[Any], int]:
    """The events of one answer, and how many conflicts were counted."""
    library: Any = httpx if way.library == "httpx" else httpx2
    ours: Any = over_httpx if way.library == "httpx" else over_httpx2
    events: list[UsageEvent] = []

    def keep(landed: list[UsageEvent]) -> None:
        events.extend(landed)

    tracker = Tracker([keep], home=home, customer_id="acme")
    below = library.MockTransport(lambda _: library.Response(200, headers=headers, content=body))
    with library.Client(transport=ours.TrackedTransport(below, tracker=tracker)) as client:
        client.post(url, json={"max_tokens": 9})
    tracker.close(50)
    counts = [(each.usage.input_tokens, each.usage.output_tokens, each.usage_source) for each in events]
    return counts, tracker.stats().get("conflicts", 0)


both = pytest.mark.parametrize("way", [way for way in WAYS if not way.is_async], ids=str)


@both
@pytest.mark.parametrize(
    ("changed", "conflicts"),
    [
        ({}, 0),
        ({"x-amzn-bedrock-output-token-count": "6"}, 1),
        ({"x-amzn-bedrock-input-token-count": "5"}, 1),
        ({"x-amzn-bedrock-output-token-count": "-1"}, 0),
        ({"x-amzn-bedrock-cache-read-input-token-count": None}, 0),
    ],
    ids=["the same", "other output", "other input", "unknown", "silent of caches"],
)
def test_body_and_headers(way: Way, tmp_path: Path, changed: dict[str, str | None], conflicts: int) -> None:
    """The body counts, once; headers that say otherwise are a conflict, and those that say less are not."""
    headers = {**HEADERS, "content-type": "application/json", **changed}
    kept = {name: value for name, value in headers.items() if value is not None}
    answer = told(way, tmp_path, f"{BEDROCK}/invoke", kept, json.dumps(MESSAGE).encode())
    assert answer == ([(10, 5, "body")], conflicts)


@both
@pytest.mark.parametrize(
    ("changed", "conflicts"),
    [({}, 0), ({"outputTokenCount": 6}, 1), ({"inputTokenCount": 5}, 1)],
    ids=["the same", "other output", "other input"],
)
def test_events_and_metrics(way: Way, tmp_path: Path, changed: dict[str, int], conflicts: int) -> None:
    """A stream's own events count, once; the metrics of its last one are only compared."""
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    url = f"{BEDROCK}/invoke-with-response-stream"
    answer = told(way, tmp_path, url, headers, stream({**METRICS, **changed}))
    assert answer == ([(10, 5, "body")], conflicts)
