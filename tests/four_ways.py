"""Runs one scenario over httpx and httpx2, sync and async, tracked and bare.

A scenario is written once, as a coroutine function that is given an `App`. Over a sync client nothing
in it ever waits, so it runs to its end in one step; over an async one it runs on asyncio or trio.

Knows the two libraries, and a transport whose answer is scripted and which writes down everything that
is done to it, in one log with what the application does. Does not know what any of it should be.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

import anyio
import httpx
import httpx2
import trio
from exchange import WAYS, Way

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.testing import capture_usage
from cmdrdata_transport.tracker import Tracker

TURNS = 12
"""More turns of an event loop than anything here takes to end."""

URL = "https://api.openai.com/v1/chat/completions"

LIBRARIES: dict[str, tuple[ModuleType, ModuleType]] = {
    "httpx": (httpx, over_httpx),
    "httpx2": (httpx2, over_httpx2),
}
"""Each library, and ours for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A way, and the event loop that an async one runs on."""

    way: Way
    loop: str = ""

    def __str__(self) -> str:
        return f"{self.way}-{self.loop}" if self.loop else str(self.way)

    @property
    def library(self) -> Any:
        """The HTTP library."""
        return LIBRARIES[self.way.library][0]

    @property
    def tracked_transport(self) -> Any:
        """Our transport for this library and colour."""
        ours: Any = LIBRARIES[self.way.library][1]
        return ours.AsyncTrackedTransport if self.way.is_async else ours.TrackedTransport

    @property
    def client(self) -> Any:
        """The library's client of this colour."""
        return self.library.AsyncClient if self.way.is_async else self.library.Client

    @property
    def mock_transport(self) -> Any:
        """The library's transport that answers by calling a function."""
        return self.library.MockTransport


SYNC = tuple(World(way=way) for way in WAYS if not way.is_async)
ASYNCIO = tuple(World(way=way, loop="asyncio") for way in WAYS if way.is_async)
TRIO = tuple(World(way=way, loop="trio") for way in WAYS if way.is_async)
FOUR = (*SYNC, *ASYNCIO)
ASYNC = (*ASYNCIO, *TRIO)
EVERY = (*FOUR, *TRIO)


@dataclass(frozen=True, slots=True)
class Wait:
    """A step of a body: the next chunk never comes."""


Step = bytes | bytearray | memoryview | BaseException | Wait
"""One thing that a body does: give a chunk, fail, or hang."""

Log = list[Any]
"""Lines of text; a scenario may put in what it likes."""


@dataclass(slots=True, kw_only=True)
class Script:
    """An answer, and what happens when it is asked for, read and closed."""

    body: Iterable[Step] = ()
    status: int = 200
    headers: Sequence[tuple[str, str] | tuple[bytes, bytes]] = (("content-type", "text/event-stream"),)
    refusal: BaseException | None = None
    """Raised instead of an answer."""
    hangs: bool = False
    """Whether the head of the answer never comes."""
    close_error: BaseException | None = None
    """Raised when the body is closed."""
    close_hangs: bool = False
    """Whether closing the body never ends."""
    extensions: dict[str, Any] = field(default_factory=dict[str, Any])
    already_read: bool = False
    """Whether the answer comes with its body read, as from a mock or a cache."""


class _Stream:
    """The scripted body. A second iteration continues where the first one is."""

    def __init__(self, script: Script, log: Log) -> None:
        self._left = iter(script.body)
        self._script = script
        self._log = log

    def __iter__(self) -> Iterator[bytes]:
        try:
            for step in self._left:
                yield self._chunk(step)
        except BaseException as error:
            self._log.append(f"stream: {type(error).__name__}")
            raise
        self._log.append("stream: exhausted")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for step in self._left:
                if isinstance(step, Wait):
                    self._log.append("stream: waits")
                    await anyio.sleep_forever()
                yield self._chunk(step)
        except BaseException as error:
            self._log.append(f"stream: {type(error).__name__}")
            raise
        self._log.append("stream: exhausted")

    def _chunk(self, step: Step) -> Any:
        if isinstance(step, BaseException):
            raise step
        assert not isinstance(step, Wait), "a sync body cannot wait"
        self._log.append(f"stream: {_shown(step)}")
        return step

    def close(self) -> None:
        """Log it."""
        self._log.append("stream: close")
        if self._script.close_error is not None:
            raise self._script.close_error

    async def aclose(self) -> None:
        """Log it."""
        self.close()
        if self._script.close_hangs:
            await anyio.sleep_forever()


