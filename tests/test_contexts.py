"""Contexts: what they say where, as blocks and as decorators, whoever enters, leaves, runs and drops them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_transport import (
    clear_customer_context,
    customer_context,
    get_customer_context,
    metadata_context,
    no_tracking,
    set_customer_context,
)
from cmdrdata_transport.attribution import UNSET, Context, current
from cmdrdata_transport.attribution.labels import METADATA_LIMIT
from cmdrdata_transport.attribution.scope import Scope, scope_var
from cmdrdata_transport.errors import AttributionError

both_loops = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def _nothing_said() -> Generator[None, None, None]:
    """Each test starts in a context that says nothing."""
    before = scope_var.set(Scope())
    yield
    scope_var.reset(before)


def elsewhere(work: Callable[[], Any]) -> Any:
    """Runs in a context that says nothing."""
    return contextvars.Context().run(work)


# --- blocks -----------------------------------------------------------------------------------------


def test_a_block_names_its_customer_until_it_is_left() -> None:
    """Inside the block the customer is its own; outside nothing is said."""
    assert current().customer is UNSET
    with customer_context("acme"):
        assert current().customer == "acme"
    assert current().customer is UNSET


def test_the_innermost_customer_counts() -> None:
    """Blocks nest, and leaving one brings back the one around it."""
    with customer_context("acme"):
        with customer_context("beta"):
            assert get_customer_context() == "beta"
        assert get_customer_context() == "acme"


def test_none_is_said_and_nothing_is_not() -> None:
    """`None` in a block states that there is no customer; without a block nothing is stated."""
    with customer_context("acme"), customer_context(None):
        assert current().customer is None
        assert get_customer_context() is None
    assert get_customer_context() is None


def test_an_exception_passes_and_the_block_is_left() -> None:
    """A block swallows nothing."""
    with pytest.raises(KeyError), customer_context("acme"):
        raise KeyError
    assert current().customer is UNSET


@both_loops
def test_a_block_may_be_asynchronous(backend: str) -> None:
    """`async with` does what `with` does."""

    async def main() -> tuple[object, object]:
        async with customer_context("acme"):
            inside = get_customer_context()
        return inside, get_customer_context()

    assert anyio.run(main, backend=backend) == ("acme", None)


def test_one_object_may_be_entered_again_and_again() -> None:
    """A context made once is used many times, inside itself too."""
    acme = customer_context("acme")
    with acme:
        with customer_context("beta"), acme:
            assert get_customer_context() == "acme"
        assert get_customer_context() == "acme"
    with acme:
        assert get_customer_context() == "acme"
    assert current().customer is UNSET


def test_metadata_belongs_to_the_customer_it_was_given_for() -> None:
    """A nested block of another customer does not inherit it; one of the same customer does."""
    with customer_context("acme", metadata={"plan": "pro", "seat": 1}):
        with customer_context("acme", metadata={"seat": 2}):
            assert current().metadata == {"plan": "pro", "seat": 2}
        with customer_context("beta", metadata={"seat": 3}):
            assert current().metadata == {"seat": 3}
            with customer_context("acme"):
                assert current().metadata == {"plan": "pro", "seat": 1}
        with customer_context(None):
            assert current().metadata == {}


def test_ambient_metadata_is_inherited_by_every_customer() -> None:
    """`metadata_context` applies whoever the customer is, whether it is entered before or after."""
    with metadata_context({"env": "live", "feature": "chat"}), customer_context("acme"):
        assert current().metadata == {"env": "live", "feature": "chat"}
        with customer_context("beta", metadata={"feature": "search"}):
            assert current().metadata == {"env": "live", "feature": "search"}
            with metadata_context({"feature": "rerank"}):
                assert current().metadata == {"env": "live", "feature": "rerank"}


def test_metadata_is_copied_where_it_is_given() -> None:
    """Changing the dict afterwards, at any depth, changes no event."""
    tags = ["a"]
    given_metadata: dict[str, Any] = {"tags": tags}
    with metadata_context(given_metadata):
        tags.append("b")
        given_metadata["more"] = 1
        assert current().metadata == {"tags": ["a"]}


def test_metadata_that_does_not_fit_together_loses_the_farthest_block_and_never_the_customer() -> None:
    """Over the bound the outermost metadata is left out, whole, and the scope says so."""
    half = "x" * (METADATA_LIMIT // 2)
    with metadata_context({"far": half}), metadata_context({"middle": half}):
        assert current().truncated
        with customer_context("acme", metadata={"near": 1}):
            assert current().metadata == {"near": 1, "middle": half}
            assert current().customer == "acme"
            assert current().truncated


def test_the_same_large_metadata_twice_still_fits() -> None:
    """The bound is on what is merged, not on what was given."""
    large = {"k": "x" * (METADATA_LIMIT - 100)}
    with metadata_context(large), metadata_context(large), metadata_context({"small": 1}):
        assert current().metadata == {**large, "small": 1}
        assert not current().truncated


def test_no_tracking_holds_until_its_block_is_left() -> None:
    """Inside, nothing is metered, whatever customer is named there."""
    assert current().track
    with no_tracking(), customer_context("acme"):
        assert not current().track
    assert current().track


@pytest.mark.parametrize(
    ("make", "value", "says"),
    [
        (customer_context, "", "pass None"),
        (customer_context, 42, "pass str"),
        (metadata_context, {"when": object()}, "metadata['when']"),
        (metadata_context, "feature", "must be a dict"),
        (metadata_context, None, "must be a dict"),
        (set_customer_context, "\ud800", "surrogate"),
    ],
)
def test_a_wrong_value_is_an_error_where_it_is_given(
    make: Callable[[Any], Any], value: object, says: str
) -> None:
    """The error is raised at once, says what to do, and leaves the context as it was."""
    with customer_context("acme"):
        with pytest.raises(AttributionError) as caught:
            make(value)
        assert says in str(caught.value)
        assert get_customer_context() == "acme"


# --- set and clear ----------------------------------------------------------------------------------


def test_set_lasts_until_it_is_set_again_or_cleared() -> None:
    """What a framework sets stays without a block."""
    set_customer_context("acme", metadata={"request": 1})
    assert current().metadata == {"request": 1}
    set_customer_context("acme")
    assert (get_customer_context(), current().metadata) == ("acme", {})
    set_customer_context(None)
    assert current().customer is None
    clear_customer_context()
    assert current().customer is UNSET


def test_set_starts_the_customer_anew_and_keeps_ambient_metadata() -> None:
    """Metadata that outer blocks gave the same customer is over; what is ambient stays."""
    with metadata_context({"env": "live"}), customer_context("acme", metadata={"plan": "pro"}):
        set_customer_context("acme", metadata={"request": 1})
        assert current().metadata == {"env": "live", "request": 1}
        with customer_context("acme", metadata={"step": 2}):
            assert current().metadata == {"env": "live", "request": 1, "step": 2}


def test_what_is_set_in_a_block_ends_with_the_block() -> None:
    """Leaving a block brings back what was before it, set or not."""
    set_customer_context("before")
    with customer_context("acme"):
        set_customer_context("beta")
        assert get_customer_context() == "beta"
        clear_customer_context()
        assert current().customer is UNSET
    assert get_customer_context() == "before"


def test_setting_in_a_thread_without_blocks_collects_nothing() -> None:
    """A server thread that sets and clears for every request keeps one frame."""
    for request in range(100):
        set_customer_context(f"customer-{request}")
        clear_customer_context()
    assert len(current().frames) == 1


# --- leaving out of order, and elsewhere ------------------------------------------------------------


def test_leaving_out_of_order_leaves_the_customer_that_is_still_open() -> None:
    """A block that is left first disappears; the one inside it counts until it is left too."""
    acme, beta = customer_context("acme"), customer_context("beta")
    acme.__enter__()
    beta.__enter__()
    acme.__exit__(None, None, None)
    assert get_customer_context() == "beta"
    beta.__exit__(None, None, None)
    assert current().customer is UNSET


def test_leaving_in_a_context_that_never_entered_changes_nothing_there() -> None:
    """Another task's customer stays what it was."""
    acme = customer_context("acme")

    def other() -> str | None:
        with customer_context("other"):
            acme.__exit__(None, None, None)
            return get_customer_context()

    with acme:
        assert elsewhere(other) == "other"
        assert elsewhere(lambda: acme.__exit__(None, None, None)) is None


