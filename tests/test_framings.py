"""JSON lines and AWS event streams, read by the functions that a body uses, against plain readers."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import accumulate
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_transport.body import Framing
from cmdrdata_transport.wire import eventstream, lines, sse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)

OBJECTS = st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=3), max_size=8)


def frame(headers: Sequence[tuple[str, str]], payload: bytes) -> bytes:
    """One frame, as AWS describes it; every header's value is text."""
    named = b"".join(
        bytes((len(name.encode()),))
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value.encode()))
        + value.encode()
        for name, value in headers
    )
    prelude = struct.pack(">II", 16 + len(named) + len(payload), len(named))
    body = prelude + struct.pack(">I", crc32(prelude)) + named + payload
    return body + struct.pack(">I", crc32(body))


def chunk(document: object) -> bytes:
    """A frame of InvokeModel: one event of the model's maker, wrapped."""
    wrapped = {"bytes": b64encode(json.dumps(document).encode()).decode(), "p": "abcdef"}
    return frame(
        [(":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event")],
        json.dumps(wrapped).encode(),
    )


def line(document: object) -> bytes:
    """One line."""
    return json.dumps(document).encode() + b"\n"


def event(document: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


FRAMINGS: list[tuple[Framing, Callable[[object], bytes]]] = [
    (lines, line),
    (eventstream, chunk),
    (sse, event),
]

every_framing = pytest.mark.parametrize(
    ("framing", "write"), FRAMINGS, ids=["lines", "eventstream", "events"]
)


@every_framing
@given(documents=OBJECTS)
def test_the_newest_comes_first(
    framing: Framing, write: Callable[[object], bytes], documents: list[dict[str, object]]
) -> None:
    """What was written is read, each once, the last one first."""
    block = framing.normalise(b"".join(map(write, documents)))
    read = [json.loads(framing.data(each)) for each in framing.newest_first(block)]
    assert read == documents[::-1]
    assert json.loads(framing.data(framing.first(block)) or b"null") == (documents[0] if documents else None)


@every_framing
@given(documents=OBJECTS, cut=st.integers(0, 2**16))
def test_a_boundary_is_behind_the_last_whole_event(
    framing: Framing, write: Callable[[object], bytes], documents: list[dict[str, object]], cut: int
) -> None:
    """Cut anywhere, exactly what is whole is in front of the boundary."""
    written = [write(document) for document in documents]
    body = b"".join(written)
    cut %= len(body) + 1
    whole = [end for end in accumulate(map(len, written)) if end <= cut]
    assert framing.boundary(body[:cut]) == (whole[-1] if whole else 0)
    assert framing.boundary(bytearray(body)) == len(body)


@every_framing
@given(documents=OBJECTS, marked=st.lists(st.booleans(), min_size=8, max_size=8))
def test_those_that_hold_a_needle_are_found(
    framing: Framing, write: Callable[[object], bytes], documents: list[dict[str, object]], marked: list[bool]
) -> None:
    """No event with the needle is missed, the last one first, none twice."""
    documents = [
        {**document, "usage": True} if mark else document
        for document, mark in zip(documents, marked, strict=False)
    ]
    block = framing.normalise(b"".join(map(write, documents)))
    found = [json.loads(framing.data(each)) for each in framing.containing(block, b'"usage"')]
    assert [each for each in found if "usage" in each] == [each for each in documents if "usage" in each][
        ::-1
    ]
    assert len(found) <= len(documents)


@every_framing
@given(garbage=st.binary(max_size=200), documents=OBJECTS)
def test_garbage_is_read_to_its_end(
    framing: Framing, write: Callable[[object], bytes], garbage: bytes, documents: list[dict[str, object]]
) -> None:
    """Bytes that nobody should send are read without an error, and never without an end."""
    for sent in (garbage, b"".join(map(write, documents)) + garbage):
        assert 0 <= framing.boundary(sent) <= len(sent)
        block = framing.normalise(sent)
        for each in (*framing.newest_first(block), *framing.containing(block, b'"'), framing.first(block)):
            framing.data(each)


@given(headers=st.binary(max_size=60), payload=st.binary(max_size=60), length=st.integers(0, 2**32 - 1))
def test_a_frame_with_nonsense_inside_is_read(headers: bytes, payload: bytes, length: int) -> None:
    """A frame's own numbers may be wrong in every place; its bytes are then what it carries."""
    body = struct.pack(">III", 16 + len(headers) + len(payload), length, 0) + headers + payload + b"\0\0\0\0"
    assert [eventstream.data(each) for each in eventstream.newest_first(body)] != []


@pytest.mark.parametrize("length", [0, 15, 16 * 1024 * 1024 + 1, 2**32 - 1])
def test_a_number_that_is_no_length_ends_the_reading(length: int) -> None:
    """What was whole before it is read; nothing behind it is."""
    good = chunk({"type": "ping"})
    block = good + struct.pack(">III", length, 0, 0) + good
    assert eventstream.boundary(block) == len(good)
    assert list(eventstream.newest_first(block)) == [good]


@pytest.mark.parametrize(
    ("carried", "expected"),
    [
        (
            frame([(":event-type", "metadata"), (":message-type", "event")], b'{"usage":{"inputTokens":1}}'),
            {"type": "metadata", "metadata": {"usage": {"inputTokens": 1}}},
        ),
        (
            frame(
                [(":message-type", "exception"), (":exception-type", "throttlingException")],
                b'{"message":"slow"}',
            ),
            {"error": {"type": "throttlingException", "message": "slow"}},
        ),
        (
            frame([(":message-type", "error"), (":error-code", "500"), (":error-message", "no")], b"{}"),
            {"error": {"type": "500", "message": None}},
        ),
        (frame([(":event-type", "chunk")], b'{"bytes":"\xc3\xa9"}'), {"bytes": "é"}),
        (frame([], b'{"a":1}'), {"type": "event", "event": {"a": 1}}),
        (frame([(":event-type", "chunk")], b"[1]"), [1]),
    ],
    ids=["named by its header", "an exception", "an error", "no base64", "no name", "no object"],
)
def test_what_a_frame_carries(carried: bytes, expected: object) -> None:
    """An event is named by its frame's headers where it does not name itself; an error is an error."""
    assert json.loads(eventstream.data(carried)) == expected


def test_a_deep_document_is_carried_on() -> None:
    """A document that is too deep to be written anew is what the frame says, all the same."""
    deep = b'{"a":' * 600 + b"1" + b"}" * 600
    assert eventstream.data(frame([(":event-type", "e")], deep)).endswith(deep + b"}")


def test_lines_end_in_either_way_and_may_be_blank() -> None:
    """CRLF ends a line as LF does, and a blank line says nothing."""
    block = b'\r\n{"a":1}\r\n\n{"b":2}\r\n \r\n{"c":3}'
    assert [json.loads(lines.data(each)) for each in lines.newest_first(block)] == [
        {"c": 3},
        {"b": 2},
        {"a": 1},
    ]
    assert json.loads(lines.first(block)) == {"a": 1}
    assert lines.boundary(block) == len(block) - len(b'{"c":3}')
