"""Bytes to documents: each reader against a plain one, on anything, cut anywhere.

The other framings have `test_framings.py`.
"""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from exchange import CODINGS, coded, cut
from hypothesis import example, given
from hypothesis import strategies as st

from cmdrdata_transport.wire import sse
from cmdrdata_transport.wire.coding import PIECE, ZSTD_SLICE, decoder_for
from cmdrdata_transport.wire.json import parse

# --- server-sent events -----------------------------------------------------------------------------

LINE_ENDS = (b"\n", b"\r", b"\r\n")

lines = st.sampled_from(
    (
        b"data: {}",
        b"data:{}",
        b"data:  two blanks",
        b"data: ",
        b"data:",
        b'data: {"usage": 1}',
        b"data: \xe2\x80\xa8 is no line end, nor is \x0b or \x85",
        b"data: \xff\xfe",
        b"database: 1",
        b"event: message",
        b"event: usage",
        b"id: 1",
        b"retry: 1",
        b": data: no",
        b":",
        b"unknown: field",
        b" data: indented",
        b"no field",
    )
)
streams = st.lists(st.tuples(lines | st.just(b""), st.sampled_from(LINE_ENDS)), max_size=24).map(
    lambda written: b"".join(line + end for line, end in written)
)


def plainly(stream: bytes) -> list[bytes]:
    """The data of each event that carries some, as the specification words it, line by line.

    The specification drops an event that the stream's end cuts off; we read it.
    """
    carried: list[bytes] = []
    data: list[bytes] = []
    text = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in [*text.split(b"\n"), b""]:
        name, colon, value = line.partition(b":")
        if not line:
            if any(data):
                carried.append(b"\n".join(data))
            data = []
        elif name == b"data" and colon:
            data.append(value.removeprefix(b" "))
    return carried


def ours(stream: bytes) -> list[bytes]:
    """The same by the functions that a body uses."""
    events = sse.newest_first(sse.normalise(stream))
    return [data for data in map(sse.data, reversed(list(events))) if data.strip(b"\n")]


@given(stream=streams)
def test_events_are_what_the_specification_says(stream: bytes) -> None:
    """Line ends of three kinds, mixed; comments, unknown fields, several data lines."""
    assert ours(stream) == plainly(stream)


@given(stream=streams, places=st.lists(st.integers(0, 1000), max_size=5))
def test_a_stream_can_be_read_in_stretches(stream: bytes, places: list[int]) -> None:
    """Up to the last blank line that has come, again and again, wherever it is cut."""
    read: list[bytes] = []
    waiting = b""
    for piece in cut(stream, places):
        waiting += piece
        end = sse.boundary(waiting)
        read += ours(waiting[:end])
        waiting = waiting[end:]
        assert sse.boundary(waiting) == 0
    assert read + ours(waiting) == plainly(stream)


@given(stream=streams, start=st.integers(0, 1000))
@example(stream=b"\n\n\n\n\n\r", start=1)
def test_a_blank_line_is_found_from_any_place_before_it(stream: bytes, start: int) -> None:
    """So that what was searched once need not be searched again."""
    end = sse.boundary(stream)
    assert sse.boundary(bytearray(stream)) == end
    if start <= end - 4:
        assert sse.boundary(stream, start) == end


@given(
    event=streams.filter(lambda stream: not sse.boundary(stream)),
    stream=streams,
    end=st.sampled_from(LINE_ENDS),
)
def test_what_stands_behind_an_event_can_be_found(event: bytes, stream: bytes, end: bytes) -> None:
    """Of an event that is skipped only its end is looked for."""
    whole = event.rstrip(b"\r\n") + end + end
    found = sse.first_end(whole + stream)
    assert 0 < found <= len(whole) + stream.startswith(b"\n")  # which makes a CRLF of a CR
    assert ours((whole + stream)[found:]) == plainly(stream)


@given(stream=streams)
def test_events_that_hold_something_are_found_without_the_others(stream: bytes) -> None:
    """The same events, in the same order, as if each had been looked at."""
    block = sse.normalise(stream)
    events = list(sse.newest_first(block))
    stripped = [event.strip(b"\n") for event in sse.containing(block, b'"usage"')]
    assert stripped == [event.strip(b"\n") for event in events if b'"usage"' in event]
    assert sse.first(block).strip(b"\n") == (events[-1].strip(b"\n") if events else b"")


def test_bare_json_is_an_event() -> None:
    """Google sends an error in the middle of a stream like that."""
    assert ours(b'data: 1\n\n{"error":\n {}}\n\n') == [b"1", b'{"error":\n {}}']


def test_there_is_no_end_in_nothing() -> None:
    """Empty input has no events, no boundary and no first event."""
    for nothing in (b"", b"\n", b"data: x"):
        assert sse.boundary(nothing) == sse.first_end(nothing) == 0
    assert sse.first(b"\n\n") == b""
    assert list(sse.newest_first(b"\n\n\n")) == []


# --- content codings --------------------------------------------------------------------------------


def decoded(coding: str, pieces: Iterable[bytes]) -> list[bytes]:
    """What comes out of a decoder."""
    decoder = decoder_for(coding)
    assert decoder is not None
    return [out for piece in pieces for out in decoder.decode(piece)]


