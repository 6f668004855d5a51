"""Kafka behind TLS and passwords: who is let in, whom we trust, and what is shown to whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from journals import line_of
from kafka_cluster import Cluster
from kafka_front import Front

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.sinks import Outlet, Unauthorized, open_sink

PASSWORD = "open sesame/@%"
LOGIN = {"CMDRDATA_KAFKA_USERNAME": "zoo", "CMDRDATA_KAFKA_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Brokers that are up; each test stands before them."""
    brokers = Cluster()
    yield brokers
    brokers.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues the brokers' certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


def opened(front: Front, query: str, home: Path, **environ: str) -> Outlet:
    """The topic, through what stands before it."""
    return open_sink(f"kafka://{front.address}/usage?{query}", home=home, environ=environ)


def arrived(cluster: Cluster, number: int) -> bool:
    """Whether an event is in the topic."""
    return any(line_of(number) in (message.value() or b"") for message in cluster.read(0))


@pytest.mark.slow
def test_whom_we_are_told_to_trust_is_spoken_to(
    tmp_path: Path, cluster: Cluster, authority: Authority
) -> None:
    """`?ca=` names who issued the brokers' certificate: the handshake is whole, and the event is there."""
    front = Front(cluster, tls=authority.serving())
    with front.standing():
        outlet = opened(front, f"ca={authority.file}", tmp_path)
        outlet.send([line_of(1)])
        outlet.close()
    assert arrived(cluster, 1)


@pytest.mark.slow
def test_a_broker_that_asks_for_a_certificate_gets_ours(
    tmp_path: Path, cluster: Cluster, authority: Authority
) -> None:
    """`?cert=` and `?key=`; without them it lets nobody in, and we say what to name."""
    cert, key = authority.issued("client.example")
    front = Front(cluster, tls=authority.serving(asks=True))
    with front.standing():
        outlet = opened(front, f"ca={authority.file}&timeout=2", tmp_path)
        with pytest.raises(Unavailable, match=r"\?cert= and \?key="):
            outlet.send([line_of(2)])
        outlet.close()
        outlet = opened(front, f"ca={authority.file}&cert={cert}&key={key}", tmp_path)
        outlet.send([line_of(2)])
        outlet.close()
    assert arrived(cluster, 2)


@pytest.mark.parametrize(
    "trusted", ["another authority", pytest.param("another host", marks=pytest.mark.slow)]
)
def test_whom_we_do_not_trust_is_told_nothing(
    tmp_path: Path, cluster: Cluster, authority: Authority, trusted: str
) -> None:
    """Neither event nor password leaves for a broker whose certificate is of others, and we say why."""
    stranger = Authority(tmp_path)
    serving = stranger.serving() if trusted == "another authority" else authority.serving("other.example")
    front = Front(cluster, tls=serving, users={"zoo": PASSWORD})
    with front.standing():
        outlet = opened(front, f"ca={authority.file}&timeout=2", tmp_path, **LOGIN)
        with pytest.raises(Unavailable, match=r"certificate is not trusted: does \?ca= name"):
            outlet.send([line_of(3)])
        outlet.close()
    assert (front.mechanisms, front.shown) == ([], [])
    assert not arrived(cluster, 3)


def test_brokers_that_speak_no_tls_are_told_of(tmp_path: Path, cluster: Cluster) -> None:
    """The reason says what to look at."""
    outlet = open_sink(f"{cluster.url}?tls=1&timeout=1", home=tmp_path, environ={})
    with pytest.raises(Unavailable, match=r"TLS fails.*insecure=1"):
        outlet.send([line_of(1)])
    outlet.close()


@pytest.mark.parametrize(
    "mechanism", ["PLAIN", "SCRAM-SHA-256", pytest.param("SCRAM-SHA-512", marks=pytest.mark.slow)]
)
def test_user_and_password_are_shown_as_asked(
    tmp_path: Path, cluster: Cluster, authority: Authority, mechanism: str
) -> None:
    """Over TLS or, by SCRAM, in the open: who has the password is let in, and SCRAM never sends it."""
    line = line_of(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].index(mechanism) + 4)
    tls = authority.serving() if mechanism != "SCRAM-SHA-256" else None
    front = Front(cluster, tls=tls, users={"zoo": PASSWORD})
    with front.standing():
        query = f"sasl={mechanism}" + (f"&ca={authority.file}" if tls else "")
        outlet = opened(front, query, tmp_path, **LOGIN)
        outlet.send([line])
        outlet.close()
    assert set(front.mechanisms) == {mechanism}
    assert any(PASSWORD.encode() in shown for shown in front.shown) is (mechanism == "PLAIN")
    assert any(line in (message.value() or b"") for message in cluster.read(0))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_unauthorized(tmp_path: Path, cluster: Cluster, mechanism: str) -> None:
    """It is told when the brokers say so, and not when the time is up; no secret is in the reason."""
    front = Front(cluster, users={"zoo": "another"})
    with front.standing():
        outlet = opened(front, f"sasl={mechanism}&timeout=300", tmp_path, **LOGIN)
        for _ in range(2):
            with pytest.raises(Unauthorized, match="user or the password") as raised:
                outlet.send([line_of(9)])
            assert PASSWORD not in str(raised.value)
        outlet.close()
    assert not arrived(cluster, 9)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ("ca=none.pem", r"none.pem \(\?ca=\): No such file"),
        ("ca={directory}", r"\(\?ca=\): Is a directory"),
        ("ca={text}", r"\(\?ca=\) holds no certificate in PEM"),
        ("cert={authority}", r"\(\?cert=\) holds no certificate in PEM with its key"),
        ("cert={cert}&key={other}", r"\(\?cert=\) holds no certificate in PEM with its key"),
        ("key={other}", r"name that with \?cert="),
    ],
)
@pytest.mark.parametrize("sink", ["kafka://broker/usage", "otlp+https://collector"])
def test_a_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, authority: Authority, sink: str, files: str, says: str
) -> None:
    """Where the sink is configured, and not when the first event goes out."""
    (tmp_path / "text").write_text("no certificate", "utf-8")
    (cert, _), (_, other) = authority.issued("client.example"), authority.issued("other.example")
    named = {"directory": tmp_path, "text": tmp_path / "text", "cert": cert, "other": other}
    query = files.format(**named, authority=authority.file)
    with pytest.raises(TrackingSetupError, match=says):
        open_sink(f"{sink}?{query}", home=tmp_path, environ={})
