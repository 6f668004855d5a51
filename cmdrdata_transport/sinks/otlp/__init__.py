"""A receiver of OpenTelemetry, over OTLP/HTTP in protobuf: logs, which say all, and metrics, for watching.

Each event is a log record: its body is the event as published, and its attributes are what one looks for,
`cmdrdata.event_id` first. What is told twice has the same id there.

The metrics are those of the semantic conventions for GenAI: `gen_ai.client.token.usage`,
`gen_ai.client.operation.duration` and, of streams, `gen_ai.client.operation.time_to_first_chunk`. They are
histograms of what one batch brought (delta temporality), at the time it was sent. A batch that is sent again
after a failure is counted again. Nobody should bill by them.

The customer is an attribute of metrics too, so that each customer makes series of their own:
`?customer=0` leaves it out.

Protobuf, and not JSON, because some receivers take nothing else. `target.py` says what a URL means,
`conventions.py` what things are called, `messages.py` what is sent.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, time, time_ns
from typing import Any
from urllib.parse import SplitResult
from uuid import uuid4

from cmdrdata_transport import __version__
from cmdrdata_transport.errors import Rejected, TrackingSetupError
from cmdrdata_transport.sinks.otlp.messages import event_of, logs_of, metrics_of, refused_of
from cmdrdata_transport.sinks.otlp.target import Target, target_of
from cmdrdata_transport.sinks.posting import Connections, Unanswered, judge, post
from cmdrdata_transport.sinks.remote import spelled_out

WARN_EVERY_SECONDS = 60.0

REMEMBERED = 5000
"""Events of which one signal was taken and another was not, yet."""

SAID = 200
"""Letters of a receiver's own words that are kept."""

_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Accept": "application/x-protobuf",
    "Accept-Encoding": "identity",  # an answer says little
    "User-Agent": f"cmdrdata-transport/{__version__}",
}

_logger = logging.getLogger("cmdrdata_transport")


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> OtlpOutlet:  # noqa: ARG001
    """The outlet of `otlp+https://host:4318`; `/v1/logs` and `/v1/metrics` are added to its path.

    Headers, a key say, are in `OTEL_EXPORTER_OTLP_HEADERS`, as for every exporter of OpenTelemetry, or
    user and password in the URL. `?signals=logs` sends logs only; `?customer=0` leaves the customer out of
    metrics; `?compression=gzip` compresses; `ca`, `cert` and `key` are files in PEM; `?timeout=5` is how
    many seconds a POST may take. `otlp+http:` needs `?insecure=1`, except to this machine, and then
    carries no headers.
    """
    url = spelled_out(url, environ, lambda other: target_of(other, environ).identity)
    target = target_of(url, environ)
    if not _is_installed():
        raise TrackingSetupError(
            f"{target.identity} needs OpenTelemetry's messages: pip install 'cmdrdata-transport[otel]', "
            "or opentelemetry-proto"
        )
    for signal in ("logs", "metrics"):  # here, because a fork in the middle of that leaves half of it
        import_module(f"opentelemetry.proto.collector.{signal}.v1.{signal}_service_pb2")
    return OtlpOutlet(target)


class OtlpOutlet:
    """Posts logs, then metrics. One that was taken is not sent again because the other was not."""

    batch = 500
    keyed = False

    def __init__(self, target: Target) -> None:
        self.identity = target.identity
        self._target = target
        self._connections = Connections(target.scheme, target.host, target.files)
        self._taken: dict[str, set[bytes]] = {each: set() for each in target.signals}
        self._instance = str(uuid4())
        self._since = time_ns()
        self._warned_at = -WARN_EVERY_SECONDS

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Post what each signal has not taken before.

        Raises:
            Rejected: the receiver will never take one of them.
            Unavailable: it cannot be reached, is busy, or does not know our key.
        """
        patience = self._target.timeout if timeout is None else min(timeout, self._target.timeout)
        events = [(line, event_of(line)) for line in lines]
        for signal in self._target.signals:
            taken = self._taken[signal]
            if len(taken) > REMEMBERED:
                taken.clear()
            if todo := [event for line, event in events if line not in taken]:
                self._post(signal, todo, patience)
                taken.update(lines)
        for taken in self._taken.values():
            taken.difference_update(lines)

    def close(self) -> None:
        """Close the connections. The next `send` opens new ones."""
        self._connections.close()

    def forget(self) -> None:
        """The connections are the parent's; and series need an origin of their own."""
        self._connections.forget()
        self._instance = str(uuid4())

    def _post(self, signal: str, events: Sequence[Mapping[str, Any]], patience: float) -> None:
        now = time_ns()
        if signal == "logs":
            body = logs_of(events, self._instance, now)
        else:
            span = min(self._since, now), now  # a clock may be set back
            body = metrics_of(events, self._instance, span, customer=self._target.customer)
        headers = {**_HEADERS, **self._target.headers[signal]}
        if signal in self._target.gzipped:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 6, mtime=0)
        url = f"{self._target.url}/v1/{signal}"
        try:
            answered = post(self._connections.opened(), url, headers=headers, content=body, patience=patience)
        except Unanswered:
            self._connections.close()
            raise
        refusal = judge(answered.status, answered.retry_after, now=time())
        if refusal is not None:
            raise Rejected(f"{signal}: {refusal}")
        number, why = refused_of(signal, answered.start)
        if signal == "logs" and number:
            # Which of them it does not say: each is asked about by itself, and some come twice, by one id.
            raise Rejected(f"logs: {number} of {len(events)} were refused{self._said(signal, why)}")
        if signal == "metrics":
            self._since = now
            if number and monotonic() - self._warned_at > WARN_EVERY_SECONDS:
                self._warned_at = monotonic()
                _logger.warning(
                    "%s refused %d points of metrics%s; the events are in the logs",
                    self.identity,
                    number,
                    self._said(signal, why),
                )

    def _said(self, signal: str, why: str) -> str:
        # The receiver's own words, unless they quote what is secret.
        words = " ".join(why.split())[:SAID]
        secret = any(value in why for value in self._target.headers[signal].values())
        return f": {words}" if words and words.isprintable() and not secret else ""


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.proto") is not None
    except (ImportError, ValueError):
        return False
