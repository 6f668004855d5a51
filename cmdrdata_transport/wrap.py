"""Puts tracked transports into an httpx or httpx2 client that exists, and takes them out again.

Knows where such a client keeps its transports, google-genai's clients that hold one client per event
loop, and replicate's transport that repeats calls. Knows no SDK otherwise, and makes no client.

A client is wrapped in place because a client made with `transport=` loses the environment's proxies
(they sit in `_mounts`, and are only made when there is no `transport=`), and often the TLS settings,
limits and socket options as well. The family of a client is told by `isinstance`: SDKs rewrite the
`__module__` of classes that they re-export.
"""

# ruff: noqa: SLF001 - a client has no public way to its transports, and google-genai none to its clients

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict
from weakref import WeakSet

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.walk import attributes

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
    any_host: NotRequired[bool]


def is_client(value: object) -> bool:
    """Whether this is a client of httpx or httpx2, sync or async.

    Asked of its class, for an object may pretend to be of another, and look it up for that.
    """
    return any(_is_of(value, library) for library in libraries())


def wrap(client: Any, options: Options) -> None:
    """Put a tracked transport around every transport of a client, once.

    A client that is already wrapped with the same options is left as it is; one that is only watched
    is no longer. With other options it is a `TrackingSetupError`, as is anything in `options` that no
    tracked transport takes; nothing has been changed then.
    """
    cover = _cover(client, options)
    _replace(client, cover)
    if _keeps_one_client_per_loop(client):
        make = client._inner_client_cls
        if not isinstance(make, TrackedFactory):
            client._inner_client_cls = TrackedFactory(make, options)
        for inner in _loop_clients(client):
            _replace(inner, cover)


def check(client: Any, options: Options) -> None:
    """Raise what `wrap` would raise, and change nothing."""
    cover = _cover(client, options)
    for _, transport in _slots(client):
        cover(transport)


def watch(client: Any, options: Options) -> None:
    """Put a tracked transport around every transport of a client that is not tracked already.

    What `wrap` or the application has put there stays, even below a transport of the application's,
    since it knows better whose calls these are. `wrap` later takes the place of what is put here.
    """
    tracked = tracked_kind(client)

    def cover(transport: Any) -> Any:
        if _is_tracked(transport) or _is_tracked_below(transport):
            return transport
        watching = tracked(transport, **options)
        _watching.add(watching)
        return watching

    _replace(client, cover)


def unwatch(client: Any) -> None:
    """Undo `watch`, and leave alone what `wrap` did."""
    _replace(client, lambda transport: transport.unwrapped if _is_watching(transport) else transport)


def unwrap(client: Any) -> None:
    """Put back the transports that were there before `wrap`; nothing happens to a client without."""

    def uncover(transport: Any) -> Any:
        return transport.unwrapped if _is_tracked(transport) else transport

    _replace(client, uncover)
    if _keeps_one_client_per_loop(client):
        make = client._inner_client_cls
        if isinstance(make, TrackedFactory):
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
        for library in libraries():
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


class TrackedFactory:
    """Makes the HTTP clients that an SDK asks for when it needs one, wrapped before their first use.

    One that is tracked with other settings already stays as it is: this runs inside the SDK's calls.
    """

    __slots__ = ("make", "options")

    def __init__(self, make: Callable[..., Any], options: Options) -> None:
        self.make = make
        self.options = options

    def __call__(self, *args: Any, **client_options: Any) -> Any:
        """The new client."""
        client = self.make(*args, **client_options)
        with suppress(TrackingSetupError):
            if is_client(client):
                wrap(client, self.options)
        return client


_watching: WeakSet[Any] = WeakSet()
"""The transports that `watch` made."""


