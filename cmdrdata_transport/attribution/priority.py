"""Whom a request belongs to: headers, extension, context, client, tracker, in this order.

Knows the order, and that nothing in a request can make it raise. Does not know requests: the
transport hands over the headers it found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cmdrdata_transport.attribution.headers import (
    HEADER_CUSTOMER,
    HEADER_METADATA,
    HEADER_TRACK,
    read_customer,
    read_metadata,
    read_track,
)
from cmdrdata_transport.attribution.labels import check_customer, check_metadata, merge
from cmdrdata_transport.attribution.scope import UNSET, Scope, Unset, scope_var
from cmdrdata_transport.errors import AttributionError


class Attribution(NamedTuple):
    """Whom one request belongs to, with what metadata, and whether it is metered at all.

    `metadata` may be shared with other requests: it is written into events, never changed.
    """

    customer: str | None
    metadata: dict[str, Any]
    track: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a client or a tracker says when nothing nearer does. Its metadata is copied when it is made.

    Raises:
        AttributionError: a customer id or metadata that no event could carry.
    """

    customer: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    truncated: bool = False
    """Client and tracker together have more metadata than an event carries: the tracker's is left out."""

    def __post_init__(self) -> None:
        if self.customer is not None:
            object.__setattr__(self, "customer", check_customer(self.customer))
        object.__setattr__(self, "metadata", check_metadata(self.metadata))

    def over(self, farther: Defaults) -> Defaults:
        """These defaults, and where they say nothing, the farther ones: a client's over its tracker's."""
        metadata, whole = merge((self.metadata, farther.metadata))
        return Defaults(
            customer=farther.customer if self.customer is None else self.customer,
            metadata=metadata,
            truncated=not whole or self.truncated or farther.truncated,
        )


def resolve(
    headers: Mapping[bytes, bytes] | None,
    extension: object,
    defaults: Defaults,
    count: Callable[[str], None],
) -> Attribution:
    """Whom a request belongs to, read once, when it starts.

    `headers` are those of the request by lower-case name (others than ours are ignored), `extension`
    is its `request.extensions.get("cmdrdata")`. The nearest part that states a customer, or that there
    is none, decides. Metadata of all parts is merged, the nearer winning per key; that which
    `customer_context` was given counts for its own customer only.

    Never raises. What cannot be read is ignored and counted as `bad_attribution`; where that is a
    customer, the request belongs to nobody, rather than to whom the next part names. Metadata of far
    parts that no longer fits is left out and counted as `metadata_truncated`.
    """
    scope = scope_var.get()
    if headers or extension is not None:
        return _resolve_stated(scope, headers, extension, defaults, count)
    metadata, whole = scope.metadata, True
    if defaults.metadata:
        metadata, whole = merge((metadata, defaults.metadata))
    if scope.truncated or defaults.truncated or not whole:
        count("metadata_truncated")
    customer = scope.customer
    return Attribution(defaults.customer if customer is UNSET else customer, metadata, scope.track)


def _resolve_stated(
    scope: Scope,
    headers: Mapping[bytes, bytes] | None,
    extension: object,
    defaults: Defaults,
    count: Callable[[str], None],
) -> Attribution:
    header = _from_headers(headers or {}, count)
    extended = _from_extension(extension, count)
    stated = (header.customer, extended.customer, scope.customer, defaults.customer)
    customer = next(each for each in stated if each is not UNSET)
    metadata, whole = merge(
        (header.metadata, extended.metadata, *scope.metadata_for(customer), defaults.metadata)
    )
    if defaults.truncated or not whole:
        count("metadata_truncated")
    track = next((each for each in (header.track, extended.track) if each is not None), scope.track)
    return Attribution(customer, metadata, track)


@dataclass(slots=True)
class _Stated:
    """What one part of a request says. What it does not say is left to the next part."""

    customer: str | Unset | None = UNSET
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    track: bool | None = None

    def read(self, readers: _Readers, name: Any, value: Any, count: Callable[[str], None]) -> None:
        """Take one named value in; one that is unknown or cannot be read is counted, and not taken.

        A customer that cannot be read is nobody: the next part would name somebody else, who would pay.
        """
        attribute = None
        try:
            attribute, reader = readers[name]
            setattr(self, attribute, reader(value))
        except Exception:  # whatever a request carries, it is sent
            count("bad_attribution")
            if attribute == "customer":
                self.customer = None


def _from_headers(headers: Mapping[bytes, bytes], count: Callable[[str], None]) -> _Stated:
    stated = _Stated()
    for name in _HEADERS:
        if (value := headers.get(name)) is not None:
            stated.read(_HEADERS, name, value, count)
    return stated


def _from_extension(extension: Any, count: Callable[[str], None]) -> _Stated:
    stated = _Stated()
    if extension is None:
        return stated
    try:
        values = dict(extension)
    except Exception:  # not a mapping, or one that fails
        count("bad_attribution")
        return stated
    for name, value in values.items():
        stated.read(_EXTENSION, name, value, count)
    return stated


def _switch(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise AttributionError("track must be a bool")


_Readers = Mapping[Any, tuple[str, Callable[[Any], Any]]]

_HEADERS: _Readers = {
    HEADER_CUSTOMER: ("customer", read_customer),
    HEADER_METADATA: ("metadata", read_metadata),
    HEADER_TRACK: ("track", read_track),
}
_EXTENSION: _Readers = {
    "customer_id": ("customer", lambda value: None if value is None else check_customer(value)),
    "metadata": ("metadata", lambda value: {} if value is None else check_metadata(value)),
    "track": ("track", _switch),
}
