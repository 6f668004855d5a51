"""Every fixture, read four ways, in any coding and cut anywhere: the same events, the same bytes."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import accumulate

import pytest
from exchange import (
    CODINGS,
    DIFFERENT_EACH_RUN,
    WAYS,
    Fixture,
    Replay,
    Way,
    coded,
    coding_header,
    cut,
    fixtures,
    replay,
    replay_over_loopback,
    stable,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmdrdata_transport.asking import asking
from cmdrdata_transport.event import FORMAT, Usage, UsageEvent
from cmdrdata_transport.wire.coding import decoder_for

FIXTURES = fixtures()
ENDED = [fixture for fixture in FIXTURES if fixture.terminal is not None]
LONG = [
    fixture
    for fixture in FIXTURES
    if fixture.name
    in (
        "anthropic/messages-stream",
        "google/stream",
        "groq/chat-stream",
        "openai/chat-stream",
        "openai/chat-stream-cr",
        "openai/responses-stream",
    )
]
SAYS_NO_END = ("audio/", "text/plain")
"""Of these bodies only their last byte is the end."""

WHOLE = [
    fixture
    for fixture in FIXTURES
    if all(event["outcome"] != "unknown" for event in fixture.events)
    and not dict(fixture.exchange.headers).get("content-type", "").startswith(SAYS_NO_END)
]
SAMPLE = [
    fixture
    for fixture in FIXTURES
    if fixture.name in ("openai/chat", "openai/chat-stream", "anthropic/messages-stream", "google/stream")
]
SECRET = "SECRET"
"""Stands in every prompt, answer and key of the fixtures."""

every_fixture = pytest.mark.parametrize("fixture", FIXTURES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def same_events(fixture: Fixture, done: Replay) -> None:
    """The events are those that the fixture states, to the field."""
    expected = [{"format": FORMAT, **event} for event in fixture.events]
    assert [stable(event) for event in done.events] == expected
    assert len({event["event_id"] for event in done.events}) == len(expected)


def same_bytes(fixture: Fixture, sent: list[bytes], done: Replay, coding: str | None = None) -> None:
    """The application saw the chunks as they were sent; an empty chunk is none.

    A stream that did not ask for its usage is made to; it comes in whole events then, coded anew.
    """
    if asking(fixture.exchange.request_body or b"") is None:
        assert done.chunks == [chunk for chunk in sent if chunk]
    else:
        assert decoded(done.chunks, coding) == decoded(sent, coding)


def decoded(chunks: list[bytes], coding: str | None) -> bytes:
    """What the chunks say."""
    decoder = decoder_for(dict(coding_header(coding)).get("content-encoding", ""))
    return b"".join(chunks if decoder is None else (p for chunk in chunks for p in decoder.decode(chunk)))


def told_by(settled: int, done: Replay) -> int:
    """How many events there were when the application had seen so many bytes."""
    ends = accumulate(map(len, done.chunks))
    return next(told for end, told in zip(ends, done.events_at, strict=True) if end >= settled)


def test_there_are_fixtures() -> None:
    """A wrong path would let every other test here pass without a case."""
    assert {fixture.name.partition("/")[0] for fixture in FIXTURES} >= {
        "openai",
        "azure",
        "anthropic",
        "google",
        "groq",
    }


@every_fixture
def test_a_fixture_names_only_fields_of_the_event(fixture: Fixture) -> None:
    """A misspelt name in `expected.json` fails, also among those that must be absent."""
    known = {each.name for kind in (UsageEvent, Usage) for each in fields(kind)} - {"usage", "extra"}
    assert set(fixture.absent) <= known
    for event in fixture.events:
        assert set(event) <= known - DIFFERENT_EACH_RUN
        assert not set(fixture.absent) & set(event)


@every_way
@every_fixture
def test_whole(fixture: Fixture, way: Way) -> None:
    """An answer read in one piece gives its events, and reaches the application as it was sent."""
    done = replay(fixture.exchange, way)
    same_events(fixture, done)
    assert all(set(event) >= {"event_id", "timestamp", "library_version"} for event in done.events)
    assert done.content == fixture.exchange.body
    assert done.status == fixture.exchange.status
    assert done.headers == list(fixture.exchange.headers)


@pytest.mark.parametrize(
    ("fixture", "way"),
    [
        pytest.param(fixture, way, id=f"{fixture}-{way}")
        for number, fixture in enumerate(FIXTURES)
        for way in (WAYS if fixture in SAMPLE else WAYS[number % len(WAYS) :][:1])
    ],
)
def test_byte_by_byte(fixture: Fixture, way: Way) -> None:
    """Bytes that come one by one give the same events, no later than at the end of the last event.

    The fixtures take turns with the ways; each goes all four ways whole.
    """
    body = fixture.exchange.body
    chunks = cut(body, range(len(body)))
    done = replay(fixture.exchange, way, chunks)
    same_events(fixture, done)
    same_bytes(fixture, chunks, done)
    if (settled := fixture.settled) is not None:
        assert told_by(settled, done) == len(fixture.events)


@every_fixture
@given(
    way=st.sampled_from(WAYS),
    coding=st.sampled_from((None, *CODINGS)),
    flushed_at=st.lists(st.integers(0, 2**16), max_size=6),
    cut_at=st.lists(st.integers(0, 2**16), max_size=12),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_coding_and_any_cut(
    fixture: Fixture, way: Way, coding: str | None, flushed_at: list[int], cut_at: list[int]
) -> None:
    """However the body is coded, flushed and cut, the events and the application's bytes are the same."""
    sent = b"".join(coded(cut(fixture.exchange.body, [*flushed_at, *fixture.cuts]), coding))
    chunks = cut(sent, cut_at)
    done = replay(fixture.exchange, way, chunks, coding=coding)
    same_events(fixture, done)
    same_bytes(fixture, chunks, done, coding)
    assert done.headers == [*fixture.exchange.headers, *coding_header(coding)]
    if coding is None and (settled := fixture.settled) is not None:
        assert told_by(settled, done) == len(fixture.events)


