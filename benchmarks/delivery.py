"""How fast events get to a sink: ours against that sink's own driver, in turns, in one run.

    python benchmarks/delivery.py [--rounds N] [--events N] [--postgresql URL]

Ours is what a delivery thread does: lines of the journal become events, are checked, and are stored once
each whatever is told again. The bare driver is given the same rows, ready made, for a table with the
same columns and as many indexes, as safe on the disk, in batches of the same size, each its own
transaction: `executemany` for SQLite, `COPY` for PostgreSQL, and for Kafka `produce` of the same
messages with the same settings, and `flush`. Both begin with empty tables.

Without a URL PostgreSQL is a server of its own in a temporary directory, as the tests have it, and
Kafka is librdkafka's mock cluster, in this process: what it takes of the CPU it takes of both. Machines
differ and are shared, so the bar is for the ratio, the median of rounds that alternate. Nothing here
fails: it prints.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter, time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from confluent_kafka import Producer

from cmdrdata_transport.event import FORMAT, encode
from cmdrdata_transport.identity import new_event_id
from cmdrdata_transport.sinks import Outlet, open_sink
from cmdrdata_transport.sinks.kafka.cloudevents import message_of
from cmdrdata_transport.sinks.kafka.target import target_of

BAR = 0.5

Rows = list[tuple[Any, ...]]


class Contest(NamedTuple):
    """A sink and the driver below it. `clear` empties both; `rows` is what the sink makes of lines."""

    name: str
    outlet: Outlet
    clear: Callable[[], object]
    rows: Callable[[Sequence[bytes]], Rows]
    bare: Callable[[Sequence[tuple[Any, ...]]], object]


def lines(number: int) -> list[bytes]:
    """Events such as a chat completion makes, nine hundred bytes each."""
    return [
        encode(
            {
                "format": FORMAT,
                "event_id": new_event_id(time()),
                "timestamp": f"2026-11-21T12:{each // 60 % 60:02d}:{each % 60:02d}.250000Z",
                "customer_id": f"customer-{each % 100}",
                "metadata": {"feature": "chat", "tier": 3},
                "service": "shop",
                "library_version": "0.1.0",
                "provider": "openai",
                "model": "gpt-5-2026-01-01",
                "request_model": "gpt-5",
                "operation": "chat",
                "api": "openai.chat_completions",
                "host": "api.openai.com",
                "streaming": False,
                "status_code": 200,
                "response_id": f"chatcmpl-B9MBs8CjcvOU2jLn4n570S5q{each:05d}",
                "request_id": f"req_{each:032x}",
                "finish_reason": "stop",
                "service_tier": "default",
                "input_tokens": 19 + each,
                "output_tokens": 400,
                "total_tokens": 419 + each,
                "cache_read_tokens": 0,
                "output_reasoning_tokens": 64,
                "usage_status": "complete",
                "usage_source": "body",
                "outcome": "ok",
                "request_duration_ms": 812.25,
                "time_to_first_byte_ms": 811.5,
                "raw_usage": {
                    "prompt_tokens": 19 + each,
                    "completion_tokens": 400,
                    "total_tokens": 419 + each,
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
                },
            }
        )
        for each in range(number)
    ]


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def sqlite_contest(directory: Path, resources: ExitStack) -> Contest:
    """Two files side by side."""
    outlet = open_sink("sqlite:///usage.db", home=directory, environ={})
    resources.callback(outlet.close)
    outlet.send(lines(1))
    ours = resources.enter_context(closing(sqlite3.connect(directory / "usage.db", isolation_level=None)))
    bare = resources.enter_context(closing(sqlite3.connect(directory / "bare.db", isolation_level=None)))
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    made = "SELECT sql FROM sqlite_master WHERE tbl_name = 'usage_events' AND sql IS NOT NULL"
    for (sql,) in ours.execute(made).fetchall():
        bare.execute(sql)
    width = len(ours.execute("SELECT * FROM usage_events").fetchall()[0])
    insert = f"INSERT INTO usage_events VALUES ({', '.join('?' * width)})"  # noqa: S608 - no values

    def clear() -> None:
        for each in (ours, bare):
            each.execute("DELETE FROM usage_events")
            each.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def write(rows: Sequence[tuple[Any, ...]]) -> None:
        for batch in batches(rows, outlet.batch):
            bare.execute("BEGIN IMMEDIATE")
            bare.executemany(insert, batch)
            bare.execute("COMMIT")

    def stored(_: Sequence[bytes]) -> Rows:
        return ours.execute("SELECT * FROM usage_events").fetchall()

    return Contest("SQLite, executemany", outlet, clear, stored, write)


def postgresql_contest(url: str, resources: ExitStack) -> Contest:
    """Two tables in one database."""
    outlet = open_sink(url, home=Path(), environ={})
    resources.callback(outlet.close)
    outlet.send(lines(1))
    connection = resources.enter_context(psycopg.connect(url, autocommit=True))
    connection.execute("DROP TABLE IF EXISTS bare")
    connection.execute("CREATE TABLE bare (LIKE usage_events INCLUDING ALL, PRIMARY KEY (event_id))")
    connection.adapters.register_loader("jsonb", psycopg.types.string.TextLoader)  # as text, ready to be sent

    def clear() -> None:
        connection.execute("TRUNCATE usage_events, usage_event_ids, bare")
        connection.execute("CHECKPOINT")

    def write(rows: Sequence[tuple[Any, ...]]) -> None:
        for batch in batches(rows, outlet.batch):
            with connection.cursor() as cursor, cursor.copy("COPY bare FROM STDIN") as copy:
                for row in batch:
                    copy.write_row(row)

    def stored(_: Sequence[bytes]) -> Rows:
        return connection.execute("SELECT * FROM usage_events").fetchall()

    return Contest("PostgreSQL, COPY", outlet, clear, stored, write)


def kafka_contest(url: str, resources: ExitStack) -> Contest:
    """One topic, and two producers; each message's report is asked for."""
    outlet = open_sink(url, home=Path(), environ={})
    resources.callback(outlet.close)
    outlet.send(lines(1))
    producer = Producer(dict(target_of(urlsplit(url), {}).settings))
    resources.callback(producer.close)

    def write(rows: Sequence[tuple[Any, ...]]) -> None:
        reported = 0

        def report(error: object, _: object) -> None:
            nonlocal reported
            reported += error is None

        for batch in batches(rows, outlet.batch):
            for key, value in batch:
                producer.produce("usage", value, key, on_delivery=report, headers=_HEADERS)
            producer.flush()
        if reported != len(rows):
            raise SystemExit("the brokers did not take all messages")

    write([(b"first", b"which waits for the connection")])
    return Contest("Kafka, produce", outlet, lambda: None, lambda fresh: list(map(message_of, fresh)), write)


