"""Usage that nobody asked for is asked for, and what comes of it is not seen.

The first part is about bytes: what becomes of a request's body, and of a stream. The second runs clients
over the server of this module, which states usage to those who ask and may refuse to, or over scripted
answers, tracked and bare, and compares what the application sees.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import httpx
import pytest
from endings import CHAT, COUNTS, DONE, ENDINGS, HELLO, STOP, USAGE, WORLD, Ending
from exchange import Fixture, coded, cut, fixtures
from four_ways import EVERY, FOUR, TRIO, URL, App, Run, Script, Wait, World, run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmdrdata_transport import asking as module
from cmdrdata_transport.asking import LARGEST_REQUEST, Veil, asking, may_change, veil_for
from cmdrdata_transport.attribution import tracking_headers
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.tracker import Tracker
from cmdrdata_transport.wire.coding import decoder_for
from cmdrdata_transport.wire.json import parse
from cmdrdata_transport.wire.recoding import CODINGS

four_ways = pytest.mark.parametrize("world", FOUR, ids=str)

# --- what is asked ----------------------------------------------------------------------------------

PROMPTS = st.text() | st.sampled_from(
    [
        '"stream": true',
        '"stream_options": {',
        '"stream_options": null',
        '{"stream_options": {"include_usage": false}}',
        "\\",
        "}",
        '"}',
        "include_usage",
        "\u2028\ud800",
    ]
)
NAMES = st.sampled_from(["stream", "stream_options", "messages", "content", "metadata", "include_usage"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PROMPTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PROMPTS | NAMES, inner, max_size=3),
    max_leaves=8,
)
OPTIONS = st.none() | st.dictionaries(
    st.sampled_from(["include_obfuscation", "continuous_usage_stats", "stream_options"]), VALUES
)
WRITTEN: list[dict[str, Any]] = [
    {"separators": (",", ":"), "ensure_ascii": False},
    {"separators": (" , ", " : ")},
    {"indent": 2},
    {"indent": "\t", "ensure_ascii": False},
    {},
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """The body of a request for a stream that does not say whether it wants usage, written in some way."""
    members = draw(st.dictionaries(PROMPTS | NAMES, VALUES, max_size=4))
    members.pop("stream", None)
    members.pop("stream_options", None)
    pairs = [*members.items(), ("stream", True)]
    if draw(st.booleans()):
        pairs.append(("stream_options", draw(OPTIONS)))
    text = json.dumps(dict(draw(st.permutations(pairs))), **draw(st.sampled_from(WRITTEN)))
    before = draw(st.sampled_from([b"", b" \n", b"\xef\xbb\xbf"]))
    return before + text.encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"", b"\n", b" \r\n\t"]))


def is_one_splice(old: bytes, new: bytes) -> bool:
    """Whether `new` is `old` with something put in at one place, or in the place of one `null`."""
    same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
    # A splice may begin with what stands behind it, so it may have been anywhere before.
    return any(
        old[at : at + len(gone)] == gone and new.endswith(old[at + len(gone) :])
        for gone in (b"", b"null")
        for at in range(same + 1)
        if len(new) >= len(old) - len(gone)
    )


@given(body=requests())
@example(body=b'{"stream":true}')
@example(body=b'{"stream_options":{ \n},"stream" : true , "m":{"stream_options":{}}}\n')
@example(body=b'{"metadata":{"stream_options":null},"stream_options":null,"stream":true}')
@example(body=b'{"stream":false,"stream":true,"stream_options":{"include_usage":true},"stream_options":{}}')
def test_a_body_asks_for_usage_by_one_splice(body: bytes) -> None:
    """Any request for a stream becomes the same request and the option; nothing else moves by a byte."""
    asked = asking(body)
    assert asked is not None
    document = parse(body)
    options = {**(document.get("stream_options") or {}), "include_usage": True}
    assert parse(asked) == {**document, "stream_options": options}
    assert is_one_splice(body, asked)
    assert asking(asked) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'["stream", true]',
        b'{"stream": true',
        b'{"stream": true} {}',
        b'{"model": "m"}',
        b'{"stream": false}',
        b'{"stream": 1}',
        b'{"stream": "true"}',
        b'{"stream": null}',
        b'{"stream": true, "stream": false}',
        b'{"messages": [{"stream": true}]}',
        b'{"prompt": "\\"stream\\": true"}',
        b'{"stream": true, "stream_options": {"include_usage": true}}',
        b'{"stream": true, "stream_options": {"include_usage": false}}',
        b'{"stream": true, "stream_options": {"include_usage": null}}',
        b'{"stream": true, "stream_options": []}',
        b'{"stream": true, "stream_options": "none"}',
        b'{"stream": true, "stream_opti\\u006fns": {}}',
        '{"stream": true}'.encode("utf-16"),
        b'{"stream": true, "prompt": "%s"}' % (b"x" * LARGEST_REQUEST),
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_a_body_is_left_as_it_is(body: bytes) -> None:
    """No stream, no JSON, too large, or the caller's own word on usage: nothing is changed."""
    assert asking(body) is None


