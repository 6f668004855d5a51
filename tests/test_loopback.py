"""The loopback server: what a real client sees is what the handler said."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import h11
import httpx
import pytest

from cmdrdata_transport.demo.coding import CODINGS, coded
from cmdrdata_transport.demo.loopback import Answer, Call, Handler, Loopback, in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEMS = [b"data: \xc3", b"\xa9t\xc3\xa9\r", b"\n\r\n", b"", b"data: [DONE]\n\n"]


def loopback_threads() -> list[str]:
    """The names of the server's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loopback")]


def on_the_wire(server: Loopback, path: str = "/") -> bytes:
    """What comes for one request, byte for byte, until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: loopback\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while data := peer.recv(65536):
            received += data
    return received


def test_a_call_is_recorded_as_it_came() -> None:
    """Method, target, path, query, headers, body and JSON of a request can be read back."""
    with Loopback(lambda call: Answer(body=b"hello")) as server:
        answer = httpx.post(f"{server.url}/v1/a%20b?x=1", json={"n": 1}, headers={"X-Two": "Zwei"})
    assert answer.text == "hello"
    (call,) = server.calls
    assert (call.method, call.target, call.path, call.query) == ("POST", "/v1/a%20b?x=1", "/v1/a%20b", "x=1")
    assert call.header("x-TWO") == "Zwei"
    assert call.header("x-three") is None
    assert call.json() == {"n": 1}


def test_a_client_that_takes_it_for_a_proxy_is_answered() -> None:
    """A whole URL in the request line keeps its path, so that environment proxies can be tested."""
    with (
        Loopback(lambda call: Answer(body=call.path.encode())) as server,
        httpx.Client(proxy=server.url) as client,
    ):
        assert client.get("http://api.example.com/v1/x?y").text == "/v1/x"
    assert server.calls[0].target == "http://api.example.com/v1/x?y"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(body=[b"one", b"", b"two"]), b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        (Answer(body=b"whole"), b"5\r\nwhole\r\n0\r\n\r\n"),
        (Answer(), b"0\r\n\r\n"),
        (Answer(body=b"whole", chunked=False), b"whole"),
        (Answer(chunked=False), b""),
        (Answer(body=[b"one", b"two"], chunked=False), b"onetwo"),
        (Answer(body=[b"one", b"two"], headers=[("Content-Length", "6")]), b"onetwo"),
        (Answer(body=[b"one", b"two"], close_after=1), b"3\r\none\r\n"),
        (Answer(body=[b"one", b"two"], close_after=2), b"3\r\none\r\n3\r\ntwo\r\n"),
        (Answer(body=[b"one", b"two"], close_after=0), b""),
        (Answer(body=[b"one"], close_after=2), b"3\r\none\r\n0\r\n\r\n"),
    ],
)
def test_framing_is_what_the_answer_says(answer: Answer, expected: bytes) -> None:
    """Each item is one chunk; lengths, bodies that end by closing, and cuts go out as asked."""
    with Loopback(lambda call: answer) as server:
        head, _, body = on_the_wire(server).partition(b"\r\n\r\n")
    assert body == expected
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("coding", [*CODINGS, "identity", "gzip, br"])
@pytest.mark.parametrize("framing", ["chunked", "closed"])
def test_a_coded_body_is_what_it_was(coding: str, framing: str) -> None:
    """A client that knows the coding reads the bytes that the handler gave."""
    with Loopback(lambda call: Answer(body=ITEMS, coding=coding, chunked=framing == "chunked")) as server:
        answer = httpx.get(server.url)
    assert answer.content == b"".join(ITEMS)
    assert answer.headers["content-encoding"] == coding


def test_a_coded_whole_body_has_its_coded_length() -> None:
    """Content-Length counts the bytes on the wire, not those of the document."""
    with Loopback(lambda call: Answer.json({"a": [0] * 1000}, coding="gzip", chunked=False)) as server:
        answer = httpx.get(server.url)
    assert answer.json() == {"a": [0] * 1000}
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == answer.num_bytes_downloaded < 1000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_coded_item_is_flushed(coding: str) -> None:
    """What has come so far can be decoded up to the last item, before the body ends."""
    gate = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"first"
        gate.wait()
        yield b"second"

    with (
        Loopback(lambda call: Answer(body=body(), coding=coding)) as server,
        httpx.stream("GET", server.url) as answer,
    ):
        decoded = answer.iter_bytes()
        assert next(decoded) == b"first"
        gate.set()
        assert b"".join(decoded) == b"second"


def test_a_coding_that_is_not_known_is_an_error() -> None:
    """A misspelt coding is told, not sent."""
    with pytest.raises(KeyError, match="gzipp"):
        list(coded([b"x"], "gzipp"))


@pytest.mark.parametrize(
    ("status", "headers"),
    [(307, [("location", "/elsewhere")]), (429, [("retry-after", "3")]), (500, []), (599, []), (204, [])],
)
def test_any_status_and_headers(status: int, headers: list[tuple[str, str]]) -> None:
    """Redirects, rate limits, failures, unassigned codes and empty answers go out as asked."""
    with Loopback(lambda call: Answer(status=status, headers=headers)) as server:
        answer = httpx.get(server.url)
    assert answer.status_code == status
    assert dict(headers).items() <= dict(answer.headers).items()


def test_answers_in_turn_over_one_connection() -> None:
    """Scripted answers come in order, and a connection is kept for the next request."""
    script = in_turn(Answer(status=500), Answer(body=b"ok", chunked=False), Answer(body=b"again"))
    with Loopback(script) as server, httpx.Client() as client:
        assert [client.get(server.url).status_code for _ in range(3)] == [500, 200, 200]
    assert [call.connection for call in server.calls] == [1, 1, 1]


def test_head_has_no_body() -> None:
    """A HEAD request is answered without a body, and the connection stays good."""
    with Loopback(lambda call: Answer(body=b"body")) as server, httpx.Client() as client:
        assert client.head(server.url).content == b""
        assert client.get(server.url).content == b"body"
    assert [call.connection for call in server.calls] == [1, 1]


def test_no_answer_hangs_up() -> None:
    """None closes the connection before any byte of an answer."""
    with Loopback(lambda call: None) as server, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(server.url)


def test_a_cut_body_is_an_error_to_the_client() -> None:
    """A connection that is dropped inside a chunked body does not look like its end."""
    with (
        Loopback(lambda call: Answer(body=[b"one", b"two"], close_after=1)) as server,
        pytest.raises(httpx.RemoteProtocolError, match="incomplete"),
    ):
        httpx.get(server.url)


def test_before_chunk_is_called_for_each() -> None:
    """The hook sees the number of every chunk before it leaves."""
    seen: list[int] = []
    with Loopback(lambda call: Answer(body=[b"a", b"b", b"c"], before_chunk=seen.append)) as server:
        assert httpx.get(server.url).content == b"abc"
    assert seen == [0, 1, 2]


def test_a_client_that_leaves_closes_the_body() -> None:
    """When the peer is gone the body's generator is closed, and that is no error."""
    closed = threading.Event()

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    with Loopback(lambda call: Answer(body=body())) as server:
        with httpx.stream("GET", server.url) as answer:
            next(answer.iter_raw())
        assert closed.wait(50)
    assert server.errors == []


