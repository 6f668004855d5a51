"""Customers and metadata that a tracker is made with, and how long it may be asked to wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cmdrdata_transport import AttributionError, Tracker, TrackingSetupError, UsageEvent
from cmdrdata_transport.testing import capture_usage


def bill(events: list[UsageEvent]) -> None:
    """A sink."""


@pytest.mark.parametrize("wrong", ["", 0, "x" * 513], ids=["empty", "a number", "long"])
def test_a_customer_that_no_event_can_carry_is_an_error(tmp_path: Path, wrong: Any) -> None:
    """An empty one is not taken for none at all, which would be the environment's customer."""
    with pytest.raises(AttributionError, match="customer_id"):
        Tracker([bill], home=tmp_path, customer_id=wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CMDRDATA_CUSTOMER_ID", "x" * 513),
        ("CMDRDATA_CUSTOMER_ID", "\udce9"),
        ("CMDRDATA_METADATA", '{"a": NaN}'),
        ("CMDRDATA_METADATA", f'{{"a": "{"x" * 20_000}"}}'),
        ("CMDRDATA_METADATA", '{"a": ' + "[" * 100_000),
    ],
    ids=["long", "no UTF-8", "no JSON", "large", "deep"],
)
def test_an_error_of_the_environment_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Nobody has typed it where the error is raised."""
    monkeypatch.setenv(name, value)
    with pytest.raises((AttributionError, TrackingSetupError), match=name):
        Tracker([bill], home=tmp_path)


@pytest.mark.parametrize("seconds", [float("inf"), 1e12])
def test_to_wait_for_ever_is_no_error(tmp_path: Path, seconds: float) -> None:
    """Python itself waits no longer than some centuries."""
    tracker = Tracker([bill], home=tmp_path)
    tracker.record(provider="openai", usage={"input_tokens": 1}, customer_id="acme")
    assert tracker.flush(seconds)
    tracker.close(seconds)
    assert tracker.stats() == {"events": 1, "delivered": 1}


def test_an_empty_event_id_is_none(tmp_path: Path) -> None:
    """Two events of an empty id would be taken for one."""
    tracker = Tracker([bill], home=tmp_path, customer_id="acme")
    with capture_usage() as events:
        for _ in range(2):
            tracker.record(provider="openai", usage={"input_tokens": 1}, event_id="")
    assert len({event.event_id for event in events} - {""}) == 2
