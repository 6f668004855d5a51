"""The sink for Kafka: what a consumer reads, and what fails, how it says so, and that it loses nothing."""

from __future__ import annotations

import logging
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from certifi import where
from journals import event_of, line_of, once, run, set_up
from kafka_cluster import INIT_PRODUCER_ID, PRODUCE, Cluster

from cmdrdata_transport import Tracker, tracked_http_client
from cmdrdata_transport import lanes as lanes_module
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import decode, encode
from cmdrdata_transport.sinks import Outlet, Unauthorized, open_sink
from cmdrdata_transport.sinks.kafka import cloudevents
from cmdrdata_transport.sinks.kafka.cloudevents import message_of

REMOTE = "kafka://broker-1,broker-2:9093/usage"
LOGIN = {"CMDRDATA_KAFKA_USERNAME": "zoo", "CMDRDATA_KAFKA_PASSWORD": "secret"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Brokers that are up."""
    brokers = Cluster()
    yield brokers
    brokers.close()


def opened(spec: str, home: Path, **environ: str) -> Outlet:
    """An outlet with an environment of its own."""
    return open_sink(spec, home=home, environ=environ)


def numbers(cluster: Cluster, at_least: int) -> Counter[int]:
    """How often each event is in the topic."""
    values = [message.value() or b"" for message in cluster.read(at_least)]
    return Counter(int(decode(value)["id"].removeprefix("event-")) for value in values)


# --- opening ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        (REMOTE, REMOTE),
        ("kafka://[::1]:9092,localhost/a.b_c-D", "kafka://[::1]:9092,localhost/a.b_c-D"),
        ("kafka://zoo:secret@broker/usage?timeout=5", "kafka://broker/usage"),
        ("kafka://broker/usage?insecure=1", "kafka://broker/usage?insecure=1"),
        (f"{REMOTE}?sasl=SCRAM-SHA-512", f"{REMOTE}?sasl=SCRAM-SHA-512"),
        (f"kafka://broker/usage?ca={where()}", f"kafka://broker/usage?ca={where()}"),
    ],
)
def test_a_topic_has_an_identity_without_secrets(tmp_path: Path, spec: str, identity: str) -> None:
    """It says how the brokers are reached, opens the topic again, and shows neither user nor password."""
    environ = LOGIN if "sasl" in spec else {}
    outlet: Any = opened(spec, tmp_path, **environ)
    assert outlet.identity == identity
    assert opened(identity, tmp_path, **environ).identity == identity
    assert "secret" not in repr(outlet) + repr(outlet._target)
    assert not outlet.keyed


@pytest.mark.parametrize(
    ("spec", "environ", "says"),
    [
        ("kafka:///usage", {}, "kafka://broker-1:9092,broker-2/usage"),
        ("kafka://a,,b/usage", {}, "broker that none can be"),
        ("kafka://a:nine/usage", {}, "broker that none can be"),
        ("kafka://a:99999/usage", {}, "broker that none can be"),
        ("kafka://broker", {}, "kafka://broker/usage"),
        ("kafka://broker/a/b", {}, "names no topic"),
        ("kafka://broker/..", {}, "names no topic"),
        (f"kafka://broker/{'x' * 250}", {}, "names no topic"),
        ("kafka://broker/usage?acks=0", {}, r"no \?acks=; there are tls"),
        ("kafka://broker/usage?timeout=soon", {}, "timeout=5"),
        ("kafka://broker/usage?insecure=1&tls=1", {}, "insecure=1 is without TLS"),
        ("kafka://broker/usage?sasl=GSSAPI", LOGIN, "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ("kafka://broker/usage?sasl=PLAIN", {}, "CMDRDATA_KAFKA_USERNAME"),
        ("kafka://zoo@broker/usage", {}, "CMDRDATA_KAFKA_PASSWORD"),
        ("kafka://zoo:secret@broker/usage?insecure=1", {}, "does not travel in the open"),
        ("kafka://zoo:sec/secret@broker/usage", {}, "%2F for /"),
        ("kafka://zoo:sec?secret@broker/usage", {}, "%3F for ?"),
        ("kafka://zoo:sec#secret@broker/usage", {}, "%23 for #"),
    ],
)
def test_a_topic_that_cannot_be_says_what_to_write(
    tmp_path: Path, spec: str, environ: dict[str, str], says: str
) -> None:
    """The error is raised where the sink is configured, and shows no secret."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        opened(spec, tmp_path, **environ)
    assert "secret" not in str(raised.value)


def test_a_driver_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sink is configured, with what to type."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(TrackingSetupError, match=r"pip install 'cmdrdata-transport\[kafka\]'"):
        opened(REMOTE, tmp_path)


@pytest.mark.parametrize(
    ("spec", "environ", "protocol", "mechanism"),
    [
        (REMOTE, {}, "SSL", None),
        ("kafka://localhost/usage", {}, "PLAINTEXT", None),
        ("kafka://127.0.0.1,broker/usage", {}, "SSL", None),
        ("kafka://localhost/usage?tls=1", {}, "SSL", None),
        (f"kafka://localhost/usage?ca={where()}", {}, "SSL", None),
        (f"{REMOTE}?insecure=1", {}, "PLAINTEXT", None),
        (REMOTE, LOGIN, "SASL_SSL", "PLAIN"),
        ("kafka://zo%40:sec%2Fret@broker/usage", {}, "SASL_SSL", "PLAIN"),
        (f"{REMOTE}?sasl=SCRAM-SHA-256", LOGIN, "SASL_SSL", "SCRAM-SHA-256"),
        (f"{REMOTE}?sasl=SCRAM-SHA-256&insecure=1", LOGIN, "SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("kafka://zoo:secret@localhost/usage", {}, "SASL_PLAINTEXT", "PLAIN"),
    ],
)
def test_beyond_this_machine_it_speaks_tls(
    tmp_path: Path, spec: str, environ: dict[str, str], protocol: str, mechanism: str | None
) -> None:
    """Unless one asks for the open; there no password is sent, though SCRAM may prove that one has it."""
    outlet: Any = opened(spec, tmp_path, **environ)
    settings = outlet._target.settings
    assert settings["security.protocol"] == protocol
    assert settings.get("sasl.mechanism") == mechanism
    if "zo%40" in spec:
        assert (settings["sasl.username"], settings["sasl.password"]) == ("zo@", "sec/ret")


# --- what a consumer reads --------------------------------------------------------------------------


@pytest.mark.parametrize("customer", ["acme", "дом", 'a"b\\c', "{}"])
def test_an_event_is_a_cloud_event(tmp_path: Path, cluster: Cluster, customer: str) -> None:
    """Structured mode: the attributes that readers of CloudEvents look for, and the event to the byte."""
    outlet = opened(cluster.url, tmp_path)
    line = line_of(1, customer_id=customer, metadata={"feature": "chät"}, input_tokens=10**30)
    outlet.send([line])
    (message,) = cluster.read(1)
    value = message.value() or b""
    assert value.endswith(b',"data":' + line + b"}")
    envelope = decode(value)
    del envelope["data"]
    assert envelope == {
        "specversion": "1.0",
        "id": "event-1",
        "source": "cmdrdata-transport",
        "type": "cmdrdata.usage",
        "subject": customer,
        "time": "2026-11-21T12:00:00.250000Z",
        "datacontenttype": "application/json",
    }
    assert message.headers() == [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    assert message.key() == customer.encode()
    outlet.close()


def test_an_event_is_read_where_it_does_not_begin_as_ours_do() -> None:
    """Fields in another order, as another version may write them, make the same message."""
    event = event_of(1)
    other = dict(reversed(event.items()))
    (key, value), (other_key, other_value) = message_of(encode(event)), message_of(encode(other))
    assert key == other_key == b"acme"
    assert decode(value) == decode(other_value)


def test_an_event_of_the_transport_begins_as_the_sink_expects(tmp_path: Path) -> None:
    """So the quick way is taken for all that we write, and not only for what tests write."""
    tracker = Tracker(sinks=["jsonl:///usage.jsonl"], home=tmp_path, customer_id="acme")
    answer = {"id": "r1", "model": "gpt-5", "output": [], "usage": {"input_tokens": 7, "output_tokens": 3}}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
    with tracked_http_client("openai", transport=transport, tracker=tracker) as client:
        client.post("https://api.openai.com/v1/responses", json={"model": "gpt-5", "input": "?"})
    tracker.close()
    assert cloudevents._START.match((tmp_path / "usage.jsonl").read_bytes())


def test_an_event_of_nobody_has_no_key_and_no_subject(tmp_path: Path, cluster: Cluster) -> None:
    """A reader that bills by subject has nobody to bill for it."""
    outlet = opened(cluster.url, tmp_path)
    outlet.send([line_of(1, customer_id=None)])
    (message,) = cluster.read(1)
    assert message.key() is None
    assert "subject" not in decode(message.value() or b"")
    outlet.close()


def test_what_is_told_twice_has_the_same_source_and_id(tmp_path: Path, cluster: Cluster) -> None:
    """A reader of CloudEvents tells duplicates by the two, whichever service told them."""
    for service in ("web", "worker"):
        outlet = opened(cluster.url, tmp_path)
        outlet.send([line_of(1, service=service)])
        outlet.close()
    found = [decode(message.value() or b"") for message in cluster.read(2)]
    assert {(each["source"], each["id"]) for each in found} == {("cmdrdata-transport", "event-1")}
    assert len(found) == 2


@pytest.mark.slow
def test_a_customers_events_are_in_one_partition_in_order(tmp_path: Path, cluster: Cluster) -> None:
    """Also when the brokers change leaders or lose connections meanwhile; and each is there once."""
    outlet = opened(cluster.url, tmp_path)
    customers = ["acme", "zoo", "wombat", "дом", "a" * 200]
    for first in range(0, 500, 100):
        cluster.refuse(PRODUCE, 6, 7, 19)
        outlet.send([line_of(each, customer_id=customers[each % 5]) for each in range(first, first + 100)])
    messages = cluster.read(500)
    assert len(messages) == 500
    for number, customer in enumerate(customers):
        theirs = [message for message in messages if message.key() == customer.encode()]
        assert len({message.partition() for message in theirs}) == 1
        assert [decode(each.value() or b"")["id"] for each in theirs] == [
            f"event-{each}" for each in range(number, 500, 5)
        ]
    outlet.close()


def test_a_key_is_where_other_producers_put_it(tmp_path: Path) -> None:
    """Kafka's Java client hashes keys by murmur2: readers that join topics rely on it."""
    cluster = Cluster(partitions=100)
    outlet = opened(cluster.url, tmp_path)
    outlet.send(
        [line_of(1, customer_id="acme"), line_of(2, customer_id="21"), line_of(3, customer_id="foobar")]
    )
    found = {message.key(): message.partition() for message in cluster.read(3)}
    # The hashes of "21" and "foobar" are those of the Java client's own tests (UtilsTest.testMurmur2).
    assert found[b"21"] == (-973932308 & 0x7FFFFFFF) % 100
    assert found[b"foobar"] == (-790332482 & 0x7FFFFFFF) % 100
    outlet.close()
    cluster.close()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b'{"event_id":5,"timestamp":"t"}',
        line_of(1, customer_id=7),
        line_of(1, timestamp=5),
    ],
    ids=repr,
)
def test_what_is_no_event_is_not_sent(tmp_path: Path, line: bytes) -> None:
    """The brokers are not asked about it, so it does not matter that there are none."""
    with pytest.raises(Rejected):
        opened("kafka://127.0.0.1:1/usage", tmp_path).send([line_of(0), line])


# --- what fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [(17, Unavailable, "name of the topic"), (29, Unauthorized, "may not write to the topic")],
)
def test_a_topic_that_is_not_ours_is_put_right(
    tmp_path: Path, cluster: Cluster, code: int, kind: type[Exception], says: str
) -> None:
    """What is wrong with the topic is for an operator, and speaks of no event: they wait, and then go out."""
    cluster.spoil("usage", code)
    outlet = opened(f"{cluster.url}?timeout=3", tmp_path)
    for _ in range(2):
        with pytest.raises(kind, match=says) as raised:
            outlet.send([line_of(1)])
        assert isinstance(raised.value, Unavailable)
    cluster.spoil("usage", 0)
    outlet.send([line_of(1)])
    assert numbers(cluster, 1) == once(1, 1)
    outlet.close()


