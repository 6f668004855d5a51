"""The cmdrdata API, or whatever takes events as it does: one event, one POST.

`POST https://api.cmdrdata.ai/api/events` with a bearer key and a JSON object is what the cmdrdata
packages for Python do (their `tracker.py`, versions 0.1.0 to 0.2.1). Our event has the fields that
they send and more; for readers of theirs this sink adds what they always state: `error_occurred`,
integer zeros for token counts that are not known, and `response_id` and `finish_reason` in `metadata`.

A delivery thread of ours sends, a few events side by side, over connections that are kept. It does so
through a bare httpx transport, which no instrumentation of clients meters and which logs nothing.
"""

from __future__ import annotations

import email.utils
import ipaddress
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from math import isfinite
from pathlib import Path
from threading import Thread
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlunsplit
from urllib.request import getproxies, proxy_bypass

from cmdrdata_transport import __version__
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.sinks import Unauthorized

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "https://api.cmdrdata.ai/api/events"

TIMEOUT_SECONDS = 10.0
"""How long one POST may take to connect, and to answer."""

LONGEST_TIMEOUT_SECONDS = 300.0

SIDE_BY_SIDE = 8
"""Events in flight at once: the API takes one a request, so one after the other would be ten a second."""

REMEMBERED = 8 * SIDE_BY_SIDE
"""Outcomes kept of batches that were begun; they are asked for again soon, or never."""

ANSWER_BYTES = 64 * 1024
"""How much of an answer is read, to keep the connection; none of it is used."""

_TAKEN = frozenset({*range(200, 300), 409})
"""Any success; and a conflict, which says that the event is there already."""

_UNAUTHORIZED = frozenset({401, 403})

_ADDRESS = frozenset({*range(300, 400), 404, 405, 407})
"""Statuses that speak of the URL or of a proxy, and not of the event."""

_REFUSED = frozenset(range(400, 500)) - {408, 425, 429}
"""What is left of these says that the event will never do; 408, 425 and 429 say "not now", as do all
other statuses (RFC 9110, RFC 8470, RFC 6585)."""


class _Unauthorized(Unavailable, Unauthorized):
    """The receiver refuses every event, until somebody puts the key or the address right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the events go. `identity` is the URL without what may be secret."""

    url: str
    identity: str
    scheme: str
    host: str
    timeout: float
    key: str | None = field(repr=False)


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> HttpOutlet:  # noqa: ARG001
    """The outlet of `https://host/path`; the key is in `CMDRDATA_API_KEY`.

    `?timeout=5` sets the seconds that a POST may take. `http:` needs `?insecure=1`, except to this
    machine, and then carries no key.
    """
    return HttpOutlet(target_of(url, environ))


def target_of(url: SplitResult, environ: Mapping[str, str]) -> Target:
    """What a URL means. Raises `TrackingSetupError`, which never shows the key or the query."""
    host = url.hostname or ""
    where = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    if not host:
        raise TrackingSetupError(f"{where} has no host: write {DEFAULT_URL}, or that of your own receiver")
    if "@" in url.netloc:
        raise TrackingSetupError(f"write {where} without user or password, and the key to CMDRDATA_API_KEY")
    query = parse_qsl(url.query, keep_blank_values=True)
    options = {name: value for name, value in query if name in ("insecure", "timeout")}
    rest = [(name, value) for name, value in query if name not in options]
    insecure = options.get("insecure") == "1"
    trusted = url.scheme == "https" or is_loopback(host)
    if not trusted and not insecure:
        raise TrackingSetupError(
            f"{where} is not encrypted: write https, or add ?insecure=1, "
            "which sends the events in the open, and never the key"
        )
    key = _key_of(environ)
    if key is None and (host == "cmdrdata.ai" or host.endswith(".cmdrdata.ai")):
        raise TrackingSetupError(f"{where} needs a key: set CMDRDATA_API_KEY")
    return Target(
        url=urlunsplit((url.scheme, url.netloc, url.path, urlencode(rest), "")),
        identity=where if trusted else f"{where}?insecure=1",
        scheme=url.scheme,
        host=host,
        timeout=timeout_of(options.get("timeout"), where),
        key=key if trusted else None,
    )


