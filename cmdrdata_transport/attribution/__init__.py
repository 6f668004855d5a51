"""Who a call belongs to: contexts, headers, and what takes precedence.

    priority   what a request's parts say, as one answer; for the meter
    context    customer_context and its like
    scope      what the open contexts say together
    headers    the same said in the headers of one request
    labels     which values a customer id and metadata may have

Reads no clock, does no I/O, and never raises into a request: a wrong value is an error where the
developer sets it.
"""

from __future__ import annotations

from cmdrdata_transport.attribution.context import (
    Context,
    clear_customer_context,
    customer_context,
    get_customer_context,
    metadata_context,
    no_tracking,
    set_customer_context,
)
from cmdrdata_transport.attribution.headers import (
    HEADER_CUSTOMER,
    HEADER_METADATA,
    HEADER_PREFIX,
    HEADER_TRACK,
    tracking_headers,
)
from cmdrdata_transport.attribution.labels import check_customer, check_metadata
from cmdrdata_transport.attribution.priority import Attribution, Defaults, resolve
from cmdrdata_transport.attribution.scope import UNSET, Scope, Unset, current

__all__ = [
    "HEADER_CUSTOMER",
    "HEADER_METADATA",
    "HEADER_PREFIX",
    "HEADER_TRACK",
    "UNSET",
    "Attribution",
    "Context",
    "Defaults",
    "Scope",
    "Unset",
    "check_customer",
    "check_metadata",
    "clear_customer_context",
    "current",
    "customer_context",
    "get_customer_context",
    "metadata_context",
    "no_tracking",
    "resolve",
    "set_customer_context",
    "tracking_headers",
]
