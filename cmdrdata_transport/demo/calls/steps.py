"""Several calls that are one to whoever wants what comes of them: started, and asked for until it is done."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from cmdrdata_transport.demo.calls.table import Headers, SdkCall

Steps = Callable[[Any, Headers], Generator[Any, Any, Any]]
"""Calls one after the other, of either colour: each is yielded, and its answer sent back."""


def in_steps(name: str, steps: Steps, *, streaming: bool = False) -> SdkCall:
    """A call of these steps, for clients of both colours; what the last one gives is the answer."""

    def make(client: Any, headers: Headers) -> Any:
        calls, answer = steps(client, headers), None
        while True:
            try:
                answer = calls.send(answer)
            except StopIteration as end:
                return end.value

    async def make_async(client: Any, headers: Headers) -> Any:
        calls, answer = steps(client, headers), None
        while True:
            try:
                answer = await calls.send(answer)
            except StopIteration as end:
                return end.value

    return SdkCall(name=name, make=make, make_async=make_async, streaming=streaming)
