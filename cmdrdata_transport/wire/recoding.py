"""Applies a content coding to what a reader shall see as it comes: flushed after every item.

Knows gzip, deflate, br and zstd, each where a library for it is importable, as `coding` does. Knows
nothing of HTTP.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any


class Encoder:
    """One body's encoder, for the value of a Content-Encoding header.

    Raises:
        LookupError: a coding that is not known, or one without a library here.
    """

    def __init__(self, content_encoding: str) -> None:
        names = [name.strip() for name in content_encoding.lower().split(",")]
        try:
            self._steps = [_ENCODERS[name]() for name in names if name not in ("", "identity")]
        except ImportError as error:
            raise LookupError(str(error)) from None

    def encode(self, item: bytes) -> bytes:
        """The item, coded, and flushed so that it can be decoded at once."""
        for encode, _ in self._steps:
            item = encode(item) if item else b""
        return item

    def end(self) -> bytes:
        """What the coding needs to end."""
        coded = b""
        for encode, end in self._steps:
            coded = (encode(coded) if coded else b"") + end()
        return coded


_Step = tuple[Callable[[bytes], bytes], Callable[[], bytes]]
"""What one item becomes, flushed; what is left at the end."""


def _zlib(window_bits: int) -> _Step:
    encoder = zlib.compressobj(wbits=window_bits)
    return lambda data: encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH), encoder.flush


def _gzip() -> _Step:
    return _zlib(16 + zlib.MAX_WBITS)


def _deflate() -> _Step:
    return _zlib(zlib.MAX_WBITS)


def _br() -> _Step:
    encoder: Any = _first_of("brotli", "brotlicffi").Compressor()
    return lambda data: encoder.process(data) + encoder.flush(), encoder.finish


def _zstd() -> _Step:
    module = _first_of("compression.zstd", "backports.zstd", "zstandard")
    if module.__name__ == "zstandard":
        encoder = module.ZstdCompressor().compressobj()
        block = module.COMPRESSOBJ_FLUSH_BLOCK
        return lambda data: encoder.compress(data) + encoder.flush(block), encoder.flush
    encoder = module.ZstdCompressor()
    return lambda data: encoder.compress(data, module.ZstdCompressor.FLUSH_BLOCK), encoder.flush


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ImportError(f"none of {', '.join(names)} is installed")


_ENCODERS: dict[str, Callable[[], _Step]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}

CODINGS = tuple(_ENCODERS)
"""Every coding that there is an encoder for."""