@given(
    data=st.binary(max_size=2000),
    coding=st.sampled_from(CODINGS),
    flushed_at=st.lists(st.integers(0, 2000), max_size=3),
    cut_at=st.lists(st.integers(0, 3000), max_size=6),
)
def test_what_was_coded_is_decoded(
    data: bytes, coding: str, flushed_at: list[int], cut_at: list[int]
) -> None:
    """Any bytes, in any coding, flushed and cut anywhere."""
    sent = b"".join(coded(cut(data, flushed_at), coding))
    assert b"".join(decoded(coding.removeprefix("raw "), cut(sent, cut_at))) == data


@pytest.mark.parametrize("coding", CODINGS)
@given(flushed_at=st.lists(st.integers(0, 400), max_size=4))
def test_what_was_flushed_can_be_read(coding: str, flushed_at: list[int]) -> None:
    """A provider flushes after each event: what it flushed comes out at once."""
    items = [item for item in cut(bytes(range(200)) * 2, flushed_at) if item]
    decoder = decoder_for(coding.removeprefix("raw "))
    assert decoder is not None
    sent = coded(items, coding)
    for item, piece in zip(items, sent, strict=False):
        assert b"".join(decoder.decode(piece)) == item
    for piece in sent[len(items) :]:
        assert b"".join(decoder.decode(piece)) == b""


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_comes_out_in_bounded_pieces(coding: str) -> None:
    """However much a few bytes unpack to, each step gives little.

    brotli takes a limit roughly; zstandard takes none, and is fed sparingly.
    """
    limits = {"br": 2 * PIECE, "gzip, br": 2 * PIECE, "zstd": ZSTD_SLICE // 4 * 128 * 1024}
    size = 10 * 1024 * 1024
    sent = b"".join(coded([bytes(1024 * 1024)] * 10, coding))
    pieces = decoded(coding.removeprefix("raw "), [sent])
    assert sum(map(len, pieces)) == size
    assert max(map(len, pieces)) <= limits.get(coding, PIECE)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@given(noise=st.binary(min_size=1, max_size=60), after=st.integers(0, 40))
def test_damage_is_a_value_error_or_nothing(coding: str, noise: bytes, after: int) -> None:
    """No bytes make a decoder raise anything else."""
    sent = b"".join(coded([b"some text, and some more"], coding))
    with suppress(ValueError):
        decoded(coding, [sent[:after] + noise, sent[after:]])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_damage_is_told(coding: str) -> None:
    """What cannot be the coding that it says it is, is refused."""
    with pytest.raises(ValueError, match="damaged"):
        decoded(coding, [b"\xffdefinitely not in any coding at all"])


def test_codings_are_known_by_their_names_in_any_writing() -> None:
    """Case, blanks and old names do not matter; several are undone from the last to the first."""
    data = b"text"
    assert b"".join(decoded(" GZip ", [gzip.compress(data)])) == data
    assert b"".join(decoded("x-gzip", [gzip.compress(data)])) == data
    assert b"".join(decoded("deflate, identity, gzip", [gzip.compress(zlib.compress(data))])) == data


@pytest.mark.parametrize("coding", ["", "identity", "identity, ", "utf-8", "zip2", "none"])
def test_what_is_no_coding_is_passed_over(coding: str) -> None:
    """As the clients do, so that we read what they read."""
    assert decoder_for(coding) is None
    assert b"".join(decoded(f"{coding}, gzip", [gzip.compress(b"text")])) == b"text"


@given(cut_at=st.lists(st.integers(0, 200), max_size=6))
def test_frame_after_frame_of_zstd_is_read(cut_at: list[int]) -> None:
    """A server that flushes by ending a frame is read by the clients, and by us."""
    compress: Any = importlib.import_module("zstandard").ZstdCompressor().compress
    items = [b"data: 1\n\n", b"", b"data: 2\n\n", b"data: [DONE]\n\n"]
    sent = b"".join(map(compress, items))
    assert b"".join(decoded("zstd", cut(sent, cut_at))) == b"".join(items)


# --- JSON -------------------------------------------------------------------------------------------

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(document=documents, blanks=st.text(" \r\n\t", max_size=5), ascii_only=st.booleans(), bom=st.booleans())
def test_whatever_can_be_written_is_read(*, document: Any, blanks: str, ascii_only: bool, bom: bool) -> None:
    """Lone surrogates and infinities included; behind blanks, or behind a byte order mark."""
    text = json.dumps(document, ensure_ascii=ascii_only)
    written = text.encode("utf-8", "surrogatepass")
    read = parse((b"\xef\xbb\xbf" if bom else blanks.encode()) + written)
    assert read == json.loads(written.decode("utf-8", "replace"))


@given(
    noise=st.binary(max_size=60)
    | st.text('{}[]",:01eE.-+ntfNaI\\u\ud800 \n').map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_anything_else_is_a_value_error(noise: bytes) -> None:
    """As the standard library judges; no other error."""
    try:
        expected = json.loads(noise.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - its subclass is the library's affair
            parse(noise)
    else:
        assert repr(parse(bytearray(noise))) == repr(expected) or isinstance(expected, int | float)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_what_is_nested_too_deep_is_a_value_error(text: str) -> None:
    """The stack is the host's, too."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever library says it
        parse(text.encode())


def test_numbers_that_json_does_not_have_are_read() -> None:
    """Python writes them, and the SDKs read them."""
    assert repr(parse(b"[NaN, Infinity, -Infinity, 123456789012345678901234567890]")).startswith(
        "[nan, inf, -inf, 1"
    )
