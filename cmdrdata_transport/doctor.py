"""Finds out whether this installation meters: what is installed, where events go, what waits, and a proof.

The proof is a call through each installed SDK to a server on the loopback interface, sync and async,
streaming and not, with a tracker and a home of its own: the user's ledger never sees it. Gives data;
`cli` shows it.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cmdrdata_transport.attribution import customer_context, tracking_headers
from cmdrdata_transport.clients import SDKS, tracked_http_client
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.demo.calls import (
    EVERY_SDK,
    CalledSdk,
    SdkCall,
    call,
    call_async,
    connected,
    connected_async,
)
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider, Stated
from cmdrdata_transport.errors import TrackingError, Unavailable
from cmdrdata_transport.home import backlog_of, journals, obstacle
from cmdrdata_transport.jobs import Jobs
from cmdrdata_transport.ledger import READABLE, Ledger, NotBegun
from cmdrdata_transport.metrics import lag_seconds
from cmdrdata_transport.options import DEFAULT_API
from cmdrdata_transport.providers.unmetered import UNMETERED, Unmetered
from cmdrdata_transport.remedies import of_damaged_ledger
from cmdrdata_transport.replaying import Letters, letters
from cmdrdata_transport.salvaging import Torn, torn_pieces
from cmdrdata_transport.segments import Backlog, foreign
from cmdrdata_transport.sinks import file_of
from cmdrdata_transport.sinks.damage import aside_from
from cmdrdata_transport.tallies import tallies, totals
from cmdrdata_transport.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from cmdrdata_transport.event import Usage, UsageEvent

_DELIVERY_SECONDS = 10.0

LATE_SECONDS = 3600.0
"""What has waited longer waits for somebody to look: a sink that is tried every minute does not take it."""

_LEAST_ROOM = 1024 * 1024
"""A disk with fewer bytes left takes a ledger's next pages no more, or not for long."""

MONTH_SECONDS = 30 * 24 * 3600.0
"""What was counted by processes that nobody has heard of for longer is history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkFinding:
    """An installed SDK.

    `library` is the HTTP library that its client is of, with its version; None where it uses neither, so
    that no transport sees its calls. `advice` is what to type.
    """

    name: str
    version: str
    library: str | None
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How tracking is set up by the environment, and what waits in its home.

    `sinks` are identities: URLs without secrets. `pending` is what sinks have not taken yet, those of
    other configurations included, and `lag_seconds` how old the oldest of it is, by sink. `dead` are the
    dead letters, of each sink that has refused events; `torn` are the damaged pieces of the journal that
    were set aside, with what can be read of them.
    `recorded` has the number of events in the ledger by their `usage_status`. `counted` is what the
    processes of this home have counted in the last month, by name. `jobs` were started and not told of
    since: background answers, batches, predictions. `problems` says what keeps events from being kept or
    sent; empty when nothing does.
    """

    home: Path
    sinks: tuple[str, ...]
    recorded: Mapping[str, int]
    pending: tuple[Backlog, ...]
    lag_seconds: Mapping[str, float]
    dead: tuple[Letters, ...]
    torn: tuple[Torn, ...]
    counted: Mapping[str, int]
    jobs: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One call through a real SDK, and whether exactly what it used was recorded."""

    sdk: str
    call: str
    asynchronous: bool
    metered: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """What came of all calls. `losses` are the counts, by name, of what the tracker warned of meanwhile."""

    calls: tuple[Proof, ...]
    losses: Mapping[str, int]


def installed_sdks() -> list[SdkFinding]:
    """The SDKs that we know and that are installed here."""
    found: list[SdkFinding] = []
    for sdk in SDKS:
        with suppress(PackageNotFoundError):
            installed = version(sdk.name)
            library, advice = (
                (_library_needed_by(sdk.name), sdk.instead) if sdk.instead else _library_of(sdk.name)
            )
            found.append(SdkFinding(name=sdk.name, version=installed, library=library, advice=advice))
    return found


def _library_needed_by(sdk: str) -> str | None:
    """The HTTP library that an SDK requires, of the two that we can see through."""
    needed = {re.split(r"[^\w-]", requirement)[0] for requirement in requires(sdk) or ()}
    return next((f"{name} {version(name)}" for name in ("httpx2", "httpx") if name in needed), None)


def _library_of(sdk: str) -> tuple[str | None, str]:
    """The HTTP library that an SDK's own client is of, and what to type."""
    tracker = Tracker([_nowhere], home=_anywhere(), name="doctor")  # unused, so it writes nothing
    try:
        with tracked_http_client(sdk, tracker=tracker) as client:
            for name in ("httpx2", "httpx"):
                module: Any = sys.modules.get(name)
                if module is not None and isinstance(client, module.Client):
                    return f"{name} {version(name)}", f'tracked_http_client("{sdk}")'
    except TrackingError as error:
        return None, str(error)
    return None, "its client is of neither httpx nor httpx2"


