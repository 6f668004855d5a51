"""A topic of Kafka: each event one message, in the form of CloudEvents 1.0.

The message is CloudEvents' JSON in structured mode (the CloudEvents specification 1.0.2, JSON event
format, and its Kafka protocol binding), and `data` is the event as published, byte by byte: OpenMeter,
ClickHouse and Flink take it as it is. `id` is the `event_id`, and `source` the same for all of us, so
that what is told twice, by two programs even, has the same `source` and `id`: that is how a reader of
CloudEvents tells duplicates.

The key is the customer, so that one customer's events are in one partition, in the order in which one
process sent them; an event of nobody has no key and no subject, and goes to any partition. The
partition of a key is the one that Kafka's own Java client would take.

An event is taken when the brokers say that all replicas in sync have it (`acks=all`, idempotent). One
that is under way when the time is up stays so: the next `send` of it waits for it, and sends nothing.

librdkafka, behind the driver, has threads and connections of its own. It logs nothing; what it has to
say is in the reason that a send fails with.
"""

from __future__ import annotations

import ctypes
import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.sinks import Unauthorized
from cmdrdata_transport.sinks.remote import is_loopback, timeout_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

SOURCE = "cmdrdata-transport"
TYPE = "cmdrdata.usage"
_HEADERS: list[tuple[str, str | bytes | None]] = [
    ("content-type", b"application/cloudevents+json; charset=UTF-8")
]

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

OPTIONS = ("tls", "ca", "cert", "key", "sasl", "insecure", "timeout")

LOOK_SECONDS = 0.1
"""How often a wait looks whether something has happened that ends it."""

UNDER_WAY, TAKEN = "under way", "taken"

REMEMBERED = 20_000
"""Messages that may be under way, or known to be taken; a batch is asked for again soon, or never."""

_TEXT_OR_NONE = (str, type(None))

_TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")

_REFUSED = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "INVALID_TIMESTAMP"})
"""Errors that speak of a message, or of the batch that it was in: alone, it may do."""

_DENIED = frozenset(
    {
        "_AUTHENTICATION",
        "SASL_AUTHENTICATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
    }
)

_WORDS = {
    "_ALL_BROKERS_DOWN": "no broker can be reached",
    "_AUTHENTICATION": "the brokers refuse the user or the password",
    "_MSG_TIMED_OUT": "no broker answered in time",
    "_RESOLVE": "no broker's name can be resolved",
    "_SSL": "TLS fails: is the certificate trusted (?ca=), and does the broker speak TLS (?insecure=1)",
    "_TRANSPORT": "no broker can be reached",
    "_UNKNOWN_TOPIC": "there is no such topic: make it, or put the URL right",
    "CLUSTER_AUTHORIZATION_FAILED": "the user may not write idempotently",
    "SASL_AUTHENTICATION_FAILED": "the brokers refuse the user or the password",
    "TOPIC_AUTHORIZATION_FAILED": "the user may not write to the topic",
    "TOPIC_EXCEPTION": "the brokers do not take the name of the topic: put the URL right",
    "UNKNOWN_TOPIC_OR_PART": "there is no such topic: make it, or put the URL right",
}
"""What an operator is told, by librdkafka's name of the error; of others, the name."""


class _Unauthorized(Unavailable, Unauthorized):
    """The brokers refuse every event, until somebody puts the user, or what it may do, right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the events go. `settings` are librdkafka's; `identity` is the URL without what is secret."""

    identity: str
    topic: str
    timeout: float
    settings: Mapping[str, Any] = field(repr=False)


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> KafkaOutlet:  # noqa: ARG001
    """The outlet of `kafka://broker,broker:9093/topic`.

    To other machines it speaks TLS, unless the URL ends in `?insecure=1`; on this one `?tls=1` makes it
    do so. `ca`, `cert` and `key` are files in PEM. User and password are in the URL, or in
    `CMDRDATA_KAFKA_USERNAME` and `CMDRDATA_KAFKA_PASSWORD`; `?sasl=SCRAM-SHA-512` says how they are
    shown, which is `PLAIN` otherwise. `?timeout=5` is how many seconds a batch may take.
    """
    target = target_of(url, environ)
    if find_spec("confluent_kafka") is None:
        raise TrackingSetupError(
            f"{target.identity} needs a driver: pip install 'cmdrdata-transport[kafka]', or confluent-kafka"
        )
    return KafkaOutlet(target)


