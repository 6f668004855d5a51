"""Blocks of code that belong to a customer: `with`, `async with`, and decorators of every kind of function.

Knows how a scope is put on and taken off. Does not know what is made of it: requests, headers, defaults.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from dataclasses import replace
from functools import wraps
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from cmdrdata_transport.attribution.labels import check_customer, check_metadata
from cmdrdata_transport.attribution.scope import UNSET, Frame, Scope, scope_var

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Context:
    """What `customer_context` and its like give: a block, sync or async, and a decorator.

    One object may be entered again, at once or later, from any thread or task. As a decorator it
    gives each call a block of its own. The body of a decorated generator is in the block only while
    it runs: between two items the consumer keeps its own context, wherever it consumes, and what
    the body set is there again when it resumes.
    """

    __slots__ = ("_frame",)

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __enter__(self) -> None:
        scope_var.set(Scope.of((*scope_var.get().frames, self._frame)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope = scope_var.get()
        if (outer := scope.without(self._frame)) is not scope:
            scope_var.set(outer)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """The function with each of its calls in a block of its own, and of the same kind as before."""
        called: Any = function
        if not callable(called):
            raise TypeError(f"only functions can be decorated, not {type(called).__name__}")
        # A callable object is of the kind of its __call__ .
        kinds = (called, getattr(called, "__call__", None))  # noqa: B004 - asked what it is, not whether
        if any(map(isasyncgenfunction, kinds)):
            wrap = self._async_generator
        elif any(map(isgeneratorfunction, kinds)):
            wrap = self._generator
        elif any(map(iscoroutinefunction, kinds)):
            wrap = self._coroutine
        else:
            wrap = self._plain
        return cast("Callable[_P, _R]", wraps(called)(wrap(called)))

    def _plain(self, called: Any) -> Callable[..., Any]:
        def plain(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = called(*args, **kwargs)
            # An async function behind a plain decorator: its body has not begun.
            return self._awaited(result) if iscoroutine(result) else result

        return plain

    def _coroutine(self, called: Any) -> Callable[..., Any]:
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await called(*args, **kwargs)

        return coroutine

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with self:
            return await coroutine

    def _generator(self, called: Any) -> Callable[..., Any]:
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            body = called(*args, **kwargs)
            visits = _Visits(self._frame)
            resume, value = body.send, None
            while True:
                with visits:
                    try:
                        item = resume(value)
                    except StopIteration as stop:
                        return stop.value
                    finally:
                        del value  # may be an exception, whose traceback holds this frame
                try:
                    value = yield item
                    resume = body.send
                except BaseException as error:
                    value = error
                    resume = body.throw

        return generator

    def _async_generator(self, called: Any) -> Callable[..., Any]:
        async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            body = called(*args, **kwargs)
            visits = _Visits(self._frame)
            step = _unwatched(body)
            while True:
                with visits:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    finally:
                        del step  # may hold an exception, whose traceback holds this frame
                try:
                    step = body.asend((yield item))
                except BaseException as error:
                    step = body.athrow(error)

        return generator


class _Visits:
    """Puts a generator's own part of the scope on while its body runs, and takes it off again.

    The part begins at a frame made for this generator alone, so that the consumer's part below it
    and the body's above it can be told apart whatever the body did meanwhile.
    """

    __slots__ = ("_inside", "_mark", "_outside", "_own")

    def __init__(self, frame: Frame) -> None:
        self._mark = replace(frame)
        self._own: tuple[Frame, ...] = (self._mark,)
        self._outside: Scope | None = None
        self._inside = Scope()

    def __enter__(self) -> None:
        outside = scope_var.get()
        if outside is not self._outside:
            self._outside = outside
            self._inside = Scope.of(outside.frames + self._own)
        scope_var.set(self._inside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inside = scope_var.get()
        outside = cast("Scope", self._outside)
        if inside is not self._inside and self._mark in inside.frames:
            at = inside.frames.index(self._mark)
            self._inside, self._own = inside, inside.frames[at:]
            if at != len(outside.frames):  # the body left a block of its consumer's: it stays left
                outside = self._outside = Scope.of(inside.frames[:at])
        scope_var.set(outside)


def _unwatched(body: AsyncGenerator[Any, Any]) -> Any:
    """The first step of a body that the event loop is not told of.

    The loop closes the generators that it knows when it shuts down, all at once: it must know the
    decorated one only, which closes its body. Both at once would be an error.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def customer_context(customer_id: str | None, *, metadata: Mapping[str, Any] | None = None) -> Context:
    """Calls in this block belong to this customer: `with`, `async with`, or a decorator.

    Blocks nest; the innermost customer counts. `metadata` belongs to the customer: a block of another
    customer inside does not inherit it, one of the same customer does. `None` says that calls here
    belong to no customer: defaults do not apply.

    Code that the block starts in tasks, `asyncio.to_thread` and anything else that copies the context
    is in it; a thread that does not is not. Leaving the block in another context than it was entered
    in never raises, and leaves the other context's customer alone.

    Raises:
        AttributionError: a customer id or metadata that no event could carry.
    """
    return Context(_named(customer_id, metadata, block=True))


def metadata_context(metadata: Mapping[str, Any]) -> Context:
    """Calls in this block carry this metadata too, whoever the customer is; the nearest block wins per key.

    Used and left as `customer_context`, and raises as it does.
    """
    return Context(Frame(metadata=check_metadata(metadata)))


def no_tracking() -> Context:
    """Nothing that is called in this block is metered. A block or a decorator, as `customer_context`."""
    return Context(Frame(track=False))


def set_customer_context(customer_id: str | None, *, metadata: Mapping[str, Any] | None = None) -> None:
    """From here on, calls belong to this customer: for frameworks that tell a start and an end apart.

    Lasts until it is set again, cleared, or the block around it is left. It starts the customer
    anew: metadata that was given before, for this or another customer, is over; that of
    `metadata_context` blocks still applies. Wherever a thread or task serves one request after
    another, `clear_customer_context` belongs at the end of each.

    Raises:
        AttributionError: a customer id or metadata that no event could carry; what was set stays.
    """
    _said(_named(customer_id, metadata, block=False))


def clear_customer_context() -> None:
    """From here on, nothing is said about the customer, so that defaults apply.

    Lasts as `set_customer_context` does: leaving the block around it brings back what was before.
    """
    _said(Frame(block=False))


def get_customer_context() -> str | None:
    """The customer that calls made here belong to by their context.

    `None` when the context names none, whether nothing was said (defaults apply) or `None` was.
    """
    customer = scope_var.get().customer
    return None if customer is UNSET else customer


def _named(customer: str | None, metadata: Mapping[str, Any] | None, *, block: bool) -> Frame:
    return Frame(
        customer=None if customer is None else check_customer(customer),
        metadata={} if metadata is None else check_metadata(metadata),
        block=block,
    )


def _said(frame: Frame) -> None:
    frames = scope_var.get().frames
    if frames and not frames[-1].block:  # replaced, so that a thread without blocks does not collect them
        frames = frames[:-1]
    scope_var.set(Scope.of((*frames, frame)))
