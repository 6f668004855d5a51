"""Reads on, in the background, where an application closes a stream before its end.

Knows how to keep a body's iterator when the application lets go of it, and to read the rest within a
bound of time and bytes, so that the usage at the end is known and not guessed; the connection goes back
to its pool then. The provider goes on generating, and billing: whoever turns this on has asked for that.

A sync stream may be closed by garbage collection, where no lock may be taken: it is handed to a thread
through a queue that is made for that. An async one is read on by a task of its event loop; on trio, and
where no loop runs, it is closed as ever. Does not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from functools import cache
from math import inf
from queue import Empty, SimpleQueue
from socket import SHUT_RDWR, socket
from time import monotonic
from typing import Any

from cmdrdata_transport.recorder import Recorder

MOST_BYTES = 8 * 1024 * 1024
"""More of a body is not read."""

MOST_AT_ONCE = 64
"""So many streams are read on at the same time; another one is closed."""

LOOK_SECONDS = 0.25


class Drained:
    """A body whose rest is read when it is closed; sync."""

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        self._stream = stream
        self._chunks = iter(stream)
        self._recorder = recorder
        self._reading = threading.Lock()
        self._stopped = False
        self.seconds = recorder.drain_seconds
        self.until = inf
        _stop_at_exit()
        _readers.ensure_running()

    def __iter__(self) -> Generator[bytes]:
        # Not `yield from`: to close this generator would close the one below.
        for chunk in self._chunks:  # noqa: UP028
            yield chunk

    def close(self) -> None:
        """Have the rest read, if there is one that counts; else close the stream below."""
        if _readers.free() and self._recorder.drain():
            _readers.take(self)
        else:
            self._stream.close()

    def read(self) -> None:
        """Read the rest, in a thread of its own. Whatever fails ends it."""
        recorder, left = self._recorder, MOST_BYTES
        try:
            for chunk in self._chunks:
                with self._reading:
                    if self._stopped:
                        break
                    recorder.kept.append(chunk)
                    recorder.look()
                left -= len(chunk)
                if left <= 0 or monotonic() > self.until:
                    break
        except Exception:  # noqa: S110 - what is known until then is what there is
            pass
        finally:
            self.end()

    def end(self) -> None:
        """Read no more, and let go of the connection."""
        self.stop()
        with contextlib.suppress(Exception):
            self._stream.close()

    @property
    def is_late(self) -> bool:
        """Whether it is to be stopped, and has not been."""
        return not self._stopped and monotonic() > self.until

    def stop(self, *, cut: bool = False) -> None:
        """It takes too long, or is over: what is known counts, once. `cut`: and nothing more comes."""
        with self._reading:
            if not self._stopped:
                self._stopped = True
                self._recorder.drained()
                if cut:  # here, where the connection has not been given back
                    _cut(self._recorder.connection)


class AsyncDrained:
    """The same, async."""

    def __init__(self, stream: Any, recorder: Recorder) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._recorder = recorder
        self._stopped = False
        _stop_at_exit()

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Have the rest read by a task, if there is one that counts; else close the stream below."""
        _stop_tasks(lambda task: task.get_loop().is_closed())
        if len(_tasks) < MOST_AT_ONCE and _loop() is not None and self._recorder.drain():
            task = asyncio.create_task(self._read(), name="cmdrdata drain")
            _tasks[task] = self
            task.add_done_callback(_forget)
            return
        await self._close()

    def stop(self) -> None:
        """It is over, or its event loop is: what is known counts, once."""
        if not self._stopped:
            self._stopped = True
            self._recorder.drained()

    async def _read(self) -> None:
        recorder, left, alive = self._recorder, MOST_BYTES, True
        try:
            async with asyncio.timeout(recorder.drain_seconds):
                async for chunk in self._chunks:
                    recorder.kept.append(chunk)
                    recorder.look()
                    left -= len(chunk)
                    if left <= 0:
                        break
        except Exception:  # noqa: S110 - what is known until then is what there is
            pass
        except GeneratorExit:
            alive = False  # its event loop is gone, and nothing can be awaited any more
            raise
        finally:
            self.stop()
            if alive:
                with contextlib.suppress(Exception):
                    await self._close()

    async def _close(self) -> None:
        try:
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        finally:
            await self._stream.aclose()