@pytest.mark.slow
def test_a_topic_that_is_made_late_gets_all(
    tmp_path: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers that make none by themselves: one line names it and says what to do; events wait for it."""
    monkeypatch.setattr(lanes_module, "FIRST_PAUSE_SECONDS", 0.01)
    cluster.spoil("usage", 3)
    setup = set_up(tmp_path, f"{cluster.url}?timeout=2", mode="flush")
    setup.append(5)
    with caplog.at_level(logging.WARNING, "cmdrdata_transport"):
        assert not setup.delivery.flush(2)
    (record,) = caplog.records
    assert f"({cluster.url}: there is no such topic: make it, or put the URL right)" in record.getMessage()
    assert "rejected" not in setup.counters.snapshot()
    cluster.spoil("usage", 0)
    assert setup.delivery.flush(60)
    assert numbers(cluster, 5) == once(5)
    assert setup.counters.snapshot()["delivered"] == 5
    setup.delivery.close(1)


def test_a_user_who_may_not_is_told_so(
    tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error that librdkafka calls fatal: the next attempt begins anew, and nothing is printed."""
    cluster.refuse(INIT_PRODUCER_ID, 31)
    outlet = opened(cluster.url, tmp_path)
    with pytest.raises(Unauthorized, match="may not write idempotently"):
        outlet.send([line_of(1)])
    outlet.send([line_of(1)])
    assert numbers(cluster, 1) == once(1, 1)
    outlet.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("host", "says"),
    [("127.0.0.1:1", "no broker can be reached"), ("nobody.invalid", "no broker's name can be resolved")],
)
def test_brokers_that_are_away_are_unavailable(tmp_path: Path, host: str, says: str) -> None:
    """The reason says in what way, in a caller's time and in the URL's."""
    for outlet, timeout in (
        (opened(f"kafka://{host}/usage?timeout=1&insecure=1", tmp_path), None),
        (opened(f"kafka://{host}/usage?insecure=1", tmp_path), 0.5),
    ):
        with pytest.raises(Unavailable, match=says):
            outlet.send([line_of(1)], timeout)
        outlet.close()


