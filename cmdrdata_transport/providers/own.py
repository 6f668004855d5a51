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

The words are those of `table.py`, which explains them; here is how TOML writes what only Python has.

A place is keys with dots between them, numbers for items of a list, and "." for the whole document.
In `units`, `request` and `beside` a list of names counts towards each of them, a list of one table is
read by it item by item, and "length of images" counts what is in a list, or the characters of a text.

| word | written |
|---|---|
| provider: `request_id`, `service_tier` | names of response headers |
| provider: `under`, `compatible` | `"/acme/"`; `"acme-compatible"` |
| `method`, `query_model` | `"GET"`; `"model"`: the key of the URL's query |
| `usage`, `model`, `request_model`, `response_id`, `finish_reason` | a place, or a list of them |
| `service_tier`, `error` | the same |
| `details`, `request_details` | `{ size = "image.size" }`: what is kept because it changes a price |
| `headers` | `{ x-tokens-in = "input_tokens" }`, where the body states no usage |
| `request` | `{ text = "length of input_characters" }`: what was asked for, where nothing is answered |
| `beside` | `{ "meta.tools" = { searches = "web_searches" } }`: an object outside the usage object |
| `lists` | `{ "data" = "images" }`: a list of content, whose length counts |
| `cost` | `"cost.total"`: US dollars, in the usage object; or `{ cents = "0.01" }`: what one is worth |
| `needs` | `{ input_tokens = ["prompt"] }`: keys of the usage object without which a unit is not known |
| `apart` | `true`, or `{ part = …, of = …, total = … }` |
| `pending` | `{ status = ["queued", "running"] }` |
| `stream` | `{ done, ends, kind, overlay, finish_ends }` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, TypeAlias

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import UNITS
from cmdrdata_transport.providers.table import (
    Apart,
    Each,
    Endpoint,
    Items,
    Length,
    One,
    Path,
    Paths,
    Provider,
    Same,
    Scaled,
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

_HOST = re.compile(r"[a-z0-9*?._-]+|\[?[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:]*\]?")
"""A name with wildcards, or an address."""

_GROUPS = frozenset({"model", "job"})
"""What a path may name. Only tables in Python have jobs."""

_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")

_LENGTH = "length of "

Words: TypeAlias = "Mapping[str, Callable[[Any, str], Any]]"
"""The words that a table may have, and what reads each: a value and its place give what it means."""


def from_toml(document: Mapping[str, Any], where: str, known: Iterable[Provider]) -> tuple[Provider, ...]:
    """The tables of a TOML document. `where` names it in errors; `known` offers its shapes by their API.

    Raises:
        TrackingSetupError: the first thing that is wrong, and its place.
    """
    shapes: dict[str, Shape] = {}
    for each in known:
        for endpoint in each.endpoints:
            if endpoint.shape is not None:
                # Whoever speaks a shape first made it; others leave things out.
                shapes.setdefault(endpoint.shape.api, endpoint.shape)
    _only(document, {"provider"}, where)
    found: dict[str, Provider] = {}
    for number, table in enumerate(_tables(document.get("provider"), f"{where}: provider")):
        here = f"{where}: provider[{number}]"
        provider = checked(_provider(table, here, shapes), here)
        if provider.id in found:
            _wrong(f"{here}.id", f"is {provider.id!r} again; put all its hosts and endpoints in one table")
        found[provider.id] = provider
    return tuple(found.values())


# --- what is checked, wherever it came from ---


def checked(table: Any, where: str) -> Provider:
    """The table, if everything in it can be used; `TrackingSetupError` says what cannot, and where."""
    if not isinstance(table, Provider):
        _wrong(where, f"is a {type(table).__name__}; a provider is a Provider table, see {__name__}")
    if not _NAME.fullmatch(table.id):
        _wrong(f"{where}.id", f"is {table.id!r}; use lower-case letters, digits, dots and hyphens")
    if not table.hosts:
        _wrong(f"{where}.hosts", "is empty; name the hosts, * stands for anything within a name")
    for host in table.hosts:
        if not _HOST.fullmatch(host):
            _wrong(
                f"{where}.hosts",
                f"has {host!r}; write a host's name alone, in lower case, without scheme, port and path",
            )
    if not table.under.startswith("/"):
        _wrong(f"{where}.under", f"is {table.under!r}; it is how paths begin, so it begins with /")
    if table.compatible is not None and not _NAME.fullmatch(table.compatible):
        _wrong(f"{where}.compatible", f"is {table.compatible!r}; it is a provider's id")
    for number, endpoint in enumerate(table.endpoints):
        here = f"{where}.endpoint[{number}]"
        try:
            groups = re.compile(endpoint.path).groupindex
        except re.error as error:
            _wrong(f"{here}.path", f"is no regular expression: {error}")
        for name in groups:
            if name not in _GROUPS:
                _wrong(f"{here}.path", f"has the group {name!r}, which means nothing; there is (?P<model>…)")
        if endpoint.shape is not None:
            _check_shape(endpoint.shape, here)
    return table


def _check_shape(shape: Shape, where: str) -> None:
    if shape.operation not in OPERATIONS:
        _wrong(f"{where}.operation", f"is {shape.operation!r}; there are {', '.join(sorted(OPERATIONS))}")
    trees: dict[str, Any] = {"units": shape.units, "request": shape.request}
    trees |= {_written("beside", path): tree for path, tree in shape.beside.items()}
    trees |= {_written("lists", path): tree for path, tree in shape.lists.items()}
    trees |= {f"headers.{name.decode('latin-1')}": unit for name, unit in shape.headers.items()}
    trees |= {f"needs.{unit}": unit for unit in shape.needs}
    if shape.apart is not None:
        trees |= {"apart.part": shape.apart.part, "apart.of": shape.apart.of}
    for name, tree in trees.items():
        _check_tree(tree, f"{where}.{name}")
    for header in shape.headers:
        if not _HEADER.fullmatch(header):
            _wrong(f"{where}.headers", f"has {header.decode('latin-1')!r}, which is no name of a header")
    for path, dollars in shape.cost.items():
        try:
            worth = Decimal(dollars)
        except InvalidOperation:
            worth = Decimal("NaN")
        if not worth.is_finite() or worth <= 0:
            here = f"{where}.{_written('cost', path)}"
            _wrong(here, f'is {dollars!r}; how many US dollars one of these is, as text: "1", or "0.01"')


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
        case Length(unit=unit) | Same(unit=unit) | Scaled(unit=unit) | One(unit=unit):
            _check_tree(unit, where)
        case Mapping():
            for key, below in rule.items():
                _check_tree(below, f"{where}.{key}")
        case _:
            _wrong(where, f"is {rule!r}; a unit's name or a table of them is expected")


def _written(word: str, path: Path) -> str:
    return ".".join((word, *map(str, path)))


# --- from TOML ---


def _provider(table: Any, where: str, shapes: Mapping[str, Shape]) -> Provider:
    _only(table, {"endpoint", *_PROVIDER_WORDS}, where)
    endpoints = _tables(table.get("endpoint"), f"{where}.endpoint")
    return Provider(
        endpoints=tuple(
            _endpoint(endpoint, f"{where}.endpoint[{number}]", shapes)
            for number, endpoint in enumerate(endpoints)
        ),
        **_said(table, _PROVIDER_WORDS, where, required=("id", "hosts")),
    )


def _endpoint(table: Any, where: str, shapes: Mapping[str, Shape]) -> Endpoint:
    _only(table, {"shape", *_ENDPOINT_WORDS, *_SHAPE_WORDS}, where)
    said = _said(table, _ENDPOINT_WORDS, where, required=("path",))
    if "shape" not in table:
        return Endpoint(shape=_shape(table, where), **said)
    if mixed := _SHAPE_WORDS.keys() & table.keys():
        _wrong(where, f"has a shape and {min(mixed)!r}; a shape that we know is taken whole")
    name = _text(table["shape"], f"{where}.shape")
    if name not in shapes:
        _wrong(f"{where}.shape", f"is {name!r}; there are {', '.join(sorted(shapes))}")
    return Endpoint(shape=shapes[name], **said)


def _shape(table: Mapping[str, Any], where: str) -> Shape:
    said = _said(table, _SHAPE_WORDS, where, required=("api", "operation"))
    if not said.keys() & {"units", "headers", "request", "beside", "lists"}:
        _wrong(f"{where}.units", "is missing; a table of units is expected, or headers, request or lists")
    without: dict[str, Any] = {"usage": (("usage",),) if "units" in said else (), "units": {}}
    return Shape(**{**without, **said})


def _said(
    table: Mapping[str, Any],
    words: Words,
    where: str,
    *,
    required: tuple[str, ...],
) -> dict[str, Any]:
    """What the table says, word for word; of the words that it must have, whether it has them too."""
    return {
        word: read(table.get(word), f"{where}.{word}")
        for word, read in words.items()
        if word in table or word in required
    }


def _stream(table: Any, where: str) -> Stream:
    words: Words = {"done": _flag, "ends": _names, "kind": _place, "overlay": _flag, "finish_ends": _flag}
    _only(table, words.keys(), where)
    said: dict[str, Any] = {"finish_ends": True, **_said(table, words, where, required=())}
    # Where usage stands is the table's own affair, so every event is looked at.
    return Stream(needles=(b"{",), **said)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        _wrong(where, f"is {value!r}; true or false is expected")
    return value


def _method(value: Any, where: str) -> str:
    return _text(value, where).upper()


def _names(value: Any, where: str) -> frozenset[str]:
    return frozenset(_texts(value, where))


def _header_names(value: Any, where: str) -> tuple[bytes, ...]:
    return tuple(name.lower().encode() for name in _texts(value, where))


def _headers(table: Any, where: str) -> dict[bytes, Any]:
    return {name.lower().encode(): rule for name, rule in _tree(table, where).items()}


def _details(table: Any, where: str) -> dict[str, Paths]:
    return {name: _places(value, f"{where}.{name}") for name, value in _table(table, where).items()}


def _beside(table: Any, where: str) -> dict[Path, Any]:
    return {
        _place(place, where): _tree(tree, f"{where}.{place}") for place, tree in _table(table, where).items()
    }


def _lists(table: Any, where: str) -> dict[Path, Any]:
    found: dict[Path, dict[str | int, Length]] = {}
    for place, unit in _table(table, where).items():
        *above, last = _place(place, where) or _wrong(where, 'has "."; name the list')
        found.setdefault(tuple(above), {})[last] = Length(unit=_text(unit, f"{where}.{place}"))
    return dict(found)


def _cost(value: Any, where: str) -> dict[Path, str]:
    if isinstance(value, str):
        return {_place(value, where): "1"}
    return {
        _place(place, where): _text(dollars, f"{where}.{place}")
        for place, dollars in _table(value, where).items()
    }


def _needs(table: Any, where: str) -> dict[str, frozenset[str]]:
    return {unit: _names(keys, f"{where}.{unit}") for unit, keys in _table(table, where).items()}


def _apart(value: Any, where: str) -> Apart | None:
    if isinstance(value, bool):
        return Apart() if value else None
    words: Words = {"part": _text, "of": _text, "total": _text}
    _only(value, words.keys(), where)
    return Apart(**_said(value, words, where, required=()))


def _pending(table: Any, where: str) -> dict[Path, frozenset[str]]:
    return {
        _place(place, where): _names(values, f"{where}.{place}")
        for place, values in _table(table, where).items()
    }


def _places(value: Any, where: str) -> Paths:
    return tuple(_place(each, where) for each in _texts(value, where))


def _place(value: Any, where: str) -> Path:
    text = _text(value, where)
    if text == ".":
        return ()
    keys = text.split(".")
    if "" in keys:
        _wrong(where, f'is {text!r}; write keys with a dot between each two, or "." for the whole document')
    return tuple(int(key) if key.isascii() and key.isdigit() else key for key in keys)


def _tree(value: Any, where: str) -> dict[str, Any]:
    return {key: _rule(below, f"{where}.{key}") for key, below in _table(value, where).items()}


def _rule(value: Any, where: str) -> Any:
    match value:
        case dict():
            return _tree(value, where)
        case [dict() as each]:
            return Items(tree=_tree(each, where))
        case list():
            return tuple(_rule(each, where) for each in value)
        case str() if value.startswith(_LENGTH):
            return Length(unit=value.removeprefix(_LENGTH))
        case _:
            return value


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        _wrong(where, f"is {value!r}; a table is expected")
    return value


def _tables(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        _wrong(
            where, f"is {'missing' if value is None else repr(value)}; write it as [[…]], with two brackets"
        )
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    each = (value,) if isinstance(value, str) else value
    if not isinstance(each, list | tuple):
        _wrong(where, f"is {value!r}; text, or a list of texts, is expected")
    return tuple(_text(one, where) for one in each)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        _wrong(where, "is missing" if value is None else f"is {value!r}; text is expected")
    return value


def _only(table: Any, words: Iterable[str], where: str) -> None:
    if not isinstance(table, Mapping):
        _wrong(where, f"is {table!r}; a table is expected")
    known = sorted(words)
    for word in table:
        if word not in known:
            _wrong(f"{where}.{word}", f"means nothing here; there are {', '.join(known)}")


def _wrong(where: str, what: str) -> NoReturn:
    raise TrackingSetupError(f"{where} {what}")


_PROVIDER_WORDS: Words = {
    "id": _text,
    "hosts": _texts,
    "under": _text,
    "compatible": _text,
    "request_id": _header_names,
    "service_tier": _header_names,
}

_ENDPOINT_WORDS: Words = {"path": _text, "method": _method, "query_model": _text}

_SHAPE_WORDS: Words = {
    "api": _text,
    "operation": _text,
    "usage": _places,
    "units": _tree,
    "needs": _needs,
    "apart": _apart,
    "beside": _beside,
    "lists": _lists,
    "cost": _cost,
    "headers": _headers,
    "request": _tree,
    "request_model": _places,
    "request_details": _details,
    "error": _places,
    "response_id": _places,
    "model": _places,
    "finish_reason": _places,
    "service_tier": _places,
    "details": _details,
    "pending": _pending,
    "stream": _stream,
}

WORDS = {
    "provider": ("endpoint", *_PROVIDER_WORDS),
    "endpoint": ("shape", *_ENDPOINT_WORDS, *_SHAPE_WORDS),
}
"""Every word that TOML may have, by the table that may have it."""
