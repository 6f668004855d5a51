"""Whose call is this, and what shape will its answer have.

Knows hosts and paths, by the tables. In order: the provider that the client was made for, the
tables' hosts, and, only where the caller made the client for an SDK, a known path at any host: that
is a proxy or a server that speaks the same shape, recorded under a name of its own so that nobody
prices it as the real one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from urllib.parse import parse_qsl, unquote

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.providers.table import Endpoint, Provider, Shape

REMEMBERED_ROUTES = 1024
"""Paths with ids or models in them are many; when this many are known we start again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint of one provider, as one request asked for it."""

    provider: str
    host: str
    shape: Shape
    table: Provider
    model: str | None = None
    known: bool = True
    """Whether host or caller say whose call this is, so that the ids in its answer are that provider's."""
    poll: bool = False
    job: str | None = None
    """What the path says the answers in the body are the results of."""
    guesses: tuple[tuple[str, Shape], ...] = ()
    """What the answer may turn out to be, with the provider to record then, where nothing else tells."""
    plain: bool = field(init=False)
    """Whether its answers are told at once, as they are."""
    asks: bool = field(init=False)
    """Whether its streams state usage only when they are asked to, and can be."""
    constants: dict[str, str] = field(init=False)
    """What every event of this route says."""

    def __post_init__(self) -> None:
        said = {
            "provider": self.provider,
            "operation": self.shape.operation,
            "api": self.shape.api,
            "host": self.host,
        }
        object.__setattr__(self, "constants", said)
        object.__setattr__(self, "plain", self.shape.plain and not self.poll and not self.guesses)
        stream = self.shape.stream
        object.__setattr__(
            self, "asks", self.table.include_usage and stream is not None and stream.include_usage
        )

    @property
    def scope(self) -> str:
        """Within what an id of a resource is unique: a host, the first of those that are one provider's."""
        hosts = self.table.hosts
        return hosts[0] if self.host in hosts else self.host


class Router:
    """Routes the requests of one client; it remembers what it has seen.

    `provider` is the id of the table to use at any host. `any_host` lets a known path at an unknown
    host count; `any_shape` also lets an answer count, to whatever path, that looks like one that we know.
    Raises `TrackingSetupError` for a provider that no table describes.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        *,
        provider: str | None = None,
        any_host: bool = False,
        any_shape: bool = False,
    ) -> None:
        tables = tuple(providers)
        if provider is not None and provider not in (known := [each.id for each in tables]):
            raise TrackingSetupError(
                f"provider={provider!r} is not known; known are {', '.join(sorted(known))}. "
                "Leave provider= out to go by the host."
            )
        self._explicit = next((each for each in tables if each.id == provider), None)
        self._by_host = [
            (re.compile("|".join(map(translate, each.hosts))), each) for each in tables if each.hosts
        ]
        self._anywhere = [each for each in tables if each.compatible is not None] if any_host else []
        self._guesses = _guesses(self._anywhere) if any_shape else ()
        self._routes: dict[tuple[str, bytes, bytes], Route | None] = {}

    def route(self, method: str, host: bytes, path: bytes) -> Route | None:
        """The route of a request, or None when it carries no usage that we know of.

        `path` is the URL's path and query, as in httpx's `raw_path`.
        """
        key = (method, host, path)
        try:
            return self._routes[key]
        except KeyError:
            if len(self._routes) >= REMEMBERED_ROUTES:
                self._routes.clear()
            found = self._routes[key] = self._find(method, host, path)
            return found

    def _find(self, method: str, raw_host: bytes, raw_path: bytes) -> Route | None:
        host = raw_host.decode("ascii", "replace").lower().rstrip(".")
        target = raw_path.decode("ascii", "replace")
        if self._explicit is not None:
            return _enter(self._explicit, self._explicit.id, method, host, target)
        for pattern, table in self._by_host:
            if pattern.match(host) and target.startswith(table.under):
                return _enter(table, table.id, method, host, target)
        for table in self._anywhere:
            if table.compatible is not None and (
                found := _enter(table, table.compatible, method, host, target, known=False)
            ):
                return found
        if self._guesses and method == "POST":
            return Route(
                provider="unknown",
                host=host,
                shape=UNKNOWN,
                table=NOBODY,
                known=False,
                guesses=self._guesses,
            )
        return None


UNKNOWN = Shape(api="unknown", operation="unknown", usage=(), units={})
"""Of an answer that has not shown yet what it is."""

NOBODY = Provider(id="unknown", hosts=(), endpoints=())


def _guesses(tables: Iterable[Provider]) -> tuple[tuple[str, Shape], ...]:
    """The shapes that an answer can be told by, each once."""
    found: dict[str, tuple[str, Shape]] = {}
    for table in tables:
        for endpoint in table.endpoints:
            if table.compatible is not None and endpoint.shape is not None and endpoint.shape.looks:
                found.setdefault(endpoint.shape.api, (table.compatible, endpoint.shape))
    return tuple(found.values())


def _enter(
    table: Provider, name: str, method: str, host: str, target: str, *, known: bool = True
) -> Route | None:
    path, _, query = target.partition("?")
    for endpoint in table.endpoints:
        if endpoint.method == method and (match := re.search(endpoint.path, path)):
            if endpoint.shape is None or ((endpoint.poll or endpoint.own) and not known):
                return None
            return Route(
                provider=name,
                host=host,
                shape=endpoint.shape,
                table=table,
                model=_model(endpoint, match, query),
                known=known,
                poll=endpoint.poll,
                job=unquote(match["job"]) if "(?P<job>" in endpoint.path else None,
            )
    return None


def _model(endpoint: Endpoint, match: re.Match[str], query: str) -> str | None:
    if endpoint.query_model is not None:
        return next((value for key, value in parse_qsl(query) if key == endpoint.query_model), None)
    # Amazon's names of models have colons and slashes, which a client writes as %3A and %2F.
    return unquote(match["model"]) if "(?P<model>" in endpoint.path else None
