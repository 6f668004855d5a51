"""A topic of Kafka: each event one message, in the form of CloudEvents 1.0.

OpenMeter, ClickHouse and Flink take it as it is. The key is the customer, so that one customer's events
are in one partition, in the order in which one process sent them; an event of nobody goes to any. The
partition of a key is the one that Kafka's own Java client would take.

An event is taken when the brokers say that all replicas in sync have it (`acks=all`, idempotent). One
that is under way when the time is up stays so: the next `send` of it waits for it, and sends nothing.

librdkafka, behind the driver, has threads and connections of its own. It logs nothing; what it has to
say is in the reason that a send fails with. `target.py` says what a URL means, `cloudevents.py` what a
message is, `verdicts.py` what an error says.
"""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.greenlets import apart
from cmdrdata_transport.sinks.kafka.cloudevents import HEADERS, message_of
from cmdrdata_transport.sinks.kafka.target import Target, target_of
from cmdrdata_transport.sinks.kafka.verdicts import REFUSED, trouble_of
from cmdrdata_transport.sinks.remote import spelled_out

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

LOOK_SECONDS = 0.1
"""How often a wait looks whether something has happened that ends it."""

UNDER_WAY, TAKEN = "under way", "taken"

REMEMBERED = 20_000
"""Messages that may be under way, or known to be taken; a batch is asked for again soon, or never."""

_SILENCE = logging.Logger("librdkafka", logging.CRITICAL + 1)  # noqa: LOG001 - nobody shall find it


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> KafkaOutlet:  # noqa: ARG001
    """The outlet of `kafka://broker,broker:9093/topic`.

    To other machines it speaks TLS, unless the URL ends in `?insecure=1`; on this one `?tls=1` makes it
    do so. `ca`, `cert` and `key` are files in PEM. User and password are in the URL, or in
    `CMDRDATA_KAFKA_USERNAME` and `CMDRDATA_KAFKA_PASSWORD`; `?sasl=SCRAM-SHA-512` says how they are
    shown, which is `PLAIN` otherwise. `?timeout=5` is how many seconds a batch may take.
    """
    url = spelled_out(url, environ, lambda other: target_of(other, environ).identity)
    target = target_of(url, environ)
    if find_spec("confluent_kafka") is None:
        raise TrackingSetupError(
            f"{target.identity} needs a driver: pip install 'cmdrdata-transport[kafka]', or confluent-kafka"
        )
    import_module("confluent_kafka")  # here, because a fork in the middle of that leaves half of it
    return KafkaOutlet(target)


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
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415 - an extra

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
                    producer.produce(topic, value, key, on_delivery=report, headers=HEADERS)
                except KafkaException as error:
                    report.told = error.args[0].name()

    def _listen(self, producer: Producer, seconds: float) -> bool:
        """Take the reports that come in so many seconds; whether more are to come."""
        from confluent_kafka import KafkaException  # noqa: PLC0415 - see `_connect`

        try:
            return apart(producer.flush, seconds) > 0
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
        troubles = [name for name in errors if name not in REFUSED]
        if not troubles and UNDER_WAY not in told:
            raise Rejected(errors[0])
        taken = len(list(takewhile(lambda each: each is TAKEN, told)))
        raise trouble_of(troubles, reversed(self._heard), taken)

    def _remember(self, lines: Sequence[bytes], reports: Sequence[_Report], done: int = 0) -> None:
        for place, (line, report) in enumerate(zip(lines, reports, strict=True)):
            if place >= done and report.stands():
                self._reports[line] = report
            else:
                self._reports.pop(line, None)

    def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.close()
        self._reports = {line: each for line, each in self._reports.items() if each.told is TAKEN}