class HttpOutlet:
    """Posts events to one URL.

    When some events of a batch got through and others did not, it remembers which, and the next
    `send` of the same ones asks the receiver about the others only.
    """

    batch = SIDE_BY_SIDE
    keyed = False

    def __init__(self, target: Target) -> None:
        self.identity = target.identity
        self._target = target
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"cmdrdata-transport/{__version__}",
        }
        if target.key is not None:
            self._headers["Authorization"] = f"Bearer {target.key}"
        self._transport: httpx.HTTPTransport | None = None
        self._settled: dict[bytes, Rejected | None] = {}

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Post each event, unless it was posted before. After the first trouble no more are sent.

        Raises:
            Rejected: the receiver will never take one of them.
            Unavailable: it cannot be reached, is busy, or does not know our key.
        """
        patience = self._target.timeout if timeout is None else min(timeout, self._target.timeout)
        if len(self._settled) > REMEMBERED:
            self._settled.clear()
        todo = deque(line for line in lines if line not in self._settled)
        trouble: list[Unavailable] = []
        transport = self._transport = self._transport or self._connect()

        def work() -> None:
            while todo and not trouble:
                with suppress(IndexError):  # another thread took the last one
                    line = todo.popleft()
                    try:
                        self._settled[line] = self._post(transport, line, patience)
                    except Unavailable as error:
                        trouble.append(error)

        others = [Thread(target=work, name="cmdrdata-post", daemon=True) for _ in range(len(todo) - 1)]
        # An interpreter that is going down starts no thread: then they go one after the other.
        with suppress(RuntimeError):
            for each in others:
                each.start()
        work()
        for each in others:
            if each.ident is not None:
                each.join()
        self._conclude(lines, trouble)

    def close(self) -> None:
        """Close the connections. The next `send` opens new ones."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def forget(self) -> None:
        """The connections are the parent's: they are kept, unused, so that nothing closes them."""
        if self._transport is not None:
            _PARENTS.append(self._transport)
            self._transport = None

    def _conclude(self, lines: Sequence[bytes], trouble: list[Unavailable]) -> None:
        refused = [each for line in lines if (each := self._settled.get(line)) is not None]
        if trouble:
            worst = max(trouble, key=lambda each: (isinstance(each, Unauthorized), each.retry_after or 0.0))
            worst.taken = len(list(takewhile(lambda line: self._settled.get(line, worst) is None, lines)))
            for line in lines[: worst.taken]:
                self._settled.pop(line, None)
            raise worst
        if not refused or len(lines) == 1:
            for line in lines:
                self._settled.pop(line, None)
        if refused:
            raise refused[0]

    def _connect(self) -> httpx.HTTPTransport:
        from httpx import HTTPTransport, Limits  # noqa: PLC0415 - half a second of import, on our own thread

        limits = Limits(
            max_connections=SIDE_BY_SIDE, max_keepalive_connections=SIDE_BY_SIDE, keepalive_expiry=60.0
        )
        return HTTPTransport(limits=limits, proxy=proxy_for(self._target.scheme, self._target.host))

    def _post(self, transport: httpx.HTTPTransport, line: bytes, patience: float) -> Rejected | None:
        """Post one event: None when the receiver has it, or why it never will."""
        import httpx  # noqa: PLC0415 - see `_connect`

        deadline = monotonic() + patience
        try:
            event_id, body = body_of(line)
            request = httpx.Request(
                "POST",
                self._target.url,
                headers={**self._headers, "Idempotency-Key": event_id},
                content=body,
                extensions={"timeout": httpx.Timeout(patience).as_dict()},
            )
            response = transport.handle_request(request)
            try:
                _read_a_little(response, deadline)
            finally:
                response.close()
        except Rejected as refusal:
            return refusal
        except Exception as error:
            # Only the kind: a message may quote the URL, and with it what is secret in it.
            raise Unavailable(type(error).__name__) from None
        return judge(response.status_code, response.headers.get("Retry-After"), now=time())


_PARENTS: list[httpx.HTTPTransport] = []


def body_of(line: bytes) -> tuple[str, bytes]:
    """The event's id, and the event as the API's readers expect it. Raises `Rejected` if it is none."""
    try:
        event: dict[str, Any] = decode(line)
        event_id = event["event_id"]
        metadata: dict[str, Any] = {**event.get("metadata", {})}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Rejected("it is not an event") from None
    if not isinstance(event_id, str) or not event_id.isascii() or not event_id.isprintable():
        raise Rejected("its event_id is not one of ours")
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        if event.get(name) is None:
            event[name] = 0
    for name in ("response_id", "finish_reason"):
        if event.get(name) is not None:
            metadata.setdefault(name, event[name])
    event["metadata"] = metadata
    event["error_occurred"] = event.get("outcome") == "error"
    return event_id, encode(event)


def judge(status: int, retry_after: str | None, *, now: float) -> Rejected | None:
    """What a status says of the event: taken (None), or never. Raises `Unavailable` for "not now".

    What speaks of the key or of the address, and not of the event, is for an operator to put right,
    and so is "not now" as well.
    """
    if status in _TAKEN:
        return None
    if status in _UNAUTHORIZED:
        raise _Unauthorized(f"status {status}")
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


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a URL; none for this machine."""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _read_a_little(response: httpx.Response, deadline: float) -> None:
    read = 0
    for chunk in response.iter_raw():
        read += len(chunk)
        if read > ANSWER_BYTES or monotonic() > deadline:
            return


def _key_of(environ: Mapping[str, str]) -> str | None:
    key = environ.get("CMDRDATA_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TrackingSetupError("CMDRDATA_API_KEY holds characters that no key has: copy it once more")
    return key or None


def timeout_of(text: str | None, where: str) -> float:
    """The seconds that `?timeout=` asks for, or ours. Raises `TrackingSetupError`."""
    if text is None:
        return TIMEOUT_SECONDS
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0.0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        raise TrackingSetupError(
            f"{where}: write ?timeout=5 for five seconds; it is at most {LONGEST_TIMEOUT_SECONDS:.0f}"
        )
    return timeout