def broken_body() -> Iterator[bytes]:
    """A body with a mistake after its first item."""
    yield b"one"
    raise LookupError("mistake in the body")


@pytest.mark.parametrize(
    ("handler", "mistake"),
    [
        (in_turn(), "no answer is left"),
        (lambda call: Answer(body=broken_body()), "mistake in the body"),
        (lambda call: Answer(body=[b"long"], headers=[("content-length", "1")]), "Too much data"),
    ],
)
def test_a_mistake_in_a_handler_is_raised_at_the_end(handler: Handler, mistake: str) -> None:
    """A handler's own error can't pass for a fault of the network: leaving raises it."""

    def one_call() -> None:
        with Loopback(handler) as server:
            with suppress(httpx.RemoteProtocolError):
                assert httpx.get(server.url).status_code == 500
            wait_until_idle(server)

    with pytest.raises((AssertionError, LookupError, h11.LocalProtocolError), match=mistake):
        one_call()


def test_an_error_of_the_caller_is_not_hidden() -> None:
    """Inside a failing block the failure is what the caller sees, not the handler's."""

    def one_call() -> None:
        with Loopback(in_turn()) as server:
            httpx.get(server.url)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one_call()


def test_leaving_ends_every_thread_and_connection() -> None:
    """Idle kept connections, peers in mid-body and peers that said nothing are all let go."""
    gate = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"first"
        gate.wait(50)

    handler: Handler = lambda call: Answer(body=body() if call.path == "/slow" else b"quick")  # noqa: E731
    with Loopback(handler) as server, httpx.Client() as client:
        host, port = server.url.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port))),
            client.stream("GET", f"{server.url}/slow") as slow,
        ):
            assert next(slow.iter_raw()) == b"first"
            assert client.get(f"{server.url}/quick").content == b"quick"
            assert server.connections == 3
            gate.set()
    assert loopback_threads() == []
    assert server.connections == 0


def test_a_handler_that_never_ends_is_told() -> None:
    """Leaving while a handler still waits raises, and does not hang."""
    gate = threading.Event()

    def one_call() -> None:
        with Loopback(lambda call: Answer(body=str(gate.wait()).encode()), patience=0.01) as server:
            host, port = server.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as peer:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: loopback\r\n\r\n")
                while not server.calls:
                    time.sleep(0.001)

    try:
        with pytest.raises(RuntimeError, match="open its gate"):
            one_call()
    finally:
        gate.set()


def test_many_clients_at_once() -> None:
    """Connections are served side by side: each of twenty gates is opened by another call."""
    gates = [threading.Event() for _ in range(20)]

    def handler(call: Call) -> Answer:
        number = int(call.path.removeprefix("/"))
        gates[number].set()
        assert gates[number - 1].wait(50)
        return Answer(body=call.path.encode())

    with Loopback(handler) as server:
        answers: dict[int, str] = {}

        def get(number: int) -> None:
            answers[number] = httpx.get(f"{server.url}/{number}").text

        threads = [threading.Thread(target=get, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: f"/{number}" for number in range(20)}


def test_garbage_is_hung_up_on() -> None:
    """A peer that does not speak HTTP is let go, quietly."""
    with Loopback(in_turn()) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
            assert peer.recv(100) == b""
    assert server.calls == []


def wait_until_idle(server: Loopback) -> None:
    """Wait until no connection is open; the errors of a connection are known then."""
    deadline = time.monotonic() + 50
    while server.connections and time.monotonic() < deadline:
        time.sleep(0.001)
