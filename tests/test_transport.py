"""A tracked transport and a bare one cannot be told apart by who uses them, and each call is told once.

The first half compares: the same scenario runs tracked and bare, and what everybody saw must be equal.
The second half is about which calls are metered, and for whom.
"""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from endings import CHAT, DOCUMENT, ENDINGS, JSON, Ending
from four_ways import EVERY, FOUR, URL, App, Run, Script, World, run

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport import tracker as tracker_module
from cmdrdata_transport.attribution import customer_context, no_tracking, tracking_headers
from cmdrdata_transport.errors import AttributionError, TrackingSetupError
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.httpx import AsyncTrackedTransport
from cmdrdata_transport.testing import capture_usage
from cmdrdata_transport.tracker import Tracker, capture, configure

every_ending = pytest.mark.parametrize(
    ("ending", "world"),
    [
        pytest.param(ending, world, id=f"{ending}-{world}")
        for ending in ENDINGS
        for world in EVERY
        if ending.fits(world)
    ],
)
four_ways = pytest.mark.parametrize("world", FOUR, ids=str)

ANSWER = Script(body=[DOCUMENT], headers=JSON)


async def call(app: App) -> None:
    """One plain call."""
    await app.call()


def customers(done: Run) -> list[str | None]:
    """Whom the events of a run are for."""
    return [event.get("customer_id") for event in done.events]


# --- the same ---------------------------------------------------------------------------------------


def same_to_the_host(ending: Ending, world: World, **options: Any) -> Run:
    """Run it tracked and bare; everything that anybody saw, in order, must be the same."""
    runs = []
    for tracked in (False, True):
        script = ending.made_for(world)
        done = run(ending.act, world, script, tracked=tracked, **options)
        its_own = [each is done.raised for each in (*script.body, script.refusal, script.close_error)]
        runs.append((done, done.log, repr(done.raised), its_own))
    bare, tracked_too = runs
    assert tracked_too[1:] == bare[1:]
    assert bare[0].events == []
    return tracked_too[0]


@every_ending
def test_everybody_sees_the_same_in_the_same_order(ending: Ending, world: World) -> None:
    """Chunks, their order against what the application does, closing, cancelling, errors: as without us."""
    assert same_to_the_host(ending, world).log[1].startswith("transport: ")


@pytest.mark.parametrize("ending", ENDINGS[:12], ids=str)
@four_ways
def test_a_tracker_that_is_switched_off_does_nothing(ending: Ending, world: World, tmp_path: Path) -> None:
    """The same without events: nothing is counted, nothing touches the disk."""
    tracker = Tracker([_fail], home=tmp_path / "home", disabled=True)
    same_to_the_host(ending, world, tracker=tracker, captured=False)
    assert tracker.stats() == {}
    assert list(tmp_path.iterdir()) == []


def _fail(events: list[UsageEvent]) -> None:
    raise AssertionError(events)


@pytest.mark.parametrize("ending", ENDINGS[:12], ids=str)
@four_ways
def test_what_fails_inside_stays_inside(ending: Ending, world: World) -> None:
    """When an event cannot be recorded, the host sees the same as ever, and the loss is counted."""

    def record(line: bytes) -> None:
        raise OSError(f"no room for {len(line)} bytes")

    before = capture(record)
    try:
        done = same_to_the_host(ending, world, captured=False)
    finally:
        capture(before)
    assert done.stats["internal_errors"] == 1


