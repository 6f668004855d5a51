"""Reads what an answer used, by its table.

Knows the words of `table.py` and nothing of any provider. Takes documents, gives counts; no I/O, no
clock. What cannot be a count is left out and reported, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, NamedTuple

from cmdrdata_transport.event import FRACTIONAL_UNITS
from cmdrdata_transport.providers.table import (
    ERROR_FIELDS,
    EVERY,
    Apart,
    Aside,
    Each,
    Items,
    Job,
    Length,
    One,
    Path,
    Paths,
    Same,
    Scaled,
    Shape,
    Tree,
)

LARGEST_COUNT = 2**53 - 1
"""Beyond this a JSON number is not exact everywhere, and no count is meant."""

FINEST = 30
"""No charge is smaller than one of its unit with so many digits behind the point."""

_EXACT = Context(prec=64, traps=[InvalidOperation])
"""For charges: that of the application's thread may round to cents, or raise what is not exact."""

LONGEST_TEXT = 512
"""Ids and names from a provider are cut to this many characters."""

WRITTEN = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")
"""A count in a string."""

Counts = dict[str, int | float]

_WORDS = frozenset({str, int})


_PLAIN = frozenset({str, int, float, bool})
"""What a detail may be: nothing that holds more."""


class Part(NamedTuple):
    """What one model did for one answer. `model` is None for the answer's own."""

    counts: Counts
    raw: Any
    model: str | None = None
    cost: str | None = None
    operation: str | None = None
    """What a tool did for the answer, if it is not the answer's own operation."""


