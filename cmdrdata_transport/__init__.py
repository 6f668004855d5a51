"""Meters what each customer of an AI application uses, at the transport of httpx and httpx2.

The public names, and nothing else. Each is imported when it is first asked for, so that importing
this package imports no HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmdrdata_transport.attribution import (
        clear_customer_context,
        customer_context,
        get_customer_context,
        metadata_context,
        no_tracking,
        set_customer_context,
        tracking_headers,
    )
    from cmdrdata_transport.clients import tracked_async_http_client, tracked_http_client
    from cmdrdata_transport.errors import (
        AttributionError,
        Rejected,
        TrackingError,
        TrackingSetupError,
        Unavailable,
    )
    from cmdrdata_transport.event import Usage, UsageEvent
    from cmdrdata_transport.everywhere import instrument, uninstrument
    from cmdrdata_transport.install import track, untrack
    from cmdrdata_transport.sinks import Sink
    from cmdrdata_transport.tracker import Tracker, configure, default_tracker

__version__ = "0.1.0"

__all__ = [
    "AttributionError",
    "Rejected",
    "Sink",
    "Tracker",
    "TrackingError",
    "TrackingSetupError",
    "Unavailable",
    "Usage",
    "UsageEvent",
    "__version__",
    "clear_customer_context",
    "configure",
    "customer_context",
    "default_tracker",
    "get_customer_context",
    "instrument",
    "metadata_context",
    "no_tracking",
    "set_customer_context",
    "track",
    "tracked_async_http_client",
    "tracked_http_client",
    "tracking_headers",
    "uninstrument",
    "untrack",
]

_HOMES = {
    "attribution": (
        "clear_customer_context",
        "customer_context",
        "get_customer_context",
        "metadata_context",
        "no_tracking",
        "set_customer_context",
        "tracking_headers",
    ),
    "clients": ("tracked_async_http_client", "tracked_http_client"),
    "errors": ("AttributionError", "Rejected", "TrackingError", "TrackingSetupError", "Unavailable"),
    "event": ("Usage", "UsageEvent"),
    "everywhere": ("instrument", "uninstrument"),
    "install": ("track", "untrack"),
    "sinks": ("Sink",),
    "tracker": ("Tracker", "configure", "default_tracker"),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