def _anywhere() -> str:
    """A home for whoever writes nothing there."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return os.sep


def _nowhere(events: list[UsageEvent]) -> None:
    """Takes what never comes."""


def examine(home: Path | None = None) -> Setup:
    """What the environment configures, with `home` in place of its home if given. Changes nothing.

    Raises `TrackingSetupError` when what the environment says cannot be.
    """
    problems: list[str] = []
    tracker = Tracker(home=home)
    if tracker.disabled:
        problems.append("CMDRDATA_DISABLED is set: nothing is recorded")
    if not any(sink.startswith("http") for sink in tracker.sinks):
        problems += _sent_nowhere(os.environ)
    if in_the_way := obstacle(tracker.wanted_home):
        there = "memory" if tracker.home == tracker.wanted_home else f"a temporary directory, {tracker.home}"
        problems.append(f"{in_the_way} cannot be written; events go to {there}")
    elif in_the_way := obstacle(tracker.home / "journal"):
        problems.append(f"{in_the_way} cannot be written; events go through a temporary directory, or memory")
    problems += _no_room(tracker.home)
    directories = journals(tracker.home)
    recorded: dict[str, int] = {}
    if ledger := next((sink for sink in tracker.sinks if _is_there(sink, tracker.home)), None):
        try:
            with Ledger.open(ledger, home=tracker.home) as opened:
                recorded = {row["usage_status"]: row["events"] for row in opened.report(by=("usage_status",))}
        except NotBegun:
            pass
        except Unavailable as error:
            if ledger.startswith("sqlite:"):
                file = file_of(urlsplit(ledger), tracker.home)
                problems.append(of_damaged_ledger(file, ledger, error))
            else:
                problems.append(f"{ledger} cannot be read: {error}")
        except TrackingError as error:
            problems.append(str(error))
    problems += [
        f"{path} was set aside: a damaged ledger. What can be read of it comes back by "
        f"cmdrdata-transport replay --from-ledger --ledger {path} --sink {sink}; then move it away"
        for sink, path in _set_aside(tracker.sinks, tracker.home)
    ]
    problems += [
        f"{path} waits: a later version of this library wrote it, or another user; deliver it by that one's "
        "cmdrdata-transport drain"
        for directory in directories
        for path in foreign(directory)
    ]
    problems += [
        f"{path} has events of a time when {tracker.home} could not be written. They come back by "
        f"cmdrdata-transport replay --from-ledger --ledger {path} --sink {sink}; then move it away"
        for sink, path in _apart(tracker.sinks, [each.parent for each in directories[1:]])
    ]
    pending = tuple(backlog_of(tracker.home))
    return Setup(
        home=tracker.home,
        sinks=tracker.sinks,
        recorded=recorded,
        pending=pending,
        lag_seconds=lag_seconds(pending, time()),
        dead=tuple(each for directory in directories for each in letters(directory.parent)),
        torn=tuple(torn_pieces(tracker.home)),
        counted=totals(each for each in tallies(tracker.home) if each.updated > time() - MONTH_SECONDS),
        jobs=tuple(
            sorted(
                Jobs(tracker.home, tracker.counters.count).waiting(),
                key=lambda job: str(job.get("timestamp", "")),
            )
        ),
        problems=tuple(problems),
    )


def _sent_nowhere(environ: Mapping[str, str]) -> Generator[str]:
    """What is set up for a receiver over HTTP, where none is among the sinks."""
    if environ.get("CMDRDATA_URL"):
        yield "CMDRDATA_URL is set, and nothing goes there: set CMDRDATA_API_KEY, or put it in CMDRDATA_SINKS"
    elif environ.get("CMDRDATA_API_KEY"):
        yield f"CMDRDATA_API_KEY is set, and no sink takes it: list {DEFAULT_API} in CMDRDATA_SINKS, too"


def _no_room(home: Path) -> Generator[str]:
    """What is to be said of a disk that is full."""
    # `Path.exists` would raise below a directory that this user may not enter.
    there = next(each for each in (home, *home.parents) if os.path.exists(each))  # noqa: PTH110
    room = os.statvfs(there)
    until = "make room. Until then events are held in memory, and lost when their process ends"
    if room.f_bavail * room.f_frsize < _LEAST_ROOM:
        yield f"the disk that {home} is on is full: {until}"
    elif room.f_files and not room.f_favail:
        yield f"the disk that {home} is on has no room for one more file: {until}"


def unmetered_packages() -> list[Unmetered]:
    """What is installed here whose whole traffic is out of reach, beside the SDKs that we know."""
    known = {sdk.name for sdk in SDKS}
    found: list[Unmetered] = []
    for row in UNMETERED:
        if row.package and row.package not in known:
            with suppress(PackageNotFoundError):
                version(row.package)
                found.append(row)
    return found


def _is_there(sink: str, home: Path) -> bool:
    """Whether this sink is a ledger, and its file is there; a database may be."""
    if sink.startswith("sqlite:"):
        return file_of(urlsplit(sink), home).exists()
    return sink.startswith(READABLE)


def _set_aside(sinks: Sequence[str], home: Path) -> Generator[tuple[str, Path]]:
    """Ledgers that were found damaged, with the sink that they were."""
    for sink in sinks:
        if sink.startswith("sqlite:"):
            for path in aside_from(file_of(urlsplit(sink), home)):
                yield sink, path


def _apart(sinks: Sequence[str], homes: Sequence[Path]) -> Generator[tuple[str, Path]]:
    """Ledgers in what stood in for home, with the sink that they were."""
    for home in homes:
        for sink in sinks:
            if sink.startswith("sqlite:///") and _is_there(sink, home):
                file = file_of(urlsplit(sink), home)
                if file.is_relative_to(home):
                    yield sink, file


def prove(sdks: Sequence[CalledSdk] = EVERY_SDK, *, home: Path | None = None) -> Proofs:
    """Make every call of the installed ones of `sdks`, sync and async, and hold each event to its answer.

    No call where there is no directory to write in, a temporary one or below `home`. Takes some seconds,
    most of them to import the SDKs. Raises `TrackingSetupError` as `examine` does.
    """
    if (made := _a_home_for_it(home)) is None:
        return Proofs(calls=(), losses={})
    tries: list[_Try] = []
    events: list[UsageEvent] = []

    def keep(landed: list[UsageEvent]) -> None:
        events.extend(landed)

    provider = Provider()
    with made as own, Loopback(provider) as server:
        tracker = Tracker([keep], home=own, name="doctor")
        try:
            for sdk in sdks:
                if sdk.installed:
                    here = _Place(url=server.url, provider=provider, tracker=tracker)
                    tries += _try_sync(sdk, here)
                    tries += asyncio.run(_try_async(sdk, here))
            tracker.flush(_DELIVERY_SECONDS)
        finally:
            tracker.close()
    return Proofs(
        calls=tuple(each.proof(events) for each in tries),
        losses={name: number for name, number in tracker.stats().items() if name in WARNINGS},
    )


def _a_home_for_it(home: Path | None) -> tempfile.TemporaryDirectory[str] | None:
    """A directory for a while: in `home` where there is no other, as in a read-only container."""
    for place in (None, home):
        with suppress(OSError):
            return tempfile.TemporaryDirectory(prefix="cmdrdata-doctor-", dir=place)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the calls go, and what records them."""

    url: str
    provider: Provider
    tracker: Tracker


