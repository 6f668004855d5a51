"""Answers of hosts and paths that no table names: counted when they look like what we know, if asked for.

The answers are those of fixtures, told again from somewhere else. What only a table of the host could say,
the name of a header or a model in the path, is not known there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from exchange import FIXTURES, WAYS, Exchange, Fixture, Replay, Way, cut, fixtures, replay, stable
from stories import Ask, Host, hosted, make

from cmdrdata_transport import Tracker
from cmdrdata_transport import tracker as trackers
from cmdrdata_transport.httpx import TrackedTransport

URL = "https://llm.example.net/ask?of=us"

LOOKS_LIKE = {
    "openai/chat": "openai-compatible",
    "openai/chat-blank-lines-first": "openai-compatible",
    "openai/chat-stream": "openai-compatible",
    "openai/chat-stream-crlf-comments": "openai-compatible",
    "openai/chat-stream-bom": "openai-compatible",
    "openai/chat-stream-unfinished": "openai-compatible",
    "openai/completions": "openai-compatible",
    "openai/completions-stream": "openai-compatible",
    "openai/embeddings": "openai-compatible",
    "openai/responses": "openai-compatible",
    "openai/responses-stream": "openai-compatible",
    "anthropic/messages": "anthropic-compatible",
    "anthropic/messages-cache": "anthropic-compatible",
    "anthropic/messages-iterations": "anthropic-compatible",
    "anthropic/messages-stream": "anthropic-compatible",
    "anthropic/messages-stream-crlf-comments": "anthropic-compatible",
    "anthropic/messages-stream-data-only": "anthropic-compatible",
    "google/generate": "google-compatible",
    "google/generate-details": "google-compatible",
    "google/generate-blocked": "google-compatible",
    "google/stream": "google-compatible",
    "google/stream-restarting-counts": "google-compatible",
}
"""Fixtures, and what is recorded of their answers at a host that nobody knows."""

ITS_TABLES = ("provider", "host", "request_id", "request_model", "service_tier")
"""What a host's own table says, beside the answer."""

FOUND = [each for each in fixtures() if each.name in LOOKS_LIKE]

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_answer = pytest.mark.parametrize("fixture", FOUND, ids=str)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with a home of its own."""
    with hosted(tmp_path) as it:
        yield it


@pytest.fixture
def _guessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default tracker looks at the answers of unknown hosts."""
    guessing = Tracker([], home=tmp_path, unknown_hosts=True)
    monkeypatch.setattr(trackers, "_default", guessing)
    yield
    guessing.close(50)


def elsewhere(fixture: Fixture) -> Exchange:
    """The same exchange with somebody whom no table knows."""
    return replace(fixture.exchange, url=URL)


def same(fixture: Fixture, done: Replay) -> None:
    """The events are the fixture's, but for what the host's table alone says."""
    assert [_stripped(event) for event in done.events] == [_stripped(event) for event in fixture.events]
    assert {(event["provider"], event["host"]) for event in done.events} == {
        (LOOKS_LIKE[fixture.name], "llm.example.net")
    }


def _stripped(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stable(event).items() if name not in (*ITS_TABLES, "format")}


def test_every_answer_is_here() -> None:
    """A misspelt name would be a test that is never run."""
    assert {fixture.name for fixture in FOUND} == set(LOOKS_LIKE)


@pytest.mark.usefixtures("_guessing")
@every_way
@every_answer
def test_an_answer_that_looks_like_one(fixture: Fixture, way: Way) -> None:
    """It counts as at its own host, whole and byte by byte, and reaches the application as it was sent."""
    body = fixture.exchange.body
    whole = replay(elsewhere(fixture), way)
    same(fixture, whole)
    assert whole.content == body
    chunks = cut(body, range(len(body)))
    done = replay(elsewhere(fixture), way, chunks)
    same(fixture, done)
    assert done.chunks == chunks


@pytest.mark.slow
@pytest.mark.usefixtures("_guessing")
@every_answer
def test_every_cut_in_two(fixture: Fixture) -> None:
    """There is no place where a cut hides what it is."""
    body = fixture.exchange.body
    for place in range(1, len(body)):
        done = replay(elsewhere(fixture), WAYS[place % len(WAYS)], [body[:place], body[place:]])
        same(fixture, done)


@every_answer
def test_nobody_looks_unless_asked_to(fixture: Fixture) -> None:
    """By default what comes from an unknown host and path is left alone."""
    assert replay(elsewhere(fixture), WAYS[0]).events == []