def test_a_body_full_of_the_same_words_costs_no_time() -> None:
    """Only a few places are tried for the caller's own options; among too many it is left alone."""
    words = b'{"stream_options":{}},' * 20_000
    assert asking(b'{"stream":true,"m":[%s0],"stream_options":{}}' % words) is None


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ([(b"Authorization", b"Bearer sk-1")], True),
        ([(b"authorization", b"Basic c2lnbmF0dXJl")], True),
        ([(b"api-key", b"k"), (b"x-stainless-lang", b"python")], True),
        ([(b"Authorization", b"AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c")], False),
        ([(b"Authorization", b'Signature version="1",headers="date x-content-sha256"')], False),
        ([(b"Authorization", b"HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c")], False),
        ([(b"Authorization", b'Digest username="a", qop=auth-int')], False),
        ([(b"X-Amz-Content-SHA256", b"0")], False),
        ([(b"Content-Digest", b"sha-256=:x:")], False),
        ([(b"Signature-Input", b"sig=()")], False),
        ([(b"Content-MD5", b"x")], False),
        ([(b"X-Hub-Signature", b"x")], False),
        ([(b"Content-Encoding", b"gzip")], False),
    ],
)
def test_what_is_signed_or_coded_may_not_change(headers: list[tuple[bytes, bytes]], may: bool) -> None:  # noqa: FBT001
    """A signature or a digest of the body would be wrong of another body; a coding hides it."""
    names = b"\n".join(name for name, _ in headers).lower()
    assert may_change(names, headers) is may


# --- what is hidden ---------------------------------------------------------------------------------


def nothing_lost(why: str) -> None:
    """Nothing may go wrong here."""
    raise AssertionError(why)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, as bytes, and whether it is the answer to what we asked."""

    raw: bytes
    hidden: bool = False

    @property
    def whole_at(self) -> int:
        """How many of its bytes make it whole: the LF of a last CRLF may be still to come."""
        return len(self.raw) - self.raw.endswith(b"\r\n")


TEXTS = ["Hello", "[]", '"choices":[]', "a [list", "{", '"usage":{"a":1}', "\n\n", "\u2028", ""]
SHARED = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-5"}


def spoken(text: str, more: dict[str, Any]) -> dict[str, Any]:
    """What most events say."""
    return {**SHARED, "choices": [{"index": 0, "delta": {"content": text}}], **more}


KEPT = st.one_of(
    st.builds(
        spoken,
        st.sampled_from(TEXTS),
        st.sampled_from([{}, {"usage": None}, {"usage": USAGE}, {"tool_calls": []}]),
    ),
    st.sampled_from(
        [
            {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
            {**SHARED, "choices": [], "usage": None, "moderation": {"results": []}},
            {**SHARED, "choices": [], "usage": USAGE, "moderation": {"results": [{"flagged": False}]}},
            {**SHARED, "choices": [], "usage": USAGE, "citations": ["https://example.org"]},
            {**SHARED, "choices": []},
            {"choices": [], "error": {"message": "overloaded"}, "usage": {}},
            {"usage": USAGE},
            {"error": {"message": '"choices":[]'}},
            ["choices", []],
        ]
    ),
)
HIDDEN = st.sampled_from(
    [
        {**SHARED, "choices": [], "usage": USAGE},
        {"usage": {}, "choices": []},
        {**SHARED, "choices": [], "usage": USAGE, "obfuscation": "aB3", "service_tier": "default"},
        {**SHARED, "usage": {**USAGE, "prompt_tokens_details": None}, "timings": {"n": 1}, "choices": []},
        {**SHARED, "choices": [], "usage": USAGE, "citations": None, "moderation": None},
    ]
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An event of any kind, its lines ended in any way."""
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    lines = draw(st.sampled_from([[], [b": a comment"], [b"event: message"], [b"id: 7", b"retry: 3"]]))
    hidden = draw(st.booleans())
    match draw(st.sampled_from(["document", "document", "document", "done", "nothing", "no JSON"])):
        case "done":
            hidden, lines = False, [*lines, b"data: [DONE]"]
        case "nothing":
            hidden, lines = False, [*lines, b": keep-alive"]
        case "no JSON":
            hidden, lines = False, [*lines, b'data: {"choices":[], "usage": {']
        case _:
            separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
            document = draw(HIDDEN if hidden else KEPT)
            said = json.dumps(document, ensure_ascii=False, separators=separators).encode()
            if draw(st.booleans()):
                said = said.replace(b"[]", b"[ ]")
            prefix = draw(st.sampled_from([b"data: ", b"data:"]))
            if hidden and draw(st.booleans()):
                parts = said.partition(b",")
                lines = [*lines, prefix + parts[0] + parts[1], prefix + parts[2]]
            else:
                lines = [*lines, prefix + said]
    return Event(b"".join(line + end for line in lines) + end, hidden)


