"""A server that states usage to those who ask, and may refuse to; and clients that ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from endings import CHAT, COUNTS
from exchange import cut
from four_ways import App, Run, World, run

from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.wire.coding import decoder_for
from cmdrdata_transport.wire.json import parse

ASKS = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
KNOWN, ELSEWHERE = "http://api.openai.com/v1/chat/completions", "http://gateway.test/v1/chat/completions"
UNKNOWN_OPTION = b'{"error":{"message":"Unknown parameter: \'stream_options\'.","code":"unknown_parameter"}}'


def answers(*, asked: bool) -> list[bytes]:
    """The stream of a server: its usage, and members that are null, only for those who ask."""
    if asked:
        return list(CHAT)
    return [each.replace(b', "usage": null', b"") for each in CHAT if each is not COUNTS]


@dataclass(slots=True)
class Server:
    """A provider that states usage when asked; `refusing` is its answer to who asks, if it does not."""

    coding: str | None = None
    cuts: Sequence[int] | None = None
    refusing: Answer | None = None
    always: Answer | None = None
    """Its answer to everybody."""
    calls: list[Call] = field(default_factory=list[Call])

    def __call__(self, call: Call) -> Answer:
        """Answer."""
        self.calls.append(call)
        if self.always is not None:
            return self.always
        options = (parse(call.body) if call.body[:1] == b"{" else {}).get("stream_options") or {}
        asked = options.get("include_usage") is True
        if asked and self.refusing is not None:
            return self.refusing
        body = answers(asked=asked)
        if self.cuts is not None:
            body = cut(b"".join(body), self.cuts)
        return Answer(headers=[("content-type", "text/event-stream")], body=body, coding=self.coding)


def network(world: World, proxy: str) -> Any:
    """A transport of the library that reaches every host at the loopback server."""
    kind = "AsyncHTTPTransport" if world.way.is_async else "HTTPTransport"
    return getattr(world.library, kind)(proxy=proxy)


def over_network(
    server: Server, world: World, act: Callable[[App], Any], *, asks: Any = ASKS, **options: Any
) -> Run:
    """Run over real sockets."""
    with Loopback(server) as loopback:
        return run(act, world, between=lambda _: network(world, loopback.url), asks=asks, **options)


def asking_at(url: str, **request: Any) -> Callable[[App], Any]:
    """The application asks once, reads what it is answered, and logs it."""

    async def act(app: App) -> None:
        response = await app.send(url=url, **request)
        app.say(response.status_code)
        read = [chunk async for chunk in app.chunks(response)]
        await app.close(response)
        app.log.append(read)

    return act


def seen(done: Run) -> list[Any]:
    """What the application saw."""
    return [line for line in done.log if not isinstance(line, str) or line.startswith("app:")]


def read_of(done: Run) -> Any:
    """What the application read last: the chunks, or the body whole."""
    return [line for line in done.log if not isinstance(line, str)][-1]


def decoded(done: Run, coding: str | None) -> bytes:
    """The body that the application saw, its coding undone."""
    raw = b"".join(read_of(done))
    decoder = decoder_for(coding or "")
    return raw if decoder is None else b"".join(decoder.decode(raw))
