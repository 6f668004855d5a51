"""What the doctor found, on a page: the set-up, the SDKs, the proof."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from cmdrdata_transport import __version__
from cmdrdata_transport.cli.view import duration, number, printable, table_of
from cmdrdata_transport.clients import SDKS
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.doctor import (
    LATE_SECONDS,
    Proof,
    Proofs,
    SdkFinding,
    Setup,
    examine,
    installed_sdks,
    prove,
    unmetered_packages,
)
from cmdrdata_transport.remedies import REMEDIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

_BAD, _WAITING, _GOOD = "bold red", "yellow", "green"

_LOST = frozenset({"memory_dropped", "segment_removed"})
"""What no later delivery makes good."""

_JOBS_SHOWN = 5


def show(out: Console, *, home: Path | None) -> bool:
    """Examine, prove and show; whether everything is metered, and nothing is left for somebody to do."""
    setup = examine(home)
    sdks = installed_sdks()
    out.print(_setup_table(setup, sdks), "")
    out.print(_sdk_table(sdks), "")
    for each in sdks:
        if each.library is None:
            out.print(_out_of_reach(each), "", sep="\n")
    for row in unmetered_packages():
        said = f"{row.package}: {row.why}, so its calls are not metered. Instead: {row.instead}"
        out.print(Text(printable(said.replace("`", "")), style=_WAITING), "", sep="\n")
    with out.status("Calling each SDK against a server on this machine ..."):
        proofs = prove(home=setup.home)
    if proofs.calls:
        out.print(_proof_table(proofs), "")
    return _conclude(out, setup, proofs)


def as_json(*, home: Path | None) -> bool:
    """The same as one object."""
    setup = examine(home)
    proofs = prove(home=setup.home)
    good = _is_good(setup, proofs)
    said = {
        "good": good,
        "version": __version__,
        "home": str(setup.home),
        "sinks": setup.sinks,
        "problems": setup.problems,
        "recorded": setup.recorded,
        "pending": [
            {"sink": each.sink, "events": each.events, "bytes": each.size, "live": each.live}
            for each in setup.pending
        ],
        "lag_seconds": {sink: round(seconds, 3) for sink, seconds in setup.lag_seconds.items()},
        "rejected": [
            {"sink": each.sink, "events": each.number, "reasons": each.reasons, "path": str(each.path)}
            for each in setup.dead
        ],
        "damaged": [{"path": str(each.path), "events": each.events} for each in setup.torn],
        "counted": setup.counted,
        "awaited": setup.jobs,
        "sdks": [asdict(each) for each in installed_sdks()],
        "calls": [asdict(each) for each in proofs.calls],
        "losses": proofs.losses,
    }
    typer.echo(json.dumps(said, ensure_ascii=False, indent=2).encode())
    return good


def _is_good(setup: Setup, proofs: Proofs) -> bool:
    proved = all(each.metered for each in proofs.calls)
    return proved and not (setup.problems or setup.dead or setup.torn or _late(setup))


def _late(setup: Setup) -> dict[str, float]:
    """How long what waits for each sink has waited, in seconds, where that is too long."""
    return {sink: seconds for sink, seconds in setup.lag_seconds.items() if seconds > LATE_SECONDS}


def _setup_table(setup: Setup, sdks: list[SdkFinding]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    previous = ""
    for name, value, style in _setup_rows(setup, sdks):
        table.add_row("" if name == previous else name, Text(printable(value), style=style))
        previous = name
    return table


def _setup_rows(setup: Setup, sdks: list[SdkFinding]) -> Iterator[tuple[str, str, str]]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield "version", f"{__version__}, {python}, {platform.system()}", ""
    if libraries := sorted({each.library for each in sdks if each.library is not None}):
        yield "clients", ", ".join(libraries), ""
    yield "home", str(setup.home), ""
    for sink in setup.sinks:
        yield "sinks", sink, ""
    if setup.recorded:
        told = ", ".join(f"{number(count)} {status}" for status, count in setup.recorded.items())
        yield "ledger", f"{number(sum(setup.recorded.values()))} events; their usage: {told}", ""
    yield from _waiting_rows(setup)
    for each in setup.dead:
        reasons = "; ".join(f"{number(count)}: {reason}" for reason, count in each.reasons.items())
        yield (
            "rejected",
            f"{number(each.number)} events, by {each.sink} ({reasons}), kept in {each.path}",
            _BAD,
        )
    if setup.dead:
        yield "rejected", "Put the cause right, then type cmdrdata-transport replay", _BAD
    for piece in setup.torn:
        read = f"{number(piece.events)} events can be read" if piece.events else "nothing can be read"
        yield "damaged", f"a piece of the journal, set aside as {piece.path}; {read} of it", _BAD
    if setup.torn:
        yield "damaged", REMEDIES["torn"], _BAD
    for name, count in sorted(setup.counted.items()):
        if name in WARNINGS:
            style = _BAD if name in _LOST else _WAITING
            yield "counted", f"{number(count)} {name}: {WARNINGS[name]}", style
            yield "counted", f"  to do: {REMEDIES[name]}", ""
    measures = [
        f"{number(count)} {name}" for name, count in sorted(setup.counted.items()) if name not in WARNINGS
    ]
    if measures:
        yield "counted", f"in the last month: {', '.join(measures)}", ""
    for job in setup.jobs[:_JOBS_SHOWN]:
        whose = job.get("customer_id") or "nobody"
        began = str(job.get("timestamp", ""))[:16].replace("T", " ")
        yield "awaited", f"{job.get('name')} of {job.get('provider')}, for {whose}, since {began}", ""
    if more := setup.jobs[_JOBS_SHOWN:]:
        yield "awaited", f"and {number(len(more))} more", ""
    if setup.jobs:
        yield "awaited", "They count when a client that is metered fetches what has come of them", ""


def _waiting_rows(setup: Setup) -> Iterator[tuple[str, str, str]]:
    left, live = Counter[str](), Counter[str]()
    for each in setup.pending:
        (live if each.live else left)[each.sink] += each.events
    for sink, count in left.items():
        if sink.startswith("callable:"):
            yield "pending", f"{number(count)} events for {sink}, which its own program delivers", _WAITING
        elif sink in setup.sinks:
            yield "pending", f"{number(count)} events for {sink}: type cmdrdata-transport drain", _WAITING
        else:
            said = "which is no sink here: type cmdrdata-transport drain, or give them up with --forget"
            yield "pending", f"{number(count)} events for {sink}, {said}", _WAITING
    for sink, count in live.items():
        yield "pending", f"{number(count)} events for {sink}, of processes at work", ""
    for sink, seconds in _late(setup).items():
        said = f"what waits for {sink} began {duration(seconds)} ago: drain, or the log, says why it waits"
        yield "pending", said, _BAD
    if not setup.pending:
        yield "pending", "nothing", ""


def _sdk_table(sdks: list[SdkFinding]) -> Table:
    missing = [sdk.name for sdk in SDKS if sdk.name not in {each.name for each in sdks}]
    table = table_of("SDK", "version", "client", "to type")
    for each in sdks:
        name = Text(each.name, style="cyan")
        if each.library is None:
            table.add_row(name, each.version, "-", Text("out of reach, see below", style=_WAITING))
        else:
            table.add_row(name, each.version, each.library.split()[0], Text(printable(each.advice)))
    if missing:
        table.caption = f"Not installed: {', '.join(missing)}"
    return table


def _out_of_reach(sdk: SdkFinding) -> Text:
    said = "passes its calls through neither httpx nor httpx2, so they are not metered. Type instead:"
    return Text(f"{sdk.name} {said} {printable(sdk.advice)}", style=_WAITING)


def _proof_table(proofs: Proofs) -> Table:
    table = table_of("SDK", "call", "metered, sync", "metered, async")
    by_call: dict[tuple[str, str], dict[bool, Proof]] = {}
    for each in proofs.calls:
        by_call.setdefault((each.sdk, each.call), {})[each.asynchronous] = each
    previous = ""
    for (sdk, what), both in by_call.items():
        cells = [_verdict(both[asynchronous]) for asynchronous in (False, True)]
        table.add_row(Text("" if sdk == previous else sdk, style="cyan"), what, *cells)
        previous = sdk
    return table


def _verdict(proof: Proof) -> Text:
    detail = printable(proof.detail)
    return Text(detail, style=_GOOD) if proof.metered else Text(f"NOT METERED: {detail}", style=_BAD)


def _conclude(out: Console, setup: Setup, proofs: Proofs) -> bool:
    unmetered = sum(not each.metered for each in proofs.calls)
    for name, count in proofs.losses.items():
        out.print(Text(f"Counted during these calls: {name} {count}", style=_WAITING))
    for problem in setup.problems:
        out.print(Text(printable(problem), style=_BAD))
    if not proofs.calls:
        out.print(
            Text(
                "No SDK could be called: none is installed, or nowhere is room for it; nothing is proved.",
                style=_WAITING,
            )
        )
    elif unmetered:
        out.print(Text(f"{unmetered} of {len(proofs.calls)} calls are not metered.", style=_BAD))
    else:
        out.print(Text(f"All {len(proofs.calls)} calls are metered, to the token.", style=f"bold {_GOOD}"))
    if setup.dead or setup.torn or _late(setup):
        said = "Something waits for you: see what is pending, rejected or damaged above."
        out.print(Text(said, style=_BAD))
    return _is_good(setup, proofs)
