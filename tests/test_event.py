"""The published event: JSON there and back, and a clear error for what is none."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import event_of, line_of

from cmdrdata_transport.event import UNITS, Usage, UsageEvent, decode, encode

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=8,
)
COUNTS = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 10**12), max_size=6)


@given(counts=COUNTS, metadata=st.dictionaries(TEXT, JSON, max_size=3), raw=JSON, customer=st.none() | TEXT)
def test_an_event_is_the_same_there_and_back(
    counts: dict[str, int], metadata: dict[str, Any], raw: Any, customer: str | None
) -> None:
    """Every count and text, whole numbers of 64 bits; what is not known is absent, and zero is zero."""
    event = UsageEvent(
        event_id="event-1",
        timestamp="2026-11-21T12:00:00.250000Z",
        provider="openai",
        usage_status="complete",
        outcome="ok",
        customer_id=customer,
        metadata=metadata,
        usage=Usage(**counts, raw_usage=raw),  # type: ignore[arg-type]  # any unit may be a whole number
    )
    line = event.to_json()
    assert {name: value for name, value in json.loads(line).items() if name in UNITS} == counts
    assert UsageEvent.from_json(line) == event


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "Expecting value"),
        (b'{"format"', "delimiter"),
        (b"\xff", "codec can't decode"),
        (b"[" * 100_000, "nested deeper than can be read"),
        (b"[1]", "a JSON object is expected"),
        (line_of(1, format="cmdrdata.usage/2"), "not an event of the format"),
        (encode({**event_of(1), "format": None}), "not an event of the format"),
        (line_of(1, provider=None), "not a whole event"),
    ],
    ids=["nothing", "half", "no text", "deep", "a list", "a later format", "no format", "no provider"],
)
def test_what_is_no_event_is_a_value_error(line: bytes, says: str) -> None:
    """Whoever reads lines that somebody else wrote has one error to expect."""
    with pytest.raises(ValueError, match=says):
        UsageEvent.from_json(line)


def test_what_a_later_version_adds_is_kept() -> None:
    """It is read, and written again, by a program that does not know it."""
    line = line_of(1, colour="blue")
    assert UsageEvent.from_json(line).extra == {"colour": "blue"}
    assert decode(UsageEvent.from_json(line).to_json()) == decode(line)


def test_what_no_database_takes_is_written_as_one_does() -> None:
    """Counts beyond 64 bits in full, half of a surrogate pair as U+FFFD, what is not finite as null."""
    written = encode({"n": 10**30, "text": "a\ud800b", "\udfffkey": [math.nan, math.inf, (1, 2)]})
    assert json.loads(written) == {"n": 10**30, "text": "a\ufffdb", "\ufffdkey": [None, None, [1, 2]]}
