"""Content codings, the sending side: gzip, deflate, br and zstd, flushed after every item.

Providers that compress an event stream flush after each event, so that a reader can decode what has
come so far. Knows nothing of HTTP. `br` and `zstd` need a library for them; the other two are in the
standard library.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from cmdrdata_transport.wire.recoding import CODINGS, Encoder

__all__ = ["CODINGS", "coded"]


def coded(items: Iterable[bytes], coding: str | None) -> Generator[bytes]:
    """Each item coded and flushed, then what the coding needs to end.

    `coding` is the value of a Content-Encoding header: one name or several, applied in that order.
    Items that are empty are left out; they could not be a chunk. `LookupError` for a coding that is not
    known, or that has no library here.
    """
    encoder = Encoder(coding or "")
    for item in items:
        if data := encoder.encode(item):
            yield data
    if data := encoder.end():
        yield data
