"""Tables that users write: from TOML, and checked, whether they came from there or from Python.

Knows which words a table may have and says where one is wrong. Takes documents, opens no file.

    [[provider]]
    id = "acme-llm"
    hosts = ["llm.acme.example", "*.llm.acme.example"]

    [[provider.endpoint]]
    path = "/v1/chat/completions$"
    shape = "openai.chat_completions"     # one that we know, by the name of its API

    [[provider.endpoint]]
    path = "/v1/generate$"
    api = "acme.generate"                 # or one of your own
    operation = "completion"
    usage = "meta.usage"                  # where the usage object stands, or a list of places
    model = "meta.model"
    stream = { done = true }

    [provider.endpoint.units]
    prompt = "input_tokens"
    generated = "output_tokens"
    cached = { hits = "cache_read_tokens" }
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import UNITS
from cmdrdata_transport.providers.table import (
    Each,
    Endpoint,
    Items,
    Length,
    Path,
    Paths,
    Provider,
    Shape,
    Stream,
)

OPERATIONS = frozenset(
    {
        "agent",
        "chat",
        "classification",
        "completion",
        "embeddings",
        "image",
        "moderation",
        "ocr",
        "prediction",
        "rerank",
        "search",
        "speech",
        "transcription",
        "translation",
        "video",
    }
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_PATHS = ("response_id", "model", "finish_reason", "service_tier", "error", "request_model")


def from_toml(document: Mapping[str, Any], where: str, known: Iterable[Provider]) -> tuple[Provider, ...]:
    """The tables of a TOML document. `where` names it in errors; `known` offers its shapes by their API.

    Raises:
        TrackingSetupError: the first thing that is wrong, and its place.
    """
    shapes = {
        endpoint.shape.api: endpoint.shape
        for table in known
        for endpoint in table.endpoints
        if endpoint.shape is not None
    }
    _only(document, {"provider"}, where)
    tables = _list(document.get("provider"), f"{where}: provider")
    return tuple(
        checked(_provider(table, f"{where}: provider[{number}]", shapes), f"{where}: provider[{number}]")
        for number, table in enumerate(tables)
    )


def checked(table: Any, where: str) -> Provider:
    """The table, if everything in it can be used; `TrackingSetupError` says what cannot, and where."""
    if not isinstance(table, Provider):
        _wrong(where, f"is a {type(table).__name__}; a provider is a Provider table, see {__name__}")
    if not _NAME.fullmatch(table.id):
        _wrong(f"{where}.id", f"is {table.id!r}; use lower-case letters, digits, dots and hyphens")
    if not table.hosts:
        _wrong(f"{where}.hosts", "is empty; name the hosts, * stands for anything within a name")
    for number, endpoint in enumerate(table.endpoints):
        here = f"{where}.endpoint[{number}]"
        try:
            re.compile(endpoint.path)
        except re.error as error:
            _wrong(f"{here}.path", f"is no regular expression: {error}")
        if endpoint.shape is not None:
            _check_shape(endpoint.shape, here)
    return table


def _check_shape(shape: Shape, where: str) -> None:
    if shape.operation not in OPERATIONS:
        _wrong(f"{where}.operation", f"is {shape.operation!r}; there are {', '.join(sorted(OPERATIONS))}")
    trees = {"units": shape.units, "request": shape.request}
    trees |= {f"beside {path}": tree for path, tree in (*shape.beside.items(), *shape.lists.items())}
    for name, tree in trees.items():
        _check_tree(tree, f"{where}.{name}")


def _check_tree(rule: Any, where: str) -> None:
    match rule:
        case str():
            if rule.removeprefix("-") not in UNITS:
                _wrong(where, f"names the unit {rule!r}; there are {', '.join(UNITS)}")
        case tuple():
            for each in rule:
                _check_tree(each, where)
        case Each(into=into):
            for key, unit in into.items():
                _check_tree(unit, f"{where}.{key}")
        case Items(tree=tree):
            _check_tree(tree, where)
        case Length(unit=unit):
            _check_tree(unit, where)
        case Mapping():
            for key, below in rule.items():
                _check_tree(below, f"{where}.{key}")
        case _:
            _wrong(where, f"is {rule!r}; a unit's name or a table of them is expected")


def _provider(table: Any, where: str, shapes: Mapping[str, Shape]) -> Provider:
    _only(table, {"id", "hosts", "endpoint", "request_id"}, where)
    endpoints = _list(table.get("endpoint"), f"{where}.endpoint")
    return Provider(
        id=_text(table.get("id"), f"{where}.id"),
        hosts=_texts(table.get("hosts"), f"{where}.hosts"),
        endpoints=tuple(
            _endpoint(endpoint, f"{where}.endpoint[{number}]", shapes)
            for number, endpoint in enumerate(endpoints)
        ),
        request_id=tuple(
            name.lower().encode()
            for name in _texts(table.get("request_id", "x-request-id"), f"{where}.request_id")
        ),
    )


def _endpoint(table: Any, where: str, shapes: Mapping[str, Shape]) -> Endpoint:
    own = {"api", "operation", "usage", "units", "stream", *_PATHS}
    _only(table, {"path", "method", "shape", *own}, where)
    path = _text(table.get("path"), f"{where}.path")
    method = _text(table.get("method", "POST"), f"{where}.method").upper()
    if "shape" in table:
        if mixed := own & set(table):
            _wrong(where, f"has a shape and {min(mixed)!r}; a shape that we know is taken whole")
        name = _text(table["shape"], f"{where}.shape")
        if name not in shapes:
            _wrong(f"{where}.shape", f"is {name!r}; there are {', '.join(sorted(shapes))}")
        return Endpoint(path=path, method=method, shape=shapes[name])
    places: dict[str, Any] = {"usage": (("usage",),)}
    places |= {name: _places(table[name], f"{where}.{name}") for name in ("usage", *_PATHS) if name in table}
    shape = Shape(
        api=_text(table.get("api"), f"{where}.api"),
        operation=_text(table.get("operation"), f"{where}.operation"),
        units=_tree(table.get("units"), f"{where}.units"),
        stream=_stream(table["stream"], f"{where}.stream") if "stream" in table else None,
        **places,
    )
    return Endpoint(path=path, method=method, shape=shape)


def _stream(table: Any, where: str) -> Stream:
    _only(table, {"done", "ends", "kind", "overlay", "finish_ends"}, where)
    for name in ("done", "overlay", "finish_ends"):
        if type(table.get(name, False)) is not bool:
            _wrong(f"{where}.{name}", f"is {table[name]!r}; true or false is expected")
    return Stream(
        done=table.get("done", False),
        ends=frozenset(_texts(table.get("ends", ()), f"{where}.ends")),
        kind=_place(table.get("kind", "type"), f"{where}.kind"),
        overlay=table.get("overlay", False),
        finish_ends=table.get("finish_ends", True),
        # Where usage stands is the table's own affair, so every event is looked at.
        needles=(b"{",),
    )


def _places(value: Any, where: str) -> Paths:
    return tuple(_place(each, where) for each in _texts(value, where))


def _place(value: Any, where: str) -> Path:
    return tuple(int(key) if key.isdigit() else key for key in _text(value, where).split("."))


def _texts(value: Any, where: str) -> tuple[str, ...]:
    each = (value,) if isinstance(value, str) else value
    if not isinstance(each, list | tuple):
        _wrong(where, f"is {value!r}; text, or a list of texts, is expected")
    return tuple(_text(one, where) for one in each)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        _wrong(where, "is missing" if value is None else f"is {value!r}; text is expected")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        _wrong(where, "is missing; write [[…]] tables")
    return value


def _tree(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        _wrong(where, "is missing; a table of units is expected")
    return {
        key: tuple(below)
        if isinstance(below, list)
        else _tree(below, f"{where}.{key}")
        if isinstance(below, dict)
        else below
        for key, below in value.items()
    }


def _only(table: Any, words: set[str], where: str) -> None:
    if not isinstance(table, Mapping):
        _wrong(where, f"is {table!r}; a table is expected")
    for word in table:
        if word not in words:
            _wrong(f"{where}.{word}", f"means nothing here; there are {', '.join(sorted(words))}")


def _wrong(where: str, what: str) -> NoReturn:
    raise TrackingSetupError(f"{where} {what}")