@pytest.mark.parametrize(
    ("url", "answers"), [(URL, 1), ("https://api.openai.com/v1/models", 0)], ids=["metered", "passed"]
)
@four_ways
def test_the_same_objects_go_down_and_come_up(world: World, url: str, answers: int) -> None:
    """The request is the caller's own, the response is the transport's own; only its stream is replaced."""
    extensions = {"http_version": b"HTTP/2", "network_stream": object()}
    script = Script(
        body=CHAT, extensions=extensions, headers=[("content-type", "text/event-stream"), ("A", "b")]
    )

    def remember(below: Any) -> Any:
        remembered.append(below)
        return below

    remembered: list[Any] = []

    async def ask(app: App) -> None:
        request = app.request(url=url, extensions={"timeout": {"read": 5.0}})
        extensions_below = request.extensions
        response = await app.handle(request)
        (below,) = remembered
        assert below.requests == [request]
        assert below.requests[0] is request
        assert request.extensions is extensions_below
        ((own, own_stream),) = below.answers
        assert response is own()
        assert response.status_code == 200
        assert response.headers.raw == [(b"content-type", b"text/event-stream"), (b"A", b"b")]
        assert response.extensions == extensions
        assert response.extensions["network_stream"] is extensions["network_stream"]
        assert (response.stream is not own_stream()) == bool(answers)
        library = world.library
        assert isinstance(
            response.stream, library.AsyncByteStream if app.is_async else library.SyncByteStream
        )
        assert [chunk async for chunk in app.chunks(response)] == list(CHAT)

    done = run(ask, world, script, between=remember)
    assert done.raised is None
    assert len(done.events) == answers


@four_ways
def test_what_a_transport_has_beside_is_still_there(world: World) -> None:
    """Attributes are those of the transport below; what neither has is an error that names ours."""

    async def look(app: App) -> None:
        transport = app.client._transport
        assert transport.color == "green"
        assert transport.unwrapped.color == "green"
        with pytest.raises(AttributeError, match="shape"):
            _ = transport.shape
        assert not hasattr(transport, "__wrapped__")

    assert run(look, world, ANSWER).raised is None


@four_ways
def test_entering_leaving_and_closing_go_down(world: World) -> None:
    """The transport below is entered, left (with the error, if there is one) and closed, as by a client."""

    async def fail(app: App) -> None:
        transport = app.client._transport
        if app.is_async:
            await transport.aclose()
        else:
            transport.close()
        raise LookupError("the application's own")

    done = run(fail, world, ANSWER)
    assert isinstance(done.raised, LookupError)
    assert done.log == ["transport: enter", "transport: close", "transport: exit ['LookupError']"]


# --- tracking headers -------------------------------------------------------------------------------

HEADERS = tracking_headers("acme", {"feature": "chat"})


def sent_headers(done: Run) -> list[list[tuple[bytes, bytes]]]:
    """What went down, without what the library adds by itself."""
    return [
        [(name, value) for name, value in request.headers.raw if name.lower().startswith((b"x-", b"auth"))]
        for request in done.below.requests
    ]


@four_ways
def test_tracking_headers_are_read_and_not_sent(world: World) -> None:
    """What goes down differs from the caller's request in nothing but these headers; that one keeps them."""

    async def ask(app: App) -> None:
        request = app.request(
            headers={"X-Before": "1", **HEADERS, "X-After": "2"},
            extensions={"trace": app.say, "cmdrdata": {}},
        )
        before = list(request.headers.raw)
        await app.client.send(request) if app.is_async else app.client.send(request)
        assert request.headers.raw == before
        requests.append(request)

    requests: list[Any] = []
    done = run(ask, world, ANSWER)
    assert done.raised is None
    (request,), (sent,) = requests, done.below.requests
    assert sent is not request
    assert sent.headers.raw == [
        pair for pair in request.headers.raw if not pair[0].lower().startswith(b"x-cmdrdata-")
    ]
    assert (sent.method, sent.url, sent.content) == (request.method, request.url, request.content)
    assert sent.stream is request.stream
    assert sent.extensions is request.extensions
    (event,) = done.events
    assert (event["customer_id"], event["metadata"]) == ("acme", {"feature": "chat"})
    assert event["request_model"] == "gpt-5"


