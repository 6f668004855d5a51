"""Puts tracked transports into an httpx or httpx2 client that exists, and takes them out again.

Knows where such a client keeps its transports, and google-genai's clients that hold one client per
event loop. Knows no SDK otherwise, and makes no client.

A client is wrapped in place because a client made with `transport=` loses the environment's proxies
(they sit in `_mounts`, and are only made when there is no `transport=`), and often the TLS settings,
limits and socket options as well. The family of a client is told by `isinstance`: SDKs rewrite the
`__module__` of classes that they re-export.
"""

# ruff: noqa: SLF001 - a client has no public way to its transports, and google-genai none to its clients

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, TypedDict

from cmdrdata_transport.errors import TrackingSetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from cmdrdata_transport.tracker import Tracker


class Options(TypedDict):
    """What a tracked transport is made with; each means what it means to `TrackedTransport`."""

    tracker: Tracker | None
    customer_id: str | None
    metadata: Mapping[str, Any] | None
    provider: str | None
    include_usage: Any


def is_client(value: object) -> bool:
    """Whether this is a client of httpx or httpx2, sync or async."""
    return any(_is_of(value, library) for library in _libraries())


def wrap(client: Any, options: Options) -> None:
    """Put a tracked transport around every transport of a client, once.

    A client that is already wrapped with the same options is left as it is. With other options it is
    a `TrackingSetupError`, as is anything in `options` that no tracked transport takes; nothing has
    been changed then.
    """
    tracked = _tracked_kind(client)

    def cover(transport: Any) -> Any:
        if not isinstance(transport, tracked):
            return tracked(transport, **options)
        if transport.settings != tracked(transport.unwrapped, **options).settings:
            raise TrackingSetupError(
                "this HTTP client is already tracked with other settings, and everything that shares it "
                "(a copy made by with_options(), say) shares them. For another customer on the same "
                "client use client.with_options(default_headers=tracking_headers('acme')) or "
                "customer_context('acme'); to start over call untrack() on it first"
            )
        return transport

    _replace(client, cover)
    if _keeps_one_client_per_loop(client):
        make = client._inner_client_cls
        if not isinstance(make, _TrackedClients):
            client._inner_client_cls = _TrackedClients(make, options)
        for inner in _loop_clients(client):
            _replace(inner, cover)


def unwrap(client: Any) -> None:
    """Put back the transports that were there before `wrap`; nothing happens to a client without."""
    tracked = _tracked_kind(client)

    def uncover(transport: Any) -> Any:
        return transport.unwrapped if isinstance(transport, tracked) else transport

    _replace(client, uncover)
    if _keeps_one_client_per_loop(client):
        make = client._inner_client_cls
        if isinstance(make, _TrackedClients):
            del client._inner_client_cls  # uncovers the class's own
        for inner in _loop_clients(client):
            _replace(inner, uncover)


def check_transports(client: Any) -> None:
    """`TrackingSetupError` for a transport that could only fail in this client, at its first call.

    Transports may be of any class; the libraries look only at what comes out of them. But one of the
    other library, or of the other colour, never works.
    """
    mine = _library_of(client)
    needed = "handle_request" if isinstance(client, mine.Client) else "handle_async_request"
    for transport in (client._transport, *client._mounts.values()):
        if transport is None:
            continue
        for library in _libraries():
            if isinstance(transport, library.BaseTransport | library.AsyncBaseTransport) and not isinstance(
                transport, mine.BaseTransport | mine.AsyncBaseTransport
            ):
                raise TrackingSetupError(
                    f"{type(transport).__name__} is a transport of {library.__name__}, but this SDK uses "
                    f"{mine.__name__}: give the class of the same name from {mine.__name__}"
                )
        if not hasattr(transport, needed):
            raise TrackingSetupError(
                f"{type(transport).__name__} has no {needed}() and so is no transport for "
                f"{mine.__name__}.{'Client' if needed == 'handle_request' else 'AsyncClient'}"
            )


class _TrackedClients:
    """Makes the client that google-genai wants for an event loop, wrapped before its first use."""

    __slots__ = ("make", "options")

    def __init__(self, make: Callable[..., Any], options: Options) -> None:
        self.make = make
        self.options = options

    def __call__(self, **client_options: Any) -> Any:
        client = self.make(**client_options)
        wrap(client, self.options)
        return client


def _replace(client: Any, change: Callable[[Any], Any]) -> None:
    """Change every transport of one client, or none if `change` raises for any.

    A mount of None means the client's own transport and stays None. Keys are only overwritten, so
    that a call that is looking for its mount in another thread is not disturbed.
    """
    transport = change(client._transport)
    mounts = {pattern: change(mount) for pattern, mount in client._mounts.items() if mount is not None}
    client._transport = transport
    client._mounts.update(mounts)


def _keeps_one_client_per_loop(client: Any) -> bool:
    """Whether this is google-genai's async client (3.x), which sends through an inner client for each
    event loop; its own transport is used only where it was made with `transport=` or `mounts=`.
    """
    return hasattr(client, "_loop_clients") and hasattr(client, "_inner_client_cls")


def _loop_clients(client: Any) -> list[Any]:
    with client._loop_clients_lock:
        return list(client._loop_clients.values())


def _libraries() -> Iterator[ModuleType]:
    """The HTTP libraries that are loaded: an object of one that is not can't exist.

    After `httpx2.alias_httpx()` both names are httpx2, which is why it comes first.
    """
    for name in ("httpx2", "httpx"):
        library = sys.modules.get(name)
        if library is not None and hasattr(library, "AsyncClient"):
            yield library


def _is_of(value: object, library: ModuleType) -> bool:
    return isinstance(value, library.Client | library.AsyncClient)


def _library_of(client: object) -> ModuleType:
    return next(library for library in _libraries() if _is_of(client, library))


def _tracked_kind(client: object) -> Any:
    """The class of ours whose objects this client can hold as transports."""
    library = _library_of(client)
    ours = importlib.import_module(
        "cmdrdata_transport.httpx2" if library is sys.modules.get("httpx2") else "cmdrdata_transport.httpx"
    )
    return ours.TrackedTransport if isinstance(client, library.Client) else ours.AsyncTrackedTransport
