"""Replays an exchange through a tracked client, four ways: httpx or httpx2, sync or async.

Knows fixtures, both HTTP libraries, and how a body is coded and cut. Does not know what an event
ought to say: it gives back the events and what the application saw, and the tests judge.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import httpx2

import cmdrdata_transport.httpx as over_httpx
import cmdrdata_transport.httpx2 as over_httpx2
from cmdrdata_transport.demo import coding as sender
from cmdrdata_transport.demo.loopback import Answer, Loopback
from cmdrdata_transport.testing import capture_usage

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"

DIFFERENT_EACH_RUN = frozenset(
    {"event_id", "timestamp", "library_version", "request_duration_ms", "time_to_first_byte_ms"}
)
"""Fields of an event that no fixture can state."""

MEASURED = frozenset({"delivered_bytes", "delivered_chunks"})
"""What the details of a partial event say of its body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer; the body is as it was before content coding, and in one piece."""

    method: str
    url: str
    request_headers: Sequence[tuple[str, str]] = ()
    request_body: bytes | None = None
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Fixture:
    """An exchange, and the events that must come of it; `fixtures/README.md` explains the files."""

    name: str
    exchange: Exchange
    events: list[dict[str, Any]]
    absent: tuple[str, ...] = ()
    terminal: bytes | None = None
    cuts: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return self.name

    @property
    def settled(self) -> int | None:
        """How much of the body the application may see before the events must be there."""
        if self.terminal is None:
            return None
        return self.exchange.body.index(self.terminal) + len(self.terminal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One of the four ways to read an answer."""

    library: str
    is_async: bool

    def __str__(self) -> str:
        return f"{self.library}-{'async' if self.is_async else 'sync'}"


WAYS = tuple(
    Way(library=library, is_async=is_async) for library in ("httpx", "httpx2") for is_async in (False, True)
)


@dataclass(slots=True, kw_only=True)
class Replay:
    """What came of it: the events, and what the application saw."""

    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    chunks: list[bytes] = field(default_factory=list[bytes])
    """The body as the application read it: still coded, chunk by chunk; empty where it read it whole."""
    events_at: list[int] = field(default_factory=list[int])
    """How many events there were when each of the chunks arrived."""
    content: bytes | None = None
    """The body as the library decoded it, where the application read it whole."""


def stable(event: dict[str, Any]) -> dict[str, Any]:
    """The event without the fields that differ each run, and without how the body was cut."""
    told = {name: value for name, value in event.items() if name not in DIFFERENT_EACH_RUN}
    details = {name: value for name, value in told.pop("details", {}).items() if name not in MEASURED}
    return told | ({"details": details} if details else {})


def fixtures() -> list[Fixture]:
    """Every fixture there is."""
    return [_fixture(folder) for folder in sorted(FIXTURES.glob("*/*/"))]


def _fixture(folder: Path) -> Fixture:
    names = ("request", "response", "expected")
    request, response, expected = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in names)
    asked = request.get("body")
    return Fixture(
        name=f"{folder.parent.name}/{folder.name}",
        exchange=Exchange(
            method=request["method"],
            url=request["url"],
            request_headers=tuple(request["headers"].items()),
            request_body=None if asked is None else json.dumps(asked).encode(),
            status=response["status"],
            headers=tuple(response["headers"].items()),
            body=(folder / "body").read_bytes(),
        ),
        events=expected["events"],
        absent=tuple(expected.get("absent", ())),
        terminal=expected["terminal"].encode() if "terminal" in expected else None,
        cuts=tuple(response.get("chunks", ())),
    )


def cut(body: bytes, at: Iterable[int]) -> list[bytes]:
    """The body in pieces, cut at these places; a place beyond the end is taken from the front again."""
    places = sorted({place % (len(body) + 1) for place in at} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(places)]


CODINGS = (*sender.CODINGS, "raw deflate", "gzip, br")
"""What `coded` can do. Some servers leave the zlib wrapper of deflate out; codings can be stacked."""


def coded(pieces: Iterable[bytes], coding: str | None) -> list[bytes]:
    """The pieces in this content coding, flushed after each, and at the end what the coding adds."""
    if coding != "raw deflate":
        return list(sender.coded(pieces, coding))
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    flushed = [encoder.compress(piece) + encoder.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*flushed, encoder.flush()]


def coding_header(coding: str | None) -> list[tuple[str, str]]:
    """The response header that names a coding."""
    return [("content-encoding", coding.removeprefix("raw "))] if coding else []