def test_leaving_in_a_copy_leaves_it_there_and_not_here() -> None:
    """A copied context that inherited the block may leave it, with what it opened inside still open."""
    acme = customer_context("acme")

    def left() -> object:
        acme.__exit__(None, None, None)
        return current().customer

    def left_under_another() -> object:
        with customer_context("beta"):
            acme.__exit__(None, None, None)
            inside = current().customer
        return inside, current().customer

    with customer_context("outer"), acme:
        assert contextvars.copy_context().run(left) == "outer"
        assert contextvars.copy_context().run(left_under_another) == ("beta", "outer")
        assert get_customer_context() == "acme"


def test_leaving_twice_is_leaving_once() -> None:
    """A second `__exit__` finds nothing to leave."""
    with customer_context("outer"):
        acme = customer_context("acme")
        acme.__enter__()
        acme.__exit__(None, None, None)
        acme.__exit__(None, None, None)
        assert get_customer_context() == "outer"


@given(
    st.lists(st.sampled_from("abcd"), max_size=8).flatmap(
        lambda names: st.tuples(st.just(names), st.permutations(range(len(names))))
    )
)
def test_left_in_any_order_the_innermost_open_block_counts(
    blocks: tuple[list[str], list[int]],
) -> None:
    """Whatever the order of leaving, the customer is that of the newest block that is still open."""
    names, order = blocks

    def scenario() -> None:
        opened = [customer_context(name) for name in names]
        for block in opened:
            block.__enter__()
        still = list(range(len(names)))
        for left in order:
            assert get_customer_context() == names[still[-1]]
            opened[left].__exit__(None, None, None)
            still.remove(left)
        assert current().customer is UNSET

    elsewhere(scenario)


