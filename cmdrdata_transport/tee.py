"""Passes a body through, and shows each chunk to a recorder before the caller has it.

Library-neutral: `httpx.py` and `httpx2.py` mix these with their library's stream class. The same
chunks go up at the same moments; errors, closing and cancellation go through unchanged. A second
iteration continues where the stream below continues it: openai 3 iterates once more, for what stands
behind `[DONE]`, while its first iterator is suspended.

The loops are the hot path, and are written out for it: most chunks of a stream cost an append and the
comparison of one byte. (A chunk too short to have that byte is looked at like any odd one.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Generator
from itertools import islice
from typing import Any

from cmdrdata_transport.asking import LIST, OBJECT, ORDINARY_END, Veil
from cmdrdata_transport.draining import AsyncDrained, Drained
from cmdrdata_transport.recorder import Recorder

LINE_END = ord("\n")
"""A mark holds no line end, so a chunk that ends in one holds a mark whole or not at all."""


class Tee:
    """A response's stream, watched; sync."""

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        self._stream = Drained(stream, recorder) if recorder.drains else stream
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
        self._stream = AsyncDrained(stream, recorder) if recorder.drains else stream
        self._recorder = recorder

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        recorder = self._recorder
        kept, look, calm, mark = recorder.kept, recorder.look, recorder.calm, recorder.mark
        keep, patience = kept.append, recorder.patience
        stream: Any = aiter(self._stream)
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
    """A stream, watched, of which the application does not see what we asked for; sync.

    A chunk with one list alone that begins with an object lacks no choices: it costs no call of ours.
    """

    def __init__(self, stream: Any, recorder: Recorder, veil: Veil) -> None:
        super().__init__(stream, recorder)
        self._veil = veil

    def __iter__(self) -> Generator[bytes]:
        recorder, veil = self._recorder, self._veil
        kept, look, show, idle = recorder.kept, recorder.look, veil.show, veil.idle
        keep, last, bracket, brace = kept.append, ORDINARY_END, LIST, OBJECT
        try:
            stream = iter(self._stream)
            for chunk in stream:
                keep(chunk)
                patience = look()
                if shown := show(chunk):
                    yield shown
                idle = veil.idle
                for chunk in islice(stream, max(0, patience)):  # noqa: PLW2901 - the next ones
                    keep(chunk)
                    try:
                        ordinary = (
                            idle
                            and chunk[-3:] == last
                            and (first := chunk.find(bracket)) == chunk.rfind(bracket)
                            and chunk[first + 1] == brace
                        )
                    except (IndexError, TypeError, AttributeError):  # it is empty, or of a type of its own
                        ordinary = False
                    if ordinary:
                        yield chunk
                        continue
                    look()
                    if shown := show(chunk):
                        yield shown
                    idle = veil.idle
        except BaseException as error:
            recorder.end(error)
            if isinstance(error, Exception) and (rest := veil.rest()):
                yield rest
            raise
        recorder.end()
        if rest := veil.rest():
            yield rest


class AsyncVeiledTee(AsyncTee):
    """The same, async."""

    def __init__(self, stream: Any, recorder: Recorder, veil: Veil) -> None:
        super().__init__(stream, recorder)
        self._veil = veil

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        recorder, veil = self._recorder, self._veil
        kept, look, show, idle = recorder.kept, recorder.look, veil.show, veil.idle
        keep, last, bracket, brace, patience = kept.append, ORDINARY_END, LIST, OBJECT, 0
        stream: Any = aiter(self._stream)
        try:
            async for chunk in stream:
                keep(chunk)
                try:
                    ordinary = (
                        idle
                        and len(kept) <= patience
                        and chunk[-3:] == last
                        and (first := chunk.find(bracket)) == chunk.rfind(bracket)
                        and chunk[first + 1] == brace
                    )
                except (IndexError, TypeError, AttributeError):  # it is empty, or of a type of its own
                    ordinary = False
                if ordinary:
                    yield chunk
                    continue
                patience = look()
                if shown := show(chunk):
                    yield shown
                idle = veil.idle
        except BaseException as error:
            recorder.end(error)
            if isinstance(error, Exception) and (rest := veil.rest()):
                yield rest
            raise
        else:
            recorder.end()
            if rest := veil.rest():
                yield rest
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()


class Peeked:
    """A stream of which the first chunks have been read, to be read from its beginning; sync."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunks = iter(stream)
        self._first: deque[bytes] = deque()
        self._error: Exception | None = None

    def peek(self, most: int) -> bytes:
        """The first bytes; an error on the way is whoever reads on's."""
        read = 0
        try:
            for chunk in self._chunks:
                self._first.append(chunk)
                read += len(chunk)
                if read >= most:
                    break
        except Exception as error:
            self._error = error
        return b"".join(self._first)

    def __iter__(self) -> Generator[bytes]:
        while self._first:
            yield self._first.popleft()
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
        self._first: deque[bytes] = deque()
        self._error: Exception | None = None

    async def peek(self, most: int) -> bytes:
        """The first bytes; an error on the way is whoever reads on's."""
        read = 0
        try:
            async for chunk in self._chunks:
                self._first.append(chunk)
                read += len(chunk)
                if read >= most:
                    break
        except Exception as error:
            self._error = error
        return b"".join(self._first)

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while self._first:
            yield self._first.popleft()
        if self._error is not None:
            raise self._error
        try:
            async for chunk in self._chunks:
                yield chunk
        finally:
            await self._leave()

    async def aclose(self) -> None:
        """Close the stream below."""
        try:
            await self._leave()
        finally:
            await self._stream.aclose()

    async def _leave(self) -> None:
        """Nobody else has the iterator: garbage collection would find it, on no event loop."""
        if isinstance(self._chunks, AsyncGenerator) and not getattr(self._chunks, "ag_running", False):
            await self._chunks.aclose()
