"""What type checkers make of the public API. Checked by mypy and pyright in `make check`, never run."""

# ruff: noqa: D101, D102, D103, RET504 - the types are what is said here

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, assert_type

import httpx
import httpx2

from cmdrdata_transport import (
    Sink,
    Tracker,
    Usage,
    UsageEvent,
    clear_customer_context,
    configure,
    customer_context,
    default_tracker,
    get_customer_context,
    instrument,
    metadata_context,
    no_tracking,
    set_customer_context,
    track,
    tracking_headers,
    uninstrument,
)
from cmdrdata_transport.httpx import AsyncTrackedTransport, TrackedTransport
from cmdrdata_transport.httpx2 import AsyncTrackedTransport as AsyncTrackedTransport2
from cmdrdata_transport.httpx2 import TrackedTransport as TrackedTransport2
from cmdrdata_transport.testing import capture_usage


# A decorated function has the type that it had.
@customer_context("acme", metadata={"feature": "chat"})
def plain(number: int, *, loud: bool = False) -> str:
    return str(number) if loud else ""


@no_tracking()
async def asynchronous(number: int) -> str:
    return str(number)


@metadata_context({"feature": "chat"})
def generator(number: int) -> Generator[int, str, bytes]:
    yield number
    return b""


@customer_context(None)
async def async_generator(number: int) -> AsyncGenerator[int, None]:
    yield number


class Service:
    @customer_context("acme")
    def method(self, number: int) -> list[int]:
        return [number]


async def decorated() -> None:
    assert_type(plain(1, loud=True), str)
    assert_type(await asynchronous(1), str)
    assert_type(generator(1), Generator[int, str, bytes])
    assert_type(async_generator(1), AsyncGenerator[int, None])
    assert_type(Service().method(1), list[int])


# A block swallows no exception, so what is bound inside is bound behind it.
def blocks() -> str:
    with customer_context("acme"), metadata_context({"a": 1}), no_tracking():
        inside = "bound"
    return inside


async def asynchronous_blocks() -> str:
    async with customer_context("acme"):
        inside = "bound"
    return inside


def attribution() -> None:
    set_customer_context("acme", metadata={"plan": "pro"})
    set_customer_context(None)
    assert_type(get_customer_context(), str | None)
    clear_customer_context()
    assert_type(tracking_headers("acme", {"a": [1, {"b": None}]}, track=False), dict[str, str])


# What is tracked has the type that it had.
def clients(client: httpx.Client, client2: httpx2.AsyncClient, tracker: Tracker) -> None:
    assert_type(track(client, customer_id="acme"), httpx.Client)
    assert_type(track(client2, tracker=tracker), httpx2.AsyncClient)


def process(tracker: Tracker) -> None:
    instrument(tracker=tracker, customer_id="acme", metadata={"a": 1}, include_usage=False)
    uninstrument()


def transports(tracker: Tracker) -> None:
    httpx.Client(transport=TrackedTransport(httpx.HTTPTransport(), tracker=tracker))
    httpx.AsyncClient(transport=AsyncTrackedTransport(httpx.AsyncHTTPTransport(), customer_id="acme"))
    httpx2.Client(transport=TrackedTransport2(httpx2.HTTPTransport(), metadata={"a": 1}))
    httpx2.AsyncClient(transport=AsyncTrackedTransport2(httpx2.AsyncHTTPTransport(), provider="openai"))


class Receiver:
    def send(self, events: Sequence[UsageEvent]) -> None:
        """A sink is whatever has this method."""


def receive(events: list[UsageEvent]) -> None:
    """And a function is one too."""
    assert_type([event.usage for event in events], list[Usage])


def trackers(receiver: Sink) -> None:
    tracker = Tracker([Receiver(), receiver, receive, "sqlite:///usage.db"], customer_id="acme")
    assert_type(tracker.flush(timeout=1.0), bool)
    assert_type(tracker.stats(), dict[str, int])
    assert_type(configure(disabled=True), Tracker)
    assert_type(default_tracker(), Tracker)


def events(event: UsageEvent) -> None:
    assert_type(event.to_dict(), dict[str, Any])
    assert_type(event.to_json(), bytes)
    assert_type(UsageEvent.from_json(b"{}"), UsageEvent)
    assert_type(event.usage.input_tokens, int | None)


def captured() -> None:
    with capture_usage() as caught:
        assert_type(caught, list[UsageEvent])