@four_ways
def test_a_request_whose_body_is_made_as_it_is_sent_keeps_it(world: World) -> None:
    """Taking headers away reads no streamed body; there, what model was asked for is not known."""

    def pieces() -> Iterator[bytes]:
        yield b'{"model": '
        yield b'"gpt-5"}'

    async def async_pieces() -> Any:
        for piece in pieces():
            yield piece

    async def ask(app: App) -> None:
        content = async_pieces() if app.is_async else pieces()
        await app.call(json=None, content=content, headers=HEADERS)

    done = run(ask, world, ANSWER)
    assert done.raised is None
    (sent,) = done.below.requests
    assert sent.headers["transfer-encoding"] == "chunked"
    assert b"x-cmdrdata" not in b"".join(name.lower() for name, _ in sent.headers.raw)
    (event,) = done.events
    assert event["customer_id"] == "acme"
    assert "request_model" not in event


@four_ways
def test_a_request_that_is_sent_again_is_attributed_again(world: World) -> None:
    """Retries re-send the same object, and must find the headers on it."""

    async def ask_twice(app: App) -> None:
        request = app.request(headers=HEADERS)
        for _ in range(2):
            await app.client.send(request) if app.is_async else app.client.send(request)

    done = run(ask_twice, world, ANSWER)
    assert customers(done) == ["acme", "acme"]
    assert sent_headers(done) == [[], []]


@pytest.mark.parametrize("status", [302, 307, 308])
@four_ways
def test_a_redirected_request_is_attributed_where_it_arrives(world: World, status: int) -> None:
    """The answer that redirects bills nothing; the one behind it does, for the customer of the headers."""

    async def ask(app: App) -> None:
        response = await app.call(headers=HEADERS)
        assert len(response.history) == 1

    there = Script(status=status, headers=[("location", "/v2/chat/completions")])

    async def following(app: App) -> None:
        app.client.follow_redirects = True
        await ask(app)

    done = run(following, world, there, ANSWER)
    assert done.raised is None
    assert sent_headers(done) == [[], []]
    assert customers(done) == ([] if status == 302 else ["acme"])  # a 302 makes a GET of it


@four_ways
def test_tracking_headers_are_not_sent_where_nothing_is_metered(world: World, tmp_path: Path) -> None:
    """They are nobody's business: not another host's, and not when tracking is switched off."""

    async def ask(app: App) -> None:
        await app.call(headers=HEADERS)
        await app.call(headers=HEADERS, url="https://example.com/", method="GET", json=None)

    off = Tracker([_fail], home=tmp_path, disabled=True)
    for done in (run(ask, world, ANSWER), run(ask, world, ANSWER, tracker=off, captured=False)):
        assert done.raised is None
        assert sent_headers(done) == [[], []]


@pytest.mark.parametrize(
    "signed", ["host;x-cmdrdata-customer-id;x-cmdrdata-metadata", "host;x-cmdrdata-metadata"]
)
@four_ways
def test_headers_that_are_part_of_a_signature_stay(world: World, signed: str) -> None:
    """Taking them from a request that AWS's SigV4 lists them in would break it: used, sent, and counted."""
    authorization = f"AWS4-HMAC-SHA256 Credential=AK/eu, SignedHeaders={signed}, Signature=00"

    async def ask(app: App) -> None:
        request = app.request(headers={**HEADERS, "Authorization": authorization})
        await app.client.send(request) if app.is_async else app.client.send(request)
        requests.append(request)

    requests: list[Any] = []
    done = run(ask, world, ANSWER)
    assert done.below.requests[0] is requests[0]
    assert customers(done) == ["acme"]
    assert done.stats["signed_headers"] == 1


@four_ways
def test_headers_beside_a_signature_are_taken_away(world: World) -> None:
    """A signature that does not list them does not hold them."""
    authorization = "AWS4-HMAC-SHA256 Credential=AK/eu, SignedHeaders=content-type;host, Signature=00"

    async def ask(app: App) -> None:
        await app.call(headers={**HEADERS, "Authorization": authorization})

    done = run(ask, world, ANSWER)
    assert sent_headers(done) == [[(b"Authorization", authorization.encode())]]
    assert customers(done) == ["acme"]
    assert "signed_headers" not in done.stats


