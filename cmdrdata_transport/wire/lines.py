"""JSON lines, read from the newest to the oldest: one document a line (ollama, Cohere v1, batch results).

The same functions as `sse`, so that a body is read by either. Knows where lines begin and end; a line
ends in LF or CRLF. Does not know what a line says. Holds no state.
"""

from __future__ import annotations

from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
PLAIN = True


def normalise(block: bytes) -> bytes:
    """The block as it is: a CR before an LF is a blank to JSON."""
    return block


def boundary(buffer: bytes | bytearray, start: int = 0) -> int:
    """The index behind the last line end at or after `start`; 0 when there is none yet."""
    return buffer.rfind(b"\n", start) + 1


def first_end(buffer: bytes) -> int:
    """The index behind the first line end; 0 when there is none yet."""
    return buffer.find(b"\n") + 1


def newest_first(block: bytes) -> Iterator[bytes]:
    """The lines of a block that are not blank, the last one first."""
    end = len(block)
    while end > 0:
        start = block.rfind(b"\n", 0, end) + 1
        line = block[start:end]
        if line.strip():
            yield line
        end = start - 1


def containing(block: bytes, needle: bytes) -> Iterator[bytes]:
    """The lines of a block that hold `needle`, the last one first."""
    end = len(block)
    while (found := block.rfind(needle, 0, end)) >= 0:
        start = block.rfind(b"\n", 0, found) + 1
        stop = block.find(b"\n", found)
        yield block[start : stop if stop >= 0 else len(block)]
        end = start


def first(block: bytes) -> bytes:
    """The first line of a block that is not blank."""
    return block.lstrip().partition(b"\n")[0]


def data(line: bytes) -> bytes:
    """What a line carries: itself."""
    return line
