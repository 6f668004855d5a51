"""The words in which an SDK's calls are described, and how such a row is connected and called.

Knows the two ways of tracking an SDK: it is given a tracked client, or its own object is tracked. Knows no
SDK, and nothing of what comes of a call. SDKs are imported when they are connected.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cmdrdata_transport.clients import tracked_async_http_client, tracked_http_client
from cmdrdata_transport.install import track, untrack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

KEY = "not-a-key"

LOOPBACK: Mapping[str, Any] = {"trust_env": False, "verify": False}
"""Client options for a server on this machine: no proxy, and no certificates, which take long to load."""

Headers = Mapping[str, str]

Make = Callable[[Any, Headers], Any]

Connect = Callable[[Any, str, Any], Any]
"""(the imported module, the server's URL, an HTTP client or None for the SDK's own) -> its object."""

Way = Literal["given client", "track", "instrument"]
"""The SDK is given a tracked client; its own object is tracked; or nothing, while `instrument()` is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkCall:
    """One call of an SDK.

    `make` is given the client and headers, which it sends along where the SDK can with a single call.
    With `streaming`, what it gives is iterated. `later`: the request leaves when the first piece is wanted,
    and so in the context of whoever wants it. `elsewhere`: the sync one leaves in a context of its own, so
    that only a header or the client can say whose it is. `make_async` is for an SDK whose async methods
    have other names.
    """

    name: str
    make: Make
    make_async: Make | None = None
    streaming: bool = False
    later: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledSdk:
    """One SDK against one provider: what it is called, its module, whose table reads it, and its calls.

    `at` is put behind the server's URL: it says which provider is to answer. `connect` and
    `connect_async` make the SDK's object. `ways` are those in which it can be tracked; `track` and
    `untrack` are given its object, and `opened` tells what of it there is to close. `sdk` is what
    `tracked_http_client` calls it, where that is another name.
    """

    name: str
    module: str
    provider: str
    connect: Connect
    connect_async: Connect
    calls: tuple[SdkCall, ...]
    at: str = ""
    sdk: str = ""
    ways: tuple[Way, ...] = ("given client", "track", "instrument")
    track: Callable[..., Any] = track
    untrack: Callable[[Any], Any] = untrack
    opened: Callable[[Any], tuple[Any, ...]] = lambda client: (client,)

    @property
    def installed(self) -> bool:
        """Whether it can be imported; nothing is imported to tell."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # of a parent package
            return False


@contextmanager
def connected(sdk: CalledSdk, url: str, *, way: Way | None = None, **tracking: Any) -> Generator[Any]:
    """The SDK's sync client, tracked in this way or its first, talking to the server at `url`.

    `tracking`: the options of `tracked_http_client` and `track`.
    """
    module = importlib.import_module(sdk.module)
    way = way or sdk.ways[0]
    if way == "given client":
        with tracked_http_client(sdk.sdk or sdk.name, **LOOPBACK, **tracking) as http:
            yield sdk.connect(module, url + sdk.at, http)
        return
    client = sdk.connect(module, url + sdk.at, None)
    if way == "track":
        sdk.track(client, **tracking)
    try:
        yield client
    finally:
        for each in sdk.opened(client):
            if hasattr(each, "close"):  # an HTTP client of the other colour has none
                each.close()
        sdk.untrack(client)


@asynccontextmanager
async def connected_async(
    sdk: CalledSdk, url: str, *, way: Way | None = None, **tracking: Any
) -> AsyncGenerator[Any]:
    """The same, async."""
    module = importlib.import_module(sdk.module)
    way = way or sdk.ways[0]
    if way == "given client":
        async with tracked_async_http_client(sdk.sdk or sdk.name, **LOOPBACK, **tracking) as http:
            yield sdk.connect_async(module, url + sdk.at, http)
        return
    client = sdk.connect_async(module, url + sdk.at, None)
    if way == "track":
        sdk.track(client, **tracking)
    try:
        yield client
    finally:
        for each in sdk.opened(client):
            ending = each.aclose() if hasattr(each, "aclose") else each.close()
            if inspect.isawaitable(ending):
                await ending
        sdk.untrack(client)


def call(client: Any, what: SdkCall, headers: Headers) -> None:
    """Make one call, and read it to its end."""
    answer = what.make(client, headers)
    if what.streaming:
        deque(answer, maxlen=0)


async def call_async(client: Any, what: SdkCall, headers: Headers) -> None:
    """The same with an async client, whose streams may be awaited for or not."""
    answer = (what.make_async or what.make)(client, headers)
    if inspect.isawaitable(answer):
        answer = await answer
    if what.streaming:
        async for _ in answer:
            pass