def target_of(url: SplitResult, environ: Mapping[str, str]) -> Target:
    """What a URL means. Raises `TrackingSetupError`, which never shows the user or the password."""
    if "@" in url.path + url.query or url.fragment:  # a piece of a password, say: never to be shown
        raise TrackingSetupError("in a password write %2F for /, %3F for ?, %23 for #, and %40 for @")
    user_info, _, hosts = url.netloc.rpartition("@")
    topic = unquote(url.path[1:])
    where = f"kafka://{hosts}{url.path}"
    local = all(is_loopback(host) for host in _hosts(hosts, where))
    if not _TOPIC_NAME.fullmatch(topic):
        raise TrackingSetupError(f"{where} names no topic that Kafka takes: write kafka://{hosts}/usage")
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := set(options).difference(OPTIONS):
        raise TrackingSetupError(f"{where}: there is no ?{min(unknown)}=; there are {', '.join(OPTIONS)}")
    insecure = options.get("insecure") == "1"
    if insecure and not options.keys().isdisjoint(("tls", "ca", "cert", "key")):
        raise TrackingSetupError(f"{where}: ?insecure=1 is without TLS: leave it out, or the options of TLS")
    tls = not insecure and (not local or not options.keys().isdisjoint(("tls", "ca", "cert", "key")))
    user, password = _credentials(user_info, environ)
    mechanism = options.get("sasl", "PLAIN") if user or "sasl" in options else None
    if mechanism is not None:
        if mechanism not in MECHANISMS:
            raise TrackingSetupError(f"{where}: ?sasl= is one of {', '.join(MECHANISMS)}")
        if not user or not password:
            raise TrackingSetupError(
                f"{where} needs a user and a password: set CMDRDATA_KAFKA_USERNAME and "
                "CMDRDATA_KAFKA_PASSWORD"
            )
        if mechanism == "PLAIN" and not (tls or local):
            raise TrackingSetupError(
                f"{where}: a password does not travel in the open: leave out ?insecure=1, or use SCRAM, "
                "which does not send it"
            )
    for name, _ in _FILES:
        if name in options and not Path(options[name]).is_file():
            raise TrackingSetupError(f"{where}: ?{name}={options[name]} is no file")
    timeout = timeout_of(options.pop("timeout", None), where)
    return Target(
        identity=f"{where}?{urlencode(options, safe='/')}" if options else where,
        topic=topic,
        timeout=timeout,
        settings={
            "bootstrap.servers": hosts,
            "client.id": SOURCE,
            "security.protocol": ("SASL_" if mechanism else "") + ("SSL" if tls else "PLAINTEXT"),
            **{f"ssl.{what}.location": options[name] for name, what in _FILES if name in options},
            **(
                {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password}
                if mechanism
                else {}
            ),
            **_settings(timeout),
        },
    )


_FILES = (("ca", "ca"), ("cert", "certificate"), ("key", "key"))


