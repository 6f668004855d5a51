"""Sending again: what a sink has refused, once the cause is put right; and a ledger's events, to a new sink.

Everything goes through the journal: events are written to a segment for the one sink, and delivered as
any others. So a sink that fails keeps them waiting, and a function is called by its own program. A
dead-letter file goes when its events are in the journal, and on the disk; whoever is killed before
that finds it again, and what he had written already is told twice: not to a sink that knows ids.

Does not know how a sink is delivered to.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cmdrdata_transport.adopting import Drained, drain
from cmdrdata_transport.appending import append
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.dead_letters import Letter, letter_box, read_letter
from cmdrdata_transport.errors import TrackingError
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.seen import Seen

AT_ONCE = 5000
"""Events in one segment: some megabytes."""

_HALFWAY = ".replaying.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """The dead letters of one file: how many events its sink refused, when, and why.

    `unreadable` are in it too, and are no events that could be sent.
    """

    path: Path
    sink: str
    number: int
    unreadable: int
    first: str
    last: str
    reasons: Mapping[str, int]


def letters(home: Path, sink: str | None = None) -> list[Letters]:
    """What sinks have refused, of this sink only if one is named. Changes nothing."""
    # What somebody was killed over comes first: it is in the way of the others of its sink.
    paths = sorted((home / "dead").glob("*.jsonl"), key=lambda path: not path.name.endswith(_HALFWAY))
    found = [_counted(path) for path in paths if path.is_file()]
    return [each for each in found if each.number and sink in (None, each.sink)]


def resend(home: Path, found: Letters) -> int:
    """Write the events of a dead-letter file to the journal again, for the same sink; how many.

    What is unreadable goes back to the dead letters.

    Raises:
        TrackingError: another process is at it, or the journal takes nothing; nothing is lost.
    """
    again = Again(home)
    sent = 0
    with _taken_out(found.path) as path:
        for some in in_portions(letter.line for _, letter in _letters(path) if letter is not None):
            again.write(some, found.sink)
            sent += len(some)
        again.settle(path)
        kept = [line for line, letter in _letters(path) if letter is None]
        if kept:
            original = _original(path)
            with letter_box(original) as fd:
                append(fd, b"".join(kept), original)
        path.unlink()
    return sent


def copy(
    home: Path,
    lines: Iterable[bytes],
    sink: str,
    *,
    identity: str,
    environ: Mapping[str, str],
    timeout: float,
    progress: Callable[[int], None],
    counters: Counters | None = None,
) -> tuple[int, Drained | None]:
    """Give events to a sink, through the journal; how many, and what was not taken if that stopped it.

    `progress` is told how many more are with the sink. What is in the journal when the sink takes no more
    waits there, as ever.
    """
    again = Again(home)
    written = 0
    for some in in_portions(lines):
        again.write(some, identity)
        written += len(some)
        done = next(
            (
                each
                for each in drain(home, [sink], environ=environ, timeout=timeout, counters=counters)
                if each.sink == identity
            ),
            None,
        )
        if done is not None and done.pending:
            return written, done
        progress(len(some))
    return written, None


def in_portions(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines, as many at a time as go in one segment."""
    rest = iter(lines)
    while some := list(islice(rest, AT_ONCE)):
        yield some


class Again:
    """Writes events to the journal for one sink each, to be delivered though that may have had them."""

    def __init__(self, home: Path) -> None:
        self._counters = Counters()
        self._journal = Journal(home, sinks=(), counters=self._counters)
        # Where it cannot be asked, nobody's delivery can: all is sent.
        self._seen = Seen(home, Counters().count)

    def write(self, lines: list[bytes], sink: str) -> None:
        """Write the lines of some events. Raises `TrackingError` when the journal takes nothing."""
        self._seen.anew(lines, sink)  # before they are there: a program at work may deliver them at once
        if not self._journal.spill(lines, sink):
            raise TrackingError(
                f"{self._journal.directory} takes nothing: is the disk full, or somebody else's?"
            )

    def settle(self, source: Path) -> None:
        """Have the disk take them before they go from their source. Raises `TrackingError` if it does not."""
        self._journal.sync()
        if self._counters.snapshot():
            raise TrackingError(f"the disk does not take {self._journal.directory}; {source} stays")


def _letters(path: Path) -> Iterator[tuple[bytes, Letter | None]]:
    """Each line of the file, and the letter that it is; None where it has no event."""
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield line, read_letter(line)


def _counted(path: Path) -> Letters:
    reasons = Counter[str]()
    times: list[str] = []
    sink, unreadable = "", 0
    with contextlib.suppress(FileNotFoundError):
        for _, letter in _letters(path):
            if letter is None:
                unreadable += 1
                continue
            sink = letter.sink
            reasons[letter.reason] += 1
            times = [min([*times[:1], letter.rejected_at]), max([*times[1:], letter.rejected_at])]
    return Letters(
        path=path,
        sink=sink,
        number=reasons.total(),
        unreadable=unreadable,
        first=times[0] if times else "",
        last=times[-1] if times else "",
        reasons=reasons,
    )


@contextmanager
def _taken_out(path: Path) -> Generator[Path]:
    """The file under another name, so that what is refused meanwhile goes to a new one; for us alone."""
    begun = path.name.endswith(_HALFWAY)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(letter_box(path, wait=not begun, make=False))
        except BlockingIOError:
            raise TrackingError(f"another process is sending {path} again") from None
        except FileNotFoundError:
            raise TrackingError(f"another process has sent {path} again") from None
        halfway = path
        if not begun:
            halfway = path.with_name(path.name.removesuffix(".jsonl") + _HALFWAY)
            if halfway.exists():
                raise TrackingError(f"{halfway} is from a replay that did not end: replay that first")
            path.rename(halfway)
        yield halfway


def _original(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_HALFWAY) + ".jsonl")
