"""The commands and their options: reads what was typed, calls the command, turns errors into one line.

Exit codes: 0, all is as asked; 1, something is not as it should be, and it was said what; 2, wrong
input or a wrong set-up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.text import Text

from cmdrdata_transport import __version__
from cmdrdata_transport.cli import reading
from cmdrdata_transport.cli.homes import home_of
from cmdrdata_transport.cli.output import writing
from cmdrdata_transport.cli.report import FORMATS, LATENCY_FORMATS
from cmdrdata_transport.cli.view import console, printable
from cmdrdata_transport.cli.when import EXAMPLES, moment
from cmdrdata_transport.errors import TrackingError, TrackingSetupError
from cmdrdata_transport.ledger import check_groups
from cmdrdata_transport.metrics import measure
from cmdrdata_transport.tracker import Tracker

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="What each customer of an AI application used: what was metered, what waits, whether it works.",
)


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class ExportFormat(StrEnum):
    """How events are written."""

    JSONL = "jsonl"
    CSV = "csv"


class StatsFormat(StrEnum):
    """How stats are written."""

    TABLE = "table"
    JSON = "json"
    OPENMETRICS = "openmetrics"


class DoctorFormat(StrEnum):
    """How the doctor writes."""

    TABLE = "table"
    JSON = "json"


Home = Annotated[
    Path | None,
    typer.Option(help="Where journal and ledger are. Else CMDRDATA_HOME, else the user's state directory."),
]
LedgerUrl = Annotated[
    str | None,
    typer.Option("--ledger", metavar="URL", help="The ledger to read. Else the first sink that is one."),
]
Since = Annotated[str | None, typer.Option(metavar="TIME", help=f"From this moment on: {EXAMPLES}.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without a question.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Up to this moment, itself left out.")]


def run() -> None:
    """Run the command that was typed."""
    app(prog_name="cmdrdata-transport")


def _show_version(asked: bool) -> None:  # noqa: FBT001 - as typer calls it
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What every command has; a docstring is not shown here."""


@contextmanager
def _errors_in_one_line() -> Generator[None]:
    """What is wrong with the input or the set-up is said without a traceback."""
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads any more, as after `| head`
    except (TrackingError, OSError, sqlite3.Error) as error:
        console(stderr=True).print(Text(f"error: {printable(str(error))}", style="red"), soft_wrap=True)
        raise typer.Exit(2) from None


def _end(*, good: bool) -> NoReturn:
    raise typer.Exit(0 if good else 1)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return moment(text, datetime.now(UTC))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _moments(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    start, end = _moment(since), _moment(until)
    if start is not None and end is not None and end <= start:
        raise typer.BadParameter(f"--until {until} is not after --since {since}: no time lies between them")
    return start, end


@app.command()
def demo(
    *,
    home: Annotated[
        Path | None, typer.Option(help="Keep journal and ledger here. Else they are gone afterwards.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the numbers, the texts, where the bytes are cut.")] = 1,
) -> None:
    """Call the real SDKs against a provider on this machine, and compare the ledger with what it stated."""
    from cmdrdata_transport.cli.demo import show  # noqa: PLC0415 - the other commands need no SDK

    with _errors_in_one_line():
        good = show(console(), home=home, seed=seed)
    _end(good=good)


@app.command()
def report(
    *,
    by: Annotated[
        str, typer.Option(metavar="KEYS", help="What to sum by, with commas: fields, day, metadata.KEY.")
    ] = "customer_id,model",
    since: Since = None,
    until: Until = None,
    latency: Annotated[
        bool,
        typer.Option("--latency", help="How long attempts took, answers and errors apart, instead of sums."),
    ] = False,
    form: Annotated[
        Format,
        typer.Option("--format", help="For people, for programs (a list of objects), for spreadsheets."),
    ] = Format.TABLE,
    ledger: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Sum what was used, by customer, model, provider, operation, day or any metadata key.

    Delivers first what processes that have ended left behind, and says what is still on its way.
    """
    start, end = _moments(since, until)
    keys = [key.strip() for key in by.split(",") if key.strip()]
    with _errors_in_one_line():
        check_groups(keys)
        rows: list[dict[str, Any]] = []
        with reading.delivered(console(stderr=True), Tracker(home=home), ledger) as opened:
            if opened is not None:
                ask = opened.latency if latency else opened.report
                rows = ask(by=keys, since=start, until=end)
        (LATENCY_FORMATS if latency else FORMATS)[form.value](console(), rows, keys)


@app.command()
def tail(
    *,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="So many of the last events first.")
    ] = 10,
    since: Since = None,
    once: Annotated[bool, typer.Option("--once", help="Show what is there, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The published events, one JSON object a line.")
    ] = False,
    ledger: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Show events as they land in the ledger, until Ctrl-C."""
    from cmdrdata_transport.cli.tail import show  # noqa: PLC0415 - one command, one module

    start = _moment(since)
    with _errors_in_one_line(), suppress(KeyboardInterrupt):
        tracker = Tracker(home=home)
        at = home_of(tracker, to_write=False)
        where = ledger or reading.ledger_of(tracker)
        if once and ledger is None and not reading.is_there(console(stderr=True), at, where):
            return
        show(
            console(),
            where,
            home=at,
            lines=lines,
            since=start,
            follow=not once,
            as_json=as_json,
        )


@app.command()
def export(
    *,
    since: Since = None,
    until: Until = None,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="The published events, or a column for each field of theirs."),
    ] = ExportFormat.JSONL,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, whole or not at all.")
    ] = None,
    ledger: LedgerUrl = None,
    home: Home = None,
) -> None:
    """Write the ledger's events one by one, as JSON lines or CSV.

    Delivers first what processes that have ended left behind, and says what is still on its way. Ends with 1
    where some of the ledger cannot be read.
    """
    from cmdrdata_transport.cli import export as command  # noqa: PLC0415 - one command, one module

    start, end = _moments(since, until)
    with _errors_in_one_line():
        err, good = console(stderr=True), True
        with reading.delivered(err, Tracker(home=home), ledger) as opened:
            if opened is not None:
                good = command.export(console(), err, opened, form.value, output, since=start, until=end)
    _end(good=good)


