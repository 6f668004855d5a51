"""The AWS event stream: binary frames, of which each carries JSON (`application/vnd.amazon.eventstream`).

The same functions as `sse`, so that a body is read by either. A frame is: its length, the length of its
headers, a checksum of the two, headers, payload, a checksum of all, the numbers of four bytes each,
big-endian. InvokeModel wraps one event of the model's maker in `{"bytes": "<base64>"}`; Converse sends
its own, and names it in the header `:event-type` alone; an error is named by `:exception-type`.
https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html describes the frames.

What is no frame ends the reading: where the next one would begin is not known then. Does not check the
checksums: whoever reads the stream for the answer does. Holds no state.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64
from collections.abc import Iterator

import orjson

BOM = b""
PLAIN = False

PRELUDE = 12
"""Bytes before the headers; a frame has four more at its end."""

SMALLEST = PRELUDE + 4

LARGEST_FRAME = 16 * 1024 * 1024
"""AWS allows as much; a larger number is not a length."""

_STRING = 7
"""The type of a header whose value is text, and the only one that is sent here."""

_WORD = struct.Struct(">I")
_PREFIX = struct.Struct(">II")
_SHORT = struct.Struct(">H")


def normalise(block: bytes) -> bytes:
    """The block as it is."""
    return block


def boundary(buffer: bytes | bytearray, start: int = 0) -> int:  # noqa: ARG001 - frames are counted from the first
    """The index behind the last whole frame; 0 when there is none yet."""
    return max((end for _, end in _frames(buffer)), default=0)


def first_end(buffer: bytes) -> int:
    """The index behind the first frame; 0 when it is not whole. None is so large that it were skipped."""
    return next((end for _, end in _frames(buffer)), 0)


def newest_first(block: bytes) -> Iterator[bytes]:
    """The frames of a block, the last one first."""
    for start, end in reversed(list(_frames(block))):
        yield block[start:end]


def containing(block: bytes, needle: bytes) -> Iterator[bytes]:  # noqa: ARG001 - base64 hides what is in a frame
    """All frames of a block, the last one first."""
    return newest_first(block)


def first(block: bytes) -> bytes:
    """The first frame of a block; empty when there is none."""
    for start, end in _frames(block):
        return block[start:end]
    return b""


def data(frame: bytes) -> bytes:
    """The JSON that a frame carries: the event inside, or one of the type that its headers name."""
    if len(frame) < SMALLEST:
        return b""
    length, headers_length = _PREFIX.unpack_from(frame)
    payload = frame[PRELUDE + headers_length : length - 4]
    headers = _headers(frame[PRELUDE : PRELUDE + headers_length])
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return payload
    if type(document) is not dict:
        return payload
    if (failed := headers.get(":exception-type") or headers.get(":error-code")) is not None:
        return orjson.dumps({"error": {"type": failed, "message": document.get("message")}})
    if type(wrapped := document.get("bytes")) is str:
        try:
            return a2b_base64(wrapped)
        except ValueError:
            return payload
    name = orjson.dumps(headers.get(":event-type", "event"))
    return b'{"type":%b,%b:%b}' % (name, name, payload)


def _frames(buffer: bytes | bytearray) -> Iterator[tuple[int, int]]:
    at = 0
    while at + SMALLEST <= len(buffer):
        (length,) = _WORD.unpack_from(buffer, at)
        if not SMALLEST <= length <= LARGEST_FRAME or at + length > len(buffer):
            return
        yield at, at + length
        at += length


def _headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    while at < len(block):
        name = block[at + 1 : (at := at + 1 + block[at])].decode("utf-8", "replace")
        if block[at : at + 1] != bytes((_STRING,)) or at + 3 > len(block):
            break
        (length,) = _SHORT.unpack_from(block, at + 1)
        at += 3 + length
        headers[name] = block[at - length : at].decode("utf-8", "replace")
    return headers