class _Readers:
    """The threads that read on: one that waits for streams, and one for each of those."""

    def __init__(self) -> None:
        self._pid = 0
        self._new: SimpleQueue[Drained] = SimpleQueue()
        self._active: list[Drained] = []
        self._waiter: threading.Thread | None = None

    def ensure_running(self) -> None:
        """Called where an answer starts, never where one ends."""
        if self._pid != os.getpid():  # the first time, and in a forked child: the threads are its parent's
            self._pid = os.getpid()
            self._new, self._active, self._waiter = SimpleQueue(), [], None
        if self._waiter is None:
            with contextlib.suppress(RuntimeError):  # the interpreter is going down
                waiter = threading.Thread(target=self._wait, name="cmdrdata drain", daemon=True)
                self._waiter = waiter
                waiter.start()

    def free(self) -> bool:
        """Whether there is somebody to read one more."""
        return self._waiter is not None and self._pid == os.getpid() and len(self._active) < MOST_AT_ONCE

    def take(self, drained: Drained) -> None:
        """Have it read. Takes no lock: garbage collection comes here."""
        self._active.append(drained)
        self._new.put(drained)

    def stop_all(self) -> None:
        """The process ends: what is known counts."""
        for drained in list(self._active):
            drained.stop()

    def _wait(self) -> None:
        new, active = self._new, self._active
        while True:
            with contextlib.suppress(Empty):
                drained = new.get(timeout=LOOK_SECONDS if active else None)
                drained.until = monotonic() + drained.seconds
                reader = threading.Thread(
                    target=self._read, args=(drained,), name="cmdrdata drain reading", daemon=True
                )
                try:
                    reader.start()
                except RuntimeError:  # there are as many threads as there may be, or the process ends
                    drained.end()
                    active.remove(drained)
            # One that is stopped stays active until its thread ends.
            for late in [each for each in active if each.is_late]:
                late.stop(cut=True)

    def _read(self, drained: Drained) -> None:
        try:
            drained.read()
        finally:
            with contextlib.suppress(ValueError):
                self._active.remove(drained)


def _cut(connection: Mapping[str, Any]) -> None:
    """Wake the thread that waits for a silent provider: the next caller may need the connection's place.

    A connection of HTTP/2 is others' too. Where this is not possible the provider's next word ends it.
    """
    with contextlib.suppress(Exception):
        if connection["http_version"] in (b"HTTP/1.0", b"HTTP/1.1"):
            wire = connection["network_stream"].get_extra_info("socket")
            socket.shutdown(wire, SHUT_RDWR)  # not TLS's own, which is for the thread that reads


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_readers = _Readers()
_tasks: dict[asyncio.Task[None], AsyncDrained] = {}


def _forget(task: asyncio.Task[None]) -> None:
    _tasks.pop(task, None)


def _stop_tasks(which: Callable[[asyncio.Task[None]], bool]) -> None:
    """What is known counts of those that no event loop will go on with."""
    for task, drained in list(_tasks.items()):
        if which(task):
            _forget(task)
            drained.stop()
            # Nobody waits for it, and nobody can end it: that is not for the application's log.
            vars_of: Any = task
            vars_of._log_destroy_pending = False  # noqa: SLF001 - asyncio does so itself


def _stop_all() -> None:
    _readers.stop_all()
    _stop_tasks(lambda _: True)


@cache
def _stop_at_exit() -> None:
    """Before trackers are closed: what is registered last runs first, and they are there already."""
    atexit.register(_stop_all)