@pytest.mark.parametrize(
    ("headers", "customer"),
    [
        ({"X-Cmdrdata-Metadata": "{"}, "acme"),
        ({"X-Cmdrdata-Track": "perhaps"}, "acme"),
        ({"X-Cmdrdata-Customer-Id": "UTF-8''%FF"}, None),
    ],
    ids=["metadata", "track", "customer"],
)
@four_ways
def test_a_header_that_cannot_be_read_is_counted_and_not_sent(
    world: World, headers: dict[str, str], customer: str | None
) -> None:
    """The call is made and metered as if it were not there; for nobody, where it would name a customer."""

    async def ask(app: App) -> None:
        await app.call(headers=headers)

    done = run(ask, world, ANSWER, customer_id="acme")
    assert customers(done) == [customer]
    assert done.stats["bad_attribution"] == 1
    assert sent_headers(done) == [[]]


# --- which calls ------------------------------------------------------------------------------------

OTHER_HOST = "https://llm.example.com"


@pytest.mark.parametrize(
    ("provider", "url", "options"),
    [
        ("openai", URL, {}),
        ("openai", URL + "?api-version=1", {}),
        ("openai", URL + "#stream", {}),
        ("openai", "https://API.OpenAI.com:443/v1/chat/completions", {"any_host": False}),
        ("openai", "https://eu.api.openai.com/v1/chat/completions", {"any_host": False}),
        ("openai-compatible", f"{OTHER_HOST}/v1/chat/completions", {}),
        ("openai-compatible", "http://127.0.0.1:8080/prefix/v1/chat/completions", {}),
        ("groq", f"{OTHER_HOST}/v1/chat/completions", {"provider": "groq"}),
        ("groq", URL, {"provider": "groq"}),
        (None, f"{OTHER_HOST}/v1/chat/completions", {"any_host": False}),
        (None, f"{OTHER_HOST}/v1/chat", {}),
        (None, "https://api.openai.com/v1/files", {}),
        (None, "https://api.openai.com/v1/chat/completions/chatcmpl-1", {}),
        (None, "https://api.anthropic.com/v1/messages/count_tokens", {}),
        (None, "https://api.anthropic.com/v1/messages/count_tokens", {"provider": "anthropic"}),
        (None, "https://api.openai.com.example.com/v1/chat/completions", {"any_host": False}),
        (None, "https://myapi.openai.com/v1/chat/completions", {"any_host": False}),
    ],
)
@four_ways
def test_which_calls_are_metered(
    world: World, provider: str | None, url: str, options: dict[str, Any]
) -> None:
    """By the provider that the client names, else the host, else (where allowed) a path that we know."""

    async def ask(app: App) -> None:
        await app.call(url=url)

    done = run(ask, world, ANSWER, **options)
    assert [event["provider"] for event in done.events] == [each for each in [provider] if each]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
@four_ways
def test_other_methods_are_not_calls(world: World, method: str) -> None:
    """Listing, looking at and deleting what was billed before bills nothing."""

    async def ask(app: App) -> None:
        await app.call(method=method)

    done = run(ask, world, ANSWER)
    assert done.raised is None
    assert done.events == []
    assert done.stats == {}


@pytest.mark.parametrize("coding", [None, "gzip"])
@four_ways
def test_an_answer_that_was_read_before_is_metered(world: World, coding: str | None) -> None:
    """As mocks and caches give it; its coding, if any, is undone by the library."""
    headers = [*JSON, ("content-encoding", coding)] if coding else JSON
    body = gzip.compress(DOCUMENT) if coding else DOCUMENT
    done = run(call, world, Script(body=[body], headers=headers, already_read=True))
    assert [event["total_tokens"] for event in done.events] == [12]


