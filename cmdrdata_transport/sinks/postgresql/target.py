"""Which PostgreSQL, and how safely: what a URL says, and a connection to that.

A URL is libpq's (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS),
with two parameters of ours: `timeout`, in seconds, and `insecure=1`. What it does not say libpq finds
where it always looks, `PGPASSWORD` and `~/.pgpass` among them. Beyond this machine the transport is
TLS; with `insecure=1` it may be plain, and then no password is ever sent in clear, whoever asks for it.

Knows which errors of the driver an operator has to put right. Does not know what is sent.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.sinks import Unauthorized
from cmdrdata_transport.sinks.remote import is_loopback, timeout_of

if TYPE_CHECKING:
    import psycopg

VERIFIED = ("verify-ca", "verify-full")
ENCRYPTED = ("require", *VERIFIED)
_MODES = ("disable", "allow", "prefer", *ENCRYPTED)

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_AUTHORITIES = Path("~/.postgresql/root.crt")
"""Where libpq looks when nothing is said."""

PARAMETERS = frozenset(
    {
        *("application_name", "channel_binding", "gssencmode", "gsslib", "host", "hostaddr", "keepalives"),
        *("keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts"),
        *("options", "passfile", "port", "require_auth", "sslcert", "sslcertmode", "sslcrl", "sslcrldir"),
        *("sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni"),
        *("ssl_max_protocol_version", "ssl_min_protocol_version", "target_session_attrs"),
        *("tcp_user_timeout", "user"),
    }
)
"""Libpq's, except those that have a place of their own, and `service`, which may name any host."""

_NOT_OF_THE_IDENTITY = frozenset({"timeout", "application_name", "sslpassword"})
_EXAMPLE = "postgresql://user@host/database"

_FOR_NOW = (
    *("the database system is", "too many", "remaining connection slots", "terminating connection"),
    *("cannot connect now", "no more connections", "max client", "from the pool", "has been failing"),
    *("timeout", "timed out", "timed-out"),
)
"""What a server says that is there, and lets nobody in for the moment; or a pooler, whose server is away."""

RIGHTS = "see Rights in docs/postgresql.md"


class NotAllowed(Unavailable, Unauthorized):
    """The server lets nobody in, or this user do nothing, until somebody puts that right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A database. `identity` is the URL without what is secret."""

    identity: str
    timeout: float
    parameters: Mapping[str, str] = field(repr=False)


def target_of(url: SplitResult, environ: Mapping[str, str]) -> Target:
    """What a URL means; a password that it leaves out may be in one of `CMDRDATA_SINKS`.

    Raises:
        TrackingSetupError: it cannot work; the message never shows a password.
    """
    if find_spec("psycopg") is None:
        raise TrackingSetupError(
            "postgresql: needs the driver psycopg: pip install 'cmdrdata-transport[postgres]'"
        )
    target, stated = _read(url, environ)
    if not stated:
        for spec in environ.get("CMDRDATA_SINKS", "").split():
            with suppress(TrackingSetupError, ValueError):
                other, has_password = _read(urlsplit(spec), environ)
                if has_password and other.identity == target.identity:
                    return other
    return target


def load_driver() -> None:
    """Import psycopg where a program is set up: a child that is forked in the middle has half of it for good.

    Raises `TrackingSetupError` where it does not work: there is no libpq for it, say.
    """
    try:
        import_module("psycopg")
    except ImportError as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise TrackingSetupError(
            f"postgresql: the driver psycopg fails ({why}): pip install 'cmdrdata-transport[postgres]'"
        ) from None


def connect(target: Target, patience: float) -> psycopg.Connection[Any]:
    """A connection, each statement its own transaction unless one is begun.

    The driver waits two seconds at least, whatever the patience.

    Raises:
        NotAllowed: the server is there and does not let us in.
        Unavailable: it is not there, or says nothing.
    """
    import psycopg  # noqa: PLC0415 - see `load_driver`

    try:
        # Connections may be shared by a pooler, where a prepared statement is gone the next time.
        connection = psycopg.connect(
            "",
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=max(2, ceil(patience)),
            **dict(target.parameters),  # type: ignore[arg-type]  # they are libpq's and not psycopg's own
        )
    except psycopg.Error as error:
        raise refusal_of(error) from None
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", None):
        connection.close()
        raise NotAllowed(f"the database is encoded in {encoding}, which has no room for every text: use UTF8")
    return connection


