"""New HTTP clients for SDKs, made as each SDK makes its own, and tracked.

Knows, as a table, which SDK takes an HTTP client, how it makes its default one, and what to type for
those that take none. Knows nothing of requests. To add an SDK is to add a row.

What a client made elsewhere would lose silently: the timeout (httpx's own default is 5 s), redirects,
the size of the pool, keep-alive probes, HTTP/2, proxies from the environment. So the SDK's own helper
makes the client, and its transports are wrapped in place afterwards.
"""

from __future__ import annotations

import difflib
import importlib
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.wrap import Options, check_transports, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cmdrdata_transport.tracker import Tracker

    Make = Callable[[ModuleType, bool, dict[str, Any]], Any]
    """(the imported SDK, whether async, the caller's client options) -> a client, not yet tracked."""


def tracked_http_client(
    sdk: str | type | ModuleType | None = None,
    *,
    tracker: Tracker | None = None,
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    provider: str | None = None,
    include_usage: bool | Literal["auto"] | None = None,
    **client_options: Any,
) -> Any:
    """A tracked `httpx.Client` or `httpx2.Client`, as the installed SDK makes its own.

        OpenAI(http_client=tracked_http_client("openai"))
        genai.Client(http_options=HttpOptions(httpx_client=tracked_http_client("google-genai")))

    `sdk`: the SDK's name ("openai"), its class (`OpenAI`, or a subclass of yours) or its module. None:
    a client of httpx2 where it can be imported, else of httpx, with defaults for long calls (600 s,
    5 s to connect, 1000 connections of which 100 are kept, redirects followed).
    `tracker`: where events go; None is the default one, which the environment configures.
    `customer_id`, `metadata`: the defaults of this client, below what a context or a header says.
    `provider`: whom to record, where the host cannot tell. `include_usage`: None is the tracker's.
    `client_options` go to the client and win over the SDK's defaults. With `transport=` what belongs
    to a transport is yours to set: TLS, limits, HTTP/2, socket options, proxies from the environment
    (and google-genai's async client has one pool, no longer one for each event loop); timeout and
    redirects stay the SDK's. (`track()` keeps an mTLS set-up of google-genai on Vertex,
    which any client handed over turns off.)

    `TrackingSetupError`: an SDK that is unknown, not installed or takes no client, an async class, a
    client option that does not exist, a transport of the wrong library. `AttributionError`: a customer
    id or metadata that no event can carry.
    """
    options = Options(
        tracker=tracker,
        customer_id=customer_id,
        metadata=metadata,
        provider=provider,
        include_usage=include_usage,
    )
    return _make(sdk, options, client_options, asynchronous=False)


