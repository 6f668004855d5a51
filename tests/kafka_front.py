"""What stands before the brokers of a mock cluster, which speak in the open and let everybody in.

It ends TLS, asks who comes, in Kafka's words (the protocol guide: SaslHandshake, SaslAuthenticate), and
passes all else on, one request after the other. The cluster tells its clients to come here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress

from kafka_cluster import Cluster

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
"""Kinds of requests, by Kafka's protocol guide."""

MECHANISMS = {"PLAIN": None, "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
"""By which hash each proves that one has the password."""

_LEFT = 58
"""The error of one who is not let in."""


class Front:
    """Lets in whom `users` name, by their passwords; all, where it knows none."""

    def __init__(
        self, cluster: Cluster, *, tls: ssl.SSLContext | None = None, users: Mapping[str, str] | None = None
    ) -> None:
        self.shown: list[bytes] = []
        """What was shown to prove who one is."""
        self.mechanisms: list[str] = []
        self._users = users
        self._tls = tls
        self._cluster = cluster
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"localhost:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @contextmanager
    def standing(self) -> Iterator[Front]:
        """Stand there, and have the cluster send its clients here."""
        self._cluster.be_at(*self.address.split(":"))
        self._threads[0].start()
        yield self
        self._cluster.be_at(*self._cluster.hosts.split(":"))
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._threads:
            each.join(30)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        host, port = self._cluster.hosts.split(":")
        # A client that trusts nobody here, or is told no, hangs up in the middle.
        with suppress(OSError), socket.create_connection((host, int(port))) as broker:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as requests, broker.makefile("rb") as answers:
                conversation: Generator[bytes, bytes, None] | None = None
                while len(size := requests.read(4)) == 4:
                    request = requests.read(*struct.unpack(">i", size))
                    kind, version, number = struct.unpack(">hhi", request[:8])
                    if self._users is None or kind not in (API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE):
                        broker.sendall(size + request)
                        size = answers.read(4)
                        connection.sendall(size + answers.read(*struct.unpack(">i", size)))
                        continue
                    if kind == API_VERSIONS:
                        body = _versions(version)
                    elif kind == SASL_HANDSHAKE:
                        self.mechanisms.append(_texts(request[8:])[1])
                        body = struct.pack(">hi", 0, len(MECHANISMS)) + b"".join(map(_text, MECHANISMS))
                    else:
                        (client,) = struct.unpack(">h", request[8:10])
                        shown = request[8 + 2 + client + 4 :]
                        self.shown.append(shown)
                        if conversation is None:
                            conversation = self._asked(self.mechanisms[-1])
                            next(conversation)
                        try:
                            said = conversation.send(shown)
                            body = struct.pack(">hhi", 0, -1, len(said)) + said
                        except _NotKnownError:
                            body = struct.pack(">h", _LEFT) + _text("bad login") + struct.pack(">i", 0)
                    connection.sendall(struct.pack(">ii", len(body) + 4, number) + body)

    def _asked(self, mechanism: str) -> Generator[bytes, bytes, None]:
        """What one is told, each time one has shown something. Raises where one is not known."""
        hash_name = MECHANISMS[mechanism]
        users = self._users or {}
        first = yield b""
        if hash_name is None:  # RFC 4616
            _, user, password = first.decode().split("\0")
            if users.get(user) != password:
                raise _NotKnownError
            yield b""
            return
        # RFC 5802
        bare = first.removeprefix(b"n,,")
        told = dict(each.split("=", 1) for each in bare.decode().split(","))
        salt, nonce = os.urandom(16), told["r"] + base64.b64encode(os.urandom(9)).decode()
        challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096".encode()
        last = yield challenge
        without_proof, _, proof = last.rpartition(b",p=")
        salted = hashlib.pbkdf2_hmac(hash_name, users.get(told["n"], "").encode(), salt, 4096)
        signed = b",".join((bare, challenge, without_proof))
        client_key = hmac.digest(salted, b"Client Key", hash_name)
        signature = hmac.digest(hashlib.new(hash_name, client_key).digest(), signed, hash_name)
        wanted = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if told["n"] not in users or base64.b64decode(proof) != wanted:
            raise _NotKnownError
        server = hmac.digest(hmac.digest(salted, b"Server Key", hash_name), signed, hash_name)
        yield b"v=" + base64.b64encode(server)


class _NotKnownError(Exception):
    """A user or a password is not one of ours."""


def _versions(version: int) -> bytes:
    # What is newer than version 0 is answered with "not supported", in version 0 (KIP-511).
    kinds = [(0, 8), (3, 4), (17, 1), (18, 0), (22, 1), (36, 0)]
    error = 35 if version else 0
    return struct.pack(">hi", error, len(kinds)) + b"".join(
        struct.pack(">hhh", kind, 0, to) for kind, to in kinds
    )


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _texts(data: bytes) -> list[str]:
    found: list[str] = []
    while data:
        (size,) = struct.unpack(">h", data[:2])
        found.append(data[2 : 2 + size].decode())
        data = data[2 + size :]
    return found
