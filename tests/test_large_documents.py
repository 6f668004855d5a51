"""A document too large to be read still states its usage at its end: a batch of embeddings does."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_transport.body import LARGEST_DOCUMENT, last_members
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.testing import capture_usage

VECTOR = b'{"object": "embedding", "index": 0, "embedding": "' + b"A" * 8192 + b'"}'

USAGE = {"prompt_tokens": 2048, "total_tokens": 2048}

members = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 10**6) | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    ),
    max_size=6,
)


def embeddings(end: bytes) -> bytes:
    """An answer of some 20 MB, with `end` behind its vectors."""
    return b'{"object": "list", "data": [' + b", ".join([VECTOR] * 2500) + b"]" + end


def event_of(body: bytes, size: int) -> dict[str, Any]:
    """The event of an answer that arrives in chunks of a size."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "application/json"}, content=iter(chunks))

    transport = TrackedTransport(httpx.MockTransport(answer))
    with capture_usage() as events, httpx.Client(transport=transport) as client:
        assert client.post("https://api.openai.com/v1/embeddings", json={"input": "x"}).content == body
    (event,) = events
    return event.to_dict()


@pytest.mark.parametrize("size", [65_536, 1_000_003, 50_000_000])
def test_a_large_batch_of_embeddings_is_counted(size: int) -> None:
    """Usage behind 20 MB of vectors is read, to the token, however the answer arrives."""
    end = b', "model": "text-embedding-3-large", "usage": ' + json.dumps(USAGE).encode() + b"}\n"
    body = embeddings(end)
    assert len(body) > LARGEST_DOCUMENT
    event = event_of(body, size)
    assert (event["usage_status"], event["input_tokens"], event["model"]) == (
        "complete",
        2048,
        "text-embedding-3-large",
    )
    assert event["raw_usage"] == USAGE


@pytest.mark.parametrize(
    "end",
    [
        b', "more": {"usage": {"prompt_tokens": 7, "total_tokens": 7}}}',
        b', "usage": {"prompt_tokens": 7, "total_tokens": 7}',
        b', "text": "\\"usage\\": {\\"prompt_tokens\\": 7}"}',
        b"}",
    ],
    ids=["inside another member", "cut off", "inside text", "absent"],
)
def test_what_is_not_its_own_usage_is_not_counted(end: bytes) -> None:
    """Only a member of the root counts; without one the answer's usage is missing."""
    event = event_of(embeddings(end), 1_000_003)
    assert (event["usage_status"], event.get("input_tokens")) == ("missing", None)


@given(members, st.integers(0, 200), st.sampled_from([None, 1]))
def test_the_last_members_are_members_of_the_root(document: Any, kept: int, indent: int | None) -> None:
    """Whatever end of a document is known, what is read from it is in the document, and at its root."""
    text = json.dumps(document, indent=indent).encode()
    found = last_members(text[len(text) - min(kept, len(text)) :])
    assert found is None or all(found[name] == document[name] for name in found)
