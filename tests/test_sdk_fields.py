"""Every count that the installed SDKs' answers can state is read by a table, or listed with the reason.

So the next release of an SDK tells us what it added. `sdk_fields.toml` is the list, and says of which release
it is: an older one has its types elsewhere and states nothing more, so it is not judged, nor is what is not
installed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import sdk_types
from packaging.version import Version

from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.table import EVERY, Each, Items, Shape

LISTED = tomllib.loads(Path(__file__).with_name("sdk_fields.toml").read_text("utf-8"))

Place = tuple[str | None, str]
"""The key of an object, None for an answer's root, and the key of a number in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sdk:
    """One SDK of the list: where its types are, and who reads what they state."""

    name: str
    release: str
    """The release that the list is of."""
    types: tuple[str, ...]
    tables: tuple[str, ...]
    inputs: tuple[str, ...]
    at_root: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    """The answers that are read, as patterns, by the API that they are of."""
    unread: tuple[str, ...]
    """Patterns of what no table reads; the list says why."""

    @property
    def is_here(self) -> bool:
        """Whether that release, or one after it, is installed."""
        try:
            return Version(version(self.name)) >= Version(self.release)
        except PackageNotFoundError:
            return False


def _sdks() -> Iterator[Sdk]:
    for name, words in LISTED["sdks"].items():
        reasons = [*words.get("not_read", ()), *words.get("not_yet", ())]
        yield Sdk(
            name=name,
            release=words["release"],
            types=tuple(words["types"]),
            tables=tuple(words["tables"]),
            inputs=tuple(words.get("inputs", LISTED["inputs"])),
            at_root=tuple(words.get("at_root", ())),
            answers={api: tuple(patterns) for api, patterns in words.get("answers", {}).items()},
            unread=tuple(pattern for each in reasons for pattern in each["fields"]),
        )


SDKS = list(_sdks())
HERE = [sdk for sdk in SDKS if sdk.is_here]

every_sdk = pytest.mark.parametrize("sdk", HERE, ids=lambda each: each.name)


def shapes(tables: tuple[str, ...]) -> list[Shape]:
    """Everything that these providers' paths speak."""
    ends = [end for each in PROVIDERS if each.id in tables for end in each.endpoints]
    spoken = [end.shape for end in ends if end.shape is not None]
    return spoken + [shape for each in spoken if each.results is not None for shape in each.results.shapes]


def _read_by(shape: Shape, root: str | None = None) -> Iterator[Place]:
    """The places that a shape reads, of an answer that stands alone or under the key `root`."""
    for path in shape.usage:
        yield from [_place(path)] if path else []
        yield from _read_in(shape.units, _last(path) or root)
        yield from (_place((*path, *below)) for below in shape.cost)
    if shape.parts is not None:
        yield from _read_in(shape.units, shape.parts.at)
    for path, tree in (*shape.beside.items(), *shape.lists.items()):
        yield from _read_in(tree, _last(path) or root)
    for aside in shape.asides:
        for path in aside.at:
            yield from _read_in(aside.units, _last(path))
    yield from (_place(path) for paths in shape.details.values() for path in paths)
    if (results := shape.results) is not None:
        for inner in results.shapes:
            for path in results.answer:
                yield from _read_by(inner, _last(path))


def _read_in(tree: Any, parent: str | None) -> Iterator[Place]:
    for key, rule in tree.items():
        yield parent, key
        if isinstance(rule, Mapping):
            yield from _read_in(rule, key)
        elif isinstance(rule, Items):
            yield from _read_in(rule.tree, key)
        elif isinstance(rule, Each):
            yield key, rule.value


def _place(path: tuple[str | int, ...]) -> Place:
    return _last(path[:-1]), str(path[-1])


def _last(path: tuple[str | int, ...]) -> str | None:
    return next((key for key in reversed(path) if isinstance(key, str) and key != EVERY), None)


@cache
def stated(sdk: Sdk) -> sdk_types.Found:
    """What the SDK's answers can state."""
    return sdk_types.found(sdk.types, inputs=sdk.inputs, at_root=sdk.at_root)


@cache
def unread(sdk: Sdk) -> list[str]:
    """What of it no table reads, and is not the same with all SDKs."""
    read = {place for shape in shapes(sdk.tables) for place in _read_by(shape)}
    found = stated(sdk)
    counts = [str(each) for each in found.counts if (each.parent, each.name) not in read]
    read_whole = [pattern for patterns in sdk.answers.values() for pattern in patterns]
    answers = [each for each in found.answers if not fits(each, read_whole)]
    everywhere = [pattern for each in LISTED["everywhere"] for pattern in each["fields"]]
    return [each for each in (*counts, *answers) if not fits(each, everywhere)]


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is about this."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@every_sdk
def test_what_an_answer_can_state_is_read_or_listed(sdk: Sdk) -> None:
    """A count that is new in an SDK is read by a table, or somebody wrote down why it is not."""
    new = [each for each in unread(sdk) if not fits(each, sdk.unread)]
    assert new == [], (
        f"no table of {', '.join(sdk.tables)} reads, nor does sdk_fields.toml list:\n" + "\n".join(new)
    )


@every_sdk
def test_what_is_listed_is_there_and_not_read(sdk: Sdk) -> None:
    """A pattern that fits nothing is misspelt, or its fields are gone, or read by now."""
    idle = [pattern for pattern in sdk.unread if not any(fnmatchcase(each, pattern) for each in unread(sdk))]
    answers = stated(sdk).answers
    for patterns in sdk.answers.values():
        idle += [pattern for pattern in patterns if not any(fnmatchcase(each, pattern) for each in answers)]
    assert idle == [], "sdk_fields.toml lists what is not so:\n" + "\n".join(idle)
    assert sdk.answers.keys() <= {shape.api for shape in shapes(sdk.tables)}


def test_some_sdk_is_judged(record_property: Callable[[str, object], None]) -> None:
    """Where none is installed, nothing above was tried."""
    lines = ["what looks like usage, by SDK:"]
    for sdk in HERE:
        counts, answers = stated(sdk)
        count, idle = len(counts) + len(answers), len(unread(sdk))
        lines.append(f"{count:6}  {sdk.name} {version(sdk.name)}: {count - idle} read, {idle} listed")
    others = [f"{sdk.name} {sdk.release}" for sdk in SDKS if sdk not in HERE]
    lines.append(f"not installed: {', '.join(others)}")
    record_property("says", "\n".join(lines))
    assert any(stated(sdk).counts for sdk in HERE)