def _settings(timeout: float) -> dict[str, Any]:
    milliseconds = int(timeout * 1000)
    return {
        "acks": "all",
        "enable.idempotence": True,
        # It looks once a second whose time is up, and is to say so before ours is.
        "message.timeout.ms": max(milliseconds - 1500, milliseconds // 2, 1),
        # So that it is known within our time that there is no such topic; brokers say so for a
        # moment also of one that is being made.
        "topic.metadata.propagation.max.ms": milliseconds // 8,
        "partitioner": "murmur2_random",
        "linger.ms": 100,  # which ends when we wait for the batch: it goes out at once, and whole
        "compression.type": "lz4",
        "log_level": 0,
    }


class _Report:
    """What became of a message: under way, taken, or librdkafka's name of an error. The driver calls it."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told = ""

    def __call__(self, error: KafkaError | None, _message: object) -> None:
        self.told = TAKEN if error is None else error.name()

    def stands(self) -> bool:
        """Whether the message need not be sent again."""
        return self.told in (UNDER_WAY, TAKEN)


class KafkaOutlet:
    """Produces events to one topic."""

    batch = 2000
    keyed = False

    def __init__(self, target: Target) -> None:
        self.identity = target.identity
        self._target = target
        self._producer: Producer | None = None
        self._reports: dict[bytes, _Report] = {}
        """Of batches that were not taken whole: what is under way, or taken behind what is not."""
        self._heard: deque[KafkaError] = deque(maxlen=100)

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Produce each event, unless it is under way or there already, and wait for what the brokers say.

        Raises:
            Rejected: one of them is no event, or the brokers never take it.
            Unavailable: not all are taken in time; the brokers are away, or do not know topic or user.
        """
        patience = self._target.timeout if timeout is None else min(timeout, self._target.timeout)
        deadline = monotonic() + patience
        if len(self._reports) > REMEMBERED:
            self.close()
        known = self._reports
        if not any(each.told is UNDER_WAY for each in known.values()):
            self._heard.clear()
        reports = [known.get(line) or _Report() for line in lines] if known else [_Report() for _ in lines]
        producer = self._producer = self._producer or self._connect()
        try:
            self._produce(producer, lines, reports)
            while self._listen(producer, min(LOOK_SECONDS, max(0.0, deadline - monotonic()))):
                if self._is_over() or monotonic() >= deadline:
                    break
            self._judge([each.told for each in reports])
        except Rejected:
            # What was taken stays known: each is asked about by itself now.
            self._remember(lines, reports)
            raise
        except Unavailable as error:
            self._remember(lines, reports, error.taken)
            if self._is_over() or not any(each.told is UNDER_WAY for each in reports):
                # The next attempt begins anew, with what the brokers know by then of topic and user.
                self._let_go()
            raise
        if known:
            self._remember(lines, reports, len(lines))

    def close(self) -> None:
        """Give up what is under way, and close the connections. The next `send` opens new ones.

        What is given up may arrive all the same; as nobody was told so, it comes again.
        """
        self._let_go()
        self._reports.clear()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def forget(self) -> None:
        """The producer is the parent's, and its threads are not here: it is never touched again.

        Not even when the interpreter ends and would free it: one reference too many sees to that.
        """
        if self._producer is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._producer = None
        self._reports = {}

    def _connect(self) -> Producer:
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415 - an extra, on our own thread

        try:
            return Producer({**self._target.settings, "error_cb": self._heard.append}, logger=_SILENCE)
        except KafkaException as error:  # a certificate that is none, say
            raise Unavailable(error.args[0].str()) from None

    def _produce(self, producer: Producer, lines: Sequence[bytes], reports: Sequence[_Report]) -> None:
        from confluent_kafka import KafkaException  # noqa: PLC0415 - see `_connect`

        topic = self._target.topic
        for line, report in zip(lines, reports, strict=True):
            if not report.stands():
                key, value = message_of(line)
                report.told = UNDER_WAY
                try:
                    producer.produce(topic, value, key, on_delivery=report, headers=_HEADERS)
                except KafkaException as error:
                    report.told = error.args[0].name()

    def _listen(self, producer: Producer, seconds: float) -> bool:
        """Take the reports that come in so many seconds; whether more are to come."""
        from confluent_kafka import KafkaException  # noqa: PLC0415 - see `_connect`

        try:
            return producer.flush(seconds) > 0
        except KafkaException as error:
            self._heard.append(error.args[0])
            return True

    def _is_over(self) -> bool:
        # With a wrong password librdkafka would go on trying; after what it calls fatal it is of no use.
        return any(each.fatal() or each.name() == "_AUTHENTICATION" for each in self._heard)

    def _judge(self, told: Sequence[str]) -> None:
        if told.count(TAKEN) == len(told):
            return
        errors = [each for each in told if each not in (UNDER_WAY, TAKEN)]
        troubles = [name for name in errors if name not in _REFUSED]
        if not troubles and UNDER_WAY not in told:
            raise Rejected(errors[0])
        raise self._trouble(troubles, len(list(takewhile(lambda each: each is TAKEN, told))))

    def _remember(self, lines: Sequence[bytes], reports: Sequence[_Report], done: int = 0) -> None:
        for place, (line, report) in enumerate(zip(lines, reports, strict=True)):
            if place >= done and report.stands():
                self._reports[line] = report
            else:
                self._reports.pop(line, None)

    def _trouble(self, troubles: Sequence[str], taken: int) -> Unavailable:
        # That a message's time was up says less than what was heard of the brokers meanwhile.
        names = [
            *(name for name in troubles if name != "_MSG_TIMED_OUT"),
            *(name for each in reversed(self._heard) if (name := _kind_of(each)) != "_ALL_BROKERS_DOWN"),
            "_MSG_TIMED_OUT",
        ]
        denied = next((name for name in names if name in _DENIED), None)
        name = denied or names[0]
        kind = _Unauthorized if denied else Unavailable
        return kind(_WORDS.get(name, name), taken=taken)

    def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.close()
        self._reports = {line: each for line, each in self._reports.items() if each.told is TAKEN}


_SILENCE = logging.Logger("librdkafka", logging.CRITICAL + 1)  # noqa: LOG001 - nobody shall find it


def _kind_of(error: KafkaError) -> str:
    # A handshake with a broker that speaks no TLS ends as any connection does that is lost; only the
    # text, which names the state of the connection, tells. What else it quotes is not passed on.
    return "_SSL" if "SSL" in error.str() else error.name()


def message_of(line: bytes) -> tuple[bytes | None, bytes]:
    """A message's key and value: the customer, and the event in its envelope. Raises `Rejected`."""
    if (start := _START.match(line)) is not None and line.endswith(b"}"):
        return start[3], b"".join((_ENVELOPE, _OWN % start.groups(), b',"data":', line, b"}"))
    try:
        event: dict[str, Any] = decode(line)
        event_id, timestamp, customer = event["event_id"], event["timestamp"], event.get("customer_id")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Rejected("it is not an event") from None
    if not (isinstance(event_id, str) and isinstance(timestamp, str) and isinstance(customer, _TEXT_OR_NONE)):
        raise Rejected("its event_id, timestamp or customer_id is no text")
    own = {"id": event_id, "time": timestamp}
    if customer:
        own["subject"] = customer
    key = customer.encode("utf-8", "replace") if customer else None
    # Put together as text, for the event to come into it as it is.
    return key, b"".join((_ENVELOPE, encode(own)[1:-1], b',"data":', line, b"}"))


_START = re.compile(
    rb'\{"format":"cmdrdata\.usage/1","event_id":"([^"\\]+)","timestamp":"([^"\\]+)",'
    rb'"customer_id":"([^"\\]+)"[,}]'
)
"""How an event begins that states all we need at once: to read the whole of it would take longer than to
send it. Any other event is read."""

_OWN = b'"id":"%b","time":"%b","subject":"%b"'

_ENVELOPE = (
    encode({"specversion": "1.0", "source": SOURCE, "type": TYPE, "datacontenttype": "application/json"})[:-1]
    + b","
)


def _hosts(hosts: str, where: str) -> list[str]:
    try:
        brokers = [urlsplit(f"//{each}") for each in hosts.split(",")]
        if all(each.hostname and each.port != 0 and not each.path for each in brokers):
            return [each.hostname or "" for each in brokers]
    except ValueError:
        pass
    raise TrackingSetupError(
        f"{where} has a broker that none can be: write kafka://broker-1:9092,broker-2/usage"
    )


def _credentials(user_info: str, environ: Mapping[str, str]) -> tuple[str, str]:
    if user_info:
        user, _, password = user_info.partition(":")
        return unquote(user), unquote(password)
    return environ.get("CMDRDATA_KAFKA_USERNAME", "").strip(), environ.get(
        "CMDRDATA_KAFKA_PASSWORD", ""
    ).strip()
