"""What a tracker is made with: wrong options are errors where it is made, never later."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cmdrdata_transport import Tracker, TrackingSetupError

if TYPE_CHECKING:
    from pathlib import Path

    from cmdrdata_transport import UsageEvent


def bill(events: list[UsageEvent]) -> None:
    """A sink."""


@pytest.mark.parametrize(
    ("option", "wrong", "says"),
    [
        ("sinks", "sqlite:///usage.db", r"write sinks=\[\.\.\.\]"),
        ("sinks", bill, "a list of sinks"),
        ("sinks", 5, "a list of sinks"),
        ("sinks", [5], "a sink is a URL"),
        ("sinks", [bill, bill], "given twice"),
        ("on_event", "bill", "begins with its scheme"),
        ("home", 5, "means no directory"),
        ("home", "~nobody-of-this-name/usage", "means no directory"),
        ("name", 5, "name= takes a str"),
        ("service", b"zoo", "service= takes a str"),
        ("include_usage", "always", "include_usage= takes"),
        ("exit_timeout", "2", "a number of seconds"),
        ("exit_timeout", -1, "a number of seconds"),
        ("exit_timeout", float("nan"), "a number of seconds"),
        ("exit_timeout", float("inf"), "a number of seconds"),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_to_do(
    tmp_path: Path, option: str, wrong: Any, says: str
) -> None:
    """Nothing is put off to the first call, or to the end of the process."""
    with pytest.raises(TrackingSetupError, match=says):
        Tracker(**{"home": tmp_path, option: wrong})


def test_a_home_of_the_environment_that_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that names a user whom the machine does not know says so, and names the variable."""
    monkeypatch.setenv("CMDRDATA_HOME", "~nobody-of-this-name/usage")
    with pytest.raises(TrackingSetupError, match="CMDRDATA_HOME"):
        Tracker([])


def test_exit_waits_once_for_all_trackers(tmp_path: Path) -> None:
    """Twenty trackers with a sink that never answers hold the end of a program as long as one does."""
    program = """
import sys, threading, time
from pathlib import Path
from cmdrdata_transport import Tracker

class Stuck:
    def __init__(self, name):
        self.name = name
    def send(self, events):
        threading.Event().wait()

trackers = [
    Tracker([Stuck(f"stuck-{n}")], home=Path(sys.argv[1]) / str(n), exit_timeout=1.5) for n in range(20)
]
for tracker in trackers:
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
time.sleep(0.5)
print(time.monotonic())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True, timeout=60
    )
    # One after the other they would take thirty seconds.
    assert time.monotonic() - float(ended.stdout) < 20
