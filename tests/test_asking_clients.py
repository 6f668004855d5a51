"""Clients are asked for usage, and see what they would see without.

They run over a server that states usage to those who ask, or over scripted answers, tracked and bare; what
the application sees is compared.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from asking_hosts import (
    ASKS,
    ELSEWHERE,
    KNOWN,
    UNKNOWN_OPTION,
    Server,
    asking_at,
    decoded,
    network,
    over_network,
    read_of,
)
from endings import CHAT, COUNTS, DONE, ENDINGS, HELLO, STOP, WORLD, Ending
from exchange import Fixture, coded, fixtures
from four_ways import EVERY, FOUR, TRIO, URL, App, Script, World, run

from cmdrdata_transport.asking import LARGEST_REQUEST, asking
from cmdrdata_transport.attribution import tracking_headers
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.tracker import Tracker
from cmdrdata_transport.wire.recoding import CODINGS

four_ways = pytest.mark.parametrize("world", FOUR, ids=str)


@four_ways
@pytest.mark.parametrize("coding", [None, *CODINGS])
@pytest.mark.parametrize("cuts", [None, range(0, 900, 7), [0]], ids=["events", "sevenths", "one"])
def test_usage_is_asked_for_and_hidden(world: World, coding: str | None, cuts: Sequence[int] | None) -> None:
    """The server is asked for it, the event has it, and the application sees what it would have seen."""
    runs = {}
    for tracked in (False, True):
        server = Server(coding=coding, cuts=cuts)
        done = over_network(server, world, asking_at(KNOWN), tracked=tracked)
        [call] = server.calls
        runs[tracked] = done, call, decoded(done, coding).replace(b', "usage": null', b"")
    (_, bare, plain), (done, asked, shown) = runs[False], runs[True]
    assert shown == plain
    assert asked.body == asking(bare.body)
    changed = {b"content-length": str(len(asked.body)).encode(), b"accept-encoding": b"identity"}
    assert asked.headers == [(name, changed.get(name, value)) for name, value in bare.headers]
    [event] = done.events
    assert (event["usage_status"], event["outcome"]) == ("complete", "ok")
    assert (event["input_tokens"], event["output_tokens"]) == (5, 7)
    assert done.stats["injected"] == 1


@pytest.mark.parametrize(
    ("url", "options", "asked"),
    [
        (KNOWN, {}, True),
        (KNOWN, {"include_usage": True}, True),
        (KNOWN, {"include_usage": False}, False),
        (KNOWN.replace("/chat", ""), {}, True),
        (KNOWN.replace("openai.com", "mistral.ai"), {"include_usage": True}, False),
        (KNOWN.replace("api.openai.com", "api.groq.com/openai"), {"include_usage": True}, False),
        (KNOWN.replace("chat/completions", "responses"), {"include_usage": True}, False),
        (KNOWN.replace("api.openai.com/v1", "acme.openai.azure.com/openai/deployments/d"), {}, True),
        (KNOWN.replace("api.openai.com", "api.x.ai"), {}, True),
        (KNOWN.replace("api.openai.com/v1/chat/completions", "api.writer.com/v1/chat"), {}, True),
        (KNOWN.replace("api.openai.com", "router.huggingface.co"), {}, True),
        (ELSEWHERE, {}, False),
        (ELSEWHERE, {"include_usage": True}, True),
        (ELSEWHERE, {"include_usage": False}, False),
        (ELSEWHERE, {"provider": "openai"}, True),
        (ELSEWHERE, {"provider": "openai", "include_usage": False}, False),
        (ELSEWHERE, {"provider": "mistral", "include_usage": True}, False),
        (ELSEWHERE, {"include_usage": True, "any_host": False}, False),
    ],
)
@pytest.mark.parametrize("world", [FOUR[0], FOUR[3]], ids=str)
def test_who_is_asked_follows_from_host_and_setting(
    world: World,
    url: str,
    options: dict[str, Any],
    asked: bool,  # noqa: FBT001
) -> None:
    """By itself: hosts of providers that take the option; True: hosts of that shape, too; False: nobody."""
    server = Server()
    over_network(server, world, asking_at(url), **options)
    assert (b"include_usage" in server.calls[0].body) == asked


SAYING_ANYWAY = [
    fixture
    for fixture in fixtures()
    if fixture.exchange.url.endswith("/completions")
    and fixture.events
    and fixture.events[0]["streaming"]
    and fixture.events[0]["usage_status"] == "complete"
    and b"include_usage" not in (fixture.exchange.request_body or b"")
    and not fixture.name.startswith("openai")
]


@pytest.mark.parametrize("fixture", SAYING_ANYWAY, ids=repr)
def test_who_states_usage_anyway_is_not_asked(fixture: Fixture) -> None:
    """There it stands in the last choice, by recorded traffic; asked for, it would move and be hidden."""
    url = httpx.URL(fixture.exchange.url)
    route = Router(PROVIDERS).route(fixture.exchange.method, url.raw_host, url.raw_path)
    assert route is not None
    assert not route.asks


def test_a_trackers_setting_is_its_clients_default() -> None:
    """`Tracker(include_usage=)` counts where the client says nothing, and the client wins."""
    for of_tracker, own, asked in ((False, None, False), (False, "auto", True), (True, False, False)):
        server = Server()
        tracker = Tracker([], include_usage=of_tracker)
        over_network(server, FOUR[0], asking_at(KNOWN), tracker=tracker, include_usage=own)
        assert (b"include_usage" in server.calls[0].body) == asked


def _pieces() -> Iterator[bytes]:
    yield json.dumps(ASKS).encode()


async def _async_pieces() -> Any:
    yield json.dumps(ASKS).encode()


def streamed(world: World) -> dict[str, Any]:
    """A body that is made as it is sent."""
    return {"content": _async_pieces() if world.way.is_async else _pieces()}


NOT_OURS: dict[str, Callable[[World], dict[str, Any]]] = {
    "made as it is sent": streamed,
    "a form": lambda _: {"files": {"file": b"{}"}, "data": {"stream": "true"}, "json": None},
    "too large": lambda _: {"json": {**ASKS, "prompt": "x" * LARGEST_REQUEST}},
    "no stream": lambda _: {"json": {**ASKS, "stream": False}},
    "its own options": lambda _: {"json": {**ASKS, "stream_options": {"include_usage": False}}},
    "coded": lambda _: {
        "content": gzip.compress(json.dumps(ASKS).encode(), mtime=0),
        "headers": {"content-encoding": "gzip"},
    },
    "signed": lambda _: {
        "headers": {"authorization": "AWS4-HMAC-SHA256 Credential=c, SignedHeaders=host, Signature=s"}
    },
    "a digest": lambda _: {"headers": {"content-digest": "sha-256=:x:"}},
}


@four_ways
@pytest.mark.parametrize("request_of", NOT_OURS.values(), ids=NOT_OURS)
def test_other_requests_go_down_as_they_are(
    world: World, request_of: Callable[[World], dict[str, Any]]
) -> None:
    """What is not in memory, signed, coded, or no stream without a word on usage, is not even copied."""
    script = Script(body=CHAT)
    sent: list[Any] = []

    async def act(app: App) -> None:
        sent.append(app.request(**request_of(world)))
        await app.close(await app.handle(sent[0]))

    done = run(act, world, script, asks=ASKS, include_usage=True)
    assert done.below.requests[0] is sent[0]
    assert "injected" not in done.stats


@four_ways
def test_a_callers_own_usage_is_shown(world: World) -> None:
    """Who asks sees what was asked for."""
    asks = {**ASKS, "stream_options": {"include_usage": True}}
    done = over_network(Server(), world, asking_at(KNOWN), asks=asks)
    assert decoded(done, None) == b"".join(CHAT)
    assert done.events[0]["usage_status"] == "complete"


@four_ways
def test_the_rest_of_a_request_stays(world: World) -> None:
    """Extensions are the same object, tracking headers go, an attempt is told, the caller's body stays."""
    extensions: dict[str, Any] = {"timeout": {"read": 5.0}}
    headers = {**tracking_headers("acme"), "X-Stainless-Retry-Count": "1", "A": "b"}

    async def act(app: App) -> None:
        request = app.request(headers=headers, extensions=extensions)
        before = list(request.headers.raw), request.content
        response = await app.handle(request)
        async for _ in app.chunks_of(response.stream):
            pass
        assert (request.headers.raw, request.content) == before

    done = run(act, world, Script(body=CHAT), asks=ASKS)
    [sent] = done.below.requests
    assert sent.extensions["timeout"] is extensions["timeout"]
    assert sent.headers["a"] == "b"
    assert "x-cmdrdata-customer-id" not in sent.headers
    assert sent.content == asking(json.dumps(ASKS, separators=(",", ":")).encode())
    [event] = done.events
    assert (event["customer_id"], event["attempt"], event["usage_status"]) == ("acme", 1, "complete")