NOTHING = {
    "nothing we know": (b'{"ok": true, "usage": {"prompt_tokens": 5}}', "application/json"),
    "no JSON": (b"{SECRET", "application/json"),
    "a list": (b'[{"object": "chat.completion"}]', "application/json"),
    "text": (b'{"object": "chat.completion", "usage": {"prompt_tokens": 5}}', "text/plain"),
    "bytes": (bytes(range(256)) * 8192, "application/octet-stream"),
    "bytes that call themselves JSON": (b"\x00" * 20_000_000, "application/json"),
    "JSON that does not end": (b'{"a": "' + b"x" * 20_000_000, "application/json"),
    "other events": (b'data: {"tick": 1}\n\n' * 500, "text/event-stream"),
    "one endless event": (b"data: " + b"x" * 20_000_000, "text/event-stream"),
    "late": (
        b'data: {"tick": 1}\n\n' * 50 + b'data: {"object": "chat.completion.chunk"}\n\n',
        "text/event-stream",
    ),
    "empty": (b"", "application/json"),
}


@every_way
@pytest.mark.parametrize("name", NOTHING)
def test_an_answer_that_looks_like_nothing(way: Way, name: str, host: Host) -> None:
    """It is no call of ours: no event, nothing counted, nothing kept, whatever its size."""
    answer, kind = NOTHING[name]
    tracker = host.process(unknown_hosts=True)
    make(way, tracker, [Ask(method="POST", url=URL, asked={"q": "SECRET"}, answer=answer, kind=kind)])
    assert host.ledger() == []
    assert tracker.stats() == {}


def chat(**more: Any) -> Ask:
    """A chat with somebody."""
    answer = json.loads((FIXTURES / "openai/chat/body").read_text("utf-8"))
    return Ask(method="POST", url=URL, asked={"model": "gpt-5.4"}, answer=answer, **more)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_only_a_post_may_be_one(method: str, host: Host) -> None:
    """Whatever else is asked for is no call to a model."""
    make(WAYS[0], host.process(unknown_hosts=True), [Ask(method=method, url=URL, answer=chat().answer)])
    assert host.ledger() == []


def test_an_error_of_somebody_is_no_call(host: Host) -> None:
    """A refusal looks like nothing that we could tell."""
    make(WAYS[0], host.process(unknown_hosts=True), [chat(status=500)])
    assert host.ledger() == []


@every_way
def test_where_a_customer_is_required_one_is_needed_here_too(way: Way, host: Host) -> None:
    """Without one it is skipped, and counted as such only when it turns out to be a call."""
    tracker = host.process(unknown_hosts=True, require_customer=True)
    nothing = Ask(method="POST", url=URL, answer={"ok": True})
    make(way, tracker, [nothing, chat(), chat(customer="acme")])
    assert [event.customer_id for event in host.ledger()] == ["acme"]
    assert tracker.stats()["skipped_no_customer"] == 1


def test_the_known_hosts_are_as_they_were(host: Host) -> None:
    """A provider's own path that carries no usage is not looked at: its table knows better."""
    free = Ask(method="POST", url="https://api.openai.com/v1/moderations", answer=chat().answer)
    make(WAYS[0], host.process(unknown_hosts=True), [free])
    assert host.ledger() == []


def test_a_client_that_goes_by_hosts_alone_stays_with_them(host: Host) -> None:
    """With `any_host=False` no answer of an unknown host is looked at, whatever the tracker is asked."""
    tracker = host.process(unknown_hosts=True)
    inner = httpx.MockTransport(lambda _: httpx.Response(200, json=chat().answer))
    with httpx.Client(transport=TrackedTransport(inner, tracker=tracker, any_host=False)) as client:
        client.post(URL, json={"model": "gpt-5.4"})
    assert host.ledger() == []


@pytest.mark.parametrize("path", ["/videos", "/threads/runs", "/threads/t_1/runs", "/decisions", "/voices"])
def test_a_path_that_may_be_anybody_s_is_nobody_s_elsewhere(path: str, host: Host) -> None:
    """At a host that no table names it is no call that we know, and gives no event that misses its usage."""
    somewhere = Ask(method="POST", url=f"https://app.example.net{path}", asked={"a": 1}, answer={"id": "x"})
    make(WAYS[0], host.process(), [somewhere])
    assert host.ledger() == []


def test_a_large_event_in_small_pieces_is_looked_at_once(host: Host) -> None:
    """Each byte of what has not shown yet what it is: looking at all of it for each piece takes for ever."""
    events = [{"type": "started", "with": "x" * 8_000_000}, {**CHAT_END, "choices": []}]
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)
    pieces = [body[at : at + 128] for at in range(0, len(body), 128)]
    sent = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(pieces))
    )
    tracker = host.process(unknown_hosts=True, customer_id="acme")
    with httpx.Client(transport=TrackedTransport(sent, tracker=tracker)) as client:
        assert client.post(URL).content == body
    (event,) = host.ledger()
    assert (event.provider, event.usage.total_tokens) == ("openai-compatible", 12)


CHAT_END = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "model": "m",
    "usage": {"prompt_tokens": 5, "completion_tokens": 7},
}


class Pieces(httpx.SyncByteStream):
    """A body that comes as it was cut."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
