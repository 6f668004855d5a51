"""Meters every HTTP client that this process makes from now on.

Knows the two functions of httpx's and httpx2's clients that matter here: `__init__`, by which a client
is known to be made since, and `_transport_for_url`, which every call asks for its transport, and where
the client's transports are wrapped at its first call, whatever a subclass did to them after `__init__`.
Both are replaced on the library's own classes, which stay the classes that they are. A library that is
imported later is met by an import hook; none is imported for this.

Only hosts that a provider's table claims are metered: a process has more HTTP clients than those that cost.

Knows nothing of how a client is wrapped (`wrap`), and of SDKs only that google-genai asks itself at each
async call whether to go round its HTTP client, through aiohttp: for a client made since, it does not.
"""

# ruff: noqa: SLF001 - google-genai has no public way to its HTTP clients

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Literal
from weakref import WeakSet

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.places import google_may_stay
from cmdrdata_transport.tracker import BindingSettings, Tracker, default_tracker
from cmdrdata_transport.wrap import Options, libraries, unwatch, watch

LIBRARIES = ("httpx", "httpx2")

GOOGLE = "google.genai._api_client"


def instrument(
    *,
    tracker: Tracker | None = None,
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    include_usage: bool | Literal["auto"] | None = None,
) -> None:
    """Meter the calls of every httpx and httpx2 client that is made from now on, in this process.

        instrument()
        OpenAI().responses.create(...)

    It may come before or after SDKs, and httpx and httpx2, are imported. Clients that exist are left
    alone: `track` is for those. `httpx.get()` and its like make a client for each call, and so count.
    Only calls to hosts that a provider's table claims are metered (yours too: `Tracker(providers=...)`).

    A client from `tracked_http_client`, a tracked object and a `TrackedTransport` keep their own
    settings, and no call counts twice. google-genai's async calls leave aiohttp, if that is installed, for
    httpx or httpx2; other calls that leave by another way are not seen, as they are not by `track`.

    `tracker`: where events go; None is the default one. `customer_id`, `metadata`, `include_usage`: as
    in `tracked_http_client`. Again with the same options changes nothing.

    `TrackingSetupError`: it is on with other options. `AttributionError`: a customer id or metadata that
    no event can carry.
    """
    global _current  # noqa: PLW0603 - what is on in this process
    options = Options(
        tracker=tracker,
        customer_id=customer_id,
        metadata=metadata,
        provider=None,
        include_usage=include_usage,
        any_host=False,
    )
    settings = BindingSettings.checked(**options)
    with _one_at_a_time:
        if _current is not None:
            if _current.settings != settings:
                raise TrackingSetupError(
                    "instrument() is already on with other options; call uninstrument() first. For another "
                    "customer type customer_context('acme') around the calls"
                )
            return
        _current = _Instrumented(options=options, settings=settings)
        _current.begin()