@app.command()
def doctor(
    *,
    form: Annotated[DoctorFormat, typer.Option("--format", help="For people, or for programs.")] = (
        DoctorFormat.TABLE
    ),
    home: Home = None,
) -> None:
    """Say what is installed and set up, what waits, and prove that each SDK is metered.

    Calls each SDK, sync and async, against a server on this machine; the ledger never sees these calls.
    Ends with 1 where a call is not metered, something waits for you to put it right, or for an hour.
    """
    from cmdrdata_transport.cli import doctor as command  # noqa: PLC0415 - the other commands need no SDK

    with _errors_in_one_line():
        good = (
            command.show(console(), home=home) if form is DoctorFormat.TABLE else command.as_json(home=home)
        )
    _end(good=good)


@app.command()
def drain(
    *,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds in which sinks that fail are tried again.")
    ] = 60,
    forget: Annotated[
        str | None,
        typer.Option(metavar="SINK", help="Give up what waits for this sink; it will never have it."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on: deliver for applications that only write the journal.")
    ] = False,
    home: Home = None,
) -> None:
    """Deliver what processes that have ended left in the journal.

    Ends with 1 where something of them still waits, and says for which sink, and why; or where a sink refused
    some, or a damaged piece of the journal was set aside.
    """
    from cmdrdata_transport.cli import drain as command  # noqa: PLC0415 - one command, one module

    out, err = console(), console(stderr=True)
    with _errors_in_one_line():
        if follow and forget is not None:
            raise TrackingSetupError("--forget and --follow are two things: type one after the other")
        tracker = Tracker(home=home)
        good = True
        if follow:
            # What the application means by it, also where that is not there yet, or another user's.
            at = tracker.wanted_home
            if tracker.home != at:
                reading.say(err, f"{at} cannot be written: this user delivers nothing of it until it can be")
            command.keep_on(err, home=at)
        elif forget is not None:
            at = home_of(tracker, to_write=True)
            good = command.give_up(out, home=at, sink=reading.identity_of(forget, at))
        else:
            good = command.show(out, err, home=home_of(tracker, to_write=True), timeout=timeout)
    _end(good=good)


