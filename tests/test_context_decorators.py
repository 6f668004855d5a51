"""Contexts as decorators: every kind of function, and generators whoever runs, closes or drops them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_transport import (
    customer_context,
    get_customer_context,
    metadata_context,
    no_tracking,
    set_customer_context,
)
from cmdrdata_transport.attribution import UNSET, current

both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# --- decorators -------------------------------------------------------------------------------------


@customer_context("acme", metadata={"kind": "function"})
def plain(number: int) -> tuple[int, str | None, object]:
    """Plain."""
    return number, get_customer_context(), current().metadata["kind"]


@customer_context("acme")
async def asynchronous(number: int) -> tuple[int, str | None]:
    """Asynchronous."""
    await checkpoint()
    return number, get_customer_context()


@customer_context("acme")
def generator(items: int) -> Generator[str | None, str, str]:
    """Yields what it sees before each item; gives back what it was sent last."""
    sent = ""
    for _ in range(items):
        sent = yield get_customer_context()
    return sent


@customer_context("acme")
async def async_generator(items: int) -> AsyncGenerator[str | None, Any]:
    """Yields what it sees."""
    for _ in range(items):
        await checkpoint()
        yield get_customer_context()


def test_a_decorated_function_runs_in_the_block() -> None:
    """The body sees the customer and its caller does not; arguments and the result pass."""
    assert plain(7) == (7, "acme", "function")
    assert current().customer is UNSET


@both_loops
def test_a_decorated_async_function_runs_in_the_block_while_it_is_awaited(backend: str) -> None:
    """The customer is there after a suspension too, and gone for the caller afterwards."""

    async def main() -> tuple[object, object]:
        return await asynchronous(number=7), get_customer_context()

    assert anyio.run(main, backend=backend) == ((7, "acme"), None)


def test_a_decorated_generator_runs_in_the_block_and_its_consumer_does_not() -> None:
    """Between two items the consumer has its own customer."""
    with customer_context("consumer"):
        for seen in generator(3):
            assert (seen, get_customer_context()) == ("acme", "consumer")
        assert get_customer_context() == "consumer"


@both_loops
def test_a_decorated_async_generator_runs_in_the_block_and_its_consumer_does_not(backend: str) -> None:
    """Between two items the consumer has its own customer."""

    async def main() -> list[tuple[object, object]]:
        with customer_context("consumer"):
            seen = [(each, get_customer_context()) async for each in async_generator(3)]
            return [*seen, ("end", get_customer_context())]

    assert anyio.run(main, backend=backend) == [("acme", "consumer")] * 3 + [("end", "consumer")]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (plain, inspect.isfunction),
        (asynchronous, inspect.iscoroutinefunction),
        (generator, inspect.isgeneratorfunction),
        (async_generator, inspect.isasyncgenfunction),
    ],
)
def test_a_decorated_function_keeps_its_kind_and_its_name(
    function: Callable[..., Any], kind: Callable[[object], bool]
) -> None:
    """Frameworks that look at a function's kind, name, docstring and signature see the same."""
    assert kind(function)
    assert function.__name__ in {"plain", "asynchronous", "generator", "async_generator"}
    assert function.__doc__
    assert str(inspect.signature(function)).startswith(("(number: 'int')", "(items: 'int')"))


def test_each_call_of_a_decorated_function_is_a_block_of_its_own() -> None:
    """Recursion and what is set inside end with their own call."""

    @customer_context("acme")
    def down(depth: int) -> list[str | None]:
        set_customer_context(f"level-{depth}")
        below = down(depth - 1) if depth else []
        return [*below, get_customer_context()]

    assert down(2) == ["level-0", "level-1", "level-2"]
    assert current().customer is UNSET


def test_methods_can_be_decorated() -> None:
    """`self` is passed on, for every kind of method."""

    class Service:
        name = "service"

        @customer_context("acme")
        def call(self) -> tuple[str, str | None]:
            return self.name, get_customer_context()

        @staticmethod
        @no_tracking()
        def untracked() -> bool:
            return current().track

        @classmethod
        @metadata_context({"a": 1})
        def labelled(cls) -> tuple[str, object]:
            return cls.name, current().metadata

    assert Service().call() == ("service", "acme")
    assert Service.untracked() is False
    assert Service().labelled() == ("service", {"a": 1})


class _AsyncCallable:
    async def __call__(self) -> str | None:
        await asyncio.sleep(0)
        return get_customer_context()


async def _seen_later() -> str | None:
    await asyncio.sleep(0)
    return get_customer_context()


def _behind_a_plain_decorator() -> Awaitable[str | None]:
    return _seen_later()


