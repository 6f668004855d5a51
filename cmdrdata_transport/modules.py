"""Modules of SDKs whose functions call by themselves: `openai.chat`, `replicate.run`, `ollama.chat`.

Knows, as a table, which object such a module uses, or where it makes its HTTP clients. Knows nothing of
how a client is wrapped (`wrap`), nor of requests. To add an SDK is to add a row.
"""

# ruff: noqa: SLF001 - SDKs have no public way to their HTTP clients

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from weakref import WeakSet

from cmdrdata_transport.clients import tracked_http_client
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.wrap import Options, TrackedFactory, unwrap, wrap


def _nothing(*_: Any) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """How a module comes by the HTTP client of its functions.

    `uses`: the attribute with the SDK's object behind them; empty where it is not to be had so simply,
    and then `enter` tracks what the module has and will make, and `leave` undoes that.
    """

    uses: str = ""
    enter: Callable[[Any, Options], None] = _nothing
    leave: Callable[[Any], None] = _nothing


def module_row(module: ModuleType) -> Module:
    """The row for a module. `TrackingSetupError`: its functions have no HTTP client that we know."""
    row = MODULES.get(module.__name__)
    if row is None:
        raise TrackingSetupError(
            f"the module {module.__name__} has no HTTP client behind its functions that we know (those of "
            f"{', '.join(MODULES)} have); give the SDK's object (track(OpenAI()), say), or type "
            "instrument() before the module is imported, which meters every client of this process"
        )
    return row


def _openai(openai: Any, options: Options) -> None:
    """Its functions share an object that is made at the first call, with `openai.http_client` if set."""
    if openai.http_client is None:
        openai.http_client = tracked_http_client(openai, **options)
    else:
        wrap(openai.http_client, options)


def _openai_alone(openai: Any) -> None:
    if openai.http_client is not None:
        unwrap(openai.http_client)


_FACTORIES = ("_GLOBAL_CLIENT_FACTORY", "_GLOBAL_ASYNC_CLIENT_FACTORY")


def _huggingface(_: Any, options: Options) -> None:
    """Its factories make every client, also the next one after `close_session()` and after a fork.

    They are exchanged below `set_client_factory`, which would close the session that is in use.
    """
    http = _huggingface_http()
    with http._CLIENT_LOCK:
        made = [getattr(http, name) for name in _FACTORIES]
        if any(isinstance(factory, TrackedFactory) and factory.options != options for factory in made):
            raise TrackingSetupError(
                "huggingface_hub is already tracked with other settings; to start over type "
                "untrack(huggingface_hub) first"
            )
        if http._GLOBAL_CLIENT is not None:
            wrap(http._GLOBAL_CLIENT, options)
        for name, factory in zip(_FACTORIES, made, strict=True):
            if not isinstance(factory, TrackedFactory):
                setattr(http, name, TrackedFactory(factory, options))


def _huggingface_alone(_: Any) -> None:
    http = _huggingface_http()
    with http._CLIENT_LOCK:
        for name in _FACTORIES:
            if isinstance(factory := getattr(http, name), TrackedFactory):
                setattr(http, name, factory.make)
        if http._GLOBAL_CLIENT is not None:
            unwrap(http._GLOBAL_CLIENT)


def _huggingface_http() -> Any:
    http = importlib.import_module("huggingface_hub.utils._http")
    if not hasattr(http, _FACTORIES[0]):
        raise TrackingSetupError(
            "this release of huggingface_hub sends through requests, which cannot be tracked: "
            'pip install "huggingface_hub>=1"'
        )
    return http


def _assemblyai(assemblyai: Any, options: Options) -> None:
    """It makes a new client whenever its settings have changed, and for each transcriber with a key."""
    kinds = (assemblyai.Client, assemblyai.AsyncClient)
    now = [getattr(kind.__init__, "tracked", None) for kind in kinds]
    if any(clients is not None and clients.options != options for clients in now):
        raise TrackingSetupError(
            "assemblyai is already tracked with other settings; to start over type untrack(assemblyai) first"
        )
    if assemblyai.Client._default is not None:
        wrap(assemblyai.Client._default.http_client, options)
    for kind, clients in zip(kinds, now, strict=True):
        if clients is None:
            kind.__init__ = _tracking(kind.__init__, _Clients(options))


def _assemblyai_alone(assemblyai: Any) -> None:
    for kind in (assemblyai.Client, assemblyai.AsyncClient):
        if (clients := getattr(kind.__init__, "tracked", None)) is not None:
            kind.__init__ = kind.__init__.__wrapped__
            for client in clients.made:
                unwrap(client)
    if assemblyai.Client._default is not None:
        unwrap(assemblyai.Client._default.http_client)


class _Clients:
    """The HTTP clients that a class of assemblyai's has made since it is tracked."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.made: WeakSet[Any] = WeakSet()


def _tracking(init: Any, clients: _Clients) -> Any:
    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807 - it stands for one
        init(self, *args, **options)
        with suppress(TrackingSetupError):  # somebody's own client, tracked otherwise
            wrap(self.http_client, clients.options)
            clients.made.add(self.http_client)

    __init__.tracked = clients  # type: ignore[attr-defined]  # how it is known again
    return __init__


MODULES = {
    "openai": Module(enter=_openai, leave=_openai_alone),
    "replicate": Module(uses="default_client"),
    "ollama": Module(uses="_client"),
    "assemblyai": Module(enter=_assemblyai, leave=_assemblyai_alone),
    "huggingface_hub": Module(enter=_huggingface, leave=_huggingface_alone),
}
"""By the module's name."""
