"""Contexts as blocks: what they say where, and leaving them in any order and anywhere."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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


def test_many_contexts_in_an_exit_stack_are_left_in_order() -> None:
    """Contexts are ordinary context managers."""
    with ExitStack() as stack:
        made: list[Context] = [customer_context("a"), metadata_context({"k": 1}), no_tracking()]
        for each in made:
            stack.enter_context(each)
        scope = current()
        assert (scope.customer, scope.metadata, scope.track) == ("a", {"k": 1}, False)
    assert current().frames == ()


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
            barrier.wait(50)
            inside = get_customer_context()
            barrier.wait(50)
        return inside, get_customer_context()

    with ThreadPoolExecutor(4) as pool:
        assert [each.result() for each in [pool.submit(work) for _ in range(4)]] == [("acme", None)] * 4