def test_a_broker_that_says_nothing_holds_nobody(tmp_path: Path) -> None:
    """It accepts the connection and is silent: the sink beside it has all, and `close` comes back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"kafka://127.0.0.1:{silent.getsockname()[1]}/usage"
        outlet = opened(url, tmp_path)
        with pytest.raises(Unavailable, match="no broker answered in time"):
            outlet.send([line_of(0)], timeout=0.2)
        outlet.close()
        setup = set_up(tmp_path, url, "jsonl:///usage.jsonl")
        setup.delivery.ensure_running()
        setup.append(5)
        assert not setup.delivery.close(1)
        assert (tmp_path / "usage.jsonl").read_bytes().count(b"\n") == 5
        assert sum(each.events for each in setup.delivery.backlog()) == 5


@pytest.mark.parametrize("code", [10, 18, 32, 87])
def test_what_the_brokers_never_take_is_refused(tmp_path: Path, cluster: Cluster, code: int) -> None:
    """Too large, or not to their rules."""
    cluster.refuse(PRODUCE, code)
    outlet = opened(cluster.url, tmp_path)
    with pytest.raises(Rejected):
        outlet.send([line_of(1)])
    outlet.close()


def test_a_batch_that_is_refused_may_be_taken_event_by_event(tmp_path: Path, cluster: Cluster) -> None:
    """A broker says "too large" of all that came together: alone, each does, and each is there once."""
    cluster.refuse(PRODUCE, 10)
    setup = set_up(tmp_path, cluster.url, mode="flush")
    setup.append(20)
    assert setup.delivery.flush(60)
    assert setup.counters.snapshot() == {"delivered": 20}
    assert numbers(cluster, 20) == once(20)
    setup.delivery.close(1)


def test_an_event_that_is_too_large_stops_no_other(tmp_path: Path, cluster: Cluster) -> None:
    """It is over what any broker takes by default: it goes to the dead letters, the others to the topic."""
    setup = set_up(tmp_path, cluster.url, mode="flush")
    setup.append(3)
    setup.journal.append(line_of(3, raw_usage={"pad": "x" * 1_100_000}))
    setup.append(3, 4)
    assert setup.delivery.flush(60)
    assert setup.counters.snapshot() == {"delivered": 6, "rejected": 1}
    assert sorted(numbers(cluster, 6)) == [0, 1, 2, 4, 5, 6]
    (letters,) = (tmp_path / "dead").iterdir()
    assert decode(letters.read_bytes())["reason"] == "MSG_SIZE_TOO_LARGE"
    setup.delivery.close(1)


# --- what is not lost, and not told twice -----------------------------------------------------------


@pytest.mark.slow
def test_what_is_under_way_is_not_sent_again(tmp_path: Path, cluster: Cluster) -> None:
    """A slow broker outlasts the caller's time: the next send waits for the same message."""
    outlet = opened(cluster.url, tmp_path)
    outlet.send([line_of(0)])
    cluster.delay(1000)
    lines = [line_of(number) for number in range(1, 50)]
    with pytest.raises(Unavailable):
        outlet.send(lines, timeout=0.1)
    with pytest.raises(Unavailable):
        outlet.send(lines[:1], timeout=0.1)
    outlet.send(lines)
    cluster.delay(0)
    assert numbers(cluster, 50) == once(50)
    outlet.close()


