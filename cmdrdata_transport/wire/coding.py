"""Undoes a content coding, piece by piece, on the meter's own copy of the bytes.

Knows gzip, deflate, br and zstd, each where a library for it is importable: that is also when a
client offers it to the server. Every piece that comes out is bounded, so that a small body which
unpacks to gigabytes costs no memory here. Does not know what the bytes mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from typing import Any, Protocol

PIECE = 64 * 1024
"""The most that one step unpacks, in bytes."""

ZSTD_SLICE = 256
"""Input a step where the library cannot bound its output: a zstd block of 4 bytes can stand for 128 KiB."""


ZLIB_HEADER = 2


class Decoder(Protocol):
    """One body's decoder: fed the coded bytes in order, it gives pieces of at most some `PIECE` bytes."""

    def decode(self, data: bytes, /) -> Iterator[bytes]:
        """What `data` unpacks to. Raises `ValueError` when it cannot be unpacked."""
        ...


def decoder_for(content_encoding: str) -> Decoder | None:
    """The decoder for a `Content-Encoding` header; None when nothing is coded.

    Several codings are undone from the last to the first (RFC 9110, 8.4). One that is not known, or has
    no library here, is passed over, as the clients do: servers say `utf-8` there.
    """
    chain: list[Decoder] = []
    for coding in reversed(content_encoding.lower().split(",")):
        make = _CODINGS.get(coding.strip())
        if make is None:
            continue
        try:
            chain.append(make())
        except ImportError:
            continue
    if not chain:
        return None
    return chain[0] if len(chain) == 1 else _Chain(chain)


class _Chain:
    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    def decode(self, data: bytes) -> Iterator[bytes]:
        return self._through(0, data)

    def _through(self, at: int, data: bytes) -> Iterator[bytes]:
        if at == len(self._decoders):
            yield data
            return
        for piece in self._decoders[at].decode(data):
            yield from self._through(at + 1, piece)


class _Inflate:
    """gzip, and deflate in both of its readings: some servers leave the zlib wrapper out."""

    def __init__(self, wbits: int, *, or_raw: bool = False) -> None:
        self._inflate = zlib.decompressobj(wbits)
        self._undecided: bytes | None = b"" if or_raw else None
        """Of deflate, the bytes so far, until the first two have told whether there is a wrapper."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._undecided is not None:
            data = self._undecided + data
            if len(data) < ZLIB_HEADER:
                self._undecided = data
                return
            self._undecided = None
            if not _has_zlib_header(data):
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        while not self._inflate.eof:
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error as error:
                raise ValueError(f"damaged: {error}") from None
            data = self._inflate.unconsumed_tail
            if piece:
                yield piece
            if not data and len(piece) < PIECE:
                return


def _has_zlib_header(data: bytes) -> bool:
    """RFC 1950, 2.2: method 8, and the two bytes as a number divisible by 31."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:ZLIB_HEADER]) % 31 == 0


class _Brotli:
    def __init__(self) -> None:
        module = _first_of("brotli", "brotlicffi")
        self._decompressor: Any = module.Decompressor()
        self._step: Callable[..., bytes] = (
            getattr(self._decompressor, "process", None) or self._decompressor.decompress
        )

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            # It may have taken all of its input, and still have output to give.
            while piece := self._step(data, output_buffer_limit=PIECE):
                yield piece
                data = b""
        except Exception as error:
            raise ValueError(f"damaged: {error}") from None


class _Zstd:
    """Frame after frame: a server that flushes may end one and begin another.

    Both kinds of library: those that bound their output (the standard library's) and zstandard.
    """

    def __init__(self) -> None:
        module = _first_of("compression.zstd", "backports.zstd", "zstandard")
        self._bounded = module.__name__ != "zstandard"
        self._module: Any = module
        self._frame: Any = self._next_frame()

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                if self._frame.eof:
                    self._frame = self._next_frame()
                data = yield from self._bounded_pieces(data) if self._bounded else self._sliced_pieces(data)
        except Exception as error:
            raise ValueError(f"damaged: {error}") from None

    def _next_frame(self) -> Any:
        decompressor = self._module.ZstdDecompressor()
        return decompressor if self._bounded else decompressor.decompressobj()

    def _bounded_pieces(self, data: bytes) -> Generator[bytes, None, bytes]:
        while True:
            piece = self._frame.decompress(data, PIECE)
            data = b""
            if piece:
                yield piece
            if self._frame.eof or self._frame.needs_input:
                return self._left()

    def _sliced_pieces(self, data: bytes) -> Generator[bytes, None, bytes]:
        for start in range(0, len(data), ZSTD_SLICE):
            piece = self._frame.decompress(data[start : start + ZSTD_SLICE])
            if piece:
                yield piece
            if self._frame.eof:
                return self._left() + data[start + ZSTD_SLICE :]
        return b""

    def _left(self) -> bytes:
        """What stands behind the frame, if it has ended."""
        left: bytes = self._frame.unused_data if self._frame.eof else b""
        return left


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ImportError(f"none of {', '.join(names)} is installed")


_CODINGS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Inflate(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Inflate(zlib.MAX_WBITS | 16),
    "deflate": lambda: _Inflate(zlib.MAX_WBITS, or_raw=True),
    "br": _Brotli,
    "zstd": _Zstd,
}
