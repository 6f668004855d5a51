"""The cmdrdata API, or whatever takes events as it does: one event, one POST.

`POST https://api.cmdrdata.ai/api/events` with a bearer key and a JSON object is what the cmdrdata
packages for Python do (their `tracker.py`, versions 0.1.0 to 0.2.1). Our event has the fields that
they send and more; for readers of theirs this sink adds what they always state: `error_occurred`,
integer zeros for token counts that are not known, and `response_id` and `finish_reason` in `metadata`.

A delivery thread of ours sends, a few events side by side, over connections that are kept. It does so
through a bare httpx transport, which no instrumentation of clients meters and which logs no key.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from threading import Thread
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlunsplit

from cmdrdata_transport import __version__
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.sinks import Unauthorized
from cmdrdata_transport.sinks.posting import Connections, Unanswered, judge, post
from cmdrdata_transport.sinks.remote import is_loopback, spelled_out, timeout_of, tls_files_of

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "https://api.cmdrdata.ai/api/events"

OPTIONS = ("ca", "cert", "insecure", "timeout")
"""Ours; any other parameter is the receiver's, `key` as well, which is often a key to it."""

SIDE_BY_SIDE = 8
"""Events in flight at once: the API takes one a request, so one after the other would be ten a second."""

REMEMBERED = 8 * SIDE_BY_SIDE
"""Outcomes kept of batches that were begun; they are asked for again soon, or never."""


LONGEST_KEY = 512
"""Letters of an idempotency key; servers answer 431 to a header that has many thousands."""

_PLAIN = re.compile(rf"[!-$&-~](?:[ -$&-~]{{,{LONGEST_KEY - 2}}}[!-$&-~])?")
"""An id that is its own key; with a % it might be another's, quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the events go. `identity` is the URL without what may be secret."""

    url: str
    identity: str
    scheme: str
    host: str
    timeout: float
    files: Mapping[str, str]
    """What TLS is to use, by `TLS_FILES`."""
    key: str | None = field(repr=False)


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> HttpOutlet:  # noqa: ARG001
    """The outlet of `https://host/path`; the key is in `CMDRDATA_API_KEY`.

    `?timeout=5` sets the seconds that a POST may take. `?ca=` names a file of the authorities to trust,
    instead of those that `SSL_CERT_FILE` or certifi name, and `?cert=` one with a certificate of ours and
    its key, all in PEM. `http:` needs `?insecure=1`, except to this machine, and then carries no key.
    """
    url = spelled_out(url, environ, lambda other: target_of(other, environ).identity)
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
    options = {name: value for name, value in query if name in OPTIONS}
    rest = [(name, value) for name, value in query if name not in options]
    for name, _ in rest:
        if close := get_close_matches(name, ("insecure", "timeout"), 1, 0.8):
            raise TrackingSetupError(f"{where}: there is no ?{name}=; did you mean ?{close[0]}=")
    insecure = options.get("insecure") == "1"
    trusted = url.scheme == "https" or is_loopback(host)
    if not trusted and not insecure:
        raise TrackingSetupError(
            f"{where} is not encrypted: write https, or add ?insecure=1, "
            "which sends the events in the open, and never the key"
        )
    files = tls_files_of(options, where)
    if files and url.scheme == "http":
        raise TrackingSetupError(f"{where} is without TLS: leave out ?{min(files)}=, or write https")
    key = _key_of(environ)
    if key is None and (host == "cmdrdata.ai" or host.endswith(".cmdrdata.ai")):
        raise TrackingSetupError(f"{where} needs a key: set CMDRDATA_API_KEY")
    stated = files if trusted else {"insecure": "1"}
    return Target(
        url=urlunsplit((url.scheme, url.netloc, url.path, urlencode(rest), "")),
        identity=f"{where}?{urlencode(stated, safe='/')}" if stated else where,
        scheme=url.scheme,
        host=host,
        timeout=timeout_of(options.get("timeout"), where),
        files=files,
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
        self._connections = Connections(target.scheme, target.host, target.files, SIDE_BY_SIDE)
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
        transport = self._connections.opened()

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
        if any(isinstance(each, Unanswered) for each in trouble):
            self._connections.close()
        self._conclude(lines, trouble)

    def close(self) -> None:
        """Close the connections. The next `send` opens new ones."""
        self._connections.close()

    def forget(self) -> None:
        """The connections are the parent's."""
        self._connections.forget()

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

    def _post(self, transport: httpx.HTTPTransport, line: bytes, patience: float) -> Rejected | None:
        """Post one event: None when the receiver has it, or why it never will."""
        try:
            event_id, body = body_of(line)
        except Rejected as refusal:
            return refusal
        headers = {**self._headers, "Idempotency-Key": idempotency_key_of(event_id)}
        answered = post(transport, self._target.url, headers=headers, content=body, patience=patience)
        return judge(answered.status, answered.retry_after, now=time())


def body_of(line: bytes) -> tuple[str, bytes]:
    """The event's id, and the event as the API's readers expect it. Raises `Rejected` if it is none."""
    try:
        event: dict[str, Any] = decode(line)
        event_id = event["event_id"]
        metadata: dict[str, Any] = {**event.get("metadata", {})}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Rejected("it is not an event") from None
    if not isinstance(event_id, str):
        raise Rejected("its event_id is no text")
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        if event.get(name) is None:
            event[name] = 0
    for name in ("response_id", "finish_reason"):
        if event.get(name) is not None:
            metadata.setdefault(name, event[name])
    event["metadata"] = metadata
    event["error_occurred"] = event.get("outcome") == "error"
    return event_id, encode(event)


def idempotency_key_of(event_id: str) -> str:
    """An event's id as a header can carry it: users give ids of their own, and any text may be one."""
    if _PLAIN.fullmatch(event_id):
        return event_id
    quoted = quote(event_id, safe="", errors="surrogatepass")
    return quoted if len(quoted) <= LONGEST_KEY else sha256(quoted.encode()).hexdigest()


def _key_of(environ: Mapping[str, str]) -> str | None:
    key = environ.get("CMDRDATA_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TrackingSetupError("CMDRDATA_API_KEY holds characters that no key has: copy it once more")
    return key or None