@app.command()
def replay(
    *,
    sink: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Only what this sink has refused; or the sink for what is told to be sent.",
        ),
    ] = None,
    from_ledger: Annotated[
        bool,
        typer.Option("--from-ledger", help="Send a ledger's events to the sink of --sink, a new one say."),
    ] = False,
    torn: Annotated[
        bool,
        typer.Option("--torn", help="Send what can be read of the damaged pieces of the journal."),
    ] = False,
    ledger: LedgerUrl = None,
    since: Since = None,
    until: Until = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds in which sinks that fail are tried again.")
    ] = 60,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Send again what sinks have refused, once the cause is put right.

    Or a ledger's events to a new sink; or what can be read of a damaged journal.

    Says first how many, to which sink and why, and asks. Ends with 1 where some wait or are refused again.
    """
    from cmdrdata_transport.cli import replay as command  # noqa: PLC0415 - one command, one module

    out, err = console(), console(stderr=True)
    start, end = _moments(since, until)
    with _errors_in_one_line():
        tracker = Tracker(home=home)
        at = home_of(tracker, to_write=True)
        if torn and from_ledger:
            raise TrackingSetupError("--torn and --from-ledger are two things: type one after the other")
        if from_ledger:
            if sink is None:
                raise TrackingSetupError(
                    "--from-ledger needs --sink: the URL of the sink that is to have the events"
                )
            good = command.from_ledger(
                out,
                err,
                home=at,
                ledger=ledger or reading.ledger_of(tracker),
                sink=sink,
                since=start,
                until=end,
                timeout=timeout,
                yes=yes,
            )
        elif ledger or start or end:
            raise TrackingSetupError("--ledger, --since and --until go with --from-ledger")
        elif torn:
            good = command.damaged(
                out, err, home=at, sink=sink, sinks=tracker.sinks, timeout=timeout, yes=yes
            )
        else:
            good = command.dead_letters(out, err, home=at, sink=sink, timeout=timeout, yes=yes)
    _end(good=good)


@app.command()
def prune(
    *,
    before: Annotated[
        str, typer.Option(metavar="TIME", help=f"What is older than this is removed: {EXAMPLES}.")
    ],
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Remove what is old from ledgers, dead letters and remembered jobs; say first how much, and ask.

    What waits in the journal stays, however old it is. Files of JSON lines are yours to put away.
    """
    from cmdrdata_transport.cli import keep  # noqa: PLC0415 - one command, one module

    moment_before = _moment(before)
    assert moment_before is not None  # noqa: S101 - it was typed
    with _errors_in_one_line():
        tracker = Tracker(home=home)
        good = keep.prune(
            console(),
            console(stderr=True),
            home=home_of(tracker, to_write=True),
            sinks=tracker.sinks,
            before=moment_before,
            yes=yes,
        )
    _end(good=good)


@app.command()
def erase(
    *,
    customer: Annotated[
        str, typer.Option(metavar="ID", help="Whose events, dead letters and jobs, as `report` shows it.")
    ],
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Remove what is a customer's from every file of home and every ledger; say first what, and ask.

    Names what it cannot reach, and what still has the customer's id afterwards; then it ends with 1.
    """
    from cmdrdata_transport.cli import keep  # noqa: PLC0415 - one command, one module

    with _errors_in_one_line():
        if not customer:
            raise TrackingSetupError("--customer is empty: type whose events are to be removed")
        tracker = Tracker(home=home)
        good = keep.erase(
            console(),
            console(stderr=True),
            home=home_of(tracker, to_write=True),
            sinks=tracker.sinks,
            customer=customer,
            yes=yes,
        )
    _end(good=good)


@app.command()
def stats(
    *,
    form: Annotated[
        StatsFormat, typer.Option("--format", help="For people, for programs, for Prometheus and the like.")
    ] = StatsFormat.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it to this file, whole or not at all, for a collector."),
    ] = None,
    home: Home = None,
) -> None:
    """Say how it stands: what was counted by all processes, what waits for which sink and how long."""
    from cmdrdata_transport.cli import stats as command  # noqa: PLC0415 - one command, one module

    with _errors_in_one_line():
        if output is not None and form is StatsFormat.TABLE:
            raise TrackingSetupError("--output goes with --format openmetrics or --format json")
        tracker = Tracker(home=home)
        found = measure(home_of(tracker, to_write=False), tracker.sinks)
        if form is StatsFormat.TABLE:
            command.as_table(console(), found)
        elif output is not None:
            with writing(output) as file:  # whole or not at all: who collects it sees no half of it
                file.write(command.TEXTS[form.value](found))
        else:
            typer.echo(
                command.TEXTS[form.value](found).encode(), nl=False
            )  # whatever the terminal's encoding
