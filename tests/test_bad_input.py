"""Whatever an answer is made of, the application receives exactly its bytes, and each loss has a name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
from endings import CHAT, COUNTS, DOCUMENT, HELLO, JSON, STOP, USAGE, event
from exchange import CODINGS, coded, coding_header, cut
from four_ways import FOUR, URL, App, Run, Script, World, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmdrdata_transport.event import UNITS
from cmdrdata_transport.providers import PROVIDERS

SSE = (("content-type", "text/event-stream"),)
HTML = (("content-type", "text/html; charset=utf-8"),)
PLAIN: tuple[tuple[str, str], ...] = ()
GZIP = ("content-encoding", "gzip")

four_ways = pytest.mark.parametrize("world", FOUR, ids=str)


def read(world: World, script: Script, **request: Any) -> Run:
    """Read an answer raw, chunk by chunk, then another one like it whole: as without us, and counted once."""
    seen: dict[bool, list[Any]] = {False: [], True: []}
    done: dict[bool, Run] = {}
    for tracked, chunks in seen.items():

        async def look(app: App, chunks: list[Any] = chunks) -> None:
            response = await app.send(**request)
            chunks.extend([chunk async for chunk in app.chunks(response)])
            await app.close(response)

        async def decode(app: App, chunks: list[Any] = chunks) -> None:
            chunks.append((await app.call(**request)).content)

        options: dict[str, Any] = {"customer_id": "acme"} if tracked else {}
        done[tracked] = run(look, world, script, tracked=tracked, **options)
        assert done[tracked].raised is None
        whole = run(decode, world, script, tracked=tracked, **options)
        chunks.append(repr(whole.raised))
        assert len(whole.events) == len(done[tracked].events) == tracked
        assert "internal_errors" not in whole.stats | done[tracked].stats
    assert seen[True] == seen[False]
    return done[True]


def told(done: Run) -> dict[str, Any]:
    """The one event."""
    (only,) = done.events
    return only


def document(**members: Any) -> bytes:
    """A plain answer with these members instead of its own."""
    return json.dumps({**json.loads(DOCUMENT), **members}).encode()


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    return json.loads("[" * depth + "]" * depth)


@dataclass(frozen=True, slots=True)
class Bad:
    """An answer that nobody should send, and what must come of it."""

    name: str
    headers: Sequence[tuple[str, str] | tuple[bytes, bytes]]
    body: Sequence[bytes]
    usage_status: str
    counts: tuple[str, ...] = ()
    status: int = 200

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


HELLO_WORLD = b'"Hello world"'
NOISE = bytes(range(256)) * 64
CODED = gzip.compress(DOCUMENT)
CODED_STREAM = coded(CHAT, "gzip")
PING = b"data: ping\n\n"
VERY_DEEP = DOCUMENT.replace(b"12}", b'12, "x": %s}' % (b"[" * 1000 + b"]" * 1000))
"""Deep enough to be read, and too deep to be written."""
DEEP = b"[" * 100_000 + b"]" * 100_000

MISSING = ("missing", ("missing",))
UNPARSED = ("missing", ("unparsed", "missing"))
NO_STREAM = ("partial", ("unparsed", "partial"))
UNDECODABLE = ("missing", ("undecodable", "missing"))
COMPLETE = ("complete", ())
HALF_DECODED = ("complete", ("undecodable",))
WITHOUT_RAW = ("complete", ("raw_usage_dropped",))
REFUSED = ("none", ())

BAD = (
    # What it says it is, and what it is.
    Bad("an SSE stream that says JSON", JSON, CHAT, *COMPLETE),
    Bad("an SSE stream that says HTML", HTML, CHAT, *COMPLETE),
    Bad("an SSE stream that says nothing", PLAIN, CHAT, *COMPLETE),
    Bad("JSON that says SSE", SSE, [DOCUMENT], *COMPLETE),
    Bad("JSON that says HTML", HTML, [DOCUMENT], *COMPLETE),
    Bad("JSON that says nothing", PLAIN, [DOCUMENT[:9], DOCUMENT[9:]], *COMPLETE),
    Bad("a content type that is none", [(b"content-type", b"\xff;;=\xfe")], [DOCUMENT], *COMPLETE),
    Bad("HTML", HTML, [b"<!doctype html>", b"<p>it works"], *UNPARSED),
    Bad("HTML that says JSON", JSON, [b"<!doctype html>", b"<p>it works"], *UNPARSED),
    Bad("HTML that says SSE", SSE, [b"<!doctype html>", b"<p>it works"], *NO_STREAM),
    Bad("noise that says JSON", JSON, [NOISE[130:], NOISE], *UNPARSED),
    Bad("noise that says SSE", SSE, [NOISE[130:], NOISE], *NO_STREAM),
    Bad("noise that says nothing", PLAIN, [NOISE[130:], NOISE], *UNPARSED),
    Bad("nothing", JSON, [], *MISSING),
    Bad("nothing but empty chunks", SSE, [b"", b""], *MISSING),
    Bad("nothing but blanks", JSON, [b" " * 5000, b"\r\n" * 5000], *MISSING),
    Bad("no content", JSON, [], *MISSING, status=204),
    # Content codings.
    Bad("gzip cut short", [*JSON, GZIP], [CODED[:-30]], *UNPARSED),
    Bad("gzip cut in its header", [*JSON, GZIP], [CODED[:5]], *MISSING),
    Bad("gzip without its checksum", [*JSON, GZIP], [CODED[:-8]], *COMPLETE),
    Bad("gzip with a wrong checksum", [*JSON, GZIP], [CODED[:-8], b"12345678"], *HALF_DECODED),
    Bad("gzip with a trailer", [*JSON, GZIP], [CODED, b"trailer"], *COMPLETE),
    Bad("gzip damaged", [*JSON, GZIP], [CODED[:20] + b"\xff" * 20 + CODED[40:]], *UNDECODABLE),
    Bad("gzip of an unfinished stream", [*SSE, GZIP], CODED_STREAM[:4], *COMPLETE),
    Bad("a stream damaged at its end", [*SSE, GZIP], [*CODED_STREAM[:4], NOISE], *HALF_DECODED),
    Bad("plain that says gzip", [*JSON, GZIP], [DOCUMENT], *UNDECODABLE),
    Bad("gzip that says deflate", [*JSON, ("content-encoding", "deflate")], [CODED], *UNDECODABLE),
    Bad("gzip that says nothing", JSON, [CODED], *UNPARSED),
    Bad("a coding of the future", [*JSON, ("content-encoding", "zip2")], [CODED], *UNPARSED),
    Bad("a charset for a coding", [*JSON, ("content-encoding", "utf-8")], [DOCUMENT], *COMPLETE),
    Bad("many codings", [*JSON, ("content-encoding", "gzip," * 50)], [CODED], *UNDECODABLE),
    # JSON.
    Bad("JSON cut short", JSON, [DOCUMENT[:-1]], *UNPARSED),
    Bad("JSON twice", JSON, [DOCUMENT, DOCUMENT], *UNPARSED),
    Bad("JSON of another kind", JSON, [b"[1, null, [], {}]"], *MISSING),
    Bad("an empty list", JSON, [b"[]"], *MISSING),
    Bad("JSON that is too deep", JSON, [DEEP], *UNPARSED),
    Bad("JSON behind blanks", JSON, [b"\n" * 9000, b" ", DOCUMENT], *COMPLETE),
    Bad("JSON behind a byte order mark", JSON, [b"\xef\xbb", b"\xbf" + DOCUMENT], *COMPLETE),
    Bad("a byte order mark alone", JSON, [b"\xef\xbb\xbf"], *MISSING),
    Bad("invalid UTF-8", JSON, [DOCUMENT.replace(b"Hello", b"\xff\xc0\xed\xa0\x80")], *COMPLETE),
    Bad("lone surrogates", JSON, [DOCUMENT.replace(b"Hello", b"\\ud800 \\udfff")], *COMPLETE),
    Bad("lone surrogates in the names", JSON, [DOCUMENT.replace(b"gpt-5", b"gpt-\\ud800")], *COMPLETE),
    Bad("NUL in the names", JSON, [DOCUMENT.replace(b"gpt-5", b"gpt-\\u0000")], *COMPLETE),
    Bad("NaN in the content", JSON, [DOCUMENT.replace(HELLO_WORLD, b"NaN")], *COMPLETE),
    Bad("a number of many digits", JSON, [DOCUMENT.replace(HELLO_WORLD, b"9" * 400)], *COMPLETE),
    Bad("a number of too many digits", JSON, [DOCUMENT.replace(HELLO_WORLD, b"9" * 9000)], *UNPARSED),
    Bad("control characters", JSON, [DOCUMENT.replace(b"Hello", b"\x01\t\x7f")], *UNPARSED),
    Bad("usage that is a list", JSON, [document(usage=[USAGE])], *MISSING),
    Bad("usage that is text", JSON, [document(usage="12")], *MISSING),
    Bad("usage that is null", JSON, [document(usage=None)], *MISSING),
    Bad("usage without a count", JSON, [document(usage={"prompt_tokens": None})], *MISSING),
    Bad("choices that are none", JSON, [document(choices={"0": 1}, model=["a"], id={})], *COMPLETE),
    Bad("a name without end", JSON, [document(model="m" * 100_000, id="i" * 100_000)], *COMPLETE),
    Bad("usage that is deep", JSON, [document(usage={**USAGE, "x": nested(300)})], *COMPLETE),
    Bad("usage that is very deep", JSON, [VERY_DEEP], *WITHOUT_RAW),
    Bad("usage that is large", JSON, [document(usage={**USAGE, "x": "x" * 300_000})], *WITHOUT_RAW),
    # Server-sent events.
    Bad("an unknown event type", SSE, [b'event: new\ndata: {"type": "new"}\n\n', *CHAT], *COMPLETE),
    Bad("fields of the future", SSE, [b"retry: 1\nid: 7\nnew: x\ndata\n:\n\n", *CHAT], *COMPLETE),
    Bad("an event that is no JSON", SSE, [PING, *CHAT[:3], b"data: {\n\n", *CHAT[3:]], *COMPLETE),
    Bad("only events that are no JSON", SSE, [PING] * 3, *NO_STREAM),
    Bad("only comments", SSE, [b": ping\n\n"] * 3, *NO_STREAM),
    Bad("invalid UTF-8 in an event", SSE, [HELLO.replace(b"Hello", b"\xff\xfe"), *CHAT], *COMPLETE),
    Bad("invalid UTF-8 by the counts", SSE, [STOP, COUNTS.replace(b"gpt-5", b"\xff"), CHAT[4]], *COMPLETE),
    Bad("NaN beside the counts", SSE, [STOP, event(x=float("nan"), usage=USAGE), CHAT[4]], *COMPLETE),
    Bad("a stream that ends in a list", SSE, [*CHAT[:4], b"data: [[[]]]\n\n", CHAT[4]], *COMPLETE),
    Bad("done and nothing else", SSE, [CHAT[4]], *MISSING),
    # Refusals.
    Bad("a refusal in HTML", HTML, [b"<h1>502</h1>"], *REFUSED, status=502),
    Bad("a refusal in noise", JSON, [NOISE], *REFUSED, status=500),
    Bad("a refusal coded wrongly", [*JSON, GZIP], [b"{}"], "none", ("undecodable",), status=500),
    Bad("a refusal in text", JSON, [b'{"error": "no"}'], *REFUSED, status=400),
    Bad("a refusal of objects", JSON, [b'{"error": {"type": {}, "code": []}}'], *REFUSED, status=400),
    Bad("a refusal in a list", JSON, [b'[{"error": {"status": "X"}}, 1]'], *REFUSED, status=400),
    Bad("a refusal without end", JSON, [b'{"error": "' + b"x" * 70_000] * 9, *REFUSED, status=400),
    Bad("an unknown status", JSON, [DOCUMENT], *COMPLETE, status=299),
)  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
@four_ways
def test_a_bad_answer_costs_its_reading_and_nothing_else(world: World, bad: Bad) -> None:
    """The application sees the same bytes, chunks and errors; one event says what is known."""
    done = read(world, Script(body=bad.body, headers=bad.headers, status=bad.status))
    event = told(done)
    assert event["usage_status"] == bad.usage_status
    assert done.stats == {"events": 1, **dict.fromkeys(bad.counts, 1)}
    if bad.usage_status == "complete":
        assert event["total_tokens"] == 12
        assert ("raw_usage" in event) == ("raw_usage_dropped" not in bad.counts)
    assert event["customer_id"] == "acme"
    assert event["status_code"] == bad.status


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("7", 7),
        ("0", 0),
        ("7.0", 7),
        ('"7"', 7),
        ("9007199254740991", 9007199254740991),
        ("9007199254740992", None),
        ("18446744073709551616", None),
        ("9" * 400, None),
        ("1e400", None),
        ("-7", None),
        ("-0.5", None),
        ("7.5", None),
        ("NaN", None),
        ("Infinity", None),
        ("-Infinity", None),
        ('"seven"', None),
        ('"-7"', None),
        ('"7.5"', None),
        ('"1_000"', None),
        ('""', None),
        ('"NaN"', None),
        ('"\\u0667"', None),
        ('"' + "9" * 5000 + '"', None),
        ("true", None),
        ("[7]", None),
        ('{"tokens": 7}', None),
    ],
    ids=lambda each: str(each)[:20],
)
@four_ways
def test_what_is_no_count_is_left_out_and_counted(world: World, said: str, count: int | None) -> None:
    """Whole numbers are counts, however they are written; anything else is not guessed at."""
    body = b'{"id": "x", "usage": {"prompt_tokens": %s, "completion_tokens": 7}}' % said.encode()
    done = read(world, Script(body=[body], headers=JSON))
    assert told(done).get("input_tokens") == count
    assert told(done)["output_tokens"] == 7
    assert done.stats == {"events": 1, **({} if count is not None else {"bad_counts": 1})}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": 5}',
        b'{"model": ""}',
        b'{"model": ["gpt-5"]}',
        b"{" + NOISE,
        DEEP.replace(b"[", b'{"a":['),
        b'{"model": "gpt-5", "input": "' + b"x" * 2_000_000 + b'"}',
    ],
    ids=lambda content: content[:20].decode(),
)
@four_ways
def test_a_bad_request_is_sent_as_it_is(world: World, content: bytes) -> None:
    """Of a request body only the model is read, where it can be."""
    done = read(world, Script(body=[DOCUMENT], headers=JSON), json=None, content=content)
    assert done.below.requests[0].content == content
    assert "request_model" not in told(done)
    assert told(done)["total_tokens"] == 12


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize(
    "url", [URL, "https://api.anthropic.com/v1/messages", "https://api.openai.com/v1/responses"]
)
@pytest.mark.parametrize("headers", [SSE, JSON, [*SSE, GZIP]], ids=["sse", "json", "gzip"])
@four_ways
def test_chunks_of_other_types_go_up_as_they_are(
    world: World, headers: Any, url: str, kind: type[bytearray | memoryview]
) -> None:
    """The libraries take whatever can be joined; so do we."""
    body = coded(CHAT, "gzip") if GZIP in headers else CHAT
    chunks = [kind(chunk) for chunk in body]
    seen: list[Any] = []

    async def look(app: App) -> None:
        seen.extend([chunk async for chunk in app.chunks(await app.send(url=url))])

    done = run(look, world, Script(body=chunks, headers=headers), customer_id="acme")
    assert done.raised is None
    assert len(seen) == len(chunks)
    assert all(got is sent for got, sent in zip(seen, chunks, strict=True))
    assert len(done.events) == 1


# --- anything at all --------------------------------------------------------------------------------

HOST = {"openai": "api.openai.com", "azure": "x.openai.azure.com", "anthropic": "api.anthropic.com",
        "google": "generativelanguage.googleapis.com", "groq": "api.groq.com"}  # fmt: skip

ENDPOINTS = [
    ("openai", "/v1/chat/completions"),
    ("openai", "/v1/completions"),
    ("openai", "/v1/responses"),
    ("openai", "/v1/embeddings"),
    ("anthropic", "/v1/messages"),
    ("google", "/v1beta/models/gemini-9:generateContent"),
    ("google", "/v1beta/models/gemini-9:streamGenerateContent"),
    ("google", "/v1beta/models/gemini-9:batchEmbedContents"),
    ("google", "/v1/projects/p/locations/l/publishers/google/models/e:predict"),
    ("google", "/v1beta/openai/chat/completions"),
    ("groq", "/openai/v1/chat/completions"),
]
URLS = [f"https://{HOST[provider]}{path}" for provider, path in ENDPOINTS]


def words(table: object) -> set[str]:
    """Every word that stands in a provider's table: the keys and values that its answers are made of."""
    match table:
        case str():
            return {table}
        case Mapping():
            return set().union(*(words(each) for pair in table.items() for each in pair))
        case tuple() | frozenset():
            return set().union(*map(words, table))
        case _ if is_dataclass(table):
            return set().union(*(words(getattr(table, each.name)) for each in fields(table)))
        case _:
            return set()


