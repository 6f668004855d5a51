"""What posts over HTTP and OTLP: whom it trusts, and what it does when an answer is not what it should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from journals import line_of, set_up
from receivers import Api, Collector, Crooked, Leaving, serving

from cmdrdata_transport import lanes as lanes_module
from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.sinks import open_sink

RECEIVERS = pytest.mark.parametrize("receiver", [Api, Collector])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues the receivers' certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


def received(server: Any) -> int:
    """How many requests there were."""
    return len(server.calls if isinstance(server, Api) else server.headers)


# --- TLS --------------------------------------------------------------------------------------------


@RECEIVERS
@pytest.mark.parametrize("way", ["option", "SSL_CERT_FILE", "OTEL_EXPORTER_OTLP_CERTIFICATE"])
def test_whom_we_are_told_to_trust_is_spoken_to(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    receiver: Callable[..., Any],
    way: str,
) -> None:
    """By `?ca=`, by the variable that httpx heeds, or, for OTLP, by OpenTelemetry's own."""
    if way.startswith("OTEL") and receiver is Api:
        way = "option"
    environ = {way: str(authority.file)}
    if way == "SSL_CERT_FILE":
        monkeypatch.setenv(way, str(authority.file))
    with serving(receiver(authority.serving())) as server:
        query = f"?ca={authority.file}" if way == "option" else ""
        outlet = open_sink(server.url + query, home=tmp_path, environ=environ)
        outlet.send([line_of(1)])
        assert received(server) >= 1
        assert open_sink(outlet.identity, home=tmp_path, environ=environ).identity == outlet.identity
        outlet.close()


@RECEIVERS
@pytest.mark.parametrize(
    ("host", "trusted", "says"),
    [("localhost", False, "unable to get local issuer"), ("other.example", True, "Hostname mismatch")],
    ids=["another authority", "another host"],
)
def test_whom_we_do_not_trust_is_told_nothing(
    tmp_path: Path, authority: Authority, receiver: Callable[..., Any], host: str, *, trusted: bool, says: str
) -> None:
    """No event and no key leaves for a receiver whose certificate is of others, and the reason says why."""
    stranger = Authority(tmp_path, "stranger")
    with serving(receiver(authority.serving(host))) as server:
        ca = authority.file if trusted else stranger.file
        environ = {"CMDRDATA_API_KEY": "secret", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"}
        outlet = open_sink(f"{server.url}?ca={ca}", home=tmp_path, environ=environ)
        with pytest.raises(Unavailable, match=f"^ConnectError: the certificate is not trusted: {says}"):
            outlet.send([line_of(1)])
        assert received(server) == 0
        outlet.close()


@RECEIVERS
def test_a_receiver_that_asks_for_a_certificate_gets_ours(
    tmp_path: Path, authority: Authority, receiver: Callable[..., Any]
) -> None:
    """`?cert=` is a file with our certificate and its key; without it the reason speaks of TLS."""
    mine = tmp_path / "mine.pem"
    mine.write_bytes(b"".join(each.read_bytes() for each in authority.issued("client.example")))
    with serving(receiver(authority.serving(asks=True))) as server:
        outlet = open_sink(f"{server.url}?ca={authority.file}", home=tmp_path, environ={})
        # It says so after the handshake, when we may be writing still.
        with pytest.raises(Unavailable, match=r"TLS fails: TLSV13_ALERT_CERT|^WriteError$|^ReadError$"):
            outlet.send([line_of(1)])
        outlet.close()
        assert received(server) == 0
        outlet = open_sink(f"{server.url}?ca={authority.file}&cert={mine}", home=tmp_path, environ={})
        outlet.send([line_of(1)])
        assert received(server) >= 1
        outlet.close()


@RECEIVERS
def test_a_receiver_that_speaks_no_tls_is_told_of(tmp_path: Path, receiver: Callable[..., Any]) -> None:
    """The reason speaks of TLS, and not of connections."""
    with serving(receiver()) as server:
        outlet = open_sink(server.url.replace("http://", "https://"), home=tmp_path, environ={})
        with pytest.raises(Unavailable, match="TLS fails: WRONG_VERSION_NUMBER"):
            outlet.send([line_of(1)])
        outlet.close()


@pytest.mark.parametrize("spec", ["http://localhost/in?ca={}", "otlp+http://localhost?ca={}"])
def test_files_of_tls_are_for_tls(tmp_path: Path, authority: Authority, spec: str) -> None:
    """Where there is none, somebody believes to be safer than they are."""
    with pytest.raises(TrackingSetupError, match="is without TLS"):
        open_sink(spec.format(authority.file), home=tmp_path, environ={})


# --- answers that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        (),
        (b"HTTP/1.1 200",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", b'{"taken":'),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhel"),
        (b"SSH-2.0-OpenSSH_9.6\r\n",),
        (b"HTTP/1.1 307 Elsewhere\r\nLocation: https://other.example/\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",),
        (b"\x00" * 200_000,),
    ],
    ids=["none", "begun", "cut short", "cut in a chunk", "of SSH", "307", "302", "no length", "zeros"],
)
def test_what_may_not_have_arrived_is_sent_again_by_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[bytes, ...]
) -> None:
    """A receiver that accepts an event and fails before it has said so is told it again, and can know it."""
    monkeypatch.setattr(lanes_module, "FIRST_PAUSE_SECONDS", 0.01)
    with Crooked(answer, answer).serving() as receiver:
        setup = set_up(tmp_path, receiver.url, mode="flush", environ={"CMDRDATA_API_KEY": "secret"})
        setup.append(1)
        assert setup.delivery.flush(30)
        keys = [re.findall(rb"idempotency-key: (\S+)", each.lower()) for each in receiver.requests]
        assert keys == [[b"event-0"]] * 3
        assert setup.counters.snapshot() == {"unavailable": 2, "delivered": 1}
        setup.delivery.close(1)