@pytest.mark.parametrize(
    "function",
    [_AsyncCallable(), functools.partial(_seen_later), _behind_a_plain_decorator],
    ids=["callable object", "partial", "plain function that returns a coroutine"],
)
def test_what_turns_out_to_be_asynchronous_runs_in_the_block(
    function: Callable[[], Awaitable[str | None]],
) -> None:
    """The body is in the block, however its asynchrony is hidden."""

    async def main() -> str | None:
        return await customer_context("acme")(function)()

    assert asyncio.run(main()) == "acme"


def test_only_what_can_be_called_can_be_decorated() -> None:
    """Decorating something else is an error at once."""
    not_callable: Any = "name"
    with pytest.raises(TypeError, match="only functions"):
        customer_context("acme")(not_callable)


# --- what a generator may do ------------------------------------------------------------------------


def test_what_the_body_sets_is_there_when_it_resumes_and_never_outside() -> None:
    """The body's own blocks and what it set survive a suspension; the consumer never sees them."""

    @customer_context("acme")
    def body() -> Generator[str | None, None, None]:
        yield get_customer_context()
        set_customer_context("set")
        yield get_customer_context()
        with customer_context("inner"), metadata_context({"a": 1}):
            yield get_customer_context()
            assert current().metadata == {"a": 1}
            yield get_customer_context()
        yield get_customer_context()

    consumer: list[object] = []
    with customer_context("consumer"):
        seen = []
        for each in body():
            seen.append(each)
            consumer.append(get_customer_context())
    assert seen == ["acme", "set", "inner", "inner", "set"]
    assert consumer == ["consumer"] * 5


def test_the_body_inherits_from_whoever_resumes_it() -> None:
    """What the consumer's blocks say at each item reaches the body, below what the body says itself."""

    @customer_context("acme")
    def body() -> Generator[object, None, None]:
        while True:
            scope = current()
            yield scope.customer, scope.metadata, scope.track

    items = body()
    with metadata_context({"step": 1}):
        assert next(items) == ("acme", {"step": 1}, True)
    with no_tracking():
        assert next(items) == ("acme", {}, False)
    assert contextvars.Context().run(next, items) == ("acme", {}, True)


def test_a_generator_may_be_consumed_inside_the_context_that_decorates_it() -> None:
    """The consumer's block and the generator's are two, though one object makes both."""
    acme = customer_context("acme")

    @acme
    def body(depth: int) -> Generator[str | None, None, None]:
        set_customer_context(f"level-{depth}")
        if depth:
            yield from body(depth - 1)
        yield get_customer_context()

    seen: list[str | None] = []
    with acme:
        for each in body(2):
            seen += [each, get_customer_context()]
    assert seen == ["level-0", "acme", "level-1", "acme", "level-2", "acme"]


def test_generators_may_be_interleaved() -> None:
    """Each body keeps its own customer, and its own setting, whatever the order of resuming."""

    def body() -> Generator[str | None, str, None]:
        while True:
            set_customer_context((yield get_customer_context()))

    first, second = customer_context("first")(body)(), customer_context("second")(body)()
    assert [next(first), next(second)] == ["first", "second"]
    assert [first.send("a"), second.send("b"), first.send("c"), second.send("d")] == ["a", "b", "c", "d"]
    assert current().customer is UNSET


def test_a_generator_may_be_resumed_by_any_thread() -> None:
    """Each item may be taken in another thread, in another context."""
    items = generator(3)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        seen = [next(items), one.submit(next, items).result(), two.submit(next, items).result()]
    assert seen == ["acme"] * 3


def test_values_are_sent_and_the_result_is_given_back() -> None:
    """`send` reaches the body, and `yield from` gets what it returns."""

    def outer() -> Generator[str | None, str, str]:
        return (yield from generator(2))

    items = outer()
    assert next(items) == "acme"
    assert items.send("one") == "acme"
    with pytest.raises(StopIteration) as stop:
        items.send("two")
    assert stop.value.value == "two"


def _reraises(log: list[object]) -> Generator[object, object, str]:
    while True:
        try:
            log.append((yield len(log)))
        except KeyError as error:
            log.append(repr(error))
        except ValueError:
            return "returned"
        finally:
            log.append("left")


def _returns_when_closed(log: list[object]) -> Generator[object, object, str]:
    try:
        log.append((yield len(log)))
    except GeneratorExit:
        log.append("closed")
    return "returned"


def _yields_once_more(log: list[object]) -> Generator[object, object, None]:
    try:
        log.append((yield "first"))
    except BaseException as error:
        log.append(repr(error))
        log.append((yield "once more"))


