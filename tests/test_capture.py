"""`capture_usage`: what it leaves behind."""

from __future__ import annotations

from contextlib import ExitStack

import httpx

from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.testing import capture_usage

ANSWER = {"model": "gpt-5", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


def test_captures_may_end_in_the_order_in_which_they_began() -> None:
    """The newest that is open has the events, and none has any after its end."""
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))
    transport = TrackedTransport(answer, customer_id="acme")
    one, other, last = ExitStack(), ExitStack(), ExitStack()
    with httpx.Client(transport=transport) as client, last:
        caught = [each.enter_context(capture_usage()) for each in (last, one, other)]
        counts = []
        for ended in (ExitStack(), one, other):
            ended.close()
            client.post("https://api.openai.com/v1/chat/completions", json={})
            counts.append([len(events) for events in caught])
    assert counts == [[0, 0, 1], [0, 0, 2], [1, 0, 2]]
