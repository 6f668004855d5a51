"""Brokers on this machine: librdkafka's mock cluster, which speaks Kafka over TCP and fails when told to.

It is in the library that the driver brings; what Python's driver does not show of it is called by its C names
(`rdkafka_mock.h`).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer

PRODUCE = 0
INIT_PRODUCER_ID = 22
"""Kinds of requests, by Kafka's protocol guide."""

_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (_POINTER, []),
    "rd_kafka_conf_set": (_INT, [_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t]),
    "rd_kafka_new": (_POINTER, [_INT, _POINTER, _TEXT, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_new": (_POINTER, [_POINTER, _INT]),
    "rd_kafka_mock_cluster_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, [_POINTER]),
    "rd_kafka_mock_topic_create": (_INT, [_POINTER, _TEXT, _INT, _INT]),
    "rd_kafka_mock_topic_set_error": (None, [_POINTER, _TEXT, _INT]),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [_POINTER, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(_INT)],
    ),
    "rd_kafka_mock_partition_push_request_errors": (
        _INT,
        [_POINTER, _TEXT, ctypes.c_int32, ctypes.c_int16, ctypes.c_size_t, _INT],
    ),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_down": (_INT, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (_INT, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_host_port": (_INT, [_POINTER, ctypes.c_int32, _TEXT, _INT]),
    "rd_kafka_mock_broker_set_rtt": (_INT, [_POINTER, ctypes.c_int32, _INT]),
}


class Cluster:
    """Some brokers, with a topic `usage`."""

    def __init__(self, brokers: int = 1, partitions: int = 4) -> None:
        package = Path(confluent_kafka.__file__).parent
        (library,) = [
            *package.parent.glob("confluent_kafka.libs/librdkafka*"),
            *package.glob(".dylibs/librdkafka*"),
        ]
        self._calls = ctypes.CDLL(str(library))
        for name, (gives, takes) in _FUNCTIONS.items():
            function = getattr(self._calls, name)
            function.restype, function.argtypes = gives, takes
        settings = self._calls.rd_kafka_conf_new()
        self._calls.rd_kafka_conf_set(settings, b"log_level", b"0", None, 0)
        self._client = self._calls.rd_kafka_new(0, settings, None, 0)
        self._cluster = self._calls.rd_kafka_mock_cluster_new(self._client, brokers)
        self._brokers = range(1, brokers + 1)
        self.hosts: str = self._calls.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._calls.rd_kafka_mock_topic_create(self._cluster, b"usage", partitions, 1)
        # A group begins to read at once, and does not wait three seconds for others.
        self._calls.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.url = f"kafka://{self.hosts}/usage"

    def spoil(self, topic: str, error: int) -> None:
        """Have brokers say this of a topic; 0 puts it right."""
        self._calls.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), error)

    def refuse(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind with these errors, one after the other; 0 is none."""
        self._calls.rd_kafka_mock_push_request_errors_array(
            self._cluster, request, len(errors), (_INT * len(errors))(*errors)
        )

    def refuse_in(self, partition: int, error: int) -> None:
        """Answer the next messages to a partition of `usage` with this error."""
        self._calls.rd_kafka_mock_partition_push_request_errors(
            self._cluster, b"usage", partition, PRODUCE, 1, error
        )

    def stop(self) -> None:
        """Have no broker listen."""
        for each in self._brokers:
            self._calls.rd_kafka_mock_broker_set_down(self._cluster, each)

    def start(self) -> None:
        """Have all listen again."""
        for each in self._brokers:
            self._calls.rd_kafka_mock_broker_set_up(self._cluster, each)

    def delay(self, milliseconds: int) -> None:
        """Have every answer take so long."""
        for each in self._brokers:
            self._calls.rd_kafka_mock_broker_set_rtt(self._cluster, each, milliseconds)

    def be_at(self, host: str, port: str) -> None:
        """Have clients told that the one broker is to be reached there."""
        self._calls.rd_kafka_mock_broker_set_host_port(self._cluster, 1, host.encode(), int(port))

    def close(self) -> None:
        """End it all."""
        self._calls.rd_kafka_mock_cluster_destroy(self._cluster)
        self._calls.rd_kafka_destroy(self._client)

    def read(self, number: int, topic: str = "usage") -> list[confluent_kafka.Message]:
        """All messages of a topic, so many at least, by partition and offset."""
        return read(self.hosts, number, topic)


def read(hosts: str, number: int, topic: str = "usage") -> list[confluent_kafka.Message]:
    """All messages of a topic, so many at least, by partition and offset."""
    consumer = Consumer(
        {"bootstrap.servers": hosts, "group.id": "reader", "log_level": 0, "enable.partition.eof": True}
    )
    found: list[confluent_kafka.Message] = []
    ended: set[int | None] = set()
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([confluent_kafka.TopicPartition(topic, each, 0) for each in partitions])
    while len(ended) < len(partitions) or len(found) < number:
        message = consumer.poll(10)
        assert message is not None, f"{len(found)} of {number} are there"
        if message.error() is None:
            found.append(message)
        else:
            ended.add(message.partition())
    consumer.close()
    return sorted(found, key=lambda each: (each.partition(), each.offset()))
