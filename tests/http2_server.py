"""A server that speaks HTTP/2 in the clear, from the first byte: one answer for all, event by event.

Knows frames, through the package h2, and threads: one a connection. Knows nothing of providers.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions


class Http2Server:
    """Answers every request with the chunks, a frame each; `gate` holds back all but the first.

    `resets` counts the streams that a client gave up before their end, `connections` the connections.
    """

    def __init__(self, chunks: Sequence[bytes], gate: threading.Event | None = None) -> None:
        self.resets = 0
        self.connections = 0
        self._chunks = chunks
        self._gate = gate
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._gate is not None:
            self._gate.set()
        for each in (self._listening, *self._peers):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(50)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                self._peers.append(peer)
                self.connections += 1
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        writing = threading.Lock()
        gone: set[int] = set()
        connection.initiate_connection()
        with suppress(OSError):
            peer.sendall(connection.data_to_send())
            while received := peer.recv(65536):
                with writing:
                    for event in connection.receive_data(received):
                        if isinstance(event, h2.events.StreamReset):
                            self.resets += 1
                            gone.add(event.stream_id or 0)
                        elif isinstance(event, h2.events.StreamEnded):
                            answering = (peer, connection, writing, event.stream_id, gone)
                            threading.Thread(target=self._answer, args=answering, daemon=True).start()
                    peer.sendall(connection.data_to_send())

    def _answer(
        self,
        peer: socket.socket,
        connection: h2.connection.H2Connection,
        writing: threading.Lock,
        stream: int,
        gone: set[int],
    ) -> None:
        headers = [(":status", "200"), ("content-type", "text/event-stream")]
        with suppress(OSError, h2.exceptions.ProtocolError):
            for place, chunk in enumerate(self._chunks):
                if place and self._gate is not None:
                    self._gate.wait(50)
                with writing:
                    if stream in gone:
                        return
                    if not place:
                        connection.send_headers(stream, headers)
                    connection.send_data(stream, chunk, end_stream=place == len(self._chunks) - 1)
                    peer.sendall(connection.data_to_send())
