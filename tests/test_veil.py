"""What comes of asking for usage is not seen: what becomes of the bytes of a stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest
from asking_hosts import (
    ASKS,
    asking_at,
    read_of,
)
from endings import CHAT, COUNTS, DONE, HELLO, STOP, USAGE, WORLD
from exchange import coded, cut
from four_ways import FOUR, URL, Script, World, run
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdrdata_transport import asking as module
from cmdrdata_transport.asking import Veil, veil_for
from cmdrdata_transport.wire.coding import decoder_for
from cmdrdata_transport.wire.recoding import CODINGS


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