class Answer:
    """What is known so far of one answer, from the documents of its body.

    Documents are absorbed from the newest to the oldest: what a newer one said stays.
    """

    # Defaults on the class: most answers have none of these. A mapping is replaced, never changed.
    usage: dict[str, Any] | None = None
    details: Mapping[str, Any] = MappingProxyType({})
    objects: Mapping[Path, dict[str, Any]] = MappingProxyType({})
    """What stands beside the usage object, by its path."""
    asides: tuple[tuple[Aside, dict[str, Any], str | None], ...] = ()
    """What tools used that are models too, each with its model."""
    errors: Mapping[str, str] = MappingProxyType({})
    failed = False
    """Whether the answer says of itself that it failed."""
    pending: bool | None = None
    ended = False
    is_job = False
    """Whether the answer says that it can be asked for again."""
    job_id: str | None = None
    yields: frozenset[str] = frozenset()
    """Names of further resources that belong to whoever started it."""
    free = False
    """Whether the answer says that nothing is charged."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.found: dict[str, str] = {}
        """`response_id`, `model`, `finish_reason` and `service_tier`."""

    def absorb(self, document: Any) -> None:
        """Take what this document says and no newer one said."""
        if type(document) is not dict:
            return
        shape, found = self._shape, self.found
        if not shape.plain and shape.only and not says_one_of(document, shape.only):
            return
        self._absorb_usage(document)
        for name, key, paths in shape.facts:
            if name not in found:
                value = pick(document, paths) if key is None else document.get(key)
                # Google's enumerations come as numbers where a client asks for that.
                if value and type(value) in _WORDS:
                    found[name] = str(value)[:LONGEST_TEXT]
        if not shape.plain:
            self._absorb_more(shape, document)
        stream = shape.stream
        if stream is not None and stream.ends and is_one_of(pick(document, (stream.kind,)), stream.ends):
            self.ended = True
        self._absorb_error(document)

    def _absorb_more(self, shape: Shape, document: dict[str, Any]) -> None:
        for path in shape.objects:
            if path not in self.objects and type(value := pick(document, (path,))) is dict:
                self.objects = {**self.objects, path: value}
        for name, paths in shape.details.items():
            if name not in self.details and type(value := pick(document, paths)) in _PLAIN:
                self.details = {**self.details, name: value[:LONGEST_TEXT] if type(value) is str else value}
        if shape.asides and not self.asides:
            self._absorb_asides(shape.asides, document)
        if shape.pending and self.pending is None:
            self._absorb_pending(document)
        if shape.free and not self.free:
            self.free = says_one_of(document, shape.free)
        if shape.job is not None:
            self._absorb_job(shape.job, document)

    def absorb_older(self, older: Answer) -> None:
        """Take what an older stretch of the same body said and this one did not."""
        if older.usage is not None and (self.usage is None or self._overlays):
            self.usage = _over(self.usage, older.usage)
        self.found = {**older.found, **self.found}
        self.details = {**older.details, **self.details}
        self.objects = {**older.objects, **self.objects}
        self.asides = self.asides or older.asides
        self.errors = {**older.errors, **self.errors}
        self.pending = older.pending if self.pending is None else self.pending
        self.ended = self.ended or older.ended
        self.failed = self.failed or older.failed
        self.free = self.free or older.free
        self.is_job = self.is_job or older.is_job
        self.job_id = self.job_id or older.job_id
        self.yields |= older.yields

    def satisfied(self) -> bool:
        """Whether no older document can say anything that counts."""
        if self.usage is None or self._overlays:
            return False
        return not self._shape.finish_reason or "finish_reason" in self.found

    def parts(self, report: Callable[[str], None]) -> list[Part]:
        """The counts of the answer's own model first, then those of other models that took part.

        `report` is told the name of every count that is none. What such a one is a part of is not known.
        """
        shape, usage = self._shape, self.usage
        if shape.plain:
            plain: Counts = {}
            none: list[str] = []
            if usage is not None:
                _read(shape.units, usage, plain, none.append)
                _complete(plain, none, report)
            return [Part(plain, usage or None)]
        if usage is not None and (self.free or (self.pending and shape.job is not None)):
            usage = None  # what it would be, not what it is
        counts: Counts = {}
        spoiled: list[str] = []
        raw: Any = usage or None
        others: list[Part] = []
        if usage is not None:
            _read(shape.units, usage, counts, spoiled.append)
            for unit, keys in shape.needs.items():
                if any(usage.get(key) is None for key in keys):
                    counts.pop(unit, None)
                elif counts.get(unit, 0) < 0:
                    spoiled.append(unit)
            if shape.apart is not None:
                _join(shape.apart, usage, counts)
            if shape.parts is not None and type(usage.get(shape.parts.at)) is list:
                raw, others = self._split(usage, counts, spoiled, report)
        if self.objects:
            for path, tree in (*shape.beside.items(), *shape.lists.items()):
                if (value := self.objects.get(path)) is not None:
                    _read(tree, value, counts, spoiled.append)
                    if path in shape.beside:
                        raw = {**(raw or {}), str(path[-1]): value}
        _complete(counts, spoiled, report)
        cost = None if usage is None or not shape.cost else _cost(shape.cost, usage)
        if self.asides and not self.free:
            others += self._aside(report)
        return [Part(counts, raw, cost=cost), *others]

    def told_again(self) -> Counts:
        """What the second teller says, where there is one."""
        counts: Counts = {}
        for path, tree in self._shape.again.items():
            if (value := self.objects.get(path)) is not None:
                _read(tree, value, counts, lambda _: None)
        return counts

    @property
    def _overlays(self) -> bool:
        stream = self._shape.stream
        return stream is not None and stream.overlay

    def _absorb_usage(self, document: dict[str, Any]) -> None:
        if self.usage is not None and not self._overlays:
            return
        shape = self._shape
        for path in shape.usage:
            usage = document.get(path[0]) if len(path) == 1 else pick(document, (path,))  # type: ignore[arg-type]
            # A usage object without a single count that we know is something else: Groq's hardware
            # counters, Vertex' chunks that only name the traffic type.
            if type(usage) is dict and not shape.units.keys().isdisjoint(usage):
                if not path:
                    usage = _pruned(shape.units, usage)
                if shape.stream is not None and (hidden := shape.stream.placeholders.get(path)):
                    usage = {key: value for key, value in usage.items() if key not in hidden}
                self.usage = _over(self.usage, usage)
                return

    def _absorb_asides(self, asides: tuple[Aside, ...], document: dict[str, Any]) -> None:
        for aside in asides:
            for path in aside.at:
                if path[0] in document:  # of a stream's way to say it and a document's, one is there
                    found = (each for each in _every(document, path) if type(each) is dict)
                    self.asides += tuple((aside, each, _tool_model(aside, each, document)) for each in found)

    def _aside(self, report: Callable[[str], None]) -> list[Part]:
        found: list[Part] = []
        for aside, usage, model in self.asides:
            counts: Counts = {}
            spoiled: list[str] = []
            _read(aside.units, usage, counts, spoiled.append)
            _complete(counts, spoiled, report)
            if any(counts.values()):  # an idle tool states zeros
                found.append(Part(counts, usage, model, operation=aside.operation))
        return found

    def _absorb_pending(self, document: dict[str, Any]) -> None:
        for path, values in self._shape.pending.items():
            if (value := pick(document, (path,))) is not None:
                self.pending = is_one_of(value, values) if values else True

    def _absorb_job(self, job: Job, document: dict[str, Any]) -> None:
        # The newest word counts for all of these; a resource is one for good.
        self.is_job = self.is_job or not job.when or says_one_of(document, job.when)
        if self.job_id is None and type(value := pick(document, job.id or self._shape.response_id)) is str:
            self.job_id = value[:LONGEST_TEXT]
        for path in job.yields:
            if type(value := pick(document, (path,))) is str:
                self.yields |= {value[:LONGEST_TEXT]}

    def _absorb_error(self, document: dict[str, Any]) -> None:
        if self._shape.error_keys.isdisjoint(document) and document.get("type") != "error":
            return
        if (value := pick(document, self._shape.error)) is not None:
            told = read_error({"error": value})
        elif document.get("type") == "error":
            told = read_error(document)
        else:
            return
        self.failed = True
        self.errors = {**told, **self.errors}

    def _split(
        self,
        usage: dict[str, Any],
        counts: Counts,
        spoiled: list[str],
        report: Callable[[str], None],
    ) -> tuple[dict[str, Any], list[Part]]:
        words = self._shape.parts
        assert words is not None  # noqa: S101 - the caller asked
        kept: list[Any] = []
        others: list[Part] = []
        for entry in usage[words.at]:
            kind = entry.get(words.kind) if type(entry) is dict else None
            model = pick(entry, (words.model,))
            outside, inside = is_one_of(kind, words.outside), is_one_of(kind, words.inside)
            its_own = type(model) is not str or model == self.found.get("model")
            if its_own or not (outside or inside):
                kept.append(entry)
                if outside:
                    _read(self._shape.units, entry, counts, spoiled.append)
                continue
            own: Counts = {}
            own_spoiled: list[str] = []
            _read(self._shape.units, entry, own, own_spoiled.append)
            if inside:
                for unit, number in own.items():
                    counts[unit] = max(0, counts.get(unit, 0) - number)
            _complete(own, own_spoiled, report)
            others.append(Part(own, entry, model))
        return {**usage, words.at: kept}, others


def _over(newer: dict[str, Any] | None, older: dict[str, Any]) -> dict[str, Any]:
    if newer is None:
        return older
    return {**older, **{key: value for key, value in newer.items() if value is not None}}


def pick(document: Any, paths: Paths) -> Any:
    """What stands at the first of these paths that is there and neither null nor empty."""
    for path in paths:
        value = document
        for key in path:
            if type(value) is dict:
                value = value.get(key)
                if value is None:
                    break
            elif type(value) is list and type(key) is int and key < len(value):
                value = value[key]
            else:
                value = None
                break
        if value is not None and value != "":
            return value
    return None


def _every(document: Any, path: Path) -> list[Any]:
    """What stands at a path that may lead through lists."""
    found = [document]
    for key in path:
        if key == EVERY:
            found = [item for each in found if type(each) is list for item in each]
        else:
            found = [value for each in found if (value := pick(each, ((key,),))) is not None]
    return found


def _tool_model(aside: Aside, usage: dict[str, Any], document: dict[str, Any]) -> str | None:
    model = pick(usage, aside.model)
    if model is None:
        model = next((each for path in aside.answer_model for each in _every(document, path)), None)
    return model[:LONGEST_TEXT] if type(model) is str else None


def read_error(document: Any) -> dict[str, str]:
    """`error_type`, `error_code` and `error_message` of a provider's error body, as far as it has them."""
    told: dict[str, str] = {}
    for name, paths in ERROR_FIELDS.items():
        value = pick(document, paths)
        if isinstance(value, str) or (type(value) is int):
            told[name] = str(value)
    return told


