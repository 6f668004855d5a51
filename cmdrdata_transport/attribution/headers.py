"""Attribution in the headers of one request: written by the caller, read back by the transport.

    X-Cmdrdata-Customer-Id    the id: printable ASCII as it is, anything else as RFC 8187 ext-value
    X-Cmdrdata-Metadata       a JSON object, in ASCII
    X-Cmdrdata-Track          0, false, off or no: this request is not metered

Knows these three headers. Does not know what they take precedence over, nor who removes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote, unquote_to_bytes

from cmdrdata_transport.attribution.labels import check_customer, check_metadata
from cmdrdata_transport.errors import AttributionError

HEADER_PREFIX = b"x-cmdrdata-"
HEADER_CUSTOMER = b"x-cmdrdata-customer-id"
HEADER_METADATA = b"x-cmdrdata-metadata"
HEADER_TRACK = b"x-cmdrdata-track"

_EXTENDED = re.compile(rb"utf-8'[^']*'", re.IGNORECASE)
"""How an RFC 8187 ext-value in UTF-8 begins: charset, language."""

_ATTR_CHAR = "!#$&+-.^_`|~"
"""What RFC 8187 §3.2.1 lets stand beside letters and digits."""

_PLAIN = re.compile(r"[!-~]([ -~]*[!-~])?")
"""What passes through any HTTP library unchanged: printable ASCII without blanks around it."""

_SWITCH = {
    **dict.fromkeys((b"0", b"false", b"off", b"no"), False),
    **dict.fromkeys((b"1", b"true", b"on", b"yes"), True),
}


def tracking_headers(
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    track: bool = True,  # noqa: FBT001, FBT002 - the published signature
) -> dict[str, str]:
    """Headers that attribute one request: `extra_headers=tracking_headers("acme")`.

    Every tracked client reads them and sends the request without them. They take precedence over
    contexts and client defaults, so they are the dependable way for a call whose request leaves on
    another thread or later than the call. What is left out is not stated: contexts and defaults
    still apply. `track=False` keeps this one request out of the meter.

    Raises:
        AttributionError: a customer id or metadata that no event could carry.
    """
    headers: dict[str, str] = {}
    if customer_id is not None:
        headers["X-Cmdrdata-Customer-Id"] = _written(check_customer(customer_id))
    if metadata:
        headers["X-Cmdrdata-Metadata"] = json.dumps(check_metadata(metadata), separators=(",", ":"))
    if not track:
        headers["X-Cmdrdata-Track"] = "0"
    return headers


def read_customer(value: bytes) -> str:
    """The customer id in a header. Raises `ValueError` when it holds none."""
    value = value.strip(b" \t")
    if extended := _EXTENDED.match(value):
        value = unquote_to_bytes(value[extended.end() :])
    return check_customer(value.decode())


def read_metadata(value: bytes) -> dict[str, Any]:
    """The metadata in a header. Raises `ValueError` when it holds none."""
    try:
        return check_metadata(json.loads(value, parse_constant=_not_json))
    except RecursionError:
        raise AttributionError("metadata is nested too deep") from None


def read_track(value: bytes) -> bool:
    """Whether a header lets the request be metered. Raises `ValueError` when it says neither."""
    switch = _SWITCH.get(value.strip(b" \t").lower())
    if switch is None:
        raise AttributionError("neither on nor off")
    return switch


def _written(customer: str) -> str:
    # An id that happens to look like an ext-value is written as one, else it would be read as one.
    if _PLAIN.fullmatch(customer) and not _EXTENDED.match(customer.encode()):
        return customer
    return "UTF-8''" + quote(customer, safe=_ATTR_CHAR)


def _not_json(constant: str) -> NoReturn:
    raise AttributionError(f"{constant} is not JSON")