async def _handles_async(log: list[object]) -> AsyncGenerator[object, object]:
    while True:
        try:
            log.append((yield len(log)))
        except KeyError as error:
            await checkpoint()
            log.append(repr(error))
        except ValueError:
            return
        finally:
            await checkpoint()
            log.append("left")


async def _yields_once_more_async(log: list[object]) -> AsyncGenerator[object, object]:
    try:
        log.append((yield "first"))
    except BaseException as error:
        await checkpoint()
        log.append(repr(error))
        log.append((yield "once more"))


_STEPS: dict[str, Callable[[Any], object]] = {
    "next": next,
    "send": lambda items: items.send("sent"),
    "send first": lambda items: items.send(None),
    "throw handled": lambda items: items.throw(KeyError("thrown")),
    "throw to return": lambda items: items.throw(ValueError("thrown")),
    "throw unhandled": lambda items: items.throw(OSError("thrown")),
    "throw exit": lambda items: items.throw(GeneratorExit()),
    "close": lambda items: items.close(),
}
_ASYNC_STEPS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "anext": lambda items: items.__anext__(),
    "asend": lambda items: items.asend("sent"),
    "athrow handled": lambda items: items.athrow(KeyError("thrown")),
    "athrow to return": lambda items: items.athrow(ValueError("thrown")),
    "athrow unhandled": lambda items: items.athrow(OSError("thrown")),
    "athrow exit": lambda items: items.athrow(GeneratorExit()),
    "aclose": lambda items: items.aclose(),
}


async def _outcomes(items: Any, steps: list[Callable[[Any], Any]]) -> list[object]:
    """What each step gave or raised."""
    outcomes: list[object] = []
    for step in steps:
        try:
            outcome = step(items)
            outcomes.append(await outcome if inspect.isawaitable(outcome) else outcome)
        except BaseException as error:
            outcomes.append((type(error), str(error), getattr(error, "value", None)))
    return outcomes


# Each sequence ends by closing twice, since one of the bodies refuses once.


@pytest.mark.parametrize("body", [_reraises, _returns_when_closed, _yields_once_more])
@given(steps=st.lists(st.sampled_from(sorted(_STEPS)), max_size=6))
def test_a_decorated_generator_does_what_the_bare_one_does(
    body: Callable[[list[object]], Any], steps: list[str]
) -> None:
    """Any sequence of next, send, throw and close gives the same outcomes, decorated or not."""
    bare_log: list[object] = []
    log: list[object] = []
    calls = [_STEPS[step] for step in [*steps, "close", "close"]]
    expected = asyncio.run(_outcomes(body(bare_log), calls))
    assert asyncio.run(_outcomes(customer_context("acme")(body)(log), calls)) == expected
    assert log == bare_log
    assert current().frames == ()


@pytest.mark.parametrize("body", [_handles_async, _yields_once_more_async])
@given(steps=st.lists(st.sampled_from(sorted(_ASYNC_STEPS)), max_size=6))
def test_a_decorated_async_generator_does_what_the_bare_one_does(
    body: Callable[[list[object]], Any], steps: list[str]
) -> None:
    """Any sequence of anext, asend, athrow and aclose gives the same outcomes, decorated or not."""
    bare_log: list[object] = []
    log: list[object] = []
    calls = [_ASYNC_STEPS[step] for step in [*steps, "aclose", "aclose"]]
    expected = asyncio.run(_outcomes(body(bare_log), calls))
    assert asyncio.run(_outcomes(customer_context("acme")(body)(log), calls)) == expected
    assert log == bare_log


def test_a_block_of_the_consumers_that_the_body_leaves_stays_left() -> None:
    """Leaving is honoured wherever it happens: the consumer's context does not bring the block back."""
    outer = customer_context("outer")

    @customer_context("acme")
    def body() -> Generator[str | None, None, None]:
        yield get_customer_context()
        outer.__exit__(None, None, None)
        yield get_customer_context()

    items = body()
    outer.__enter__()
    assert [next(items), get_customer_context()] == ["acme", "outer"]
    assert [next(items), get_customer_context()] == ["acme", None]
    items.close()


# --- generators that end elsewhere ------------------------------------------------------------------


def _watched(ended: list[object]) -> Generator[int, None, None]:
    try:
        yield 1
        yield 2
    finally:
        ended.append(get_customer_context())


