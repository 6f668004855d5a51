"""Posting over HTTP: connections that are kept, and what a receiver's answer says.

Through a bare httpx transport, which no instrumentation of clients meters and which logs nothing that we
send. Does not know what is posted.
"""

from __future__ import annotations

import email.utils
import ssl
from contextlib import suppress
from importlib import import_module
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.request import getproxies, proxy_bypass

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.sinks import Unauthorized
from cmdrdata_transport.sinks.remote import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

ANSWER_BYTES = 64 * 1024
"""How much of an answer is read: to keep the connection, and because what it says is short."""

_TAKEN = frozenset({*range(200, 300), 409})
"""Any success; and a conflict, which says that the event is there already."""

_UNAUTHORIZED = frozenset({401, 403})

_ADDRESS = frozenset({*range(300, 400), 402, 404, 405, 406, 410, 411, 414, 415, 421, 426, 431, 451})
"""Statuses that speak of the URL or of how we speak, and not of the event."""

_OF_PROXY = 407
_PROXY_ASKS = "the proxy asks for user and password: write http://user:password@host:port to the environment"

_REFUSED = frozenset(range(400, 500)) - {_OF_PROXY, 408, 425, 429}
"""What is left of these says that the event will never do; 408, 425 and 429 say "not now", as do all
other statuses (RFC 9110, RFC 8470, RFC 6585)."""


class _Unauthorized(Unavailable, Unauthorized):
    """The receiver refuses every event, until somebody puts the key or the address right."""


class Unanswered(Unavailable):
    """There was no answer. New connections may do better: certificates are renewed, proxies moved."""


class Answered(NamedTuple):
    """A receiver's answer: its status, the pause it asks for, and how its body begins."""

    status: int
    retry_after: str | None
    start: bytes


class Connections:
    """Connections to one receiver, as many as are used at once. Made when they are first asked for."""

    def __init__(self, scheme: str, host: str, files: Mapping[str, str], most: int = 1) -> None:
        # Here, where a program is set up, and never beside its calls: the SDK of OpenAI looks into
        # `sys.modules`, and fails on an httpx that another thread has not imported whole; and a child that
        # is forked in the middle of an import has half of the module for good.
        for module in ("httpx", "httpcore", "encodings.idna"):  # the last by names of hosts
            import_module(module)
        self._scheme = scheme
        self._host = host
        self._files = files
        self._most = most
        self._transport: httpx.HTTPTransport | None = None

    def opened(self) -> httpx.HTTPTransport:
        """What to post with, also after `close`."""
        self._transport = self._transport or self._made()
        return self._transport

    def close(self) -> None:
        """Close them. They are made anew when they are asked for again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def forget(self) -> None:
        """In a forked child: they are the parent's, and are kept, unused, so that nothing closes them."""
        if self._transport is not None:
            _PARENTS.append(self._transport)
            self._transport = None

    def _made(self) -> httpx.HTTPTransport:
        from httpx import HTTPTransport, Limits  # noqa: PLC0415 - see `__init__`

        limits = Limits(
            max_connections=self._most, max_keepalive_connections=self._most, keepalive_expiry=60.0
        )
        try:
            trust = self._trust()
        except OSError as error:  # it could be read when the program began
            raise Unavailable(f"a file of TLS cannot be read: {error.strerror}") from None
        proxy = proxy_for(self._scheme, self._host)
        try:
            return HTTPTransport(verify=trust, limits=limits, proxy=proxy)
        except Exception as error:
            if proxy is None:
                raise
            raise Unavailable(
                f"{type(error).__name__}: the proxy that the environment names is none that httpx can use: "
                "write http://host:port; or pip install 'httpx[socks]' for socks5:"
            ) from None

    def _trust(self) -> ssl.SSLContext | bool:
        from httpx import create_ssl_context  # noqa: PLC0415 - see `_made`

        if self._scheme == "http":
            return False  # there is nobody to trust, and to read all certificates takes long
        # Without a file of the user's it is what httpx trusts everywhere: SSL_CERT_FILE, or certifi's.
        ca, cert = self._files.get("ca"), self._files.get("cert")
        context = ssl.create_default_context(cafile=ca) if ca else create_ssl_context()
        if cert:
            context.load_cert_chain(cert, self._files.get("key"))
        return context


