"""Receivers on this machine: of the cmdrdata API's events, and of OpenTelemetry's.

Each answers what it is told to, and keeps what it is sent.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from cmdrdata_transport.event import decode


class _Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.hang = threading.Event()
        """Cleared to have answers wait."""
        self.hang.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say so, unless a client has only hung up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Api(_Receiver):
    """The receiving side, on this machine: answers what it is told to, and keeps what it is sent."""

    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_Api)
        self.url = f"{_guarded(self, tls)}:{self.server_port}/api/events"
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.always: tuple[int, dict[str, str]] = (200, {})
        self.refuse_if: Callable[[dict[str, Any]], int | None] = lambda _: None
        self.calls: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.taken: list[int] = []
        self.words = b'{"error":"answer-secret"}'
        self.connections = 0


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        event = decode(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append((self.path, dict(self.headers.items()), event))
        self.server.hang.wait()
        status, headers = self.server.answers.popleft() if self.server.answers else self.server.always
        status = self.server.refuse_if(event) or status
        if 200 <= status < 300:
            self.server.taken.append(int(event["event_id"].removeprefix("event-")))
        self.send_response(status)
        body = b"" if status == 204 else self.server.words
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Collector(_Receiver):
    """A receiver on this machine: reads what it is sent as OTLP, and answers what it is told to."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_Collecting)
        self.url = f"otlp+{_guarded(self, tls)}:{self.server_port}"
        self.answers: dict[str, deque[tuple[int, dict[str, str], bytes]]] = {
            "logs": deque(),
            "metrics": deque(),
        }
        self.refused: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []

    def records(self) -> list[Any]:
        """The log records of all requests."""
        return [
            record
            for request in self.logs
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def ids(self) -> list[str]:
        """Their ids, sorted."""
        return sorted(attributes(record)["cmdrdata.event_id"] for record in self.records())

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The points of one metric in all requests, with their attributes."""
        return [
            (attributes(point), point)
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.histogram.data_points
        ]


class _Collecting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        signal = self.path.rpartition("/")[2]
        self.server.hang.wait()
        self.server.headers.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        status, headers, answer = (
            self.server.answers[signal].popleft() if self.server.answers[signal] else (200, {}, b"")
        )
        if any(each.encode() in body for each in self.server.refused):
            status = 400
        if status == 200 and signal == "logs":
            self.server.logs.append(ExportLogsServiceRequest.FromString(body))
        elif status == 200:
            self.server.metrics.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def attributes(thing: Any) -> dict[str, Any]:
    """Attributes as a dict."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in thing.attributes}


Receiving = TypeVar("Receiving", bound=_Receiver)


@contextmanager
def serving(server: Receiving) -> Iterator[Receiving]:
    """Have a receiver up."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.hang.set()
        server.shutdown()
        thread.join()


def _guarded(server: ThreadingHTTPServer, tls: ssl.SSLContext | None) -> str:
    """How a URL of the server begins, which speaks TLS if there is any."""
    if tls is None:
        return "http://127.0.0.1"
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return "https://localhost"


class Leaving(_Receiver):
    """Answers the first request of each connection, which it keeps, and hangs up at the next."""

    def __init__(self) -> None:
        super().__init__(_Leaving)
        self.address = f"127.0.0.1:{self.server_port}"
        self.answered = 0
        self.dropped = 0


class _Leaving(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Leaving
    is_first = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answered += self.is_first
        self.server.dropped += not self.is_first
        if self.is_first:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.close_connection = True
        self.is_first = False

    def log_message(self, *_: object) -> None:
        pass


class Crooked:
    """Answers each request with the next of `answers`, and hangs up; when there are no more, as it should."""

    def __init__(self, *answers: Iterable[bytes], end: bytes = b"}") -> None:
        self._answers = deque(answers)
        self._end = end
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/in"
        self.requests: list[bytes] = []
        self.ended = threading.Event()
        """Set when the test is over, so that who dawdles stops."""

    @contextmanager
    def serving(self) -> Iterator[Crooked]:
        """Have it up."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        yield self
        self.ended.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        thread.join()

    def dawdle(self, start: bytes) -> Iterator[bytes]:
        """An answer that begins so, and never ends."""
        yield start
        while not self.ended.wait(0.01):
            yield b"x"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, suppress(OSError):
                    request = b""
                    while not request.endswith(self._end):
                        request += connection.recv(65536)
                    self.requests.append(request)
                    for piece in self._answers.popleft() if self._answers else (GOOD,):
                        connection.sendall(piece)


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
