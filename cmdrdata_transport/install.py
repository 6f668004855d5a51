"""Tracks SDK objects that exist, by wrapping the transports of the HTTP clients that they hold.

Knows in what order that is done. Where the clients are is known to `places`, to `modules` for modules
whose functions call by themselves, and how one is wrapped to `wrap`.
"""

from __future__ import annotations

import os
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cmdrdata_transport.errors import TrackingError, TrackingSetupError
from cmdrdata_transport.modules import module_row
from cmdrdata_transport.places import Part, Place, parts_of
from cmdrdata_transport.walk import DEPTH, OBJECTS
from cmdrdata_transport.wrap import Options, check, unwrap, wrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmdrdata_transport.tracker import Tracker

T = TypeVar("T")


def track(
    obj: T,
    *,
    tracker: Tracker | None = None,
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    provider: str | None = None,
    include_usage: bool | Literal["auto"] | None = None,
) -> T:
    """Track what goes through an SDK object, or a bare client, and give it back.

        client = track(Anthropic())

    The object stays what it was: only the transports inside its HTTP clients are wrapped, so its
    proxies, timeouts, TLS and pools stay too. Copies made by `with_options()` share those clients and
    are tracked with it. Tracking again with the same settings changes nothing.

    An object of a framework that holds SDK objects, or HTTP clients, is looked through for them, without
    running any code of its own; and they all are tracked. A client that it makes later is not: see
    `instrument`. A module whose functions call by themselves is tracked as an object is:
    `track(openai)`, `track(replicate)`, `track(ollama)`, `track(assemblyai)`, `track(huggingface_hub)`.
    The last two make new clients now and then, which are tracked as well.

    google-genai: its async calls leave aiohttp, if that is installed, for httpx or httpx2; `untrack`
    lets them go back. replicate's token has to be set by now.

    The options are those of `tracked_http_client`. `TrackingSetupError`: no HTTP client was found, the
    object is too large to be looked through, it is tracked with other settings already, or its calls
    leave by another way; nothing has been changed then. `AttributionError`: a customer id or metadata
    that no event can carry.
    """
    options = Options(
        tracker=tracker,
        customer_id=customer_id,
        metadata=metadata,
        provider=provider,
        include_usage=include_usage,
    )
    with _one_at_a_time:
        if isinstance(obj, ModuleType):
            _track_module(obj, options)
        else:
            _track(obj, options)
    return obj


def untrack(obj: T) -> T:
    """Undo `track`, and give the object back.

    Calls under way stay tracked to their end. What is not tracked is left as it is;
    `TrackingSetupError`: no HTTP client was found.
    """
    with _one_at_a_time:
        if isinstance(obj, ModuleType):
            _untrack_module(obj)
        else:
            _untrack(_found(obj))
    return obj


def _track(obj: object, options: Options) -> None:
    for part in _found(obj):
        if part.place is not None:
            part.place.check(part.holder)
            _make_ready(part.holder, part.place)
    parts = _found(obj)  # with what has been made meanwhile
    clients = [client for part in parts for client in part.clients]
    for client in clients:
        check(client, options)
    for client in clients:
        wrap(client, options)
    for part in parts:
        if part.place is not None:
            part.place.enter(part.holder, options)


def _make_ready(holder: Any, place: Place) -> None:
    try:
        place.ready(holder)
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingSetupError(
            f"this {type(holder).__name__} cannot make its HTTP clients yet, and they cannot be tracked "
            f"before: {error}"
        ) from error


def _untrack(parts: list[Part]) -> None:
    for part in parts:
        for client in part.clients:
            unwrap(client)
        if part.place is not None:
            part.place.leave(part.holder)


def _track_module(module: ModuleType, options: Options) -> None:
    row = module_row(module)
    if row.uses:
        _track(getattr(module, row.uses), options)
    else:
        row.enter(module, options)


def _untrack_module(module: ModuleType) -> None:
    row = module_row(module)
    if row.uses:
        _untrack(_found(getattr(module, row.uses)))
    else:
        row.leave(module)


def _found(obj: object) -> list[Part]:
    found = parts_of(obj)
    what = f"the class {obj.__name__}" if isinstance(obj, type) else f"a {type(obj).__name__}"
    if not found.whole:
        raise TrackingSetupError(
            f"{what} is too large to be looked through for HTTP clients: only {OBJECTS:,} objects, at most "
            f"{DEPTH} steps away, are, and {len(found.parts)} clients were found among them. Give the part "
            "of it that holds the SDK's object or its HTTP client, or meter every client of this process "
            "with instrument()"
        )
    if not found.parts:
        raise TrackingSetupError(
            f"no HTTP client of httpx or httpx2 was found in {what}; give the SDK's object (OpenAI(), "
            "say) or its httpx client. For an SDK that takes a client type "
            "http_client=tracked_http_client('its name'); for one that makes its clients when it calls, "
            "instrument()"
        )
    return found.parts


_one_at_a_time = threading.RLock()
"""Two threads that track one object at once would each wrap it. Never held during a call.

An SDK that makes its client now may do so by a function of the application's, which may track it.
"""


def _after_fork() -> None:
    global _one_at_a_time  # noqa: PLW0603 - a thread that is not in the child may have held it
    _one_at_a_time = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