@pytest.mark.slow
def test_what_was_taken_of_a_batch_is_said(tmp_path: Path, cluster: Cluster) -> None:
    """One customer's events got through: the journal goes on after the first, and none is there twice."""
    outlet: Any = opened(cluster.url, tmp_path)
    outlet.send([line_of(0), line_of(1, customer_id="foobar")])
    places = {message.key(): message.partition() or 0 for message in cluster.read(2)}
    assert len(set(places.values())) == 2
    customers = ("foobar", "acme", "foobar")
    lines = [line_of(number, customer_id=customer) for number, customer in enumerate(customers, 2)]
    cluster.refuse_in(places[b"acme"], 29)
    with pytest.raises(Unavailable, match="may not write") as raised:
        outlet.send(lines)
    assert raised.value.taken == 1
    outlet.send(lines[1:])
    assert numbers(cluster, 5) == once(5)
    assert outlet._reports == {}
    outlet.close()


@pytest.mark.slow
def test_an_outage_delays_and_loses_nothing(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers that are away at the start, come, go and come back: every event is there, each once."""
    monkeypatch.setattr(lanes_module, "FIRST_PAUSE_SECONDS", 0.01)
    setup = set_up(tmp_path, f"{cluster.url}?timeout=1")
    setup.delivery.ensure_running()
    for first in (0, 20):
        cluster.stop()
        setup.append(10, first)
        assert not setup.delivery.flush(1.5)
        cluster.start()
        setup.append(10, first + 10)
        assert setup.delivery.flush(60)
    assert numbers(cluster, 40) == once(40)
    counts = setup.counters.snapshot()
    assert counts["delivered"] == 40
    assert counts["unavailable"] >= 2
    assert setup.delivery.close(30)


def test_a_closed_outlet_opens_again(tmp_path: Path, cluster: Cluster) -> None:
    """And is closed as often as one likes."""
    outlet = opened(cluster.url, tmp_path)
    outlet.close()
    for number in range(2):
        outlet.send([line_of(number)])
        outlet.close()
        outlet.close()
    assert numbers(cluster, 2) == once(2)


def test_what_nobody_asks_for_again_is_not_remembered(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that were begun, and given to another process say, take no memory for ever."""
    monkeypatch.setattr("cmdrdata_transport.sinks.kafka.REMEMBERED", 50)
    cluster.delay(60_000)
    outlet: Any = opened(cluster.url, tmp_path)
    for first in range(0, 300, 20):
        with pytest.raises(Unavailable):
            outlet.send([line_of(number) for number in range(first, first + 20)], timeout=0.01)
        assert len(outlet._reports) <= 70
    outlet.close()
    assert outlet._reports == {}


def test_parent_and_child_do_not_share_a_producer(tmp_path: Path, cluster: Cluster) -> None:
    """A forked child makes its own, the parent's goes on, and both end as programs do."""
    printed = run(
        """
        setup = set_up(home, sys.argv[2])
        setup.delivery.ensure_running()
        setup.append(20)
        assert setup.delivery.flush(60)
        pid = os.fork()
        setup.append(20, 40 if pid else 20)
        setup.delivery.ensure_running()
        assert setup.delivery.close(60)
        if pid:
            print(os.waitpid(pid, 0)[1])
        """,
        tmp_path,
        cluster.url,
    )
    assert printed == "0\n"
    assert numbers(cluster, 60) == once(60)


def test_the_event_in_the_message_is_the_one_that_was_journaled(tmp_path: Path, cluster: Cluster) -> None:
    """Through journal and delivery, as it was."""
    setup = set_up(tmp_path, cluster.url, mode="flush")
    setup.append(3)
    assert setup.delivery.flush(60)
    found = [decode(message.value() or b"")["data"] for message in cluster.read(3)]
    assert found == [event_of(number) for number in range(3)]
    setup.delivery.close(1)
