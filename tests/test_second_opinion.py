"""genai-prices' extractors as a second opinion: what they read in the bodies that we read.

Every fixture and every recording goes to both. Where one has a count that the other has not, or another
number, `second_opinion.toml` must list it with the reason. Nothing of ours reads a body for them: streams
are taken apart here, and put together as the SDKs do it. A count of nothing and no count are the same here.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from botocore.eventstream import EventStreamBuffer, ParserError  # type: ignore[import-untyped]
from exchange import WAYS, Exchange, Replay, fixtures, replay
from genai_prices import Usage
from genai_prices.data import providers
from recorded import MISSING, WIRE, are_here, recorded, records

from cmdrdata_transport.event import UNITS

LISTED = tomllib.loads(Path(__file__).with_name("second_opinion.toml").read_text("utf-8"))

THEIRS = {
    (provider.id, each.api_flavor): each for provider in providers for each in provider.extractors or ()
}

SHARED = [unit for unit in UNITS if hasattr(Usage(), unit)]
"""The units that both of us have a name for; of the others there is no second opinion."""

WITHIN = (
    "batch_result",
    "response",
    "chat_get_completion",
    "body",
    "result",
    "message",
    "delta",
    "x_groq",
)
"""Where the events of a stream, and the results of a batch, may have what a plain answer has at its root."""

Counts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What both of us read in one body."""

    body: str
    provider: str
    api: str
    ours: Counts
    theirs: Counts | None
    """None: it has no extractor for this API."""

    def differences(self) -> Iterator[tuple[str, str]]:
        """Each unit on which we differ, and what ours is beside theirs."""
        theirs: Counts = self.theirs or {}
        for unit in (*SHARED, *(theirs.keys() - set(SHARED))):
            mine, other = self.ours.get(unit), theirs.get(unit)
            if mine == other:
                continue
            if mine is None or other is None:
                yield unit, "alone" if other is None else "none"
            else:
                yield unit, "more" if mine > other else "less"


# --- what they say


def asked(provider: str, api: str) -> Any:
    """Their extractor for an API at one of our providers; None where they have none."""
    for entry in LISTED["asks"]:
        place = entry.get("as", provider), entry["flavour"]
        if api in entry["api"] and provider in entry.get("of", [provider]) and place in THEIRS:
            return THEIRS[place]
    return None


def told(extractor: Any, api: str, documents: Sequence[Any]) -> Counts:
    """What they read in an answer: in the newest of its documents that they can read.

    Anthropic's stream states its usage in two events, which its SDK lays over each other.
    """
    places = [place for document in documents for place in _places(document)]
    if api == "anthropic.messages":
        stated = [place["usage"] for place in places if isinstance(place.get("usage"), dict)]
        places = [{"usage": {key: each[key] for each in stated for key in each if each[key] is not None}}]
    for place in reversed(places):
        try:
            _, usage = extractor.extract(place)
        except (ValueError, AttributeError):  # the second: for a word that is a number
            continue
        return {unit: count for unit, count in vars(usage).items() if count}
    return {}


