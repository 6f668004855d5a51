"""The demo: every call of every SDK, and accounts that agree only when they do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cmdrdata_transport.cli.demo import show
from cmdrdata_transport.cli.view import console
from cmdrdata_transport.demo.calls import CALLED_SDKS
from cmdrdata_transport.demo.provider import Provider, Stated
from cmdrdata_transport.demo.run import CUSTOMERS, run
from cmdrdata_transport.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from cmdrdata_transport.event import UsageEvent

CALLS = 2 * sum(len(sdk.calls) for sdk in CALLED_SDKS)


def boastful() -> Provider:
    """A provider that claims to have stated a hundred tokens more than its answers say."""
    provider = Provider()
    provider.stated.append(
        Stated(
            account="acme",
            provider="openai",
            model="gpt-6",
            response_id="",
            streaming=False,
            units=Counter(input_tokens=100),
        )
    )
    return provider


def test_the_ledger_agrees_with_the_provider(tmp_path: Path) -> None:
    """Each customer's every call is in the ledger once, to the token, retries of refused ones included."""
    landed: list[UsageEvent] = []

    def take(events: list[UsageEvent]) -> None:
        landed.extend(events)

    provider = Provider(seed=7, refusals=0.2)
    outcome = run(tmp_path, provider=provider, on_event=take)
    assert outcome.agrees
    assert outcome.answers == CALLS * len(CUSTOMERS)
    assert outcome.refused > 0
    with Ledger.open(outcome.ledger) as ledger:
        rows: list[dict[str, Any]] = ledger.report(by=("customer_id",))
    assert [(row["customer_id"], row["calls"]) for row in rows] == [(each, CALLS) for each in CUSTOMERS]
    assert sum(row["attempts"] for row in rows) == outcome.answers + outcome.refused == len(landed)
    assert sum(row["total_tokens"] for row in rows) == provider.total("total_tokens")


def test_a_difference_is_found(tmp_path: Path) -> None:
    """A sum that only one of the two accounts has is named, and the demo has failed."""
    outcome = run(tmp_path, provider=boastful())
    assert not outcome.agrees
    (difference,) = outcome.differences
    assert (difference.customer_id, difference.model, difference.unit) == ("acme", "gpt-6", "input_tokens")
    assert (difference.stated, difference.recorded) == (100, 0)


def test_a_difference_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the accounts differ in is said, and the command will not end with 0."""
    assert show(console(), home=tmp_path, provider=boastful()) is False
    shown = capsys.readouterr().out
    assert "The ledger differs from what the provider stated." in shown
    assert "acme, openai, gpt-6: input_tokens stated 100, in the ledger 0" in shown


def test_the_command(tmp_path: Path) -> None:
    """Plain lines where there is no terminal, the report, the comparison; the user's home untouched."""
    environment = {**os.environ, "CMDRDATA_HOME": str(tmp_path / "home"), "COLUMNS": "120"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "cmdrdata_transport", "demo", "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("time "))
    assert sum(" initech " in line for line in lines[header:]) >= CALLS
    assert lines[-1].startswith(f"The ledger agrees with the provider: {CALLS * len(CUSTOMERS)} answers, ")
    assert "\x1b" not in ended.stdout
    assert not (tmp_path / "home").exists()