@four_ways
def test_tracked_twice_counts_once(world: World) -> None:
    """The outer one tells it; the next call is told again, also after one that failed."""

    def track_again(below: Any) -> Any:
        return world.tracked_transport(below, customer_id="inner", tracker=Tracker([]))

    async def ask(app: App) -> None:
        for _ in range(2):
            try:
                await app.call()
            except world.library.HTTPError as error:
                app.say(error)

    broken = Script(refusal=world.library.ConnectError("the network's own"))
    done = run(ask, world, broken, ANSWER, between=track_again, customer_id="outer")
    assert customers(done) == ["outer", "outer"]
    assert [event["usage_status"] for event in done.events] == ["none", "complete"]


@four_ways
def test_what_a_transport_calls_by_itself_is_told_too(world: World) -> None:
    """A transport below that asks a second provider makes a second call, which is not the first one again."""

    class Asks:
        def __init__(self, below: Any) -> None:
            self._below = world.tracked_transport(below, customer_id="inner")

        def handle_request(self, request: Any) -> Any:
            self._below.handle_request(self.another(request)).read()
            return self._below.handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            await (await self._below.handle_async_request(self.another(request))).aread()
            return await self._below.handle_async_request(request)

        def another(self, request: Any) -> Any:
            return world.library.Request(
                "POST", f"{OTHER_HOST}/v1/chat/completions", json={}, headers=request.headers
            )

        def __getattr__(self, name: str) -> Any:
            return getattr(self._below, name)

        def __enter__(self) -> None: ...
        def __exit__(self, *raised: object) -> None: ...
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *raised: object) -> None: ...

    done = run(call, world, ANSWER, between=Asks, customer_id="outer")
    assert done.raised is None
    assert [(event["customer_id"], event["provider"]) for event in done.events] == [
        ("inner", "openai-compatible"),
        ("outer", "openai"),
    ]


def test_a_task_that_a_transport_has_started_is_metered_when_the_call_is_over() -> None:
    """The task has the context of the call that it was started in, for as long as it runs."""
    answer = httpx.MockTransport(lambda _: httpx.Response(200, content=DOCUMENT, headers=dict(JSON)))
    begin = asyncio.Event()

    async def later(client: httpx.AsyncClient) -> None:
        await begin.wait()
        await client.post(URL, json={})

    class Starting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            tasks.append(asyncio.create_task(later(worker)))
            return await answer.handle_async_request(request)

    async def ask() -> None:
        async with (
            worker,
            httpx.AsyncClient(transport=AsyncTrackedTransport(Starting(), customer_id="a")) as client,
        ):
            await client.post(URL, json={})
            begin.set()
            await asyncio.gather(*tasks)

    tasks: list[asyncio.Task[None]] = []
    worker = httpx.AsyncClient(transport=AsyncTrackedTransport(answer, customer_id="b"))
    with capture_usage() as events:
        asyncio.run(ask())
    assert [event.customer_id for event in events] == ["a", "b"]


@four_ways
def test_no_tracking_is_not_metered(world: World) -> None:
    """By the context, by a header, by the request's extension; all counted."""

    async def ask(app: App) -> None:
        with no_tracking():
            await app.call()
        await app.call(headers=tracking_headers(track=False))
        await app.call(extensions={"cmdrdata": {"track": False}})

    done = run(ask, world, ANSWER)
    assert done.raised is None
    assert done.events == []
    assert done.stats == {"not_tracked": 3}
    assert sent_headers(done) == [[], [], []]