@four_ways
def test_identity_is_asked_where_nothing_was_said(world: World) -> None:
    """A request without Accept-Encoding would take any coding."""

    async def act(app: App) -> None:
        request = app.request()
        del request.headers["accept-encoding"]
        await app.close(await app.handle(request))

    done = run(act, world, Script(body=CHAT), asks=ASKS)
    assert done.below.requests[0].headers["accept-encoding"] == "identity"


@four_ways
def test_a_redirected_request_asks_again(world: World) -> None:
    """The client sends its own body to the new place, and that is asked, too."""
    elsewhere = Answer(status=307, headers=[("location", KNOWN + "?a=1")])

    def handler(call: Call) -> Answer:
        return server(call) if call.query else elsewhere

    async def act(app: App) -> None:
        app.client.follow_redirects = True
        await asking_at(KNOWN)(app)

    server = Server()
    with Loopback(handler) as loopback:
        done = run(act, world, between=lambda _: network(world, loopback.url), asks=ASKS)
    assert b"include_usage" in server.calls[0].body
    assert b"completion_tokens" not in decoded(done, None)
    assert [event["usage_status"] for event in done.events] == ["complete"]


# --- however it ends --------------------------------------------------------------------------------

SHOWS_COUNTS = f"app: {COUNTS[:17] + b'...' + COUNTS[-17:]!r}"