def is_one_of(value: Any, words: frozenset[Any]) -> bool:
    """Whether a value from a document, which may be anything, is one of these words."""
    return type(value) in (str, bool) and value in words


def says_one_of(document: Any, said: Mapping[Path, frozenset[Any]]) -> bool:
    """Whether one of these values stands at its path, or, for an empty set, anything does."""
    return any(
        is_one_of(value, values) if values else value is not None
        for path, values in said.items()
        for value in (pick(document, (path,)),)
    )


def read_request(tree: Tree, document: Mapping[str, Any], report: Callable[[str], None]) -> Counts:
    """The counts that follow from what was asked."""
    counts: Counts = {}
    _read(tree, document, counts, report)
    return counts


def read_headers(
    units: Mapping[bytes, str | tuple[str, ...] | Same | Scaled],
    headers: Mapping[bytes, bytes],
    body: Mapping[str, int | float] = MappingProxyType({}),
) -> Counts:
    """The counts that response headers add to those of the body; empty where the headers state none.

    One that is no count is as good as absent (Bedrock's -1).
    """
    stated: Counts = {}
    for name, rule in units.items():
        if (raw := headers.get(name)) is not None:
            _read_rule(rule, raw.decode("latin-1").strip(), stated, lambda _: None)
    counts = {**stated, **body} if stated else stated
    _complete(counts, [], lambda _: None)
    return counts