def _cover(client: Any, options: Options) -> Callable[[Any], Any]:
    """What `wrap` puts in the place of a transport."""
    tracked = tracked_kind(client)

    def cover(transport: Any) -> Any:
        bare = transport.unwrapped if _is_watching(transport) else transport
        if not isinstance(bare, tracked):
            return tracked(bare, **options)
        if bare.settings != tracked(bare.unwrapped, **options).settings:
            raise TrackingSetupError(
                "this HTTP client is already tracked with other settings, and everything that shares it "
                "(a copy made by with_options(), say) shares them. For another customer on the same "
                "client use client.with_options(default_headers=tracking_headers('acme')) or "
                "customer_context('acme'); to start over call untrack() on it first"
            )
        return bare

    return cover


def _replace(client: Any, change: Callable[[Any], Any]) -> None:
    """Change every transport of one client, or none if `change` raises for any."""
    changed = [(put, change(transport)) for put, transport in _slots(client)]
    for put, transport in changed:
        put(transport)


def _slots(client: Any) -> Iterator[tuple[Callable[[Any], None], Any]]:
    """Every transport of a client, with what puts another in its place.

    A mount of None means the client's own transport and is left out. Keys are only overwritten, so that
    a call that is looking for its mount in another thread is not disturbed.
    """
    yield _slot(partial(setattr, client, "_transport"), client._transport)
    for pattern, mount in list(client._mounts.items()):
        if mount is not None:
            yield _slot(partial(client._mounts.__setitem__, pattern), mount)


def _slot(put: Callable[[Any], None], transport: Any) -> tuple[Callable[[Any], None], Any]:
    """Below replicate's `RetryTransport` each attempt is a call of its own, and so it is to us."""
    if type(transport).__module__ == "replicate.client" and hasattr(transport, "_wrapped_transport"):
        return partial(setattr, transport, "_wrapped_transport"), transport._wrapped_transport
    return put, transport


def _keeps_one_client_per_loop(client: Any) -> bool:
    """Whether this is google-genai's async client (3.x), which sends through an inner client for each
    event loop; its own transport is used only where it was made with `transport=` or `mounts=`.
    """
    return hasattr(client, "_loop_clients") and hasattr(client, "_inner_client_cls")


def _loop_clients(client: Any) -> list[Any]:
    with client._loop_clients_lock:
        return list(client._loop_clients.values())


def libraries() -> Iterator[ModuleType]:
    """The HTTP libraries that are loaded: an object of one that is not can't exist.

    After `httpx2.alias_httpx()` both names are httpx2, which is why it comes first.
    """
    for name in ("httpx2", "httpx"):
        library = sys.modules.get(name)
        if library is not None and hasattr(library, "AsyncClient"):
            yield library


def _is_of(value: object, library: ModuleType) -> bool:
    return issubclass(type(value), (library.Client, library.AsyncClient))


def _library_of(client: object) -> ModuleType:
    return next(library for library in libraries() if _is_of(client, library))


def tracked_kind(client: object) -> Any:
    """The class of ours whose objects this client can hold as transports."""
    library = _library_of(client)
    ours = importlib.import_module(
        "cmdrdata_transport.httpx2" if library is sys.modules.get("httpx2") else "cmdrdata_transport.httpx"
    )
    return ours.TrackedTransport if issubclass(type(client), library.Client) else ours.AsyncTrackedTransport


def _is_tracked(value: object) -> bool:
    """Whether this is a transport of ours, of either library and colour."""
    return any(
        kind.__module__ in _OURS and kind.__name__ in {"TrackedTransport", "AsyncTrackedTransport"}
        for kind in type(value).__mro__
    )


def _is_tracked_below(transport: object, above: tuple[object, ...] = ()) -> bool:
    """Whether a transport of the application's sends through a tracked one, or through others to one."""
    return any(
        _is_tracked(inner) or _is_tracked_below(inner, (*above, transport))
        for inner in attributes(transport).values()
        if hasattr(type(inner), "handle_request") or hasattr(type(inner), "handle_async_request")
        if all(inner is not each for each in (*above, transport))
    )


def _is_watching(transport: Any) -> bool:
    return _is_tracked(transport) and transport in _watching


_OURS = frozenset({"cmdrdata_transport.httpx", "cmdrdata_transport.httpx2"})