def _try_sync(sdk: CalledSdk, here: _Place) -> list[_Try]:
    tries = [_Try(sdk=sdk.name, what=what, asynchronous=False) for what in sdk.calls]
    with _failing(tries), connected(sdk, here.url, tracker=here.tracker, provider=sdk.provider) as client:
        for each in tries:
            with each.watching(here.provider):
                call(client, each.what, each.headers)
    return tries


async def _try_async(sdk: CalledSdk, here: _Place) -> list[_Try]:
    tries = [_Try(sdk=sdk.name, what=what, asynchronous=True) for what in sdk.calls]
    with _failing(tries):
        async with connected_async(sdk, here.url, tracker=here.tracker, provider=sdk.provider) as client:
            for each in tries:
                with each.watching(here.provider):
                    await call_async(client, each.what, each.headers)
    return tries


@contextmanager
def _failing(tries: Sequence[_Try]) -> Generator[None]:
    """What an SDK raises is kept as what came of these calls."""
    try:
        yield
    except Exception as error:
        for each in tries:
            each.failure = each.failure or f"the call failed: {type(error).__name__}: {error}"


@dataclass(slots=True, kw_only=True)
class _Try:
    """One call; a customer of its own tells its events from the others."""

    sdk: str
    what: SdkCall
    asynchronous: bool
    failure: str = ""
    answers: Sequence[Stated] = ()

    @property
    def customer(self) -> str:
        return f"{self.sdk} {self.what.name} {'async' if self.asynchronous else 'sync'}"

    @property
    def headers(self) -> Mapping[str, str]:
        """Whose the call is, where the context does not tell."""
        return tracking_headers(self.customer) if self.what.elsewhere else {}

    @contextmanager
    def watching(self, provider: Provider) -> Generator[None]:
        """For the time of the call, which is made alone: what is stated meanwhile is its answer."""
        before = len(provider.stated)
        with _failing([self]), customer_context(self.customer):
            yield
        self.answers = provider.stated[before:]

    def proof(self, events: Sequence[UsageEvent]) -> Proof:
        """What came of it."""
        mine = [each for each in events if each.customer_id == self.customer]
        # A call that starts what others tell of is an event too, of nothing used yet.
        recorded = [each.usage for each in mine if each.usage_status != "none"]
        problem = self.failure
        if not problem and len(self.answers) != 1:
            problem = f"{len(self.answers)} answers stated what they used"
        if not problem and len(recorded) != 1:
            problem = "nothing was recorded" if not recorded else f"{len(recorded)} events for one answer"
        if not problem:
            problem = ", ".join(_differences(self.answers[0], recorded[0]))
        return Proof(
            sdk=self.sdk,
            call=self.what.name,
            asynchronous=self.asynchronous,
            metered=not problem,
            detail=problem or _told(self.answers[0]),
        )


def _differences(stated: Stated, recorded: Usage) -> Generator[str]:
    """Each unit of an answer that was not recorded as it was stated."""
    for unit, count in {**stated.units, **stated.amounts}.items():
        value = getattr(recorded, unit)
        if value is None or Decimal(str(value)) != count:
            yield f"{unit} is {count}, {value} was recorded"


def _told(stated: Stated) -> str:
    """What an answer stated, in short: its tokens, else whatever it counts."""
    units = stated.units
    if seconds := stated.amounts.get("audio_seconds"):
        return f"{seconds:,} seconds"
    if "total_tokens" in units:
        return f"{units['input_tokens']:,} in, {units['output_tokens']:,} out"
    return ", ".join(
        f"{count:,} {unit.removeprefix('input_').replace('_', ' ')}" for unit, count in units.items()
    )
