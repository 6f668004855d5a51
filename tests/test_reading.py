"""The words of the provider tables, read by the interpreter: what each adds, and when it adds nothing."""

from __future__ import annotations

from typing import Any

import pytest

from cmdrdata_transport.providers.openai import CHAT_UNITS, ENDPOINTS
from cmdrdata_transport.providers.reading import Answer
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.providers.table import Apart, Provider, Shape


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
