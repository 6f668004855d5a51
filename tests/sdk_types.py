"""What the answers of an installed SDK can state: the fields of its types that look like usage.

Knows pydantic's models of both versions and dataclasses, which is what the SDKs make their answers of;
typed dicts are what they take. Does not know any SDK, nor what we read. What looks like usage is a rule of
names, wide enough that a new count is found, so some of what it finds is none.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib
import pkgutil
import re
import typing
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal, NamedTuple

USAGE = re.compile("Usage|Tokens?Details|Tokens?Count|Billed")
"""Of a class so named, and of those within it, every number counts."""

COUNT = re.compile(
    r"(^|_)(tokens|tokens?_count|char(acter)?s(_count)?|char(acter)?_count|seconds|secs?|duration(_ms|_seconds|_secs?)?"
    r"|minutes|hours|credits?|costs?|billed|billable|pixels|pages(_processed)?|units|searches|queries"
    r"|invocations?|ticks)$"
    r"|^(cost|credits?|billed|billable)_"
)
"""Of any class, a number or a text so named."""

OPEN = re.compile("(^|_)(usage|metrics|billing)$")
"""Of any class, an object without a type so named."""

NO_COUNT = re.compile(
    "^(max|min|top|next|target|trigger)_|(^|_)(per|limit|remaining|budget|threshold|timeout|ttl|rate|latency"
    "|unix|silence|expiration|lifetime|interval|delay|grace|window)(_|$)"
)
"""Limits, speeds, waits and dates are named as counts are."""

Kind = Literal["number", "text", "open"]


class Field(NamedTuple):
    """A field that looks like usage, and a place where it stands."""

    cls: str
    """The class, as `module:Class`."""
    parent: str | None
    """The key of the object that it is a field of; None at the root of an answer."""
    name: str
    """Its own key."""

    def __str__(self) -> str:
        return f"{self.cls} {f'{self.parent}.' if self.parent else ''}{self.name}"


class Found(NamedTuple):
    """What an SDK's answers can state."""

    counts: list[Field]
    answers: list[str]
    """The classes that are no usage and hold one, each as `module:Class key`: whoever reads such an answer
    must know where."""


def found(roots: Iterable[str], *, inputs: Iterable[str] = (), at_root: Iterable[str] = ()) -> Found:
    """What the classes below these modules can state.

    A class is what one sends, and is left out, if `module:Class` matches one of `inputs`, which are regular
    expressions. `at_root` are classes that are answers themselves, although another class holds them.
    """
    sent = [re.compile(each) for each in inputs]
    classes = {
        cls: members
        for root in roots
        for cls in _classes(root)
        if not any(pattern.search(_name(cls)) for pattern in sent) and (members := dict(_members(cls)))
    }
    parents: dict[type, set[str | None]] = defaultdict(set)
    for members in classes.values():
        for name, annotation in members.items():
            for held in _held(annotation):
                parents[held].add(name)
    for cls in classes:
        if not parents[cls] or _name(cls) in at_root:
            parents[cls].add(None)
    usage = {cls for cls in classes if USAGE.search(cls.__name__)}
    within = _within(usage, classes)
    counts = {
        Field(_name(cls), parent, name)
        for cls, members in classes.items()
        for name, annotation in members.items()
        if _looks_like_usage(name, set(_kinds(annotation)), within_usage=cls in within)
        for parent in parents[cls]
    }
    answers = {
        f"{_name(cls)} {name}"
        for cls in classes.keys() - within
        for name, annotation in classes[cls].items()
        if not usage.isdisjoint(_held(annotation))
    }
    return Found(sorted(counts, key=str), sorted(answers))


def _looks_like_usage(name: str, kinds: set[Kind], *, within_usage: bool) -> bool:
    words = re.sub("(?<=[a-z0-9])(?=[A-Z])|-", "_", name).lower()
    if "number" in kinds and within_usage:
        return True
    if NO_COUNT.search(words):
        return False
    if not kinds.isdisjoint(("number", "text")) and COUNT.search(words):
        return True
    return "open" in kinds and OPEN.search(words) is not None


def _within(usage: set[type], classes: Mapping[type, Mapping[str, Any]]) -> set[type]:
    reached, ahead = set[type](), list(usage)
    while ahead:
        cls = ahead.pop()
        if cls in classes and cls not in reached:
            reached.add(cls)
            ahead += [held for annotation in classes[cls].values() for held in _held(annotation)]
    return reached


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _classes(root: str) -> list[type]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what an SDK uses that it should not is its own affair
        return list(_imported(root))


def _imported(root: str) -> Iterator[type]:
    module = importlib.import_module(root)
    names = [root]
    if hasattr(module, "__path__"):
        names += [each.name for each in pkgutil.walk_packages(module.__path__, f"{root}.", lambda _: None)]
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue  # what needs a package that is not installed
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == name:
                yield value


def _members(cls: Any) -> Iterator[tuple[str, Any]]:
    """The keys of a class's fields as they are in JSON, and their annotations."""
    if isinstance(members := getattr(cls, "model_fields", None), dict):
        for name, info in members.items():
            aliases = (info.alias, *(getattr(each, "alias", None) for each in info.metadata))
            yield next((each for each in aliases if each), name), info.annotation
    elif isinstance(members := getattr(cls, "__fields__", None), dict):
        yield from ((each.alias, each.outer_type_) for each in members.values())
    elif dataclasses.is_dataclass(cls):
        yield from typing.get_type_hints(cls).items()


def _parts(annotation: Any) -> tuple[Any, ...]:
    """What an annotation is made of; nothing for a plain type."""
    if typing.get_origin(annotation) in (Literal, collections.abc.Callable):
        return ()
    if typing.get_origin(annotation) is typing.Annotated:
        return typing.get_args(annotation)[:1]
    if parts := typing.get_args(annotation):
        return parts
    return (annotation.__value__,) if type(annotation).__name__ == "TypeAliasType" else ()


def _held(annotation: Any) -> Iterator[type]:
    """The classes that a field may hold, alone, in a list or in a mapping."""
    if parts := _parts(annotation):
        for each in parts:
            yield from _held(each)
    elif isinstance(annotation, type):
        yield annotation


def _kinds(annotation: Any) -> Iterator[Kind]:
    """What a field may be beside an object with a type of its own; of a list it is none of these."""
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        value = typing.get_args(annotation)[1]
        yield from ("open" if kind == "open" else kind for kind in _kinds(value) if kind != "text")
    elif isinstance(origin, type) and issubclass(origin, collections.abc.Collection):
        return
    elif parts := _parts(annotation):
        for each in parts:
            yield from _kinds(each)
    elif annotation in (int, float, Decimal):
        yield "number"
    elif annotation is str:
        yield "text"
    elif annotation in (Any, object, dict):
        yield "open"