_PARENTS: list[httpx.HTTPTransport] = []


def post(
    transport: httpx.HTTPTransport, url: str, *, headers: Mapping[str, str], content: bytes, patience: float
) -> Answered:
    """Post, and read how the answer begins. `Unanswered` where there is none in `patience` seconds."""
    deadline = monotonic() + patience
    try:
        response = _response_to(transport, url, headers, content, patience)
        try:
            start = _start_of(response, deadline)
        finally:
            response.close()
    except Exception as error:
        raise Unanswered(_kind_of(error)) from None
    return Answered(response.status_code, response.headers.get("Retry-After"), start)


def _response_to(
    transport: httpx.HTTPTransport, url: str, headers: Mapping[str, str], content: bytes, patience: float
) -> httpx.Response:
    import httpx  # noqa: PLC0415 - see `Connections`

    deadline = monotonic() + patience
    connected = False

    def look(step: str, _: object) -> None:
        nonlocal connected
        connected = connected or step.endswith("connect_tcp.started")

    while True:
        connected = False
        timeouts = httpx.Timeout(patience).as_dict()
        request = httpx.Request(
            "POST", url, headers=headers, content=content, extensions={"timeout": timeouts, "trace": look}
        )
        try:
            return transport.handle_request(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # A receiver closes a connection that is kept when it likes, also at the moment when we use it
            # again. That is no failure of its: on one that is made for this post we shall see.
            patience = deadline - monotonic()
            if connected or patience <= 0.0:
                raise


def _start_of(response: httpx.Response, deadline: float) -> bytes:
    start = b""
    for chunk in response.iter_raw():
        start += chunk
        if len(start) > ANSWER_BYTES or monotonic() > deadline:
            break
    return start


def _kind_of(error: BaseException) -> str:
    # Only the kind: a message may quote the URL, and with it what is secret in it.
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return f"{type(error).__name__}: the certificate is not trusted: {below.verify_message}"
        if isinstance(below, ssl.SSLError):
            return f"{type(error).__name__}: TLS fails: {below.reason}"
        below = below.__cause__ or below.__context__
    status = str(error)[:3]
    if type(error).__name__ == "ProxyError" and status.isdigit():
        told = f"ProxyError: the proxy answers with status {status}"
        return f"{told}: {_PROXY_ASKS}" if int(status) == _OF_PROXY else told
    if str(error).startswith(("illegal status line", "illegal request line")):  # of gRPC, at its port, say
        return f"{type(error).__name__}: it speaks no HTTP/1.1 there: is the port right?"
    return type(error).__name__


def judge(status: int, retry_after: str | None, *, now: float) -> Rejected | None:
    """What a status says of the event: taken (None), or never. Raises `Unavailable` for "not now".

    What speaks of the key or of the address, and not of the event, is for an operator to put right,
    and so is "not now" as well.
    """
    if status in _TAKEN:
        return None
    if status in _UNAUTHORIZED:
        raise _Unauthorized(f"status {status}")
    if status == _OF_PROXY:
        raise Unavailable(f"status {status}: {_PROXY_ASKS}")
    if status in _ADDRESS:
        raise Unavailable(f"status {status}: is the address right?")
    if status in _REFUSED:
        return Rejected(f"status {status}")
    raise Unavailable(f"status {status}", retry_after=seconds_of(retry_after, now))


def seconds_of(retry_after: str | None, now: float) -> float | None:
    """The pause that a `Retry-After` header asks for: seconds, or an HTTP date (RFC 9110, 10.2.3)."""
    text = (retry_after or "").strip()
    try:
        pause = float(text)
    except ValueError:
        try:
            pause = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, pause) if isfinite(pause) else None


def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a URL; none for this machine."""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