def refusal_of(error: psycopg.Error) -> Unavailable:
    """What to raise for an error of the driver that says nothing about an event."""
    state = error.sqlstate
    if state is None:
        # Each way that was tried says the same, as a rule.
        told = str(error).removeprefix("connection failed: ").removeprefix("connection is bad: ")
        words = " ".join(dict.fromkeys(" ".join(line.split()) for line in told.splitlines()))[:300]
        # Libpq tells these apart in words only: the server has spoken, so it is there.
        spoken = "FATAL: " in words or "authentication" in words
        refused = spoken and not any(each in words.lower() for each in _FOR_NOW)
        return (NotAllowed if refused else Unavailable)(words)
    words = error.diag.message_primary or type(error).__name__
    if state == "42501":
        return NotAllowed(f"{words}; {RIGHTS}")
    return (NotAllowed if state.startswith("28") or state == "25006" else Unavailable)(words)


@contextmanager
def limited(connection: psycopg.Connection[Any], seconds: float) -> Generator[None]:
    """Cut the connection when what happens inside takes longer, so that a silent server holds nobody.

    A server's own timeouts are no help against a server, or a network, that hangs.
    """
    import psycopg  # noqa: PLC0415 - see `connect`

    duplicate = socket.socket(fileno=os.dup(connection.fileno()))
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with suppress(OSError):
            duplicate.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    with suppress(RuntimeError):  # an interpreter that is going down starts no thread
        timer.start()
    try:
        yield
    except psycopg.Error:
        if cut.is_set():
            raise Unavailable(f"the server has not answered in {seconds:g} seconds") from None
        raise
    finally:
        timer.cancel()
        duplicate.close()


