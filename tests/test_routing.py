"""From a request to the table that knows its answer: by name, host and path; and the tables side by side."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest

from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.routing import REMEMBERED_ROUTES, Router
from cmdrdata_transport.providers.table import (
    Endpoint,
    Provider,
    Shape,
)


def shape_of(**words: Any) -> Shape:
    """A shape that needs these words alone."""
    return Shape(**{"api": "test", "operation": "chat", "usage": (("usage",),), "units": {}, **words})


REAL = Provider(
    id="real",
    hosts=("api.real.test", "*.real.test"),
    endpoints=(
        Endpoint(path=r"/count$", shape=None),
        Endpoint(path=r"/(count|ask)$", shape=shape_of(api="ask")),
        Endpoint(path=r"/look$", shape=shape_of(api="look"), method="GET"),
        Endpoint(path=r"/mine$", shape=shape_of(api="mine"), own=True),
        Endpoint(path=r"/later$", shape=shape_of(api="later"), poll=True),
    ),
    compatible="real-compatible",
)
LOCAL = Provider(id="local", hosts=(), endpoints=(Endpoint(path=r"/ask$", shape=shape_of(api="local")),))


@pytest.mark.parametrize(
    ("options", "request_line", "expected"),
    [
        ({}, ("POST", b"api.real.test", b"/ask"), ("real", "ask")),
        ({}, ("POST", b"API.Real.Test.", b"/v1/ask?x=/look"), ("real", "ask")),
        ({}, ("POST", b"eu.api.real.test", b"/ask"), ("real", "ask")),
        ({}, ("POST", b"api.real.test", b"/count"), None),
        ({}, ("POST", b"api.real.test", b"/ask/more"), None),
        ({}, ("POST", b"api.real.test", b"/other?/ask"), None),
        ({}, ("GET", b"api.real.test", b"/ask"), None),
        ({}, ("GET", b"api.real.test", b"/look"), ("real", "look")),
        ({}, ("POST", b"real.test", b"/ask"), None),
        ({}, ("POST", b"api.real.test.evil", b"/ask"), None),
        ({}, ("POST", b"\xff\xfe", b"/\xff"), None),
        ({"any_host": True}, ("POST", b"proxy", b"/v1/ask"), ("real-compatible", "ask")),
        ({"any_host": True}, ("POST", b"proxy", b"/v1/count"), None),
        ({"any_host": True}, ("POST", b"proxy", b"/v1/mine"), None),
        ({"any_host": True}, ("POST", b"proxy", b"/v1/later"), None),
        ({}, ("POST", b"api.real.test", b"/mine"), ("real", "mine")),
        ({}, ("POST", b"api.real.test", b"/later"), ("real", "later")),
        ({"provider": "real"}, ("POST", b"proxy", b"/v1/mine"), ("real", "mine")),
        ({"any_host": True}, ("POST", b"api.real.test", b"/ask"), ("real", "ask")),
        ({"provider": "local"}, ("POST", b"api.real.test", b"/ask"), ("local", "local")),
        ({"provider": "local"}, ("POST", b"api.real.test", b"/count"), None),
    ],
)
def test_a_request_is_routed_by_name_then_host_then_path(
    options: dict[str, Any], request_line: tuple[str, bytes, bytes], expected: tuple[str, str] | None
) -> None:
    """And again the same from memory."""
    router = Router((REAL, LOCAL), **options)
    for _ in range(2):
        route = router.route(*request_line)
        assert (route and (route.constants["provider"], route.constants["api"])) == expected


def test_what_a_router_remembers_is_bounded() -> None:
    """Paths with ids in them are as many as there are ids."""
    router = Router((REAL,))
    for number in range(3 * REMEMBERED_ROUTES):
        assert router.route("POST", b"api.real.test", b"/%d/ask" % number) is not None
    assert len(router._routes) <= REMEMBERED_ROUTES


HOST = "router.example"
VENDOR = Provider(id="vendor", hosts=(HOST,), endpoints=ENDPOINTS, under="/vendor/")
ROUTER = Provider(id="router", hosts=(HOST,), endpoints=ENDPOINTS)


@pytest.mark.parametrize(
    ("path", "provider"),
    [
        ("/vendor/v1/chat/completions", "vendor"),
        ("/vendors/v1/chat/completions", "router"),
        ("/v1/chat/completions", "router"),
        ("/vendor/v1/models", None),
    ],
)
def test_a_path_names_the_provider_at_a_host_that_routes_to_several(path: str, provider: str | None) -> None:
    """The first table whose host and beginning of the path are the request's is the one that counts."""
    found = Router((VENDOR, ROUTER)).route("POST", HOST.encode(), path.encode())
    assert (found.provider if found else None) == provider


def test_a_provider_that_was_named_is_meant_at_any_path() -> None:
    """Whoever says which provider it is may call it below another path than the router's."""
    found = Router((VENDOR, ROUTER), provider="vendor").route(
        "POST", b"localhost", b"/proxy/v1/chat/completions"
    )
    assert found is not None
    assert found.provider == "vendor"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/model/us.maker.name-v1%3A0/invoke", "us.maker.name-v1:0"),
        (
            b"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprofile%2Fmaker.name/invoke",
            "arn:aws:bedrock:us-east-1:1:profile/maker.name",
        ),
        (b"/listen?language=en&model=nova%2D3&model=other", "nova-3"),
        (b"/listen?language=en", None),
    ],
)
def test_a_model_in_the_url_is_read_as_it_was_meant(path: bytes, model: str | None) -> None:
    """In the path or in the query, what the client had to escape is what it was before."""
    shape = shape_of()
    table = Provider(
        id="test",
        hosts=("api.test",),
        endpoints=(
            Endpoint(path=r"/model/(?P<model>[^/]+)/invoke$", shape=shape),
            Endpoint(path=r"/listen$", shape=shape, query_model="model"),
        ),
    )
    route = Router((table,)).route("POST", b"api.test", path)
    assert route is not None
    assert route.model == model


@pytest.mark.parametrize("table", PROVIDERS, ids=lambda table: table.id)
def test_no_table_stands_in_front_of_another(table: Provider) -> None:
    """At each of a table's hosts it is the table that routes, not one before it in the list."""
    before = PROVIDERS[: PROVIDERS.index(table)]
    for host in table.hosts:
        example = host.replace("*", "example")
        hiding = [
            other.id
            for other in before
            if table.under.startswith(other.under) and any(fnmatch(example, each) for each in other.hosts)
        ]
        assert hiding == []


def test_every_provider_has_an_id_of_its_own() -> None:
    """Two tables of one id would make `provider=` mean the first."""
    ids = [table.id for table in PROVIDERS]
    assert len(ids) == len(set(ids))


def test_only_shapes_that_any_host_may_speak_are_known_at_any_host() -> None:
    """At an unknown host a path means one of the three shapes that others copy, or a server of one's own."""
    names = {table.compatible for table in PROVIDERS if table.compatible}
    assert names == {"openai-compatible", "anthropic-compatible", "google-compatible", "ollama"}