def uninstrument() -> None:
    """Undo `instrument`: clients are made as before, and those made meanwhile are metered no longer.

    What is tracked by other means stays so, and calls under way are metered to their end. Does nothing
    where `instrument` is not on.
    """
    global _current  # noqa: PLW0603 - what is on in this process
    with _one_at_a_time:
        if _current is not None:
            _current.end()
            _current = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Instrumented:
    """What is on, and all that has to be undone.

    `made`: the clients that were made since. `patched`: class, name, what stood there, what does now.
    """

    options: Options
    settings: BindingSettings
    on: bool = True
    made: WeakSet[Any] = field(default_factory=WeakSet)
    patched: list[tuple[type, str, Any, Any]] = field(default_factory=list[tuple[type, str, Any, Any]])
    arrivals: _Arrivals | None = None

    def begin(self) -> None:
        self.arrivals = _Arrivals(self.patch)
        sys.meta_path.insert(0, self.arrivals)
        for name in LIBRARIES:
            if name in sys.modules:
                with suppress(ImportError):  # one that another thread is importing is waited for
                    importlib.import_module(name)
        self.patch()

    def patch(self) -> None:
        """Patch the clients of the libraries that are loaded; those that are patched stay so."""
        done = {kind for kind, *_ in self.patched}
        google = getattr(sys.modules.get(GOOGLE), "BaseApiClient", None)
        if google is not None and google not in done and "_use_aiohttp" in vars(google):
            self._replace(google, "_use_aiohttp", self._staying)
        for library in libraries():
            for kind in (library.Client, library.AsyncClient):
                if kind not in done:
                    self._replace(kind, "__init__", self._noting)
                    self._replace(kind, "_transport_for_url", self._watching)

    def end(self) -> None:
        self.on = False
        if self.arrivals in sys.meta_path:
            sys.meta_path.remove(self.arrivals)
        for kind, name, before, now in reversed(self.patched):
            if kind.__dict__.get(name) is now:  # or somebody has built upon it: then it only passes on
                setattr(kind, name, before)
        made: list[Any] = []
        while not made:
            with suppress(RuntimeError):  # a client is being made, or collected, in this moment
                made = [None, *self.made]
        for client in made[1:]:
            with suppress(Exception):  # a client of an odd make
                unwatch(client)

    def _replace(self, kind: type, name: str, changed: Callable[[Any], Any]) -> None:
        before = kind.__dict__[name]
        now = changed(before)
        setattr(kind, name, now)
        self.patched.append((kind, name, before, now))

    def _noting(self, init: Any) -> Any:
        @functools.wraps(init)
        def __init__(client: Any, *args: Any, **options: Any) -> None:  # noqa: N807 - it stands for one
            init(client, *args, **options)
            if self.on:
                with suppress(Exception):  # of a class that has no weak references, or no hash
                    self.made.add(client)

        return __init__

    def _watching(self, choose: Any) -> Any:
        @functools.wraps(choose)
        def _transport_for_url(client: Any, url: Any) -> Any:
            transport = choose(client, url)
            if not self.on or type(transport).__module__ in _OURS:
                return transport
            try:
                if client not in self.made:
                    return transport
                watch(client, self.options)
                return choose(client, url)
            except Exception as error:
                self._count(error)
                return transport

        return _transport_for_url

    def _staying(self, asked: Any) -> Any:
        @functools.wraps(asked)
        def _use_aiohttp(api: Any) -> bool:
            answer = bool(asked(api))
            with suppress(Exception):  # its client is yet to be made, or it is of another release
                if answer and self.on and api._async_httpx_client in self.made and google_may_stay(api):
                    return False
            return answer

        return _use_aiohttp

    def _count(self, error: Exception) -> None:
        with suppress(Exception):
            tracker = self.options["tracker"] or default_tracker()
            tracker.counters.count("internal_errors", type(error).__name__)


class _Arrivals(MetaPathFinder):
    """Tells when a module that matters has been imported. Whatever finds modules here finds it still."""

    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that another finder gives, with a loader that tells."""
        if fullname not in LIBRARIES and fullname != GOOGLE:
            return None
        for finder in list(sys.meta_path):
            if finder is not self and (find := getattr(finder, "find_spec", None)) is not None:
                spec: ModuleSpec | None = find(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _Telling(spec.loader, self._arrived)
                    return spec
        return None


class _Telling(Loader):
    """The loader that was found; it tells when the module has been loaded, and is gone then."""

    def __init__(self, loader: Any, loaded: Callable[[], None]) -> None:
        self._loader = loader
        self._loaded = loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        with suppress(Exception):  # an import does not fail for us
            self._loaded()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)


_OURS = frozenset({"cmdrdata_transport.httpx", "cmdrdata_transport.httpx2"})

_current: _Instrumented | None = None
_one_at_a_time = threading.Lock()
"""Never held during a call."""


def _after_fork() -> None:
    global _one_at_a_time  # noqa: PLW0603 - a thread that is not in the child may have held it
    _one_at_a_time = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