@pytest.mark.parametrize(("spec", "posts"), [("http://{}/in", 1), ("otlp+http://{}", 2)])
def test_a_kept_connection_that_is_closed_as_it_is_used_is_no_failure(
    tmp_path: Path, spec: str, posts: int
) -> None:
    """A receiver closes one when it likes, also in that moment: the event goes over another at once."""
    with serving(Leaving()) as receiver:
        setup = set_up(tmp_path, spec.format(receiver.address), mode="flush")
        for number in range(3):
            setup.append(1, number)
            assert setup.delivery.flush(50)
        assert setup.counters.snapshot() == {"delivered": 3}
        assert (receiver.answered, receiver.dropped) == (3 * posts, 3 * posts - 1)
        setup.delivery.close(1)


@pytest.mark.parametrize("spec", ["http://other.example/in?insecure=1", "https://other.example/in"])
@pytest.mark.parametrize(
    ("status", "says"),
    [("407 Who are you", r"status 407: the proxy asks for user and password"), ("502 Bad Gateway", "502$")],
)
def test_what_a_proxy_has_to_say_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, status: str, says: str
) -> None:
    """Of what it passes on, and of what it is to connect us to."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    with Crooked((answer,), end=b"\r\n\r\n" if spec.startswith("https") else b"}").serving() as proxy:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url.removesuffix("/in"))
        outlet = open_sink(spec, home=tmp_path, environ={})
        with pytest.raises(Unavailable, match=says):
            outlet.send([line_of(1)])
        outlet.close()


@pytest.mark.parametrize("proxy", ["socks4://127.0.0.1:1", "http://me:secret@[::1"])
def test_a_proxy_that_cannot_be_used_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """Events wait, and the reason says what to write, without what is secret."""
    monkeypatch.setenv("http_proxy", proxy)
    outlet = open_sink("http://other.example/in?insecure=1", home=tmp_path, environ={})
    with pytest.raises(
        Unavailable, match=r"the proxy that the environment names .* http://host:port"
    ) as told:
        outlet.send([line_of(1)])
    assert "secret" not in str(told.value)
    outlet.close()


@pytest.mark.parametrize(
    "answer",
    [b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"],
)
def test_what_speaks_no_http_is_told_of(tmp_path: Path, answer: bytes) -> None:
    """As at the port of OTLP over gRPC, which begins with a frame of HTTP/2."""
    with Crooked((answer,)).serving() as receiver:
        outlet = open_sink(receiver.url, home=tmp_path, environ={})
        with pytest.raises(Unavailable, match=r"it speaks no HTTP/1\.1 there: is the port right"):
            outlet.send([line_of(1)])
        outlet.close()


@RECEIVERS
def test_certificates_that_are_renewed_are_read_again(
    tmp_path: Path, authority: Authority, receiver: Callable[..., Any]
) -> None:
    """Short-lived ones are another file every day: a program that runs for a year goes on."""
    trusted = tmp_path / "ca.pem"
    (tmp_path / "other").mkdir()
    trusted.write_bytes(Authority(tmp_path / "other").file.read_bytes())
    with serving(receiver(authority.serving())) as server:
        outlet = open_sink(f"{server.url}?ca={trusted}", home=tmp_path, environ={})
        with pytest.raises(Unavailable, match="not trusted"):
            outlet.send([line_of(1)])
        trusted.write_bytes(authority.file.read_bytes())
        outlet.send([line_of(1)])
        assert received(server) >= 1
        outlet.close()


@RECEIVERS
def test_a_handshake_that_never_ends_is_given_up(tmp_path: Path, receiver: Callable[..., Any]) -> None:
    """A port that takes connections and says nothing holds a POST no longer than it may take."""
    with receiver() as server:  # which listens, and accepts nobody
        url = server.url.replace("http://", "https://")
        outlet = open_sink(f"{url}?timeout=0.2", home=tmp_path, environ={})
        with pytest.raises(Unavailable, match=r"^ConnectTimeout$"):
            outlet.send([line_of(1)])
        outlet.close()


@pytest.mark.parametrize("name", ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"])
def test_a_file_that_the_environment_names_wrongly_is_named(tmp_path: Path, name: str) -> None:
    """With the variable that names it, since no option does."""
    variable = f"OTEL_EXPORTER_OTLP_{name}"
    with pytest.raises(TrackingSetupError, match=rf"\b{variable}\b"):
        open_sink("otlp+https://collector", home=tmp_path, environ={variable: "none.pem"})


def test_an_answer_that_never_ends_is_an_answer(tmp_path: Path) -> None:
    """Its status has been read: what dribbles in behind it holds the lane no longer than a POST may take."""
    receiver = Crooked()
    receiver._answers.append(receiver.dawdle(b"HTTP/1.1 201 Created\r\n\r\n"))
    with receiver.serving():
        outlet = open_sink(f"{receiver.url}?timeout=1.5", home=tmp_path, environ={})
        outlet.send([line_of(1)])
        assert len(receiver.requests) == 1
        outlet.close()
        receiver.ended.set()