def has_ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether a connection that lay idle is over: a server or a pooler has closed it for that, say.

    Unasked a server says that, or that its settings have changed; to connect again then does no harm.
    """
    if connection.closed:
        return True
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def beginning(seconds: float) -> bytes:
    """How a transaction begins in which no statement takes longer, whatever the database's settings are.

    It sees what others have written while it waited for them, and does not fail because they have.
    """
    most = max(1, int(seconds * 1000))
    # In one go: each way to the server and back may take as long as all that it does there.
    return f"""
        BEGIN ISOLATION LEVEL READ COMMITTED;
        SET LOCAL statement_timeout = {most};
        SET LOCAL lock_timeout = {most};
        SET LOCAL idle_in_transaction_session_timeout = {most};
    """.encode()


@contextmanager
def transaction(
    connection: psycopg.Connection[Any], begin: LiteralString | bytes = "BEGIN"
) -> Generator[None]:
    """All that happens inside, or nothing. (The driver's own logs a warning for each that is lost.)"""
    import psycopg  # noqa: PLC0415 - see `connect`

    try:
        connection.execute(begin)
        yield
    except BaseException:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _read(url: SplitResult, environ: Mapping[str, str]) -> tuple[Target, bool]:
    """The target, and whether the URL states its password."""
    if "@" in f"{url.path}?{url.query}#{url.fragment}":  # a piece of a password, say: never to be shown
        raise TrackingSetupError(
            f"write {_EXAMPLE}, and in a password %2F for /, %3F for ?, %23 for #, %40 for @"
        )
    user, password, host, port = _authority(url.netloc)
    query = parse_qsl(url.query, keep_blank_values=True)
    stated = dict(query)
    parameters = {name: value for name, value in stated.items() if name not in ("insecure", "timeout")}
    database = unquote(url.path[1:])
    shown = f"postgresql://{url.netloc.rpartition('@')[2]}/{database}"
    if unknown := sorted(parameters.keys() - PARAMETERS):
        raise TrackingSetupError(
            f"{shown}: there is no parameter {', '.join(unknown)}; write {_EXAMPLE}, "
            "the password behind the user or to PGPASSWORD, and libpq's parameters behind a question mark"
        )
    if "/" in database or url.fragment:
        raise TrackingSetupError(f"{shown} names no database: write {_EXAMPLE}, with %2F or %23 in a name")
    parts = {"user": user, "host": host, "port": port, "dbname": database}
    parameters = {**{name: value for name, value in parts.items() if value}, **parameters}
    insecure = stated.get("insecure") == "1"
    parameters |= _safety(parameters, environ, shown, insecure=insecure)
    _check_files(parameters, environ, shown)
    if password:
        parameters["password"] = password
    parameters.setdefault("application_name", "cmdrdata-transport")
    parameters["client_encoding"] = "UTF8"
    timeout = timeout_of(stated.get("timeout"), shown)
    return Target(identity=_identity(url, query), timeout=timeout, parameters=parameters), bool(password)


def _authority(netloc: str) -> tuple[str, str, str, str]:
    """User, password, hosts and their ports, parted by commas where there are several, as libpq has them.

    (`SplitResult` would spell a socket's directory in small letters.)
    """
    login, _, place = netloc.rpartition("@")
    user, _, password = login.partition(":")
    hosts, ports = zip(*map(_host_and_port, place.split(",")), strict=True)
    return unquote(user), unquote(password), ",".join(hosts), ",".join(ports) if any(ports) else ""


def _host_and_port(place: str) -> tuple[str, str]:
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, ""
    return unquote(host.strip("[]")), port


def _identity(url: SplitResult, query: list[tuple[str, str]]) -> str:
    login, at, place = url.netloc.rpartition("@")
    user = login.partition(":")[0]
    kept = [(name, value) for name, value in query if name not in _NOT_OF_THE_IDENTITY]
    told = f"?{urlencode(kept, quote_via=quote)}" if kept else ""
    return f"postgresql://{user}{at if user else ''}{place}{url.path}{told}"


def _safety(
    parameters: Mapping[str, str], environ: Mapping[str, str], shown: str, *, insecure: bool
) -> dict[str, str]:
    """What keeps the transport safe. Raises `TrackingSetupError` for a URL that asks for less."""
    named = [(parameters.get(name), environ.get(f"PG{name.upper()}")) for name in ("hostaddr", "host")]
    hosts = next((stated or inherited for stated, inherited in named if stated or inherited), "")
    mode = parameters.get("sslmode") or environ.get("PGSSLMODE")
    if mode is not None and mode not in _MODES:
        raise TrackingSetupError(f"{shown}: there is no sslmode={mode}; write one of {', '.join(_MODES)}")
    if not hosts:
        # Libpq takes a socket, which knows no TLS whatever is asked; or what a service file says.
        return {"sslmode": mode if mode in ENCRYPTED else "require"}
    if all(each.startswith(("/", "@")) or is_loopback(each) for each in hosts.split(",")):
        return {}
    if insecure:
        return {} if mode in ENCRYPTED else {"require_auth": parameters.get("require_auth", "!password")}
    if mode is not None and mode not in ENCRYPTED:
        raise TrackingSetupError(
            f"{shown} is not this machine, and with sslmode={mode} the transport may be plain: write "
            "sslmode=verify-full, or add insecure=1, which sends events in the open, and never a password"
        )
    # Encrypted Kerberos would do as well, but not as a way around TLS that nobody asked for.
    return {"sslmode": mode or "require", "gssencmode": parameters.get("gssencmode", "disable")}


def _check_files(parameters: Mapping[str, str], environ: Mapping[str, str], shown: str) -> None:
    """Raise `TrackingSetupError` for a file of TLS that is not there, and where nobody is trusted."""
    named = {name: parameters.get(name) or environ.get(f"PG{name.upper()}", "") for name in _FILES}
    for name, path in named.items():
        if path and path != "system" and not Path(path).is_file():
            raise TrackingSetupError(f"{shown}: there is no file {path} ({name}=)")
    mode = parameters.get("sslmode") or environ.get("PGSSLMODE")
    if mode in VERIFIED and not named["sslrootcert"] and not _AUTHORITIES.expanduser().is_file():
        raise TrackingSetupError(
            f"{shown}: with sslmode={mode} say which authority to trust: sslrootcert=/path/to/ca.pem, or "
            "sslrootcert=system for those that this machine trusts"
        )