@pytest.mark.parametrize(
    ("ending", "world"),
    [
        pytest.param(ending, world, id=f"{ending}-{world}")
        for ending in ENDINGS
        for world in EVERY
        if ending.fits(world)
    ],
)
def test_a_stream_with_something_hidden_ends_like_any_other(ending: Ending, world: World) -> None:
    """Read, broken, cancelled, dropped, drained: everybody sees the same but for the one chunk."""
    runs = []
    for tracked in (False, True):
        done = run(ending.act, world, ending.made_for(world), asks=ASKS, tracked=tracked)
        lines = [line for line in done.log if line != SHOWS_COUNTS]
        # Read whole it is one piece of bytes, which without the event is another one.
        runs.append(([line for line in lines if not line.startswith(r"app: b'data: ")], done))
        shown = [line for line in lines if line not in runs[-1][0]]
        runs[-1][0].append(str(len(shown)))
    assert runs[0][0] == runs[1][0]
    assert repr(runs[0][1].raised) == repr(runs[1][1].raised)
    done = runs[1][1]
    [event] = done.events
    assert (event["usage_status"], event["outcome"]) == (
        ending.verdict.usage_status,
        ending.verdict.outcome,
    )
    assert done.stats["injected"] == 1
    assert "usage_shown" not in done.stats