def _places(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
        for key in WITHIN:
            yield from _places(document.get(key))


def documents(answer: Replay) -> Iterator[Any]:
    """The documents of an answer: one, or those of its stream, in whatever framing."""
    body = answer.content or b""
    if "eventstream" in dict(answer.headers).get("content-type", ""):
        yield from _documents_of_aws(body)
        return
    text = re.sub("\r\n?", "\n", body.decode("utf-8-sig", "replace"))
    if (whole := _parsed(text)) is not None:
        yield from whole if isinstance(whole, list) else [whole]
        return
    for block in text.split("\n\n"):
        lines = block.split("\n")
        data = [line.removeprefix("data:") for line in lines if line.startswith("data:")]
        yield from map(_parsed, ["\n".join(data)] if data else lines)


def _documents_of_aws(body: bytes) -> Iterator[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    try:
        for message in buffer:
            document = _parsed(message.payload.decode())
            wrapped = isinstance(document, dict) and "bytes" in document
            yield _parsed(base64.b64decode(document["bytes"]).decode()) if wrapped else document
    except ParserError:
        return


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


# --- what came of it


def bodies() -> Iterator[tuple[str, Exchange]]:
    """Every answer there is, by name."""
    for fixture in fixtures():
        yield f"fixtures/{fixture.name}", fixture.exchange
    for file in sorted(WIRE.glob("*.jsonl")) if are_here() else ():
        for record in records(file.stem):
            yield f"recorded/{file.stem}/{record['id']}", recorded(record)


@cache
def comparisons() -> list[Compared]:
    """Every body that we meter, as both of us read it."""
    return [each for name, exchange in bodies() for each in _compared(name, replay(exchange, WAYS[0]))]


def _compared(name: str, answer: Replay) -> Iterator[Compared]:
    stated = [document for document in documents(answer) if document is not None]
    calls = [event for event in answer.events if not event.get("part")]
    if len(calls) > 1 and (results := _results(stated, len(calls))):
        for number, (event, result) in enumerate(zip(calls, results, strict=True)):
            yield from _one(f"{name}/{number}", [event], [result])
    elif calls:
        yield from _one(name, answer.events, stated)


def _results(stated: Any, count: int) -> list[Any]:
    """The results of so many calls: the lines of a batch's file, or a list within one document."""
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if isinstance(stated, dict):
        return next((found for each in stated.values() if (found := _results(each, count))), [])
    return stated if isinstance(stated, list) and len(stated) == count else []


def _one(name: str, events: Sequence[dict[str, Any]], stated: Sequence[Any]) -> Iterator[Compared]:
    provider, api = events[0]["provider"], events[0]["api"]
    # Of an answer that several models made, they read the sum.
    ours = Counter[str]()
    for event in events:
        ours.update({unit: event[unit] for unit in UNITS if event.get(unit)})
    extractor = asked(provider, api)
    theirs = None if extractor is None else told(extractor, api, stated)
    if ours or theirs:
        yield Compared(body=name, provider=provider, api=api, ours=ours, theirs=theirs)


def explains(entry: dict[str, Any], compared: Compared, unit: str, ours: str) -> bool:
    """Whether an entry of the list is about this difference."""
    if unit not in entry["units"] or ours != entry["ours"] or compared.theirs is None:
        return False
    if "by" in entry and abs(compared.ours[unit] - compared.theirs[unit]) != compared.ours.get(entry["by"]):
        return False
    return (
        fnmatchcase(compared.provider, entry.get("provider", "*"))
        and compared.api == entry["api"]
        and any(fnmatchcase(compared.body, pattern) for pattern in entry.get("bodies", ["*"]))
    )


def test_every_disagreement_is_listed() -> None:
    """Where they read something else than we do, somebody found out who is right, and wrote it down."""
    unexplained = [
        f"{each.provider} {each.api} {unit}: {each.ours.get(unit)}, not {each.theirs.get(unit)} ({each.body})"
        for each in comparisons()
        if each.theirs is not None
        for unit, ours in each.differences()
        if not any(explains(entry, each, unit, ours) for entry in LISTED["disagreements"])
    ]
    assert unexplained == [], "second_opinion.toml does not list:\n" + "\n".join(unexplained)


def test_every_disagreement_that_is_listed_is_one() -> None:
    """An entry about nothing is a disagreement that ended, or one that was misspelt."""
    found = [(each, *it) for each in comparisons() if each.theirs is not None for it in each.differences()]
    idle = [
        f"{entry.get('provider', '*')} {entry['api']} {unit}: {entry['ours']}"
        for entry in LISTED["disagreements"]
        for unit in entry["units"]
        if are_here() or not entry.get("recorded")
        if not any(unit == at and explains(entry, each, at, ours) for each, at, ours in found)
    ]
    assert idle == [], "second_opinion.toml lists what is not so:\n" + "\n".join(idle)


def test_every_api_has_a_second_opinion_or_a_reason(record_property: Callable[[str, object], None]) -> None:
    """No body is left out in silence: somebody is asked about each, or it says why nobody can be."""
    heard, alone = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for each in comparisons():
        (alone if each.theirs is None else heard)[each.provider, each.api] += 1
    reasons = {pattern: entry["because"] for entry in LISTED["no_opinion"] for pattern in entry["api"]}
    left_out = {
        place: next((why for pattern, why in reasons.items() if fnmatchcase(place[1], pattern)), None)
        for place in alone
    }
    says = [
        f"{heard.total()} bodies compared:" + ("" if are_here() else f" ({MISSING})"),
        *(f"{count:6}  {provider}  {api}" for (provider, api), count in sorted(heard.items())),
        f"{alone.total()} without a second opinion:",
        *(f"{alone[place]:6}  {'  '.join(place)}: {why}" for place, why in sorted(left_out.items())),
    ]
    record_property("says", "\n".join(says))
    unsaid = [place for place, why in left_out.items() if why is None]
    assert unsaid == [], "second_opinion.toml says neither whom to ask about these, nor why nobody can be"
    assert heard.total() > 100