@four_ways
def test_a_call_without_customer(world: World) -> None:
    """It is recorded without one, and counted; with `require_customer` it is not recorded, and counted."""

    async def ask(app: App) -> None:
        await app.call()
        await app.call(extensions={"cmdrdata": {"customer_id": "acme"}})

    done = run(ask, world, ANSWER)
    assert customers(done) == [None, "acme"]
    assert done.stats == {"unattributed": 1, "events": 2}
    done = run(ask, world, ANSWER, tracker=Tracker([], require_customer=True))
    assert customers(done) == ["acme"]
    assert done.stats == {"skipped_no_customer": 1, "events": 1}


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (TrackingSetupError, {"provider": "opnai"}),
        (TrackingSetupError, {"tracker": "default"}),
        (TrackingSetupError, {"include_usage": "always"}),
        (AttributionError, {"customer_id": ""}),
        (AttributionError, {"metadata": {"at": b"bytes"}}),
        (AttributionError, {"metadata": ["feature"]}),
        (TypeError, {"customer": "acme"}),
    ],
    ids=str,
)
@four_ways
def test_a_wrong_option_is_an_error_at_construction(
    world: World, error: type[Exception], options: dict[str, Any]
) -> None:
    """Where the developer sees it, and not inside a call."""
    below = world.mock_transport(lambda _: None)
    with pytest.raises(error):
        world.tracked_transport(below, **options)


@pytest.mark.parametrize("wrong", ["nothing", "name", "class", "client", "other library", "other colour"])
@four_ways
def test_what_is_no_transport_is_an_error_at_construction(world: World, wrong: str) -> None:
    """What could only fail at the first call is refused before, with a word on what to give."""
    colours = ("AsyncHTTPTransport", "HTTPTransport")
    own, other = colours if world.way.is_async else reversed(colours)
    foreign = httpx if world.library is httpx2 else httpx2
    make: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "name": lambda: "openai",
        "class": lambda: getattr(world.library, own),
        "client": world.client,
        "other library": getattr(foreign, own),
        "other colour": getattr(world.library, other),
    }
    with pytest.raises(TrackingSetupError, match=r"no transport to wrap|of another library"):
        world.tracked_transport(make[wrong]())


# --- whose calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", EVERY, ids=str)
def test_concurrent_calls_of_many_customers_keep_apart(world: World) -> None:
    """Every customer's calls, plain and streamed, are that customer's, whatever else is going on."""
    names = [f"customer {number}" for number in range(24)]

    async def ask(app: App) -> None:
        def acts_for(name: str) -> Any:
            async def act() -> None:
                with customer_context(name, metadata={"for": name}):
                    for _ in range(4):
                        response = await app.send()
                        async for _ in app.chunks(response):
                            await app.pause()
                        await app.close(response)

            return act

        await app.together(*map(acts_for, names))

    done = run(ask, world, Script(body=CHAT))
    assert done.raised is None
    assert sorted(map(str, customers(done))) == sorted(names * 4)
    assert all(event["metadata"] == {"for": event["customer_id"]} for event in done.events)
    assert all(event["usage_status"] == "complete" for event in done.events)


async def _finish(app: App, chunks: Any, response: Any) -> None:
    async for _ in chunks:
        pass
    await app.close(response)


async def in_another_task(app: App, chunks: Any, response: Any) -> None:
    """Another thread or task finishes it, for a customer of its own."""

    async def act() -> None:
        with customer_context("somebody else"):
            await _finish(app, chunks, response)

    await app.together(act)


async def in_another_context(app: App, chunks: Any, response: Any) -> None:
    """It is finished inside another customer's block."""
    with customer_context("somebody else", metadata={"feature": "other"}):
        await _finish(app, chunks, response)


async def outside(app: App, chunks: Any, response: Any) -> None:
    """It is finished when its customer's block has been left."""
    await _finish(app, chunks, response)


async def closed_elsewhere(app: App, chunks: Any, response: Any) -> None:
    """It is not finished, but closed by somebody else."""
    with customer_context("somebody else"):
        await app.close(response)


@pytest.mark.parametrize(
    "finish", [in_another_task, in_another_context, outside, closed_elsewhere], ids=lambda each: each.__name__
)
@pytest.mark.parametrize("world", EVERY, ids=str)
def test_a_stream_belongs_to_whom_it_was_begun_for(world: World, finish: Any) -> None:
    """The customer is read once, when the request goes out."""

    async def ask(app: App) -> None:
        with customer_context("acme", metadata={"feature": "chat"}):
            response = await app.send()
            chunks = app.chunks(response)
            await anext(chunks)
        await finish(app, chunks, response)

    done = run(ask, world, Script(body=CHAT))
    assert done.raised is None
    assert [(event["customer_id"], event["metadata"]) for event in done.events] == [
        ("acme", {"feature": "chat"})
    ]


