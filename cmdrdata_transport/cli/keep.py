"""Taking out what is old, or a customer's: first what and where, then a question, then what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from cmdrdata_transport.cli.asking import agreed
from cmdrdata_transport.cli.reading import say, unnamed
from cmdrdata_transport.cli.view import number, printable
from cmdrdata_transport.home import backlog_of
from cmdrdata_transport.housekeeping import DEAD_LETTERS, Place, at_work, elsewhere, of_customer, old, remains
from cmdrdata_transport.ledger import READABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from rich.console import Console


def prune(
    out: Console, err: Console, *, home: Path, sinks: Sequence[str], before: datetime, yes: bool
) -> bool:
    """Take out what is older; False where the user does not want that."""
    if waiting := sum(each.events for each in backlog_of(home)):
        say(err, f"{number(waiting)} deliveries wait in the journal, whose events stay, however old they are")
    _missed(err, unnamed(home, sinks))
    places = old(home, sinks, before)
    if any(each.what == DEAD_LETTERS and each.number for each in places):
        say(
            err,
            "Rejected events were never delivered; as long as they are there, cmdrdata-transport replay can",
        )
    times = f"before {before:%Y-%m-%d %H:%M:%S}Z"
    ledgers = [sink for sink in sinks if sink.startswith(READABLE)]
    return _remove(out, err, places, times, [str(home), *ledgers], yes=yes)


def erase(out: Console, err: Console, *, home: Path, sinks: Sequence[str], customer: str, yes: bool) -> bool:
    """Take out what is a customer's; False where the user does not want that, or more may come or is left."""
    places = of_customer(home, sinks, customer)
    others = unnamed(home, sinks)
    out_of_reach = elsewhere([*sinks, *others])
    for where in out_of_reach:
        say(err, f"What {where} was sent is there, and cannot be taken out from here.")
    missed = _missed(err, others)
    looked_in = [str(home), *(sink for sink in sinks if sink not in out_of_reach)]
    good = _remove(out, err, places, f"of {customer}", looked_in, yes=yes)
    if not good:
        return False
    left = remains(home, sinks, customer)
    for file in left:
        say(err, f"{file} still has this customer: {_advice(file)}, and type this again.")
    if at_work(home):
        say(err, "A process is at work here, and may have some in memory: type this again in a minute.")
        good = not any(each.number for each in places)
    return good and not left and not missed


def _missed(err: Console, others: Sequence[str]) -> bool:
    """Whether one of other programs' sinks could have been looked in, and was not; that is said."""
    missed = [each for each in others if each not in elsewhere(others)]
    for each in missed:
        say(
            err,
            f"{each} was not looked in: name it in CMDRDATA_SINKS, as its program does, and type this again.",
        )
    return bool(missed)


def _advice(file: Path) -> str:
    if ".corrupt-" in file.name:
        return "bring back what can be read of it, as `doctor` says, remove it"
    return "it is of no sink that is named here; name it in CMDRDATA_SINKS, or remove it"


def _remove(
    out: Console, err: Console, places: Sequence[Place], whose: str, looked_in: Sequence[str], *, yes: bool
) -> bool:
    found = [each for each in places if each.number]
    if not found:
        out.print(Text(printable(f"There is nothing {whose} in {', '.join(looked_in)}.")), soft_wrap=True)
        return True
    for each in found:
        out.print(
            Text(printable(f"{number(each.number)} {each.what} {whose} in {each.where}")), soft_wrap=True
        )
    if not agreed(err, "Remove them for good?", yes=yes):
        return False
    for each in found:
        removed = each.remove()
        out.print(Text(printable(f"removed {number(removed)} {each.what} from {each.where}")), soft_wrap=True)
    return True
