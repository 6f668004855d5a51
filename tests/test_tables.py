"""The tables together: each host is one provider's, each path means one thing, each word is one we know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from cmdrdata_transport.event import UNITS
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.table import Each, Items, Length, One, Provider, Same, Scaled, Shape

OPERATIONS = {
    "chat",
    "completion",
    "embeddings",
    "image",
    "video",
    "transcription",
    "translation",
    "speech",
    "rerank",
    "classification",
    "moderation",
    "ocr",
    "search",
    "prediction",
    "agent",
}

every_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.id)


def shapes(provider: Provider) -> Iterator[Shape]:
    """The shapes that a provider's paths speak."""
    yield from (endpoint.shape for endpoint in provider.endpoints if endpoint.shape is not None)


def units(rule: Any) -> Iterator[str]:
    """Every unit that a tree, or a part of one, counts towards."""
    match rule:
        case str():
            yield rule.removeprefix("-")
        case tuple():
            for each in rule:
                yield from units(each)
        case Each(into=into):
            yield from into.values()
        case Items(tree=tree):
            yield from units(tree)
        case Length(unit=unit) | Same(unit=unit) | Scaled(unit=unit) | One(unit=unit):
            yield unit
        case _:
            for each in rule.values():
                yield from units(each)


def test_no_provider_has_two_tables() -> None:
    """`provider=` names one table."""
    assert [name for name, count in Counter(each.id for each in PROVIDERS).items() if count > 1] == []


@every_provider
def test_a_host_is_one_provider_s(provider: Provider) -> None:
    """What a provider's host is asked for, under its paths, goes to its own table."""
    for pattern in provider.hosts:
        host = pattern.replace("*", "x-1")
        first = next(
            each.id
            for each in PROVIDERS
            if provider.under.startswith(each.under) and any(fnmatchcase(host, other) for other in each.hosts)
        )
        assert first == provider.id


@every_provider
def test_a_table_counts_in_units_and_operations_that_events_have(provider: Provider) -> None:
    """A unit or an operation that no event can have is a misspelling."""
    for shape in shapes(provider):
        trees = [shape.units, *shape.beside.values(), *shape.lists.values(), shape.request]
        counted = {unit for tree in trees for unit in units(tree)}
        counted |= {unit for rule in shape.headers.values() for unit in units(rule)}
        counted |= {unit for aside in shape.asides for unit in units(aside.units)}
        assert counted <= set(UNITS)
        assert {shape.operation, *(aside.operation for aside in shape.asides)} <= OPERATIONS
        assert counted or shape.header_details or shape.job is not None or shape.results is not None


@every_provider
def test_no_path_hides_another(provider: Provider) -> None:
    """Of two endpoints with the same path and method, the second could never be reached."""
    known = Counter((endpoint.method, endpoint.path) for endpoint in provider.endpoints)
    assert [place for place, count in known.items() if count > 1] == []
    for endpoint in provider.endpoints:
        assert re.compile(endpoint.path).groupindex.keys() <= {"model", "job"}


@every_provider
def test_an_event_that_states_tokens_is_found_by_their_names(provider: Provider) -> None:
    """A stream is searched for the end of a count's name, so what counts as input or output has that end."""
    for shape in shapes(provider):
        if shape.stream is None or not shape.stream.include_usage:
            continue
        needle = shape.stream.needles[0].decode()
        told = [
            key for key, rule in shape.units.items() if {"input_tokens", "output_tokens"} & set(units(rule))
        ]
        assert told
        assert [key for key in told if needle not in f'"{key}"' and isinstance(shape.units[key], str)] == []
