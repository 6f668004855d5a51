"""The words of the provider tables, read by the interpreter: what each adds, and when it adds nothing."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest

from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.openai import CHAT_UNITS, ENDPOINTS
from cmdrdata_transport.providers.reading import Answer, read_headers
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.providers.table import Apart, Endpoint, Items, Provider, Same, Shape


def counts(shape: Shape, usage: dict[str, Any]) -> dict[str, Any]:
    """The counts of an answer with this usage object, of which none is spoiled."""
    answer = Answer(shape)
    answer.absorb({"usage": usage})
    spoiled: list[str] = []
    (only,) = answer.parts(spoiled.append)
    assert spoiled == []
    return dict(only.counts)


APART = Shape(api="test", operation="chat", usage=(("usage",),), units=CHAT_UNITS, apart=Apart())


@pytest.mark.parametrize(
    ("total", "reasoning", "output"),
    [
        pytest.param(130, 100, 120, id="left out"),
        pytest.param(30, 15, 20, id="part of it"),
        pytest.param(30, 0, 20, id="none"),
        pytest.param(31, 15, 20, id="another total"),
        pytest.param(None, 100, 20, id="no total"),
        pytest.param("130", 100, 20, id="no number"),
        pytest.param(130, None, 20, id="no part"),
    ],
)
def test_a_part_is_added_where_the_total_says_that_it_was_left_out(
    total: object, reasoning: int | None, output: int
) -> None:
    """Reasoning joins the output if and only if input, output and it make up the stated total."""
    said = counts(
        APART,
        {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        },
    )
    assert said["output_tokens"] == output
    assert said["total_tokens"] == 10 + output
    assert said.get("output_reasoning_tokens") == reasoning


def test_a_part_does_not_make_a_whole() -> None:
    """Where no output was stated, reasoning alone is not taken for it."""
    usage = {
        "prompt_tokens": 10,
        "total_tokens": 15,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert counts(APART, usage) == {
        "input_tokens": 10,
        "output_reasoning_tokens": 5,
        "total_tokens": 10,
    }


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


def shape_of(**words: Any) -> Shape:
    """A shape that needs these words alone."""
    return Shape(**{"api": "test", "operation": "chat", "usage": (("usage",),), "units": {}, **words})


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"old": 3}, {"cache_read_tokens": 3}),
        ({"new": 3, "old": None}, {"cache_read_tokens": 3}),
        ({"new": 3, "old": 3}, {"cache_read_tokens": 3}),
        ({"new": None}, {}),
    ],
)
def test_a_count_that_is_said_twice_counts_once(usage: dict[str, Any], expected: dict[str, int]) -> None:
    """Two names of the same count, alone or together, say it once."""
    units = {"old": Same(unit="cache_read_tokens"), "new": Same(unit="cache_read_tokens")}
    assert counts(shape_of(units=units), usage) == expected


def test_counts_among_content_are_kept_without_it() -> None:
    """Where the counts stand at the root, the raw usage has them and nothing that stands beside them."""
    shape = shape_of(
        usage=(("usage",), ()), units={"eval_count": "output_tokens", "texts": Items(tree={"n": "images"})}
    )
    answer = Answer(shape)
    answer.absorb({"message": "content", "eval_count": 3, "texts": [{"n": 1, "text": "content"}]})
    (only,) = answer.parts(lambda _: None)
    assert (only.counts, only.raw) == (
        {"output_tokens": 3, "images": 1, "total_tokens": 3},
        {"eval_count": 3, "texts": [{"n": 1}]},
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"x-in": b"4", b"x-cached": b" 100 "}, {"input_tokens": 104, "cache_read_tokens": 100}),
        ({b"x-in": b"4"}, {"input_tokens": 4}),
        ({b"x-in": b"-1", b"x-cached": b"many"}, {}),
    ],
)
def test_a_header_counts_towards_every_unit_it_names(
    headers: dict[bytes, bytes], expected: dict[str, int]
) -> None:
    """Headers are read as counts are; what is no count is as good as absent."""
    units: dict[bytes, str | tuple[str, ...]] = {
        b"x-in": "input_tokens",
        b"x-cached": ("input_tokens", "cache_read_tokens"),
    }
    read = read_headers(units, headers)
    assert {name: count for name, count in read.items() if name != "total_tokens"} == expected


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


def test_only_three_shapes_are_known_at_any_host() -> None:
    """A path means something at an unknown host only by the tables whose shapes others copy."""
    assert [table.id for table in PROVIDERS if table.compatible] == ["openai", "anthropic", "google"]