WORDS = sorted({word for each in PROVIDERS for endpoint in each.endpoints for word in words(endpoint.shape)})

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=40,
)


def observed(world: World, script: Script, url: str) -> None:
    """Read it: the bytes arrive, one event (or more, in parts) comes of it, and nothing failed inside."""
    seen: list[bytes] = []

    async def look(app: App) -> None:
        response = await app.send(url=url)
        seen.extend([chunk async for chunk in app.chunks(response)])
        await app.close(response)

    done = run(look, world, script, customer_id="acme")
    assert done.raised is None
    assert seen == [chunk for chunk in script.body if chunk]
    assert "internal_errors" not in done.stats
    assert done.stats["events"] == len(done.events) >= 1
    assert all(each[unit] >= 0 for each in done.events for unit in UNITS if unit in each)


quickly = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(
    world=st.sampled_from(FOUR),
    url=st.sampled_from(URLS),
    said=st.lists(documents, min_size=1, max_size=4),
    as_stream=st.booleans(),
    status=st.sampled_from((200, 200, 200, 400)),
)
@quickly
def test_any_document(*, world: World, url: str, said: list[Any], as_stream: bool, status: int) -> None:
    """The providers' own words in any order, with anything for values, fail nothing inside."""
    texts = [json.dumps(each).encode() for each in said]
    body = [b"data: " + text + b"\n\n" for text in texts] if as_stream else texts[:1]
    observed(world, Script(body=body, headers=SSE if as_stream else JSON, status=status), url)