class _HttpxStream(_Stream, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class _Httpx2Stream(_Stream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class Below:
    """The transport below: answers by the scripts, one after the other, then by the last one again.

    `color` is an attribute of its own.
    """

    color = "green"

    def __init__(self, library: Any, scripts: Sequence[Script], log: Log) -> None:
        self._library = library
        self._scripts = list(scripts)
        self._log = log
        self.requests: list[Any] = []
        self.answers: list[tuple[weakref.ref[Any], weakref.ref[Any]]] = []
        """Each response with its stream; not held, because some rows are about letting go."""

    def handle_request(self, request: Any) -> Any:
        """Answer."""
        script = self._scripts[0] if len(self._scripts) == 1 else self._scripts.pop(0)
        self._log.append(f"transport: {request.method} {request.url.path}")
        self.requests.append(request)
        if script.refusal is not None:
            raise script.refusal
        if script.already_read:
            content = b"".join(step for step in script.body if isinstance(step, bytes))
            response = self._library.Response(
                script.status, headers=script.headers, content=content, extensions=script.extensions
            )
        else:
            kind = _HttpxStream if self._library is httpx else _Httpx2Stream
            stream = kind(script, self._log)
            response = self._library.Response(
                script.status, headers=script.headers, stream=stream, extensions=script.extensions
            )
        self.answers.append((weakref.ref(response), weakref.ref(response.stream)))
        return response

    async def handle_async_request(self, request: Any) -> Any:
        """Answer."""
        if self._scripts[0].hangs:
            self._log.append("transport: waits")
            await anyio.sleep_forever()
        return self.handle_request(request)

    def close(self) -> None:
        """Log it."""
        self._log.append("transport: close")

    async def aclose(self) -> None:
        """Log it."""
        self.close()

    def __enter__(self) -> Self:
        self._log.append("transport: enter")
        return self

    def __exit__(self, *raised: object) -> None:
        self._log.append(f"transport: exit {[getattr(each, '__name__', each) for each in raised[:1]]}")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *raised: object) -> None:
        self.__exit__(*raised)


Act = Callable[[], Coroutine[Any, Any, None]]


class App:
    """The application: one client, and what it does with it."""

    is_async = False
    asks: Mapping[str, Any] | None = None
    """The JSON of every request that says nothing else."""

    def __init__(self, client: Any, log: Log, events: Sequence[UsageEvent]) -> None:
        self.client = client
        self.log = log
        self.events = events
        """What has been recorded so far."""

    def request(self, **options: Any) -> Any:
        """A request that the library makes for this client; a completion is asked for, if nothing is said."""
        return self.client.build_request(
            **{"method": "POST", "url": URL, "json": self.asks or {"model": "gpt-5"}, **options}
        )

    async def handle(self, request: Any) -> Any:
        """What the transport answers, without a client around it."""
        return self.client._transport.handle_request(request)

    async def send(self, **request: Any) -> Any:
        """Ask, without reading the answer."""
        return self.client.send(self.request(**request), stream=True)

    async def call(self, **request: Any) -> Any:
        """Ask, and read the answer whole."""
        return self.client.send(self.request(**request))

    def stream(self, **request: Any) -> AbstractAsyncContextManager[Any]:
        """Ask, in a block that closes the answer."""
        return _Entered(self.client.stream("POST", URL, **{"json": self.asks, **request}))

    def chunks(self, response: Any) -> Any:
        """The raw chunks of an answer, for `async for`."""
        return _Stepped(response.iter_raw())

    def chunks_of(self, stream: Any) -> Any:
        """The chunks of a response's stream, as an SDK drains it."""
        return _Stepped(iter(stream))

    async def close(self, response: Any) -> None:
        """Close an answer."""
        response.close()

    async def pause(self) -> None:
        """Let others act."""

    async def turn(self) -> None:
        """Let the event loop run; collect what nobody holds."""
        gc.collect()

    async def together(self, *acts: Act) -> None:
        """Act at the same time: in threads, or in tasks."""
        with ThreadPoolExecutor(len(acts)) as threads:
            for acting in [threads.submit(_step, act()) for act in acts]:
                acting.result()

    async def give_up_on(self, act: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Run `act` in a task, and cancel it once it has called the function it is given."""
        raise NotImplementedError("only tasks can be cancelled")

    def say(self, what: object) -> None:
        """Log what the application sees or does."""
        self.log.append(f"app: {_shown(what) if isinstance(what, bytes) else what}")


class AsyncApp(App):
    """The same, async."""

    is_async = True

    def __init__(self, client: Any, log: Log, events: Sequence[UsageEvent], loop: str) -> None:
        super().__init__(client, log, events)
        self._loop = loop

    async def handle(self, request: Any) -> Any:
        """What the transport answers, without a client around it."""
        return await self.client._transport.handle_async_request(request)

    async def send(self, **request: Any) -> Any:
        """Ask, without reading the answer."""
        return await self.client.send(self.request(**request), stream=True)

    async def call(self, **request: Any) -> Any:
        """Ask, and read the answer whole."""
        return await self.client.send(self.request(**request))

    def stream(self, **request: Any) -> AbstractAsyncContextManager[Any]:
        """Ask, in a block that closes the answer."""
        streaming: AbstractAsyncContextManager[Any] = self.client.stream(
            "POST", URL, **{"json": self.asks, **request}
        )
        return streaming

    def chunks(self, response: Any) -> Any:
        """The raw chunks of an answer, for `async for`."""
        return response.aiter_raw()

    def chunks_of(self, stream: Any) -> Any:
        """The chunks of a response's stream, as an SDK drains it."""
        return aiter(stream)

    async def close(self, response: Any) -> None:
        """Close an answer."""
        await response.aclose()

    async def pause(self) -> None:
        """Let others act."""
        await anyio.lowlevel.checkpoint()

    async def turn(self) -> None:
        """Let the event loop run; collect what nobody holds.

        asyncio takes its tasks in turn, so how long each thing takes is compared as well; trio draws lots.
        """
        for _ in range(TURNS):
            gc.collect()
            await anyio.lowlevel.checkpoint()
            if self._loop == "asyncio":
                self.log.append("app: a turn of the loop")

    async def together(self, *acts: Act) -> None:
        """Act at the same time: in threads, or in tasks."""
        async with anyio.create_task_group() as tasks:
            for act in acts:
                tasks.start_soon(act)

    async def give_up_on(self, act: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Run `act` in a task, and cancel it once it has called the function it is given."""
        if self._loop == "trio":
            now = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(act, now.set)
                await now.wait()
                nursery.cancel_scope.cancel()
            return
        reached = asyncio.Event()

        async def acting() -> None:
            await act(reached.set)

        task = asyncio.create_task(acting())
        await reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


Scenario = Callable[[App], Coroutine[Any, Any, None]]


@dataclass(slots=True, kw_only=True)
class Run:
    """What came of a scenario."""

    log: Log
    events: list[dict[str, Any]]
    stats: dict[str, int]
    raised: BaseException | None
    below: Below


def run(
    scenario: Scenario,
    world: World,
    *scripts: Script,
    tracked: bool = True,
    tracker: Tracker | None = None,
    between: Callable[[Any], Any] = lambda below: below,
    captured: bool = True,
    asks: Mapping[str, Any] | None = None,
    **options: Any,
) -> Run:
    """Run a scenario in one world.

    `options` are the tracked transport's; `between` puts something between it and the one below; events
    that are not `captured` go where the tracker sends them. What the scenario raises is given back and not
    raised, but for what a test asserts inside it.
    """
    log: Log = []
    tracker = tracker or Tracker([])
    below = Below(world.library, scripts, log)
    transport = between(below)
    if tracked:
        transport = world.tracked_transport(transport, tracker=tracker, **options)
    raised: BaseException | None = None
    gc.freeze()  # what is older than this scenario need not be looked at each time that it collects
    nowhere = nullcontext[list[UsageEvent]]([])
    with capture_usage() if captured else nowhere as events, warnings.catch_warnings():
        # trio warns of every async generator that was left for garbage collection: here on purpose.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            play(world, _playing(scenario, world, transport, log, events, asks=asks))
        except AssertionError:
            raise
        except BaseException as error:  # whatever it is, it is compared
            raised = error.with_traceback(None)
        gc.collect()
    gc.unfreeze()
    return Run(
        log=log,
        events=[event.to_dict() for event in events],
        stats=tracker.stats(),
        raised=raised,
        below=below,
    )


async def _playing(
    scenario: Scenario,
    world: World,
    transport: Any,
    log: Log,
    events: Sequence[UsageEvent],
    *,
    asks: Mapping[str, Any] | None,
) -> None:
    client = world.client(transport=transport)
    if not world.way.is_async:
        with client:
            app = App(client, log, events)
            app.asks = asks
            await scenario(app)
    else:
        async with client:
            app = AsyncApp(client, log, events, world.loop)
            app.asks = asks
            await scenario(app)


def play(world: World, acting: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, on the world's event loop if it has one."""
    match world.loop:
        case "asyncio":
            asyncio.run(acting)
        case "trio":
            trio.run(_awaited, acting)
        case _:
            _step(acting)


def _step(acting: Coroutine[Any, Any, None]) -> None:
    try:
        acting.send(None)
    except StopIteration:
        return
    raise AssertionError("a sync scenario cannot wait")


async def _awaited(acting: Coroutine[Any, Any, None]) -> None:
    await acting


class _Stepped:
    """A sync iterator for `async for`; dropping this drops it."""

    def __init__(self, steps: Iterator[bytes]) -> None:
        self._steps = steps

    def __aiter__(self) -> _Stepped:
        return self

    async def __anext__(self) -> bytes:
        for step in self._steps:
            return step
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the iterator."""
        self._steps.close()  # type: ignore[attr-defined]  # it is a generator


class _Entered:
    """A sync context manager for `async with`."""

    def __init__(self, block: Any) -> None:
        self._block = block

    async def __aenter__(self) -> Any:
        return self._block.__enter__()

    async def __aexit__(self, *raised: object) -> bool | None:
        left: bool | None = self._block.__exit__(*raised)
        return left


def _shown(data: bytes | bytearray | memoryview) -> str:
    chunk = bytes(data)
    return repr(chunk if len(chunk) < 40 else chunk[:17] + b"..." + chunk[-17:])