_HEADERS: list[tuple[str, str | bytes | None]] = [("content-type", b"application/cloudevents+json")]


def compare(contest: Contest, rounds: int, events: int) -> tuple[float, float, float]:
    """Median events a second, bare and ours, and the median ratio."""
    rates: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        fresh = lines(events)
        contest.clear()
        began = perf_counter()
        for batch in batches(fresh, contest.outlet.batch):
            contest.outlet.send(batch)
        ours = events / (perf_counter() - began)
        rows = contest.rows(fresh)
        contest.clear()
        began = perf_counter()
        contest.bare(rows)
        rates.append((events / (perf_counter() - began), ours))
    bare, ours = (statistics.median(column) for column in zip(*rates[1:], strict=True))
    return bare, ours, statistics.median(mine / theirs for theirs, mine in rates[1:])


def main() -> None:
    """Print every figure beside its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each bare and ours (default: 7)")
    parser.add_argument("--events", type=int, default=20_000, help="events a round (default: 20,000)")
    parser.add_argument("--postgresql", metavar="URL", help="a database, whose ledger is emptied")
    asked = parser.parse_args()
    with ExitStack() as resources:
        directory = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        contests = [
            sqlite_contest(directory, resources),
            postgresql_contest(asked.postgresql or _own_server(resources), resources),
            kafka_contest(_own_brokers(resources), resources),
        ]
        print(f"{'events a second':24} {'bare':>9} {'ours':>9} {'ratio':>6} {'bar':>6}")
        for contest in contests:
            bare, ours, ratio = compare(contest, asked.rounds, asked.events)
            print(f"{contest.name:24} {bare:9,.0f} {ours:9,.0f} {ratio:6.2f} {BAR:6.2f}", flush=True)


_TESTS = str(Path(__file__).resolve().parent.parent / "tests")


def _own_brokers(resources: ExitStack) -> str:
    sys.path.insert(0, _TESTS)
    from kafka_cluster import Cluster  # noqa: PLC0415 - the tests' own, which only stands on the path now

    cluster = Cluster()
    resources.callback(cluster.close)
    return cluster.url


def _own_server(resources: ExitStack) -> str:
    sys.path.insert(0, _TESTS)
    from postgres import running  # noqa: PLC0415 - the tests' own, which only stands on the path now

    server = resources.enter_context(running(fsync="on"))
    return server.url(server.new_database())


if __name__ == "__main__":
    main()
