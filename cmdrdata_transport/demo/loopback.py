"""An HTTP/1.1 server on 127.0.0.1 whose every byte and moment its handler decides.

Knows HTTP (through h11), sockets and threads: one thread a connection, keep-alive. Knows nothing of
providers: a handler is given a `Call` and gives an `Answer`, or None to hang up without one.

    with Loopback(lambda call: Answer(body=b"hello")) as server:
        httpx.get(server.url)

Leaving the block closes every connection and waits for every thread. It then raises the first error
that came out of a handler or a body, so that a mistake there can't pass for a fault of the network.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import h11

from cmdrdata_transport.demo.coding import coded

if TYPE_CHECKING:
    from types import TracebackType

_RECEIVE = 65536
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_STATUSES = frozenset(int(status) for status in HTTPStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it came.

    `target` is what the request line says: a path, or a whole URL when the client takes the server
    for a proxy. Names in `headers` are in lower case. `connection` numbers the connections from 1.
    """

    method: str
    target: str
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    connection: int = 1

    @property
    def path(self) -> str:
        """The path, still percent-encoded."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return urlsplit(self.target).query

    def header(self, name: str) -> str | None:
        """The first header of this name, in whatever case, or None."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)

    def json(self) -> Any:
        """The body as JSON; `ValueError` if it is none."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to send.

    `body`: bytes, or an iterable of them; each item is one chunk and leaves at once, and the iterable
    may wait (for a `threading.Event`, say) between two.
    `coding`: a Content-Encoding to apply, flushed after each item; names its header too.
    `chunked`: Transfer-Encoding chunked; when False, bytes are sent with a Content-Length, and an
    iterable ends with the connection. A framing header among `headers` wins over both.
    `close_after`: close the connection after so many chunks, without the end of the body.
    `before_chunk`: called with the number of each chunk, from 0, before it is sent.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Iterable[bytes] = b""
    coding: str | None = None
    chunked: bool = True
    close_after: int | None = None
    before_chunk: Callable[[int], object] | None = None

    @classmethod
    def json(cls, document: Any, *, headers: Sequence[tuple[str, str]] = (), **options: Any) -> Answer:
        """A document as JSON, with its Content-Type; `options` are the other fields."""
        typed = (("content-type", "application/json"), *headers)
        return cls(headers=typed, body=json.dumps(document).encode(), **options)


Handler = Callable[[Call], Answer | None]


def in_turn(*answers: Answer | None) -> Handler:
    """A handler that gives each answer once, in this order; one call too many is an error."""
    left: Iterator[Answer | None] = iter(answers)
    lock = threading.Lock()

    def handler(call: Call) -> Answer | None:
        with lock:
            for answer in left:
                return answer
        raise AssertionError(f"no answer is left for {call.method} {call.target}")

    return handler


class Loopback:
    """The server; entered, it listens at `url` and keeps what came in `calls`, in order of arrival.

    `errors` has what handlers and bodies raised. A client that goes away is no error. `patience` is
    how many seconds leaving waits for each body that is still being sent.
    """

    def __init__(self, handler: Handler, *, patience: float = 10.0) -> None:
        self._handler = handler
        self._patience = patience
        self._lock = threading.Lock()
        self._connections: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._closed = False
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.calls: list[Call] = []
        self.errors: list[Exception] = []
        self.url = ""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name="loopback", daemon=True
        )
        self._acceptor.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stuck = self._shut()
        if kind is None and self.errors:
            raise self.errors[0]
        if kind is None and stuck:
            raise RuntimeError(f"a handler is still waiting after {self._patience} s: open its gate")

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        with self._lock:
            return len(self._connections)

    def _shut(self) -> bool:
        """Close everything; True if a thread would not end."""
        if self._listener is None or self._acceptor is None:
            return False
        with self._lock:
            self._closed = True
            live = list(self._connections.values())
        with suppress(OSError):  # a last connection wakes the acceptor, on every platform
            socket.create_connection(self._listener.getsockname()).close()
        self._acceptor.join()
        self._listener.close()
        for connection, _ in live:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in live:
            thread.join(self._patience)
        return any(thread.is_alive() for _, thread in live)

    def _accept(self, listener: socket.socket) -> None:
        number = 0
        while True:
            with suppress(OSError):
                peer, _ = listener.accept()
                number += 1
                with self._lock:
                    if self._closed:
                        peer.close()
                        return
                    thread = threading.Thread(
                        target=self._serve, args=(peer, number), name=f"loopback-{number}", daemon=True
                    )
                    self._connections[number] = peer, thread
                thread.start()

    def _serve(self, peer: socket.socket, number: int) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = _Wire(peer)
        try:
            while (call := wire.receive(number)) is not None:
                self.calls.append(call)
                head_only = call.method == "HEAD"
                if not wire.send(self._answer(call), head_only=head_only):
                    return
        except (_GoneError, h11.RemoteProtocolError):
            pass  # the client went away, or does not speak HTTP
        except Exception as error:
            self.errors.append(error)
        finally:
            with self._lock:
                del self._connections[number]
            peer.close()

    def _answer(self, call: Call) -> Answer | None:
        try:
            return self._handler(call)
        except Exception as error:
            self.errors.append(error)
            return Answer(status=500, body=b"the handler failed")


class _GoneError(Exception):
    """The peer has closed the connection."""


class _Wire:
    """One connection: h11 and the socket below it."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._http = h11.Connection(h11.SERVER)

    def receive(self, number: int) -> Call | None:
        """The next request, whole, or None when the client has no more."""
        request = self._next_event()
        if not isinstance(request, h11.Request):
            return None
        body = bytearray()
        while isinstance(event := self._next_event(), h11.Data):
            body += event.data
        return Call(
            method=request.method.decode(),
            target=request.target.decode(),
            headers=list(request.headers),
            body=bytes(body),
            connection=number,
        )

    def send(self, answer: Answer | None, *, head_only: bool) -> bool:
        """Send it; True if the connection can take another request."""
        if answer is None:
            return False
        body = [answer.body] if isinstance(answer.body, bytes) else answer.body
        try:
            with closing(coded(body, answer.coding)) as chunks:
                whole = self._send(answer, iter(()) if head_only else chunks)
        finally:
            if isinstance(body, Generator):
                body.close()
        if not whole or self._http.our_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def _send(self, answer: Answer, chunks: Iterator[bytes]) -> bool:
        """Headers and body; True if the body was sent to its end."""
        headers = [(name.lower(), value) for name, value in answer.headers]
        if answer.coding is not None:
            headers.append(("content-encoding", answer.coding))
        if not _FRAMING.intersection(name for name, _ in headers):
            if answer.chunked:
                headers.append(("transfer-encoding", "chunked"))
            elif isinstance(answer.body, bytes):
                data = b"".join(chunks)
                chunks = iter([data] if data else [])
                headers.append(("content-length", str(len(data))))
            else:
                return self._send_until_close(answer, headers, chunks)
        head = h11.Response(status_code=answer.status, headers=headers, reason=_reason(answer.status))
        self._push(self._http.send(head))
        if not self._send_chunks(answer, chunks, lambda data: self._http.send(h11.Data(data=data))):
            return False
        self._push(self._http.send(h11.EndOfMessage()))
        return True

    def _send_until_close(
        self, answer: Answer, headers: list[tuple[str, str]], chunks: Iterator[bytes]
    ) -> Literal[False]:
        """A body that ends with its connection, as HTTP/1.0 had it; h11 would send it chunked."""
        lines = [b"HTTP/1.1 %d " % answer.status + _reason(answer.status), b"connection: close"]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
        self._push(b"\r\n".join(lines) + b"\r\n\r\n")
        self._send_chunks(answer, chunks, lambda data: data)
        return False

    def _send_chunks(
        self, answer: Answer, chunks: Iterator[bytes], framed: Callable[[bytes], bytes | None]
    ) -> bool:
        """True unless `close_after` cut it short."""
        sent = 0
        while sent != answer.close_after and (data := next(chunks, None)) is not None:
            if answer.before_chunk is not None:
                answer.before_chunk(sent)
            self._push(framed(data))
            sent += 1
        return sent != answer.close_after

    def _push(self, data: bytes | None) -> None:
        try:
            self._peer.sendall(data or b"")
        except OSError as error:
            raise _GoneError from error

    def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                self._http.receive_data(self._peer.recv(_RECEIVE))
            except OSError as error:
                raise _GoneError from error
        return event


def _reason(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode() if status in _STATUSES else b""