@pytest.mark.parametrize("world", EVERY, ids=str)
@pytest.mark.parametrize("read", range(5))
def test_a_stream_closed_at_any_event_is_partial_until_usage_came(world: World, read: int) -> None:
    """The connection is closed at once; what came below counts, seen or not."""

    async def act(app: App) -> None:
        response = await app.send()
        chunks = app.chunks(response)
        for _ in range(read):
            app.say(await anext(chunks))
        await app.close(response)
        app.say("closed")
        del chunks
        await app.turn()

    done = run(act, world, Script(body=(*CHAT, b": bye\n\n")), asks=ASKS)
    said = [line for line in done.log if line.startswith(("app: b", "stream: close"))]
    assert len(said) == read + 1
    assert SHOWS_COUNTS not in said
    [event] = done.events
    assert (event["usage_status"], event["outcome"]) == (
        ("complete", "ok") if read == 4 else ("partial", "cancelled")
    )


@pytest.mark.parametrize("world", FOUR, ids=str)
@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "application/json", None])
def test_events_are_hidden_under_any_name(world: World, kind: str | None) -> None:
    """Servers mislabel streams, and SDKs read them all the same."""
    script = Script(body=CHAT, headers=[] if kind is None else [("content-type", kind)])
    done = run(asking_at(URL), world, script, asks=ASKS)
    assert read_of(done) == [HELLO, WORLD, STOP, DONE]
    assert done.events[0]["usage_status"] == "complete"


@four_ways
def test_a_length_that_is_no_more_true_is_not_told(world: World) -> None:
    """Who passes the answer on would promise bytes that do not come; nothing else of the head changes."""
    headers = [("Content-Type", "text/event-stream"), ("Content-Length", "9999"), ("A", "b")]

    async def act(app: App) -> None:
        response = await app.send()
        assert response.headers.raw == [(b"Content-Type", b"text/event-stream"), (b"A", b"b")]
        await app.close(response)

    run(act, world, Script(body=CHAT, headers=headers), asks=ASKS)


@four_ways
def test_answers_that_have_been_read_show_no_usage_either(world: World) -> None:
    """A transport below may have read them, to log them or because it is a mock."""

    async def act(app: App) -> None:
        response = await app.call()
        app.log.append(response.content)

    done = run(act, world, Script(body=CHAT, already_read=True), asks=ASKS)
    assert read_of(done) == HELLO + WORLD + STOP + DONE
    assert done.events[0]["usage_status"] == "complete"
    refusal = Script(status=400, body=[UNKNOWN_OPTION], already_read=True)
    done = run(act, world, refusal, Script(body=CHAT[:3], already_read=True), asks=ASKS)
    assert read_of(done) == HELLO + WORLD + STOP
    assert done.stats["injections_refused"] == 1


@four_ways
def test_what_cannot_be_decoded_is_the_applications_as_it_is(world: World) -> None:
    """The bytes of a damaged coding come up, with those that waited, and the loss is counted."""
    first, *_ = coded([HELLO], "gzip")
    headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")]
    damaged = b"\xff" * 20
    script = Script(body=[first, damaged, b"more"], headers=headers)
    done = run(asking_at(URL), world, script, asks=ASKS)
    assert read_of(done)[1:] == [damaged, b"more"]
    assert done.stats["usage_shown"] == 1


@pytest.mark.parametrize("world", TRIO, ids=str)
def test_trio_is_asked_for_usage_too(world: World) -> None:
    """Nothing here knows which event loop runs."""
    done = run(asking_at(URL), world, Script(body=CHAT), asks=ASKS)
    assert read_of(done) == [HELLO, WORLD, STOP, DONE]


@four_ways
def test_the_rest_of_a_stream_that_is_closed_early_has_what_was_asked_for(world: World) -> None:
    """With `on_early_close="drain"` usage that nobody sees is read behind the back of who stops reading."""
    tracker, never = Tracker([], on_early_close="drain"), threading.Event()

    async def act(app: App) -> None:
        response = await app.send(url=KNOWN)
        chunks = app.chunks(response)
        assert await anext(chunks) == HELLO
        await app.close(response)
        del chunks
        for _ in range(500):
            if "drained" in tracker.stats():
                break
            await app.turn()
            never.wait(0.01)

    done = over_network(Server(), world, act, tracker=tracker)
    assert [event["usage_status"] for event in done.events] == ["complete"]
