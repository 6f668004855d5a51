"""Tracks SDK objects that exist, by wrapping the transports of the HTTP clients that they hold.

Knows, as a table, where SDKs keep those clients. Knows nothing of how a client is wrapped (`wrap`),
nor of requests. To add an SDK is to add a row.
"""

# ruff: noqa: SLF001 - SDKs have no public way to their HTTP clients

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.wrap import Options, is_client, unwrap, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

    google-genai: its async calls leave aiohttp, if that is installed, for httpx or httpx2; `untrack`
    lets them go back.

    The options are those of `tracked_http_client`. `TrackingSetupError`: no HTTP client was found, it
    is tracked with other settings already, or its calls leave by another way. `AttributionError`: a
    customer id or metadata that no event can carry.
    """
    options = Options(
        tracker=tracker,
        customer_id=customer_id,
        metadata=metadata,
        provider=provider,
        include_usage=include_usage,
    )
    with _one_at_a_time:
        found = _found(obj)
        for place, _ in found:
            place.check(obj)
        for place, clients in found:
            for client in clients:
                wrap(client, options)
            place.enter(obj)
    return obj


def untrack(obj: T) -> T:
    """Undo `track`, and give the object back.

    Calls under way stay tracked to their end. What is not tracked is left as it is;
    `TrackingSetupError`: no HTTP client was found.
    """
    with _one_at_a_time:
        for place, clients in _found(obj):
            for client in clients:
                unwrap(client)
            place.leave(obj)
    return obj


def _nothing(*_: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the objects of some SDKs keep their HTTP clients.

    `paths`: dotted attributes; those that are there and hold a client count.
    `check`: raises `TrackingSetupError` for an object whose calls can't be led through its clients.
    `enter`, `leave`: what tracking and untracking does beside the wrap.
    """

    paths: tuple[str, ...]
    check: Callable[[Any], None] = _nothing
    enter: Callable[[Any], None] = _nothing
    leave: Callable[[Any], None] = _nothing

    def clients(self, obj: object) -> list[Any]:
        """The clients that this object has here."""
        return [value for path in self.paths if is_client(value := _follow(obj, path))]


def _google_goes_through_httpx(sdk: Any) -> None:
    """google-genai has two ways past its httpx clients that no wrap can see."""
    api = sdk._api_client
    if api._async_httpx_client is None or api._httpx_client is None or _says(api, "_use_google_auth_sync"):
        raise TrackingSetupError(
            "this google-genai client authenticates by a client certificate (mTLS), through google-auth's "
            "own sessions and not through an HTTP client that can be tracked; give it tracked ones: "
            "HttpOptions(httpx_client=tracked_http_client('google-genai', verify=your_ssl_context), "
            "httpx_async_client=tracked_async_http_client('google-genai', verify=your_ssl_context))"
        )
    if getattr(api._http_options, "aiohttp_client", None) is not None:
        raise TrackingSetupError(
            "this google-genai client sends its async calls through the aiohttp_client it was given; give "
            "it HttpOptions(httpx_async_client=tracked_async_http_client('google-genai')) instead"
        )


def _google_leaves_aiohttp(sdk: Any) -> None:
    """google-genai sends async calls through aiohttp whenever that can be imported.

    It asks `_use_aiohttp` at each call. Answering for the one object, rather than setting its
    `httpx_async_client` option, leaves it the owner of its client: `aclose()` still closes it.
    """
    if _says(sdk._api_client, "_use_aiohttp"):
        sdk._api_client._use_aiohttp = _no


def _google_may_use_aiohttp(sdk: Any) -> None:
    own: dict[str, Any] = sdk._api_client.__dict__
    if own.get("_use_aiohttp") is _no:
        del own["_use_aiohttp"]


def _no() -> bool:
    return False


def _says(obj: Any, question: str) -> bool:
    """The answer of a method that not every release has."""
    return bool(getattr(obj, question, _no)())


PLACES = (
    Place(paths=("",)),  # a bare client
    Place(paths=("_client", "_async_client")),  # openai, anthropic, groq, ollama, replicate
    Place(paths=("http_client",)),  # assemblyai
    Place(paths=("_client_wrapper.httpx_client.httpx_client",)),  # cohere, elevenlabs, deepgram
    Place(paths=("sdk_configuration.client", "sdk_configuration.async_client")),  # mistralai
    Place(
        paths=("_api_client._httpx_client", "_api_client._async_httpx_client"),
        check=_google_goes_through_httpx,
        enter=_google_leaves_aiohttp,
        leave=_google_may_use_aiohttp,
    ),
)

_one_at_a_time = threading.Lock()
"""Two threads that track one object at once would each wrap it. Never held during a call."""


def _found(obj: object) -> list[tuple[Place, list[Any]]]:
    found = [(place, clients) for place in PLACES if (clients := place.clients(obj))]
    if not found:
        what = f"the class {obj.__name__}" if isinstance(obj, type) else f"a {type(obj).__name__}"
        raise TrackingSetupError(
            f"no HTTP client of httpx or httpx2 was found in {what}; give the SDK's object (OpenAI(), "
            "say) or its httpx client. For an SDK that takes a client type "
            "http_client=tracked_http_client('its name')"
        )
    return found


def _follow(obj: object, path: str) -> object:
    """What stands at a path, or None. An attribute may be a property that fails: then it holds nothing."""
    for name in filter(None, path.split(".")):
        try:
            obj = getattr(obj, name, None)
        except Exception:
            return None
    return obj