STREAMS = [b"".join(CHAT), DOCUMENT, b"".join(CHAT).replace(b"\n", b"\r\n")]
edits = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 200), st.binary(max_size=8) | st.sampled_from(STREAMS)),
    max_size=4,
)


@given(
    world=st.sampled_from(FOUR),
    url=st.sampled_from(URLS),
    body=st.binary(max_size=400) | st.sampled_from(STREAMS),
    edits=edits,
    headers=st.sampled_from((JSON, SSE, HTML, PLAIN)),
    coding=st.sampled_from((None, *CODINGS)).flatmap(
        lambda coding: st.tuples(st.just(coding), st.sampled_from((coding, *CODINGS, "gzip, gzip", "none")))
    ),
    cut_at=st.lists(st.integers(0, 2**12), max_size=8),
)
@quickly
def test_any_bytes(
    *, world: World, url: str, body: bytes, edits: Any, headers: Any, coding: Any, cut_at: Any
) -> None:
    """Any bytes, under any label, in any coding or the pretence of one, cut anywhere."""
    for start, gone, put in edits:
        body = body[:start] + put + body[start + gone :]
    done, claimed = coding
    sent = b"".join(coded([body], done))
    observed(world, Script(body=cut(sent, cut_at), headers=[*headers, *coding_header(claimed)]), url)


@pytest.mark.parametrize("kind", ["text/event-stream; as=jsonl", "application/x-ndjson, text/event-stream"])
@four_ways
def test_a_stream_that_names_two_framings_is_one_of_events(world: World, kind: str) -> None:
    """Whatever else its content type says, a stream of events is passed on and read as one."""
    event = told(read(world, Script(body=CHAT, headers=(("content-type", kind),))))
    assert (event["usage_status"], event["streaming"]) == ("complete", True)


@pytest.mark.parametrize(("stated", "attempt"), [("2", 2), ("9" * 5000, None), ("-1", None), ("two", None)])
@four_ways
def test_an_attempt_is_numbered_where_its_header_is_a_number(
    world: World, stated: str, attempt: int | None
) -> None:
    """Whatever an application says there, the answer is counted."""
    asked = {"headers": {"x-stainless-retry-count": stated}}
    assert told(read(world, Script(body=[DOCUMENT], headers=JSON), **asked)).get("attempt") == attempt