# --- threads and tasks ------------------------------------------------------------------------------


def test_a_thread_is_in_the_block_only_if_it_carries_the_context() -> None:
    """A bare thread says nothing; one that runs in a copied context says what was copied."""
    with customer_context("acme"), ThreadPoolExecutor(1) as pool:
        carried = contextvars.copy_context()
        assert pool.submit(get_customer_context).result() is None
        assert pool.submit(carried.run, get_customer_context).result() == "acme"


def test_to_thread_carries_the_customer() -> None:
    """`asyncio.to_thread` copies the context, and what the thread sets stays in the copy."""

    def work() -> str | None:
        seen = get_customer_context()
        set_customer_context("thread")
        return seen

    async def main() -> tuple[object, object]:
        with customer_context("acme"):
            return await asyncio.to_thread(work), get_customer_context()

    assert asyncio.run(main()) == ("acme", "acme")


@both_loops
def test_tasks_of_many_customers_do_not_see_each_other(backend: str) -> None:
    """Concurrent tasks keep their customers through every suspension, and inherit from their parent."""
    seen: dict[str, list[str | None]] = {}

    async def call(name: str) -> None:
        inherited = get_customer_context()
        with customer_context(name, metadata={"name": name}):
            await checkpoint()
            from_thread = await anyio.to_thread.run_sync(get_customer_context)
            await checkpoint()
            seen[name] = [inherited, from_thread, get_customer_context(), current().metadata["name"]]

    async def main() -> None:
        with customer_context("parent"):
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(call, f"customer-{number}")

    anyio.run(main, backend=backend)
    assert seen == {name: ["parent", name, name, name] for name in seen}
    assert len(seen) == 20


def test_threads_share_one_context_object() -> None:
    """One object entered by many threads at once belongs to each of them separately."""
    acme = customer_context("acme")
    barrier = threading.Barrier(4)

    def work() -> tuple[object, object]:
        with acme:
            barrier.wait(10)
            inside = get_customer_context()
            barrier.wait(10)
        return inside, get_customer_context()

    with ThreadPoolExecutor(4) as pool:
        assert [each.result() for each in [pool.submit(work) for _ in range(4)]] == [("acme", None)] * 4


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
    assert elsewhere(lambda: next(items)) == ("acme", {}, True)


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


def test_many_contexts_in_an_exit_stack_are_left_in_order() -> None:
    """Contexts are ordinary context managers."""
    with ExitStack() as stack:
        made: list[Context] = [customer_context("a"), metadata_context({"k": 1}), no_tracking()]
        for each in made:
            stack.enter_context(each)
        scope = current()
        assert (scope.customer, scope.metadata, scope.track) == ("a", {"k": 1}, False)
    assert current().frames == ()