@every_way
@pytest.mark.parametrize("fixture", LONG, ids=str)
def test_a_long_stream(fixture: Fixture, way: Way) -> None:
    """What was said long before the end, and what is said again and again, changes nothing."""
    body = fixture.exchange.body
    blank_line = b"\r\n\r\n" if b"\r" in body else b"\n\n"
    events = body.split(blank_line)
    middle = len(events) // 2
    long = blank_line.join([*events[:middle], *events[middle : middle + 1] * 2000, *events[middle:]])
    for size in (1021, 65536, len(long)):
        chunks = cut(long, range(0, len(long), size))
        done = replay(fixture.exchange, way, chunks)
        same_events(fixture, done)
        same_bytes(fixture, chunks, done)


@pytest.mark.slow
@every_fixture
def test_every_cut_in_two(fixture: Fixture) -> None:
    """There is no place where a cut changes what is counted."""
    body = fixture.exchange.body
    for place in range(1, len(body)):
        done = replay(fixture.exchange, WAYS[place % len(WAYS)], [body[:place], body[place:]])
        same_events(fixture, done)


@pytest.mark.parametrize("coding", [None, "gzip", "br"])
@every_way
@pytest.mark.parametrize("fixture", ENDED, ids=str)
def test_the_event_is_there_before_the_end(fixture: Fixture, way: Way, coding: str | None) -> None:
    """When the application sees the event that ends a stream, ours is written: SDKs stop reading there."""
    body, settled = fixture.exchange.body, fixture.settled
    chunks = coded([body[:settled], body[settled:]], coding)
    done = replay(fixture.exchange, way, chunks, coding=coding)
    assert done.events_at[0] == len(fixture.events)
    same_events(fixture, done)


@every_way
@pytest.mark.parametrize("fixture", WHOLE, ids=str)
def test_closed_before_the_end_of_the_body(fixture: Fixture, way: Way) -> None:
    """An answer that said all it had to say is whole, although nobody asked whether more would come."""
    body = fixture.exchange.body
    same_events(fixture, replay(fixture.exchange, way, [body], stop_after=1))


@pytest.mark.parametrize("coding", [None, "gzip"])
@every_way
@pytest.mark.parametrize("fixture", SAMPLE, ids=str)
def test_over_real_sockets(fixture: Fixture, way: Way, coding: str | None) -> None:
    """The same comes over a real connection, chunked, as from the memory."""
    body = fixture.exchange.body
    done = replay_over_loopback(
        fixture.exchange, way, coded(cut(body, range(0, len(body), 97)), coding), coding=coding
    )
    same_events(fixture, done)
    assert replay_over_loopback(fixture.exchange, way).content == body


@every_fixture
def test_nothing_private_is_recorded(fixture: Fixture) -> None:
    """No prompt, answer or key is in an event."""
    assert SECRET in json.dumps(fixture.exchange.request_headers) + str(fixture.exchange.request_body)
    assert SECRET not in json.dumps(replay(fixture.exchange, WAYS[0]).events)
