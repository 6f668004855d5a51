"""Server-sent events, read from the newest to the oldest.

Knows where events begin and end (https://html.spec.whatwg.org/multipage/server-sent-events.html):
lines end in CR, LF or CRLF and in nothing else, so U+2028 inside a model's text is text. Usage is at
the end of a stream, so that is where a reader starts; most events are never looked at.

Does not know what an event says. Holds no state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
PLAIN = True

_BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n){2}")
"""An atomic group: one CRLF must not be taken for two line ends."""

_BLANK_LINES = re.compile(rb"(?>\r\n|\r|\n){2,}")


def normalise(block: bytes) -> bytes:
    """The same lines, each ended by LF."""
    if b"\r" not in block:
        return block
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def boundary(buffer: bytes | bytearray, start: int = 0) -> int:
    """The index behind the last blank line at or after `start`; 0 when there is none yet.

    A CRLF cut in two leaves its LF in front of the next event, where it is one more blank line.
    """
    if buffer.find(b"\r", start) < 0:
        found = buffer.rfind(b"\n\n", start)
        return found + 2 if found >= 0 else 0
    end = 0
    for match in _BLANK_LINES.finditer(buffer, start):
        end = match.end()
    return end


def first_end(buffer: bytes) -> int:
    """The index behind the first blank line; 0 when there is none yet."""
    if b"\r" not in buffer:
        found = buffer.find(b"\n\n")
        return found + 2 if found >= 0 else 0
    match = _BLANK_LINE.search(buffer)
    return match.end() if match else 0


def ends(block: bytes) -> Iterator[int]:
    """The index behind each blank line."""
    return (match.end() for match in _BLANK_LINE.finditer(block))


def newest_first(block: bytes) -> Iterator[bytes]:
    """The events of a normalised block, the last one first."""
    end = len(block)
    while end > 0:
        start = block.rfind(b"\n\n", 0, end)
        event = block[start + 2 : end] if start >= 0 else block[:end]
        if event.strip(b"\n"):
            yield event
        end = start


def containing(block: bytes, needle: bytes) -> Iterator[bytes]:
    """The events of a normalised block that hold `needle`, the last one first."""
    end = len(block)
    while (found := block.rfind(needle, 0, end)) >= 0:
        start = block.rfind(b"\n\n", 0, found)
        start = start + 2 if start >= 0 else 0
        stop = block.find(b"\n\n", found)
        yield block[start : stop if stop >= 0 else len(block)]
        end = start


def first(block: bytes) -> bytes:
    """The first event of a normalised block; empty when it holds none."""
    block = block.lstrip(b"\n")
    return block[: end if (end := block.find(b"\n\n")) >= 0 else len(block)]


def data(event: bytes) -> bytes:
    """What the event's `data` lines carry, joined by LF.

    An event without a field name is taken whole: Google sends an error in the middle of a stream as
    bare JSON (google-genai reads it so).
    """
    if event[:6] == b"data: " and b"\n" not in event:
        return event[6:]
    lines = event.strip(b"\n").split(b"\n")
    carried = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    if carried:
        return carried[0] if len(carried) == 1 else b"\n".join(carried)
    return event if event.lstrip().startswith(b"{") else b""