@st.composite
def streams(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[Event]:
    """A stream of events; the last may lack its blank line."""
    drawn: list[Event] = draw(st.lists(events(), max_size=6))
    if drawn and draw(st.booleans()):
        first = drawn[0]
        drawn[0] = Event(b"\xef\xbb\xbf" + first.raw, first.hidden and not first.raw.startswith(b"data"))
    if drawn and draw(st.booleans()):
        last = drawn[-1]
        drawn[-1] = Event(last.raw[: last.whole_at - 1], last.hidden)
    return drawn


@settings(max_examples=400)
@given(stream=streams(), places=st.lists(st.integers(0, 2000), max_size=12))
def test_the_answer_is_hidden_and_nothing_else(stream: list[Event], places: list[int]) -> None:
    """In whatever chunks: what is seen is the stream without these events, and no whole event waits."""
    body = b"".join(event.raw for event in stream)
    seen = b"".join(event.raw for event in stream if not event.hidden)
    veil = Veil(nothing_lost)
    shown, came = b"", 0
    ends = list(accumulate(len(event.raw) for event in stream))
    for chunk in cut(body, places):
        shown += veil.show(chunk)
        came += len(chunk)
        whole = sum(
            event.whole_at if came < end else len(event.raw)
            for event, end in zip(stream[:-1], ends, strict=False)
            if not event.hidden and came >= end - len(event.raw) + event.whole_at
        )
        assert whole <= len(shown)
        assert seen.startswith(shown)
    assert shown + veil.rest() == seen
    assert veil.rest() == b""


@settings(max_examples=60)
@given(stream=streams(), places=st.lists(st.integers(0, 4000), max_size=12), coding=st.sampled_from(CODINGS))
def test_the_answer_is_hidden_in_a_coding(stream: list[Event], places: list[int], coding: str) -> None:
    """What comes coded is seen in the same coding, flushed after each chunk, without these events."""
    seen = b"".join(event.raw for event in stream if not event.hidden)
    veil = veil_for(coding, nothing_lost)
    plain, decoder = Veil(nothing_lost), decoder_for(coding)
    before = decoder_for(coding)
    assert veil is not None
    assert decoder is not None
    assert before is not None
    shown = b""
    for chunk in cut(b"".join(coded([event.raw for event in stream], coding)), places):
        expected = b"".join(map(plain.show, before.decode(chunk)))
        assert b"".join(decoder.decode(veil.show(chunk))) == expected
        shown += expected
    assert shown + b"".join(decoder.decode(veil.rest())) == seen
    assert veil.rest() == b""


@pytest.mark.parametrize("coding", CODINGS)
def test_the_answer_is_hidden_wherever_a_coded_stream_is_cut(coding: str) -> None:
    """At every byte of a stream in each coding."""
    body = b"".join(coded(CHAT, coding))
    for place in range(len(body) + 1):
        veil, decoder = veil_for(coding, nothing_lost), decoder_for(coding)
        assert veil is not None
        assert decoder is not None
        shown = veil.show(body[:place]) + veil.show(body[place:]) + veil.rest()
        assert b"".join(decoder.decode(shown)) == HELLO + WORLD + STOP + DONE


def test_an_lf_that_follows_a_shown_cr_is_shown_at_once() -> None:
    """A reader may wait for it to see the event; the one behind a hidden event is hidden with it."""
    crlf = [each.replace(b"\n", b"\r\n") for each in (HELLO, COUNTS, DONE)]
    veil = Veil(nothing_lost)
    chunks = [crlf[0][:-1], b"\n", crlf[1][:-1], b"", b"\n" + crlf[2][:-1], b"\n"]
    assert [veil.show(chunk) for chunk in chunks] == [crlf[0][:-1], b"\n", b"", b"", crlf[2][:-1], b"\n"]


def test_what_is_no_stream_of_events_does_not_wait() -> None:
    """A document that comes instead is shown as it comes, whatever its chunks."""
    for chunks in ([b'{"choices":[],', b'"usage":{}}'], [b"\xef\xbb\xbf \n[", b"1]"], [b"\n\n", b"{", b"}"]):
        veil = Veil(nothing_lost)
        assert [veil.show(chunk) for chunk in chunks] == chunks
        assert veil.rest() == b""


def test_an_event_that_is_too_large_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a bound nothing is held back any more, which is counted."""
    monkeypatch.setattr(module, "LONGEST_WAIT", 100)
    lost: list[str] = []
    veil = Veil(lost.append)
    assert veil.show(b"data: " + b"x" * 94) == b""
    assert veil.show(b"y") == b"data: " + b"x" * 94 + b"y"
    assert veil.show(b"\n\n" + COUNTS) == b"\n\n" + COUNTS
    assert lost == ["too_large"]


def test_many_events_in_one_chunk_are_looked_through_once() -> None:
    """A stream that was buffered on its way costs time by its length."""
    veil = Veil(nothing_lost)
    assert veil.show(HELLO * 50_000 + COUNTS + DONE) == HELLO * 50_000 + DONE


@pytest.mark.parametrize(
    ("coding", "hides"),
    [("", True), ("identity", True), ("utf-8", True), ("GZIP", True), ("gzip, br", True), ("x-gzip", False)],
)
def test_what_can_be_hidden_follows_from_the_coding(coding: str, hides: bool) -> None:  # noqa: FBT001
    """A name that clients take for no coding is none; one that nothing here can make is not touched."""
    assert (veil_for(coding, nothing_lost) is not None) is hides


# --- over clients -----------------------------------------------------------------------------------

ASKS = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
KNOWN, ELSEWHERE = "http://api.openai.com/v1/chat/completions", "http://gateway.test/v1/chat/completions"
UNKNOWN_OPTION = b'{"error":{"message":"Unknown parameter: \'stream_options\'.","code":"unknown_parameter"}}'


def answers(*, asked: bool) -> list[bytes]:
    """The stream of a server: its usage, and members that are null, only for those who ask."""
    if asked:
        return list(CHAT)
    return [each.replace(b', "usage": null', b"") for each in CHAT if each is not COUNTS]


@dataclass(slots=True)
class Server:
    """A provider that states usage when asked; `refusing` is its answer to who asks, if it does not."""

    coding: str | None = None
    cuts: Sequence[int] | None = None
    refusing: Answer | None = None
    always: Answer | None = None
    """Its answer to everybody."""
    calls: list[Call] = field(default_factory=list[Call])

    def __call__(self, call: Call) -> Answer:
        """Answer."""
        self.calls.append(call)
        if self.always is not None:
            return self.always
        options = (parse(call.body) if call.body[:1] == b"{" else {}).get("stream_options") or {}
        asked = options.get("include_usage") is True
        if asked and self.refusing is not None:
            return self.refusing
        body = answers(asked=asked)
        if self.cuts is not None:
            body = cut(b"".join(body), self.cuts)
        return Answer(headers=[("content-type", "text/event-stream")], body=body, coding=self.coding)


def network(world: World, proxy: str) -> Any:
    """A transport of the library that reaches every host at the loopback server."""
    kind = "AsyncHTTPTransport" if world.way.is_async else "HTTPTransport"
    return getattr(world.library, kind)(proxy=proxy)


def over_network(
    server: Server, world: World, act: Callable[[App], Any], *, asks: Any = ASKS, **options: Any
) -> Run:
    """Run over real sockets."""
    with Loopback(server) as loopback:
        return run(act, world, between=lambda _: network(world, loopback.url), asks=asks, **options)


def asking_at(url: str, **request: Any) -> Callable[[App], Any]:
    """The application asks once, reads what it is answered, and logs it."""

    async def act(app: App) -> None:
        response = await app.send(url=url, **request)
        app.say(response.status_code)
        read = [chunk async for chunk in app.chunks(response)]
        await app.close(response)
        app.log.append(read)

    return act


def seen(done: Run) -> list[Any]:
    """What the application saw."""
    return [line for line in done.log if not isinstance(line, str) or line.startswith("app:")]


def read_of(done: Run) -> Any:
    """What the application read last: the chunks, or the body whole."""
    return [line for line in done.log if not isinstance(line, str)][-1]


def decoded(done: Run, coding: str | None) -> bytes:
    """The body that the application saw, its coding undone."""
    raw = b"".join(read_of(done))
    decoder = decoder_for(coding or "")
    return raw if decoder is None else b"".join(decoder.decode(raw))


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


@pytest.mark.parametrize("world", [FOUR[1], FOUR[2]], ids=str)
@settings(max_examples=50, deadline=None)
@given(stream=streams(), places=st.none() | st.lists(st.integers(0, 2000), max_size=12))
def test_the_answer_is_hidden_on_its_way_through_a_client(
    world: World, stream: list[Event], places: list[int] | None
) -> None:
    """The same as of bytes alone: most chunks pass without being asked about, and it makes no difference."""
    sent = [HELLO, HELLO, *(event.raw for event in stream), HELLO, COUNTS, DONE]
    if stream and not stream[-1].raw.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        sent = sent[:-3]
    kept = b"".join(event.raw for event in stream if not event.hidden)
    ending = HELLO + DONE if sent[-1] is DONE else b""
    chunks = sent if places is None else cut(b"".join(sent), places)
    done = run(asking_at(URL), world, Script(body=chunks), asks=ASKS)
    assert b"".join(read_of(done)) == HELLO + HELLO + kept + ending


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


# --- hosts that refuse ------------------------------------------------------------------------------

REFUSALS = {
    "400": Answer(status=400, body=UNKNOWN_OPTION),
    "400 in a coding": Answer(status=400, body=UNKNOWN_OPTION, coding="gzip"),
    "400 in pieces": Answer(status=400, body=[UNKNOWN_OPTION[:30], UNKNOWN_OPTION[30:]]),
    "400 cut off": Answer(status=400, body=[UNKNOWN_OPTION, b" "], close_after=1),
    "422": Answer(status=422, body=b'{"detail":[{"loc":["body","stream_options","include_usage"]}]}'),
}


@four_ways
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_host_that_refuses_is_not_asked_again(world: World, refusal: Answer) -> None:
    """The request is sent again as it was; the application sees that answer; the host is remembered."""

    async def twice(app: App) -> None:
        for _ in range(2):
            await asking_at(KNOWN)(app)

    server = Server(refusing=refusal)
    done = over_network(server, world, twice)
    assert [b"include_usage" in call.body for call in server.calls] == [True, False, False]
    assert server.calls[1].body == server.calls[2].body == json.dumps(ASKS, separators=(",", ":")).encode()
    assert seen(done) == ["app: 200", answers(asked=False)] * 2
    assert [event["usage_status"] for event in done.events] == ["missing", "missing"]
    assert (done.stats["injected"], done.stats["injections_refused"]) == (1, 1)


@four_ways
def test_two_calls_at_once_are_both_sent_again(world: World) -> None:
    """Neither sees the other's refusal, nor its own."""

    async def both(app: App) -> None:
        await app.together(*[lambda: asking_at(KNOWN)(app)] * 2)

    server = Server(refusing=REFUSALS["400"])
    done = over_network(server, world, both)
    assert [line for line in done.log if isinstance(line, list)] == [answers(asked=False)] * 2
    assert {event["status_code"] for event in done.events} == {200}


@four_ways
def test_one_host_that_refuses_does_not_speak_for_others(world: World) -> None:
    """Another host is asked all the same."""

    async def here_and_there(app: App) -> None:
        await asking_at(KNOWN)(app)
        server.refusing = None
        await asking_at(KNOWN.replace("api.", "eu.api."))(app)

    server = Server(refusing=REFUSALS["400"])
    over_network(server, world, here_and_there)
    assert [b"include_usage" in call.body for call in server.calls] == [True, False, True]


@four_ways
def test_a_refusal_of_both_is_shown_and_not_remembered(world: World) -> None:
    """A server that repeats the request in its error names our option, and did not refuse it."""
    server = Server(always=Answer(status=422, body=b'{"input":{"stream_options":{}},"msg":"temperature"}'))
    done = over_network(server, world, asking_at(KNOWN))
    assert [b"include_usage" in call.body for call in server.calls] == [True, False]
    assert done.log[-2:] == ["app: 422", [b'{"input":{"stream_options":{}},"msg":"temperature"}']]
    assert "injections_refused" not in done.stats


OTHER_REFUSALS = {
    "400": Answer(status=400, body=[b'{"error":', b'"bad"}']),
    "400, empty": Answer(status=400, body=b""),
    "400 in a coding": Answer(status=400, body=[b'{"error":', b'"bad"}'], coding="gzip"),
    "400, large": Answer(status=400, body=[b"x" * 40_000] * 3 + [UNKNOWN_OPTION]),
    "400, damaged": Answer(status=400, headers=[("content-encoding", "gzip")], body=[b"no", b"gzip"]),
    "401 that names it": Answer(status=401, body=UNKNOWN_OPTION),
    "500 that names it": Answer(status=500, body=UNKNOWN_OPTION),
}


@four_ways
@pytest.mark.parametrize("refusal", OTHER_REFUSALS.values(), ids=OTHER_REFUSALS)
def test_other_refusals_are_the_applications(world: World, refusal: Answer) -> None:
    """The same head, the same bytes, one request."""
    logs = []
    for tracked in (False, True):
        server = Server(always=refusal)
        done = over_network(server, world, asking_at(KNOWN), tracked=tracked)
        assert len(server.calls) == 1
        logs.append([*done.log[:-1], b"".join(read_of(done))])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("world", EVERY, ids=str)
@pytest.mark.parametrize("broken", [True, False], ids=["lost", "whole"])
def test_a_refusal_comes_up_in_the_same_chunks(world: World, broken: bool) -> None:  # noqa: FBT001
    """Each chunk, and the error that a lost connection is, come as from below, if a little later."""
    runs = []
    for tracked in (False, True):
        read: list[bytes] = []

        async def act(app: App, read: list[bytes] = read) -> None:
            response = await app.send()
            async for chunk in app.chunks(response):
                read.append(chunk)  # noqa: PERF401 - what came before an error counts

        error = [world.library.ReadError("the network's own")] if broken else []
        script = Script(status=400, body=[b"a", b"b", *error], headers=[])
        done = run(act, world, script, asks=ASKS, tracked=tracked)
        runs.append((read, sorted(done.log), repr(done.raised)))
    assert runs[0] == runs[1]
    assert runs[0][0] == [b"a", b"b"]


@pytest.mark.parametrize("world", [world for world in EVERY if world.way.is_async], ids=str)
def test_a_call_that_is_given_up_while_a_refusal_is_read_leaves_nothing_open(world: World) -> None:
    """A task that is cancelled then closes the answer that nobody has seen."""

    async def act(app: App) -> None:
        async def asking(now: Callable[[], None]) -> None:
            now()
            await app.send()

        await app.give_up_on(asking)
        await app.turn()

    done = run(act, world, Script(status=400, body=[b"a", Wait()], headers=[]), asks=ASKS)
    assert "stream: close" in done.log
    assert [event["outcome"] for event in done.events] == ["cancelled"]


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