def test_a_generator_dropped_under_another_customer_ends_under_its_own() -> None:
    """Garbage collection runs the body's cleanup in the body's block, and leaves no trace."""
    ended: list[object] = []
    items = customer_context("acme")(_watched)(ended)
    next(items)
    with customer_context("stranger"):
        del items
        gc.collect()
        assert get_customer_context() == "stranger"
    assert ended == ["acme"]


def test_a_generator_closed_in_another_context_ends_under_its_own_customer() -> None:
    """Closing from another thread does not raise and says nothing there."""
    ended: list[object] = []
    items = customer_context("acme")(_watched)(ended)
    next(items)

    def close() -> object:
        items.close()
        return get_customer_context()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(close).result() is None
    assert ended == ["acme"]


def test_a_block_inside_an_undecorated_generator_may_end_elsewhere() -> None:
    """A `with` in a plain generator that is closed in another context never raises there."""

    def body() -> Generator[str | None, None, None]:
        with customer_context("acme"):
            yield get_customer_context()

    items = body()
    assert contextvars.copy_context().run(next, items) == "acme"
    with customer_context("stranger"):
        items.close()
        assert get_customer_context() == "stranger"


@both_loops
def test_an_async_generator_closed_by_another_task_ends_under_its_own_customer(backend: str) -> None:
    """The body's cleanup runs in its block, suspensions included; the closing task keeps its customer."""
    ended: list[object] = []

    @customer_context("acme")
    async def body() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
                ended.append(get_customer_context())

    async def main() -> None:
        items = body()
        await items.__anext__()

        async def close() -> None:
            with customer_context("closer"):
                await items.aclose()
                ended.append(get_customer_context())

        async with anyio.create_task_group() as group:
            group.start_soon(close)

    anyio.run(main, backend=backend)
    assert ended == ["acme", "closer"]


def test_an_async_generator_that_the_loop_closes_is_closed_once_and_without_complaint() -> None:
    """At the loop's end a decorated generator that is still open ends like a bare one."""
    ended: list[object] = []
    complaints: list[object] = []

    async def body() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            ended.append(get_customer_context())

    async def main() -> object:
        asyncio.get_running_loop().set_exception_handler(lambda _, details: complaints.append(details))
        left_open = [customer_context("acme")(body)() for _ in range(3)]
        for items in left_open:
            await items.__anext__()
        return left_open

    asyncio.run(main())
    assert complaints == []
    assert ended == ["acme"] * 3


def test_an_async_generator_dropped_in_the_middle_is_closed_by_the_loop() -> None:
    """Garbage collection hands it to the loop, which runs its cleanup in its block."""
    ended: list[object] = []

    @customer_context("acme")
    async def body() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append(get_customer_context())

    async def main() -> None:
        with customer_context("stranger"):
            async for _ in body():
                break
            gc.collect()
            await asyncio.sleep(0.01)
            ended.append(get_customer_context())

    asyncio.run(main())
    assert ended == ["acme", "stranger"]


@both_loops
def test_cancelling_a_task_leaves_its_blocks(backend: str) -> None:
    """Cancellation reaches the body in its block and passes through."""
    ended: list[object] = []

    @customer_context("acme")
    async def body() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await anyio.sleep(60)
        finally:
            ended.append(get_customer_context())

    async def main() -> None:
        with customer_context("consumer"):
            with anyio.CancelScope() as scope:
                async with aclosing(body()) as items:
                    async for _ in items:
                        scope.cancel()
            ended.append(get_customer_context())

    anyio.run(main, backend=backend)
    assert ended == ["acme", "consumer"]


class _ThrownError(Exception):
    """Can be referred to weakly."""


def test_an_exception_thrown_in_is_not_kept_alive() -> None:
    """Nothing of a finished generator waits for the garbage collector: large bodies hang on tracebacks."""
    gone: list[weakref.ref[BaseException]] = []

    def throw() -> None:
        items = generator(3)
        next(items)
        error = _ThrownError()
        gone.append(weakref.ref(error))
        try:
            items.throw(error)
        except _ThrownError:
            pass
        finally:
            del error

    async def athrow() -> None:
        items = async_generator(3)
        await items.__anext__()
        error = _ThrownError()
        gone.append(weakref.ref(error))
        try:
            await items.athrow(error)
        except _ThrownError:
            pass
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        throw()
        asyncio.run(athrow())
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


def test_the_hooks_of_the_loop_are_back_after_the_first_step() -> None:
    """Hiding the body from the loop hides nothing else."""

    async def main() -> tuple[object, object]:
        before = sys.get_asyncgen_hooks()
        async with aclosing(async_generator(1)) as items:
            await items.__anext__()
            return before, sys.get_asyncgen_hooks()

    before, after = asyncio.run(main())
    assert before == after