def replay(
    exchange: Exchange,
    way: Way,
    chunks: Sequence[bytes] | None = None,
    *,
    coding: str | None = None,
    stop_after: int | None = None,
) -> Replay:
    """Replay the exchange in memory.

    With `chunks`, the answer's body is these bytes in this `coding`, and the application reads them
    raw, one by one, and closes after so many; without, it reads the exchange's body whole.
    """
    body = [exchange.body] if chunks is None else chunks
    reading = _Reading(exchange=exchange, raw=chunks is not None, stop_after=stop_after)
    return _replay(reading, way, _mock(exchange, way, body, coding))


def replay_over_loopback(
    exchange: Exchange, way: Way, chunks: Sequence[bytes] | None = None, *, coding: str | None = None
) -> Replay:
    """The same over real sockets: the loopback server stands in as the proxy to the provider's host."""
    body = [exchange.body] if chunks is None else chunks
    plain = Exchange(
        method=exchange.method,
        url=exchange.url.replace("https://", "http://"),
        request_headers=exchange.request_headers,
        request_body=exchange.request_body,
    )
    answer = Answer(status=exchange.status, headers=[*exchange.headers, *coding_header(coding)], body=body)
    with Loopback(lambda _: answer) as server:
        return _replay(_Reading(exchange=plain, raw=chunks is not None), way, _network(way, server.url))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How the application goes about it."""

    exchange: Exchange
    raw: bool
    stop_after: int | None = None


class _Body:
    """A body that arrives in the given chunks, whichever way it is read."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    def close(self) -> None:
        """Nothing is held."""

    async def aclose(self) -> None:
        """Nothing is held."""


class _HttpxBody(_Body, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class _Httpx2Body(_Body, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


def _mock(exchange: Exchange, way: Way, chunks: Sequence[bytes], coding: str | None) -> Any:
    headers = [*exchange.headers, *coding_header(coding)]
    if way.library == "httpx":
        return httpx.MockTransport(
            lambda _: httpx.Response(exchange.status, headers=headers, stream=_HttpxBody(chunks))
        )
    return httpx2.MockTransport(
        lambda _: httpx2.Response(exchange.status, headers=headers, stream=_Httpx2Body(chunks))
    )


def _network(way: Way, proxy: str) -> Any:
    match way:
        case Way(library="httpx", is_async=False):
            return httpx.HTTPTransport(proxy=proxy)
        case Way(library="httpx"):
            return httpx.AsyncHTTPTransport(proxy=proxy)
        case Way(is_async=False):
            return httpx2.HTTPTransport(proxy=proxy)
        case _:
            return httpx2.AsyncHTTPTransport(proxy=proxy)


def _replay(reading: _Reading, way: Way, inner: Any) -> Replay:
    done = Replay()
    with capture_usage() as events:
        if way.is_async:
            asyncio.run(_read_async(reading, _client(way, inner), done, events))
        else:
            _read(reading, _client(way, inner), done, events)
    done.events = sorted((event.to_dict() for event in events), key=lambda event: int(event.get("part", 0)))
    return done


def _client(way: Way, inner: Any) -> Any:
    match way:
        case Way(library="httpx", is_async=False):
            return httpx.Client(transport=over_httpx.TrackedTransport(inner))
        case Way(library="httpx"):
            return httpx.AsyncClient(transport=over_httpx.AsyncTrackedTransport(inner))
        case Way(is_async=False):
            return httpx2.Client(transport=over_httpx2.TrackedTransport(inner))
        case _:
            return httpx2.AsyncClient(transport=over_httpx2.AsyncTrackedTransport(inner))


def _read(reading: _Reading, client: Any, done: Replay, events: Sequence[object]) -> None:
    with client:
        response = client.send(_request(client, reading.exchange), stream=reading.raw)
        _note(response, done)
        if not reading.raw:
            done.content = response.content
            return
        for chunk in response.iter_raw():
            done.chunks.append(chunk)
            done.events_at.append(len(events))
            if len(done.chunks) == reading.stop_after:
                break
        response.close()


async def _read_async(reading: _Reading, client: Any, done: Replay, events: Sequence[object]) -> None:
    async with client:
        response = await client.send(_request(client, reading.exchange), stream=reading.raw)
        _note(response, done)
        if not reading.raw:
            done.content = response.content
            return
        async for chunk in response.aiter_raw():
            done.chunks.append(chunk)
            done.events_at.append(len(events))
            if len(done.chunks) == reading.stop_after:
                break
        await response.aclose()


def _request(client: Any, exchange: Exchange) -> Any:
    headers = list(exchange.request_headers)
    return client.build_request(exchange.method, exchange.url, headers=headers, content=exchange.request_body)


def _note(response: Any, done: Replay) -> None:
    done.status = response.status_code
    done.headers = [(name.decode().lower(), value.decode("utf-8")) for name, value in response.headers.raw]
