"""What the doctor found, on a page: the set-up, the SDKs, the proof."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cmdrdata_transport import __version__
from cmdrdata_transport.cli.view import printable
from cmdrdata_transport.demo.calls import CALLED_SDKS
from cmdrdata_transport.doctor import Proof, SdkFinding, Setup, examine, installed_sdks, prove
from cmdrdata_transport.errors import TrackingError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

_YES, _NO = Text("yes", style="green"), Text("NO", style="bold red")


def show(out: Console, *, home: Path | None) -> bool:
    """Examine, prove and show; whether everything is metered."""
    setup = examine(home)
    out.print(_setup_table(setup))
    sdks = installed_sdks()
    out.print(_sdk_table(sdks))
    try:
        with out.status("Calling each SDK against the loopback interface ..."):
            proofs = prove()
    except TrackingError as error:
        out.print(Text(f"Nothing can be proved: {error}", style="bold red"))
        return False
    if proofs:
        out.print(_proof_table(proofs))
    return _conclude(out, setup, proofs)


def _setup_table(setup: Setup) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    rows: list[tuple[str, RenderableType]] = [
        ("version", Text(f"{__version__}, {python}")),
        ("home", Text(printable(str(setup.home)))),
    ]
    rows += [("" if place else "sinks", Text(printable(sink))) for place, sink in enumerate(setup.sinks)]
    rows += [("" if place else "pending", line) for place, line in enumerate(_pending(setup))]
    rows += [
        ("" if place else "rejected", Text(f"{count} events in {printable(str(path))}", style="yellow"))
        for place, (path, count) in enumerate(setup.dead.items())
    ]
    if setup.torn:
        rows.append(("damaged", Text(f"{setup.torn} pieces of the journal, set aside", style="yellow")))
    rows += [("problem", Text(printable(problem), style="bold red")) for problem in setup.problems]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _pending(setup: Setup) -> list[Text]:
    left, live = Counter[str](), Counter[str]()
    for each in setup.pending:
        (live if each.live else left)[each.sink] += each.events
    lines = [
        Text(f"{count} events for {printable(sink)}: type cmdrdata-transport drain", style="yellow")
        for sink, count in left.items()
    ]
    lines += [
        Text(f"{count} events for {printable(sink)}, of processes at work") for sink, count in live.items()
    ]
    return lines or [Text("nothing")]


def _sdk_table(sdks: list[SdkFinding]) -> RenderableType:
    missing = [sdk.name for sdk in CALLED_SDKS if sdk.name not in {each.name for each in sdks}]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    for name in ("SDK", "version", "its client is of", "to type"):
        table.add_column(name, overflow="fold")
    for each in sdks:
        table.add_row(
            Text(each.name, style="cyan"), each.version, each.library or "-", Text(printable(each.advice))
        )
    if missing:
        table.caption = f"Not installed: {', '.join(missing)}"
    return table


def _proof_table(proofs: list[Proof]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("SDK", "call", "", "metered", "recorded"):
        table.add_column(name, overflow="fold")
    previous = ""
    for each in proofs:
        table.add_row(
            Text(each.sdk if each.sdk != previous else "", style="cyan"),
            each.call,
            "async" if each.asynchronous else "sync",
            _YES if each.metered else _NO,
            Text(printable(each.detail), style="" if each.metered else "red"),
        )
        previous = each.sdk
    return table


def _conclude(out: Console, setup: Setup, proofs: list[Proof]) -> bool:
    unmetered = sum(not each.metered for each in proofs)
    if not proofs:
        out.print(Text("No SDK is installed that could be called; nothing is proved.", style="yellow"))
    elif unmetered:
        out.print(Text(f"{unmetered} of {len(proofs)} calls are not metered.", style="bold red"))
    else:
        out.print(Text(f"All {len(proofs)} calls are metered, to the token.", style="bold green"))
    for problem in setup.problems:
        out.print(Text(printable(problem), style="bold red"))
    return not unmetered and not setup.problems
