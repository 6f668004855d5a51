"""Where the objects of SDKs keep their HTTP clients.

Knows that, as a table, and what some SDKs want to be done besides. Knows nothing of how a client is
wrapped (`wrap`), nor of requests. To add an SDK is to add a row; what is in no row is looked through.
"""

# ruff: noqa: SLF001 - SDKs have no public way to their HTTP clients

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.walk import attributes, search
from cmdrdata_transport.wrap import Options, TrackedFactory, is_client


def _nothing(*_: Any) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where objects of some classes keep their HTTP clients.

    `classes`: `package.Class`, or `Class` of any package; a subclass counts. None: whatever has `paths`.
    `paths`: dotted attributes that lead to a client, or to an object that has a place itself. Properties
    are not asked.
    `check`: raises `TrackingSetupError` for an object whose calls can't be led through its clients.
    `ready`: makes the clients that the object would only make at its first call.
    `enter`, `leave`: what tracking, with its options, and untracking do beside the wrap.
    """

    paths: tuple[str, ...]
    classes: frozenset[str] = frozenset()
    check: Callable[[Any], None] = _nothing
    ready: Callable[[Any], None] = _nothing
    enter: Callable[[Any, Options], None] = _nothing
    leave: Callable[[Any], None] = _nothing

    def holds(self, obj: object) -> bool:
        """Whether this is the place for an object."""
        if self.classes:
            return not self.classes.isdisjoint(_names(type(obj)))
        return any(is_client(value) or _place_by_class(value) for value in self.values(obj))

    def values(self, obj: object) -> Iterator[object]:
        """What stands at the paths."""
        for path in self.paths:
            value: object = obj
            for name in path.split("."):
                value = (value if type(value) is dict else attributes(value)).get(name)
            if value is not None:
                yield value


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An HTTP client of an object that is to be tracked, or an object that has its place."""

    holder: Any
    place: Place | None

    @property
    def clients(self) -> list[Any]:
        """The HTTP clients that are there now."""
        if self.place is None:
            return [self.holder]
        return [value for value in self.place.values(self.holder) if is_client(value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is to be tracked of an object. `whole`: whether all of it could be looked through."""

    parts: list[Part]
    whole: bool


def parts_of(obj: object) -> Parts:
    """The parts of an SDK's object by the table; of any other by looking through it."""
    if _is_part(obj):
        return Parts(parts=list(_parts(obj)), whole=True)
    found = search(obj, _is_part)
    parts = {id(part.holder): part for thing in found.things for part in _parts(thing)}
    return Parts(parts=list(parts.values()), whole=found.whole)


def place_of(obj: object) -> Place | None:
    """The row for an object, if there is one."""
    return next((place for place in PLACES if place.holds(obj)), None)


def _place_by_class(obj: object) -> Place | None:
    return next((place for place in PLACES if place.classes and place.holds(obj)), None)


def _is_part(obj: object) -> bool:
    return is_client(obj) or place_of(obj) is not None


def _parts(obj: object, above: tuple[object, ...] = ()) -> Iterator[Part]:
    if is_client(obj):
        yield Part(holder=obj, place=None)
    elif (place := place_of(obj)) is not None:
        yield Part(holder=obj, place=place)
        for value in place.values(obj):
            if not is_client(value) and all(value is not each for each in (*above, obj)):
                yield from _parts(value, (*above, obj))


def _names(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        yield each.__name__
        yield f"{str(each.__module__).partition('.')[0]}.{each.__name__}"


def _google_goes_through_httpx(api: Any) -> None:
    """google-genai has two ways past its httpx clients that no wrap can see."""
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


def _google_leaves_aiohttp(api: Any, _: Options) -> None:
    """google-genai sends async calls through aiohttp whenever that can be imported.

    It asks `_use_aiohttp` at each call. Answering for the one object, rather than setting its
    `httpx_async_client` option, leaves it the owner of its client: `aclose()` still closes it.
    """
    if _says(api, "_use_aiohttp"):
        api._use_aiohttp = _no


def _google_may_use_aiohttp(api: Any) -> None:
    own: dict[str, Any] = api.__dict__
    if own.get("_use_aiohttp") is _no:
        del own["_use_aiohttp"]


def _no() -> bool:
    return False


def google_may_stay(api: Any) -> bool:
    """Whether a `BaseApiClient` can send its async calls through its httpx client instead of aiohttp."""
    given = getattr(api._http_options, "aiohttp_client", None)
    return given is None and not _says(api, "_use_google_auth_async")


def _says(obj: Any, question: str) -> bool:
    """The answer of a method that not every release has."""
    return bool(getattr(obj, question, _no)())


def _replicate_makes_its_clients(sdk: Any) -> None:
    """Replicate makes each when it is first asked for, and reads the token from the environment then."""
    clients = [sdk._client, sdk._async_client]
    for client in clients:
        if client.base_url.host == "api.replicate.com" and "authorization" not in client.headers:
            sdk.__dict__.pop("_Client__client", None)
            sdk.__dict__.pop("_Client__async_client", None)
            raise TrackingSetupError(
                "replicate has no API token yet, and its client would be made without one: set "
                "REPLICATE_API_TOKEN before track(), or give replicate.Client(api_token=...)"
            )


def _huggingface_makes_its_client(sdk: Any) -> None:
    """An `AsyncInferenceClient` makes its client at its first call, and closes it with its exit stack."""
    if sdk._async_client is None:
        http = importlib.import_module("huggingface_hub.utils._http")
        sdk._async_client = http.get_async_session()
        sdk.exit_stack.push_async_callback(sdk._async_client.aclose)


def _langchain_makes_its_clients(model: Any) -> None:
    """A `ChatAnthropic` makes each of its SDK's objects when it is first asked for."""
    for name in ("_client", "_async_client"):
        getattr(model, name)


def _llama_index_keeps_its_clients(model: Any) -> None:
    if not model.reuse_client:
        raise TrackingSetupError(
            f"this {type(model).__name__} of LlamaIndex makes a client for each call (reuse_client=False): "
            "leave reuse_client=True, or meter every client of this process with instrument()"
        )


def _llama_index_makes_its_clients(model: Any) -> None:
    """LlamaIndex' models make each of the SDK's objects at their first call."""
    model._get_client()
    model._get_aclient()


def _pydantic_ai_makes_tracked_clients(provider: Any, options: Options) -> None:
    """A provider of pydantic-ai's makes a new client for a run in another event loop, or after its exit."""
    make = getattr(provider, "_http_client_factory", None)
    if make is not None and not isinstance(make, TrackedFactory):
        provider._http_client_factory = TrackedFactory(make, options)


def _pydantic_ai_makes_its_clients(provider: Any) -> None:
    make = getattr(provider, "_http_client_factory", None)
    if isinstance(make, TrackedFactory):
        provider._http_client_factory = make.make


def _huggingface_has_one_session(_: Any) -> None:
    raise TrackingSetupError(
        "an InferenceClient has no HTTP client of its own, for huggingface_hub has one session for all of "
        "a process: type track(huggingface_hub)"
    )


PLACES = (
    # openai, anthropic, groq, together, cerebras, fireworks, perplexity, writer: all made by Stainless
    Place(classes=frozenset({"SyncAPIClient", "AsyncAPIClient"}), paths=("_client",)),
    Place(
        classes=frozenset({"google.BaseApiClient"}),
        paths=("_httpx_client", "_async_httpx_client"),
        check=_google_goes_through_httpx,
        enter=_google_leaves_aiohttp,
        leave=_google_may_use_aiohttp,
    ),
    Place(paths=("_api_client",)),  # google-genai: Client, Client.aio, Client.models
    Place(paths=("_client_wrapper.httpx_client.httpx_client",)),  # cohere, elevenlabs, deepgram: Fern
    Place(paths=("sdk_configuration.client", "sdk_configuration.async_client")),  # mistralai: Speakeasy
    Place(classes=frozenset({"ollama.BaseClient", "ai21.BaseHttpClient"}), paths=("_client",)),
    Place(classes=frozenset({"assemblyai.Client", "assemblyai.AsyncClient"}), paths=("_http_client",)),
    Place(
        classes=frozenset({"replicate.Client"}),
        paths=("_Client__client", "_Client__async_client"),
        ready=_replicate_makes_its_clients,
    ),
    Place(
        classes=frozenset({"huggingface_hub.AsyncInferenceClient"}),
        paths=("_async_client",),
        ready=_huggingface_makes_its_client,
    ),
    Place(
        classes=frozenset({"huggingface_hub.InferenceClient"}), paths=(), check=_huggingface_has_one_session
    ),
    Place(
        classes=frozenset({"langchain_anthropic.ChatAnthropic"}),
        paths=("_client", "_async_client"),
        ready=_langchain_makes_its_clients,
    ),
    Place(
        classes=frozenset({"llama_index.OpenAI", "llama_index.OpenAIEmbedding"}),
        paths=("__pydantic_private__._client", "__pydantic_private__._aclient"),
        check=_llama_index_keeps_its_clients,
        ready=_llama_index_makes_its_clients,
    ),
    Place(
        classes=frozenset({"pydantic_ai.Provider"}),
        paths=("_own_http_client", "_client"),
        enter=_pydantic_ai_makes_tracked_clients,
        leave=_pydantic_ai_makes_its_clients,
    ),
)
"""The SDKs and frameworks we know, by what their releases of November 2026 and before do."""
