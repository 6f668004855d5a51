"""Passes a body through, and shows each chunk to a recorder before the caller has it.

Library-neutral: `httpx.py` and `httpx2.py` mix these with their library's stream class. The same
chunks go up at the same moments; errors, closing and cancellation go through unchanged. A second
iteration continues where the stream below continues it: openai 3 iterates once more, for what stands
behind `[DONE]`, while its first iterator is suspended.

The loops are the hot path, and are written out for it: most chunks of a stream cost an append and the
comparison of one byte. (A chunk too short to have that byte is looked at like any odd one.)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import islice
from typing import Any

from cmdrdata_transport.recorder import Recorder

LINE_END = ord("\n")
"""A mark holds no line end, so a chunk that ends in one holds a mark whole or not at all."""


class Tee:
    """A response's stream, watched; sync."""

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        self._stream = stream
        self._recorder = recorder

    def __iter__(self) -> Iterator[bytes]:
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

    async def __aiter__(self) -> AsyncIterator[bytes]:
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
