"""What an event may be labelled with: a customer id, and metadata.

Knows which values every ledger and every receiver can carry, and how metadata of several origins
becomes one. Does not know where a label comes from. Any text is a customer id and any JSON is
metadata: nothing is refused for what it says, only for what JSON or a database cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cmdrdata_transport.errors import AttributionError
from cmdrdata_transport.event import encode

CUSTOMER_LIMIT = 512
"""The longest customer id, in characters."""

METADATA_LIMIT = 16 * 1024
"""The most metadata that one event carries, in bytes of UTF-8 JSON."""

DEPTH_LIMIT = 100
"""How deep metadata may nest: JSON readers give up on deep nesting, each at its own depth."""


def check_customer(value: object) -> str:
    """The customer id, as a plain `str`.

    Raises:
        AttributionError: not a `str` of 1 to 512 characters, or text that a database cannot store.
    """
    if not isinstance(value, str):
        raise AttributionError(
            f"customer_id must be a str, not {type(value).__name__}: pass str(customer_id)"
        )
    if not value:
        raise AttributionError("customer_id is empty: pass None for a call that belongs to no customer")
    if len(value) > CUSTOMER_LIMIT:
        raise AttributionError(
            f"customer_id has {len(value)} characters, and at most {CUSTOMER_LIMIT} fit: pass a shorter id"
        )
    return _text(value, "customer_id")


def check_metadata(value: object) -> dict[str, Any]:
    """A copy of the metadata in plain `dict`, `list`, `str`, `int`, `float`, `bool` and `None`.

    The caller may change the original afterwards; no event does.

    Raises:
        AttributionError: not a mapping of `str` to JSON values (numbers finite), more than 16 KiB of
            JSON, nested more than 100 deep, or text that a database cannot store.
    """
    if not isinstance(value, Mapping):
        raise AttributionError(
            f"metadata must be a dict, not {type(value).__name__}: pass for example {{'feature': 'chat'}}"
        )
    copy: dict[str, Any] = _object(value, "metadata", DEPTH_LIMIT)
    try:
        size = _size(copy)
    except ValueError:  # an integer of more digits than Python writes (4300)
        size = METADATA_LIMIT + 1
    if size > METADATA_LIMIT:
        raise AttributionError(
            f"metadata is larger than {METADATA_LIMIT} bytes as JSON: pass fewer or shorter values"
        )
    return copy


def merge(nearest_first: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """Metadata of several origins as one, the nearer value winning for each key, and whether all fitted.

    When everything together is more than an event carries, the farthest origins are left out, whole.
    Each origin must have passed `check_metadata`; the result may be one of them, so nobody changes it.
    """
    merged: dict[str, Any] = {}
    for origin in nearest_first:
        if not merged:
            merged = origin
        elif origin:
            wider = {**origin, **merged}
            if _size(wider) > METADATA_LIMIT:
                return merged, False
            merged = wider
    return merged, True


def _size(metadata: dict[str, Any]) -> int:
    return len(encode(metadata))


def _json(value: object, where: str, depth: int) -> Any:
    """A plain copy of a JSON value; `where` names its place in an error."""
    if depth < 0:
        raise AttributionError(f"metadata is nested more than {DEPTH_LIMIT} deep: pass flatter values")
    match value:
        case None | bool():
            return value
        case str():
            return _text(value, where)
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                raise AttributionError(f"{where} is not a finite number: JSON has none; leave it out")
            return float(value)
        case Mapping():
            return _object(value, where, depth)
        case list() | tuple():
            return _array(value, where, depth)
        case _:
            raise AttributionError(f"{where} is {type(value).__name__}, not a JSON value: convert it first")


def _object(value: Any, where: str, depth: int) -> dict[str, Any]:
    return {_key(key, where): _json(each, f"{where}[{key!r}]", depth - 1) for key, each in value.items()}


def _array(value: Any, where: str, depth: int) -> list[Any]:
    return [_json(each, f"{where}[{at}]", depth - 1) for at, each in enumerate(value)]


def _key(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise AttributionError(f"{where} has a key of {type(value).__name__}: keys must be str")
    return _text(value, f"a key of {where}")


def _text(value: str, where: str) -> str:
    if "\0" in value:
        raise AttributionError(f"{where} contains a NUL character, which databases refuse: remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise AttributionError(
                f"{where} contains half of a surrogate pair, which is not text: decode it as it was encoded"
            ) from None
    return str.__str__(value)  # the plain text of a subclass too, such as an Enum's
