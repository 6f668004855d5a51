"""What is started by one call and told by others: once, whoever asks, for the customer who started it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from exchange import WAYS, Way
from stories import Ask, Host, hosted, make, told

OPENAI = "https://api.openai.com/v1"
USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with a home of its own."""
    with hosted(tmp_path) as it:
        yield it


def response(status: str, **more: Any) -> dict[str, Any]:
    """A response of OpenAI's that runs in the background."""
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5",
        "background": True,
        "status": status,
        "usage": None,
        "error": None,
        **more,
    }


START = Ask(
    method="POST",
    url=f"{OPENAI}/responses",
    asked={"model": "gpt-5", "background": True},
    answer=response("queued"),
    customer="acme",
)
POLL = Ask(method="GET", url=f"{OPENAI}/responses/resp_1", answer=response("in_progress"))
DONE = Ask(method="GET", url=f"{OPENAI}/responses/resp_1", answer=response("completed", usage=USAGE))


def events_of(sse: Sequence[dict[str, Any]]) -> bytes:
    """Server-sent events, as OpenAI's Responses are streamed."""
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in sse)


@every_way
def test_a_background_answer_counts_once_when_it_is_done(way: Way, host: Host) -> None:
    """Polls before the end are nothing; the end counts once, however often it is asked for."""
    make(way, host.process(), [START, POLL, POLL, DONE, DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]


@every_way
def test_another_process_that_asks_bills_the_one_who_started_it(way: Way, host: Host) -> None:
    """Any process of this host finds who that was, and the second one to ask adds nothing."""
    make(way, host.process(customer_id="nobody"), [START])
    make(way, host.process(customer_id="nobody"), [POLL, DONE])
    make(way, host.process(customer_id="nobody"), [DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]
    assert host.report()["calls"] == 1