def _cost(places: Mapping[Path, str], usage: dict[str, Any]) -> str | None:
    """What was charged, in US dollars, exactly as it was written."""
    for path, dollars in places.items():
        raw = pick(usage, (path,))
        if type(raw) in (int, float, str):
            try:
                charged = _EXACT.create_decimal(str(raw))
                # A few letters can name a number of a million digits.
                meant = 0 <= charged <= LARGEST_COUNT and charged.adjusted() > -FINEST
            except InvalidOperation:
                continue
            if meant:
                return f"{_EXACT.normalize(_EXACT.multiply(charged, Decimal(dollars))):f}"
    return None


def _join(words: Apart, usage: dict[str, Any], counts: Counts) -> None:
    """Add the part to what it is a part of, where the stated total says that it was left out."""
    part, whole = counts.get(words.part, 0), counts.get(words.of)
    if part and whole is not None and usage.get(words.total) == counts.get("input_tokens", 0) + whole + part:
        counts[words.of] = whole + part


def _complete(counts: Counts, spoiled: list[str], report: Callable[[str], None]) -> None:
    """Leave out what is not known after all, and add the total up if it is."""
    for unit in spoiled:
        report(unit)
        counts.pop(unit, None)
    if spoiled and ("input_tokens" in spoiled or "output_tokens" in spoiled):
        return
    if "input_tokens" in counts:
        counts["total_tokens"] = counts["input_tokens"] + counts.get("output_tokens", 0)
    elif "output_tokens" in counts:
        counts["total_tokens"] = counts["output_tokens"]


def _read(tree: Tree, value: Mapping[str, Any], counts: Counts, report: Callable[[str], None]) -> None:
    # The hot path: nearly every entry is a plain count, and a loop is the fastest way to take those.
    for key, raw in value.items():
        rule = tree.get(key)
        if rule is None or raw is None:
            continue
        if type(rule) is str:
            if type(raw) is int and 0 <= raw <= LARGEST_COUNT and rule not in counts and rule[0] != "-":
                counts[rule] = raw
            else:
                _add(rule, raw, counts, report)
        elif type(rule) is not dict:
            _read_rule(rule, raw, counts, report)
        elif type(raw) is dict:
            _read(rule, raw, counts, report)


def _read_rule(rule: Any, raw: Any, counts: Counts, report: Callable[[str], None]) -> None:
    match rule:
        case str() | tuple():
            for unit in (rule,) if isinstance(rule, str) else rule:
                _add(unit, raw, counts, report)
        case Same(unit=unit):
            own: Counts = {}
            _add(unit, raw, own, report)
            counts.update(own)
        case Scaled(unit=unit, per=per):
            number = raw if type(raw) is int and 0 <= raw <= LARGEST_COUNT else _number(raw, fractional=True)
            _add(unit, raw if number is None else number / per, counts, report)
        case One(unit=unit):
            _add(unit, 1, counts, report)
        case Length(unit=unit):
            if isinstance(raw, list | str):
                _add(unit, len(raw), counts, report)
        case Items(tree=tree):
            for item in raw if type(raw) is list else ():
                if type(item) is dict:
                    _read(tree, item, counts, report)
        case Each(key=key, value=value, into=into):
            for item in raw if type(raw) is list else ():
                if type(item) is dict and type(name := item.get(key)) is str and name in into:
                    _add(into[name], item.get(value), counts, report)
        case _:  # a tree, which whoever found it has read
            pass


def _add(unit: str, raw: Any, counts: Counts, report: Callable[[str], None]) -> None:
    name = unit.removeprefix("-")
    if type(raw) is int and 0 <= raw <= LARGEST_COUNT:
        number: int | float | None = raw
    else:
        number = _number(raw, fractional=name in FRACTIONAL_UNITS)
    if number is None:
        if raw is not None:
            report(name)
        return
    counts[name] = counts.get(name, 0) + (number if name is unit else -number)


def _number(raw: Any, *, fractional: bool) -> int | float | None:
    """Cohere sends whole floats and batches send digits in strings; both are counts."""
    number = raw
    if type(raw) is str and WRITTEN.fullmatch(raw):
        number = float(raw)
    if type(number) is not float or not 0 <= number <= LARGEST_COUNT:
        return None  # a whole number within the bounds never came here
    if fractional:
        return number
    return int(number) if number.is_integer() else None


def _pruned(tree: Tree, value: Any) -> Any:
    """Only what the tree reads: for answers whose usage stands among content."""
    kept: dict[str, Any] = {}
    for key, rule in tree.items():
        raw = value.get(key)
        if isinstance(rule, Items) and type(raw) is list:
            kept[key] = [_pruned(rule.tree, item) for item in raw if type(item) is dict]
        elif isinstance(rule, Mapping) and type(raw) is dict:
            kept[key] = _pruned(rule, raw)
        elif raw is not None and not isinstance(raw, dict | list):
            kept[key] = raw
    return kept
