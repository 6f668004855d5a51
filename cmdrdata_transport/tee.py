"""Passes a body through, and shows each chunk to a recorder before the caller has it.

Library-neutral: `httpx.py` and `httpx2.py` mix these with their library's stream class. The same
chunks go up at the same moments; errors, closing and cancellation go through unchanged. A second
iteration continues where the stream below continues it: openai 3 iterates once more, for what stands
behind `[DONE]`, while its first iterator is suspended.

The loops are the hot path, and are written out for it: most chunks of a stream cost an append and the
comparison of one byte. (A chunk too short to have that byte is looked at like any odd one.)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any

from cmdrdata_transport.asking import Veil
from cmdrdata_transport.recorder import Recorder

LINE_END = ord("\n")
"""A mark holds no line end, so a chunk that ends in one holds a mark whole or not at all."""


class Tee:
    """A response's stream, watched; sync."""

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        self._stream = stream
        self._recorder = recorder

    def __iter__(self) -> Generator[bytes]:
        recorder = self._recorder
        kept, look, calm, mark = recorder.kept, recorder.look, recorder.calm, recorder.mark
        keep, patience = kept.append, recorder.patience
        try:
            stream = iter(self._stream)
            if calm is not None:
                for chunk in stream:
                    keep(chunk)
                    patience = look()
                    yield chunk
                    for chunk in islice(stream, max(0, patience)):  # noqa: PLW2901 - the next ones
                        keep(chunk)
                        try:
                            if chunk[-3] != calm:
                                look()
                        except Exception:  # it is empty, or of a type of its own
                            look()
                        yield chunk
            elif mark is not None:
                for chunk in stream:
                    keep(chunk)
                    patience = look()
                    yield chunk
                    for chunk in islice(stream, max(0, patience)):  # noqa: PLW2901 - the next ones
                        keep(chunk)
                        try:
                            near = chunk[-1] != LINE_END or chunk.rfind(mark) >= 0
                        except Exception:  # it is empty, or of a type of its own
                            near = True
                        if near and look() < 0:
                            yield chunk
                            break
                        yield chunk
            else:
                for chunk in stream:
                    keep(chunk)
                    if len(kept) > patience:
                        patience = look()
                    yield chunk
        except BaseException as error:
            recorder.end(error)
            raise
        recorder.end()

    def close(self) -> None:
        """Close the stream below; whatever it raises goes through."""
        try:
            self._stream.close()
        finally:
            self._recorder.end(closed=True)


class AsyncTee:
    """A response's stream, watched; async. Ending a record never awaits."""

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        self._stream = stream
        self._recorder = recorder

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        recorder = self._recorder
        kept, look, calm, mark = recorder.kept, recorder.look, recorder.calm, recorder.mark
        keep, patience = kept.append, recorder.patience
        stream = aiter(self._stream)
        try:
            if calm is not None:
                async for chunk in stream:
                    keep(chunk)
                    try:
                        if chunk[-3] != calm or len(kept) > patience:
                            patience = look()
                    except Exception:  # it is empty, or of a type of its own
                        patience = look()
                    yield chunk
            elif mark is not None:
                async for chunk in stream:
                    keep(chunk)
                    try:
                        if chunk[-1] != LINE_END or len(kept) > patience or chunk.rfind(mark) >= 0:
                            patience = look()
                    except Exception:  # it is empty, or of a type of its own
                        patience = look()
                    yield chunk
            else:
                async for chunk in stream:
                    keep(chunk)
                    if len(kept) > patience:
                        patience = look()
                    yield chunk
        except BaseException as error:
            recorder.end(error)
            raise
        else:
            recorder.end()
        finally:
            # httpx2 closes the generator that it iterates. The one below is that one's, not the collector's.
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def aclose(self) -> None:
        """Close the stream below; whatever it raises goes through."""
        try:
            await self._stream.aclose()
        finally:
            self._recorder.end(closed=True)


class VeiledTee(Tee):
    """A stream, watched, of which the application does not see what we asked for; sync."""

    def __init__(self, stream: Any, recorder: Recorder, veil: Veil) -> None:
        super().__init__(stream, recorder)
        self._show = _Shown(veil, recorder.lose_veil)

    def __iter__(self) -> Generator[bytes]:
        show = self._show
        with closing(super().__iter__()) as chunks:
            try:
                for chunk in chunks:
                    if shown := show.next(chunk):
                        yield shown
            except Exception:
                if rest := show.rest():
                    yield rest
                raise
            if rest := show.rest():
                yield rest


class AsyncVeiledTee(AsyncTee):
    """The same, async."""

    def __init__(self, stream: Any, recorder: Recorder, veil: Veil) -> None:
        super().__init__(stream, recorder)
        self._show = _Shown(veil, recorder.lose_veil)

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        show = self._show
        async with aclosing(super().__aiter__()) as chunks:
            try:
                async for chunk in chunks:
                    if shown := show.next(chunk):
                        yield shown
            except Exception:
                if rest := show.rest():
                    yield rest
                raise
            if rest := show.rest():
                yield rest


class _Shown:
    """A veil that can fail: from then on everything is shown as it comes."""

    def __init__(self, veil: Veil, lose: Callable[[Exception], None]) -> None:
        self._veil: Veil | None = veil
        self._lose = lose

    def next(self, chunk: bytes) -> bytes:
        if self._veil is None:
            return chunk
        try:
            return self._veil.show(chunk)
        except Exception as error:
            return self._lift(error) + chunk

    def rest(self) -> bytes:
        if self._veil is None:
            return b""
        try:
            return self._veil.rest()
        except Exception as error:
            return self._lift(error)

    def _lift(self, error: Exception) -> bytes:
        veil, self._veil = self._veil, None
        self._lose(error)
        return b"" if veil is None else veil.left()


class Peeked:
    """A stream of which the first chunks have been read, to be read from its beginning; sync."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunks = iter(stream)
        self._first: list[bytes] = []
        self._error: BaseException | None = None

    def peek(self, most: int) -> bytes:
        """The first bytes; an error on the way is whoever reads on's."""
        try:
            for chunk in self._chunks:
                self._first.append(chunk)
                if sum(map(len, self._first)) >= most:
                    break
        except Exception as error:
            self._error = error
        return b"".join(self._first)

    def __iter__(self) -> Generator[bytes]:
        yield from self._first
        if self._error is not None:
            raise self._error
        yield from self._chunks

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()


class AsyncPeeked:
    """The same, async."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._first: list[bytes] = []
        self._error: BaseException | None = None

    async def peek(self, most: int) -> bytes:
        """The first bytes; an error on the way is whoever reads on's."""
        try:
            async for chunk in self._chunks:
                self._first.append(chunk)
                if sum(map(len, self._first)) >= most:
                    break
        except Exception as error:
            self._error = error
        return b"".join(self._first)

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        for chunk in self._first:
            yield chunk
        if self._error is not None:
            raise self._error
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
