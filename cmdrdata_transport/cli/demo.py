"""The demo, shown as it runs: events as they land, then the report, then whether the accounts agree."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from cmdrdata_transport.cli.view import event_header, event_line, number, report_table
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.demo.run import CUSTOMERS, Outcome, run
from cmdrdata_transport.demo.run import installed_sdks as callable_sdks
from cmdrdata_transport.doctor import installed_sdks
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.ledger import Ledger

if TYPE_CHECKING:
    from rich.console import Console

    from cmdrdata_transport.event import UsageEvent

PACE = 0.004
"""Seconds between two chunks: a stream that can be watched."""

REFUSALS = 0.08
"""The share of first attempts that the provider refuses, so that retries are seen."""


def show(out: Console, *, home: Path | None, provider: Provider | None = None, seed: int = 1) -> bool:
    """Run the demo and show it; whether the accounts agree.

    `provider` and `seed`: another provider than ours, or ours with another seed.
    Raises `TrackingSetupError` when no SDK is installed that could be called.
    """
    if not callable_sdks():
        raise TrackingSetupError("the demo calls real SDKs: pip install 'cmdrdata-transport[demo]'")
    with ExitStack() as stack:
        where = home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cmdrdata-demo-")))
        _introduce(out)
        with _Landing(out) as landing:
            pace = PACE if out.is_terminal else 0.0
            ours = Provider(seed=seed, pace=pace, refusals=REFUSALS)
            outcome = run(where, provider=provider or ours, on_event=landing.take)
        with Ledger.open(outcome.ledger) as ledger:
            rows = ledger.report(by=("customer_id", "provider"))
        out.print()
        out.print(report_table(rows, ("customer_id", "provider"), out.width))
        _conclude(out, outcome)
        if home is not None:
            out.print(
                f"The ledger: cmdrdata-transport report --ledger sqlite:///{outcome.ledger}", style="dim"
            )
    return outcome.agrees


def _introduce(out: Console) -> None:
    sdks = {each.name: each for each in installed_sdks()}
    called = [sdk.name for sdk in callable_sdks()]
    names = ", ".join(f"{name} {sdks[name].version} ({sdks[name].library})" for name in called)
    out.print(f"SDKs: {names}", style="dim", soft_wrap=False)
    out.print(
        f"Customers: {', '.join(CUSTOMERS)}, sharing one tracked client for each SDK, sync and async. The "
        "providers are a server on the loopback interface: no key, no network.",
        style="dim",
        soft_wrap=False,
    )
    out.print()


class _Landing:
    """Shows events as they land: a line for each, and in a terminal the sums so far below them."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._width = out.width
        self._lock = threading.Lock()
        self._sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._live = Live(get_renderable=self._so_far, console=out, transient=True, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._out.print(event_header(self._width))
        if self._out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def take(self, events: list[UsageEvent]) -> None:
        """Show these; called on a delivery thread."""
        for event in events:
            with self._lock:
                sums = self._sums[event.customer_id or ""]
                sums["calls"] += 1
                sums["input"] += event.usage.input_tokens or 0
                sums["output"] += event.usage.output_tokens or 0
            self._out.print(event_line(event, self._width))

    def _so_far(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            for customer in CUSTOMERS:
                sums = self._sums[customer]
                table.add_row(
                    Text(customer, style="bold cyan"),
                    *(
                        Text(f"{number(sums[name])} {name}", style="bold")
                        for name in ("calls", "input", "output")
                    ),
                )
        return table


def _conclude(out: Console, outcome: Outcome) -> None:
    if outcome.agrees:
        out.print(
            Text(
                f"The ledger agrees with the provider: {outcome.answers} answers, "
                f"{outcome.stated['input_tokens']:,} tokens in, {outcome.stated['output_tokens']:,} out.",
                style="bold green",
            ),
            soft_wrap=False,
        )
        return
    out.print(Text("The ledger differs from what the provider stated.", style="bold red"))
    if not outcome.delivered:
        out.print(Text("Not every event reached the ledger in time.", style="red"))
    for each in outcome.differences:
        out.print(
            Text(
                f"{each.customer_id}, {each.provider}, {each.model}: {each.unit} stated {each.stated:,}, "
                f"in the ledger {each.recorded:,}",
                style="red",
            )
        )
