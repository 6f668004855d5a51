"""Content codings, the sending side: gzip, deflate, br and zstd, flushed after every item.

Providers that compress an event stream flush after each event, so that a reader can decode what has
come so far. Knows nothing of HTTP. `br` needs the package brotli and `zstd` the package zstandard;
the other two are in the standard library.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Generator, Iterable
from typing import Any

_Encoder = tuple[Callable[[bytes], bytes], Callable[[], bytes]]
"""What one item becomes, flushed; what is left at the end."""


def coded(items: Iterable[bytes], coding: str | None) -> Generator[bytes]:
    """Each item coded and flushed, then what the coding needs to end.

    `coding` is the value of a Content-Encoding header: one name or several, applied in that order.
    Items that are empty are left out; they could not be a chunk. `KeyError` for a coding that is not
    known, `ImportError` for one whose package is not installed.
    """
    names = [name.strip() for name in (coding or "").split(",")]
    encoders = [_ENCODERS[name]() for name in names if name not in ("", "identity")]
    for item in items:
        if data := _through(encoders, item):
            yield data
    for position, (_, end) in enumerate(encoders):
        if data := _through(encoders[position + 1 :], end()):
            yield data


def _through(encoders: list[_Encoder], data: bytes) -> bytes:
    for encode, _ in encoders:
        data = encode(data) if data else b""
    return data


def _zlib(window_bits: int) -> _Encoder:
    encoder = zlib.compressobj(wbits=window_bits)
    return lambda data: encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH), encoder.flush


def _gzip() -> _Encoder:
    return _zlib(16 + zlib.MAX_WBITS)


def _deflate() -> _Encoder:
    return _zlib(zlib.MAX_WBITS)


def _br() -> _Encoder:
    encoder: Any = importlib.import_module("brotli").Compressor()
    return lambda data: encoder.process(data) + encoder.flush(), encoder.finish


def _zstd() -> _Encoder:
    zstandard: Any = importlib.import_module("zstandard")
    encoder = zstandard.ZstdCompressor().compressobj()
    block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return lambda data: encoder.compress(data) + encoder.flush(block), encoder.flush


_ENCODERS: dict[str, Callable[[], _Encoder]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}

CODINGS = tuple(_ENCODERS)
"""Every coding that `coded` knows."""