@pytest.mark.parametrize("world", EVERY, ids=str)
def test_a_stream_that_is_collected_belongs_to_whom_it_was_begun_for(world: World) -> None:
    """Garbage collection runs in whatever context it likes."""

    async def ask(app: App) -> None:
        with customer_context("acme"):
            response = await app.send()
            chunks = app.chunks(response)
            await anext(chunks)
        with customer_context("somebody else"):
            del response, chunks
            await app.turn()

    assert customers(run(ask, world, Script(body=CHAT))) == ["acme"]


# --- the default tracker ----------------------------------------------------------------------------


@four_ways
def test_a_client_follows_when_the_default_tracker_is_replaced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`configure()` counts for clients made before it, too; a call that is under way stays where it began."""
    monkeypatch.setattr(tracker_module, "_default", None)
    received: dict[str, list[str | None]] = {"first": [], "second": []}

    def configured(name: str) -> Tracker:
        def receive(events: list[UsageEvent]) -> None:
            received[name] += [event.customer_id for event in events]

        return configure(sinks=[receive], home=tmp_path / name)

    async def ask(app: App) -> None:
        app.client._transport = world.tracked_transport(app.client._transport)
        await app.call(headers=tracking_headers("one"))
        under_way = await app.send(headers=tracking_headers("two"))
        trackers.append(configured("second"))
        await app.call(headers=tracking_headers("three"))
        await app.close(under_way)

    trackers = [configured("first")]
    done = run(ask, world, ANSWER, tracked=False, captured=False)
    assert done.raised is None
    for tracker in trackers:
        assert tracker.flush(50)
        tracker.close()
    configure(sinks=[])
    assert received == {"first": ["one", "two"], "second": ["three"]}


FORKED = """
import os
from endings import CHAT
from four_ways import FOUR, Script, run

async def ask(app):
    response = await app.send(headers={"X-Cmdrdata-Customer-Id": "of the parent"})
    chunks = app.chunks(response)
    await anext(chunks)
    child = os.fork()
    async for chunk in chunks:
        pass
    await app.close(response)
    if not child:
        try:
            assert app.events == [], app.events
            response = await app.send(headers={"X-Cmdrdata-Customer-Id": "of the child"})
            async for chunk in app.chunks(response):
                pass
            assert [event.customer_id for event in app.events] == ["of the child"], app.events
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

for world in FOUR:
    done = run(ask, world, Script(body=CHAT))
    assert done.raised is None, done.raised
    assert [event["customer_id"] for event in done.events] == ["of the parent"], done.events
"""


def test_a_stream_that_a_parent_began_is_not_the_childs_to_record() -> None:
    """After a fork both hold it, and the parent tells it; the child tells what it begins itself."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_redirected_request_still_names_its_model(library: Any) -> None:
    """The library makes the next hop's request from the same bytes, and does not read them again."""

    def answer(request: Any) -> Any:
        if request.url.path == "/v1/chat/completions":
            return library.Response(
                307, headers={"location": "https://eu.api.openai.com/v2/chat/completions"}
            )
        return library.Response(200, json={"usage": {"prompt_tokens": 5, "completion_tokens": 2}})

    ours = over_httpx if library is httpx else over_httpx2
    transport = ours.TrackedTransport(library.MockTransport(answer))
    with capture_usage() as events, library.Client(transport=transport, follow_redirects=True) as client:
        client.post(URL, json={"model": "gpt-5"})
    (event,) = events
    assert (event.request_model, event.model, event.usage.total_tokens) == ("gpt-5", "gpt-5", 7)