def tracked_async_http_client(
    sdk: str | type | ModuleType | None = None,
    *,
    tracker: Tracker | None = None,
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    provider: str | None = None,
    include_usage: bool | Literal["auto"] | None = None,
    **client_options: Any,
) -> Any:
    """The same as `tracked_http_client`, for the async classes: an `AsyncClient`.

    AsyncOpenAI(http_client=tracked_async_http_client("openai"))
    """
    options = Options(
        tracker=tracker,
        customer_id=customer_id,
        metadata=metadata,
        provider=provider,
        include_usage=include_usage,
    )
    return _make(sdk, options, client_options, asynchronous=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """How one SDK comes by its HTTP client.

    `name` is what pip calls it, `module` what Python imports.
    `make` makes its default client, and `line` hands ours over. None where none can be handed over:
    `instead` is then what to type.
    `async_classes`: whether its async clients are classes of their own, named Async...
    """

    name: str
    module: str
    make: Make | None = None
    line: str = ""
    instead: str = ""
    async_classes: bool = True

    def owns(self, module: str) -> bool:
        """Whether a module of this name is part of the SDK."""
        return f"{module}.".startswith(f"{self.module}.")


def _stainless(sdk: ModuleType, asynchronous: bool, options: dict[str, Any]) -> Any:  # noqa: FBT001
    """SDKs that Stainless generates export a class with their defaults, of the library they use."""
    name = "DefaultAsyncHttpxClient" if asynchronous else "DefaultHttpxClient"
    make = getattr(sdk, name, None)
    if make is None:
        raise TrackingSetupError(
            f"this release of {sdk.__name__} has no {name} that would tell its defaults; make the SDK "
            "object as usual and call track() on it, or upgrade the SDK"
        )
    return make(**options)


def _google(_: ModuleType, asynchronous: bool, options: dict[str, Any]) -> Any:  # noqa: FBT001
    """google-genai makes its clients in a private module; 3.x prefers httpx2, 2.x and 1.x httpx.

    Its async class of 3.x keeps a connection pool for each event loop. The TLS context is made as in
    `_ensure_httpx_ssl_ctx`: `SSL_CERT_FILE` and `SSL_CERT_DIR` count, both at once too, which they do
    not in httpx.
    """
    from google.genai import _api_client, types  # noqa: PLC0415 - only where it is used

    if "httpx_client" not in types.HttpOptions.model_fields:
        raise TrackingSetupError(
            "this release of google-genai takes no HTTP client; make genai.Client() as usual and call "
            "track() on it, or upgrade google-genai"
        )
    backend = getattr(_api_client, "_get_http_client_backend", lambda: "httpx")()
    make = getattr(_api_client, f"{'Async' if asynchronous else 'Sync'}{backend.capitalize()}Client", None)
    if make is None:
        library = importlib.import_module(backend)
        make = library.AsyncClient if asynchronous else library.Client
    cafile, capath = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if backend == "httpx" and not cafile:
        cafile = importlib.import_module("certifi").where()
    verify: ssl.SSLContext | bool = True
    if "verify" not in options and (cafile or capath):
        verify = ssl.create_default_context(cafile=cafile, capath=capath)
    return make(**{"follow_redirects": True, "timeout": None, "verify": verify, **options})


def _stainless_over_aiohttp(sdk: ModuleType, asynchronous: bool, options: dict[str, Any]) -> Any:  # noqa: FBT001
    """fireworks-ai sends its async calls through aiohttp, below an `httpx.AsyncClient`, by default."""
    if asynchronous and hasattr(sdk, "DefaultAioHttpClient"):
        return sdk.DefaultAioHttpClient(**options)
    return _stainless(sdk, asynchronous, options)


def _plainly(*homes: str, **defaults: Any) -> Make:
    """SDKs that make a plain client: of the library that the first of `homes` that there is calls httpx."""

    def make(_: ModuleType, asynchronous: bool, options: dict[str, Any]) -> Any:  # noqa: FBT001
        library = _first_of(homes).httpx
        kind = library.AsyncClient if asynchronous else library.Client
        return kind(**{**defaults, **options})

    return make


def _over_aiohttp_where_installed(home: str, **defaults: Any) -> Make:
    """The same, but async calls leave through aiohttp as soon as httpx_aiohttp can be imported."""
    plainly = _plainly(home, **defaults)

    def make(sdk: ModuleType, asynchronous: bool, options: dict[str, Any]) -> Any:  # noqa: FBT001
        if asynchronous and hasattr(importlib.import_module(home), "_make_default_async_client"):
            with suppress(ImportError):
                return importlib.import_module("httpx_aiohttp").HttpxAiohttpClient(**{**defaults, **options})
        return plainly(sdk, asynchronous, options)

    return make


def _cohere(sdk: ModuleType, asynchronous: bool, options: dict[str, Any]) -> Any:  # noqa: FBT001
    """Cohere keeps idle connections alive by TCP probes, through proxies too (`cohere/core/http_client.py`).

    It makes the transports itself for that, which would leave `verify`, `limits` and the like among
    `options` without effect; so they are set on those that the library made.
    """
    client = _over_aiohttp_where_installed("cohere.base_client", timeout=300, follow_redirects=True)(
        sdk, asynchronous, options
    )
    http_client = importlib.import_module("cohere.core.http_client")
    probes = getattr(http_client, "get_keepalive_socket_options", None)
    given = (options.get("transport"), *(options.get("mounts") or {}).values())
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001 - no public way
        pool = getattr(transport, "_pool", None)
        if probes is not None and pool is not None and transport not in given:
            pool._socket_options = probes()  # noqa: SLF001
    return client


SDKS = (
    Sdk(
        name="openai",
        module="openai",
        make=_stainless,
        line='OpenAI(http_client=tracked_http_client("openai"))',
    ),
    Sdk(
        name="anthropic",
        module="anthropic",
        make=_stainless,
        line='Anthropic(http_client=tracked_http_client("anthropic"))',
    ),
    Sdk(
        name="groq",
        module="groq",
        make=_stainless,
        line='Groq(http_client=tracked_http_client("groq"))',
    ),
    Sdk(
        name="google-genai",
        module="google.genai",
        make=_google,
        line="genai.Client(http_options=HttpOptions("
        'httpx_client=tracked_http_client("google-genai"), '
        'httpx_async_client=tracked_async_http_client("google-genai")))',
        async_classes=False,
    ),
    Sdk(
        name="cohere",
        module="cohere",
        make=_cohere,
        line='cohere.ClientV2(httpx_client=tracked_http_client("cohere"))',
    ),
    Sdk(
        name="mistralai",
        module="mistralai",
        make=_plainly("mistralai.client.sdk", "mistralai.sdk", follow_redirects=True),
        line='Mistral(client=tracked_http_client("mistralai"), '
        'async_client=tracked_async_http_client("mistralai"))',
        async_classes=False,
    ),
    Sdk(
        name="together",
        module="together",
        make=_stainless,
        line='Together(http_client=tracked_http_client("together"))',
    ),
    Sdk(
        name="cerebras-cloud-sdk",
        module="cerebras.cloud.sdk",
        make=_stainless,
        line='Cerebras(http_client=tracked_http_client("cerebras-cloud-sdk"))',
    ),
    Sdk(
        name="fireworks-ai",
        module="fireworks",
        make=_stainless_over_aiohttp,
        line='Fireworks(http_client=tracked_http_client("fireworks-ai"))',
    ),
    Sdk(
        name="perplexityai",
        module="perplexity",
        make=_stainless,
        line='Perplexity(http_client=tracked_http_client("perplexityai"))',
    ),
    Sdk(
        name="writer-sdk",
        module="writerai",
        make=_stainless,
        line='Writer(http_client=tracked_http_client("writer-sdk"))',
    ),
    Sdk(
        name="ai21",
        module="ai21",
        make=_plainly("ai21.http_client.http_client"),
        line='AI21Client(http_client=tracked_http_client("ai21"))',
    ),
    Sdk(
        name="elevenlabs",
        module="elevenlabs",
        make=_plainly("elevenlabs.base_client", timeout=240, follow_redirects=True),
        line='ElevenLabs(httpx_client=tracked_http_client("elevenlabs"))',
    ),
    Sdk(
        name="deepgram-sdk",
        module="deepgram",
        make=_over_aiohttp_where_installed("deepgram.base_client", timeout=60, follow_redirects=True),
        line='DeepgramClient(httpx_client=tracked_http_client("deepgram-sdk"))',
    ),
    Sdk(name="ollama", module="ollama", instead="client = track(ollama.Client())"),
    Sdk(name="replicate", module="replicate", instead="client = track(replicate.Client())"),
    Sdk(name="assemblyai", module="assemblyai", instead="track(assemblyai)"),
    Sdk(name="huggingface-hub", module="huggingface_hub", instead="track(huggingface_hub)"),
    Sdk(
        name="xai-sdk",
        module="xai_sdk",
        instead='OpenAI(base_url="https://api.x.ai/v1", http_client=tracked_http_client("openai")); of the '
        'calls that it sends over gRPC, default_tracker().record(provider="x-ai", usage={...})',
    ),
    Sdk(
        name="voyageai",
        module="voyageai",
        instead='default_tracker().record(provider="voyageai", '
        'usage={"input_tokens": answer.total_tokens}) after the call',
    ),
)
"""The SDKs we know, by what their releases of November 2026 and before do."""


def _make(
    sdk: str | type | ModuleType | None,
    options: Options,
    client_options: dict[str, Any],
    *,
    asynchronous: bool,
) -> Any:
    row = None if sdk is None else _row(sdk, asynchronous=asynchronous)
    try:
        client = (
            _plain(client_options, asynchronous=asynchronous)
            if row is None
            else _own(row, client_options, asynchronous=asynchronous)
        )
    except TypeError as error:
        raise TrackingSetupError(
            f"the HTTP client cannot be made with these options: {error}. Ours are tracker, customer_id, "
            "metadata, provider and include_usage; every other one goes to the client as it is"
        ) from error
    check_transports(client)
    wrap(client, options)
    return client


def _plain(options: dict[str, Any], *, asynchronous: bool) -> Any:
    """A client for an unnamed SDK; the numbers are those of openai and anthropic."""
    library = _newest_library()
    defaults = {
        "timeout": library.Timeout(600, connect=5),
        "limits": library.Limits(max_connections=1000, max_keepalive_connections=100),
        "follow_redirects": True,
    }
    make = library.AsyncClient if asynchronous else library.Client
    return make(**{**defaults, **options})


def _newest_library() -> ModuleType:
    for name in ("httpx2", "httpx"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise TrackingSetupError("neither httpx2 nor httpx is installed: pip install httpx2")


def _own(row: Sdk, options: dict[str, Any], *, asynchronous: bool) -> Any:
    """A client as this SDK makes it."""
    if row.make is None:
        raise TrackingSetupError(f"{row.name} takes no HTTP client; type instead: {row.instead}")
    try:
        module = importlib.import_module(row.module)
    except ImportError as error:
        raise TrackingSetupError(
            f"{row.name} cannot be imported ({error}): pip install {row.name}"
        ) from error
    return row.make(module, asynchronous, options)


def _first_of(modules: tuple[str, ...]) -> Any:
    for module in modules[:-1]:
        with suppress(ImportError):
            return importlib.import_module(module)
    return importlib.import_module(modules[-1])


def _row(sdk: object, *, asynchronous: bool) -> Sdk:
    """The table's row for a name, a class or a module."""
    if isinstance(sdk, str):
        return _named(sdk)
    if isinstance(sdk, ModuleType):
        row = _owner(sdk.__name__)
    elif isinstance(sdk, type):
        row = next((row for kind in sdk.__mro__ if (row := _owner(kind.__module__))), None)
        if row is not None and row.async_classes:
            _check_colour(sdk, row, asynchronous=asynchronous)
    else:
        raise TrackingSetupError(
            f"sdk= takes the name of an SDK, its class or its module, not {type(sdk).__name__!r}; for an "
            "object that exists type track(client)"
        )
    if row is None:
        raise TrackingSetupError(f"{sdk!r} is of no SDK that we know. {_OTHERWISE}")
    return row


def _named(name: str) -> Sdk:
    wanted = _plain_name(name)
    names = {alias: row for row in SDKS for alias in (_plain_name(row.name), _plain_name(row.module))}
    if wanted in names:
        return names[wanted]
    close = difflib.get_close_matches(wanted, names, n=1)
    hint = f"Did you mean {names[close[0]].name!r}? " if close else ""
    raise TrackingSetupError(f"{name!r} is no SDK that we know. {hint}{_OTHERWISE}")


def _plain_name(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _owner(module: str) -> Sdk | None:
    return next((row for row in SDKS if row.owns(module)), None)


def _check_colour(sdk: type, row: Sdk, *, asynchronous: bool) -> None:
    """An async class wants an async client; SDKs only say so when they are given the other one."""
    own = [kind.__name__ for kind in sdk.__mro__ if row.owns(kind.__module__)]
    if any(name.startswith("Async") for name in own) is not asynchronous:
        right = "tracked_http_client" if asynchronous else "tracked_async_http_client"
        raise TrackingSetupError(
            f"{sdk.__name__} is {'not ' if asynchronous else ''}async: type {right}({sdk.__name__})"
        )


_OTHERWISE = (
    f"Known are {', '.join(row.name for row in SDKS)}; for another SDK call track() on its object, or "
    "leave sdk out for a client with safe defaults"
)
