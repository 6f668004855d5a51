"""Sinks that cannot be: one clear error where they are configured, or a line a minute where it shows later.

Wherever a sink is named the sentence is the same, it says what to write, and nothing of it is secret.
"""

from __future__ import annotations

import re
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from journals import Receiver
from postgres import QUOTED_PASSWORD, Server
from typer.testing import CliRunner

from cmdrdata_transport import Tracker, TrackingSetupError, UsageEvent, configure
from cmdrdata_transport import tracker as tracker_module
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.sinks import EXAMPLES, open_sink
from cmdrdata_transport.sinks.sqlite import connect

SECRET = "s3cret"
PASSWORD = "%2F for /, %3F for ?, %23 for #"
NO_HOST = "a host or a port that none can have: write"


async def wait(_events: list[UsageEvent]) -> None:
    """No sink: it would have to be awaited."""


WRONG_URLS = (
    # A scheme that there is not; one that is near, or that other tools have, is understood.
    ("gopher://x", "scheme 'gopher'; there are sqlite:///usage.db, jsonl:///usage.jsonl, https://host/path"),
    (f"mysql://u:{SECRET}@h/db", "scheme 'mysql'; there are"),
    (f"psql://u:{SECRET}@h/db", "did you mean postgresql://user@host/database?"),
    (f"pg://u:{SECRET}@h/db", "did you mean postgresql://user@host/database?"),
    (f"postgresql+psycopg2://u:{SECRET}@h/db", "did you mean postgresql://user@host/database?"),
    ("postgre://h/db", "did you mean postgresql://user@host/database?"),
    (f"kafka+ssl://u:{SECRET}@h/usage", "did you mean kafka://broker/topic?"),
    ("kafkas://h/usage", "did you mean kafka://broker/topic?"),
    ("otlp://h:4317", "did you mean otlp+https://collector:4318?"),
    ("otlp+grpc://h:4317", "did you mean otlp+https://collector:4318?"),
    ("grpc://h:4317", "did you mean otlp+https://collector:4318?"),
    ("sqlite3:///usage.db", "did you mean sqlite:///usage.db?"),
    ("file:///usage.db", "did you mean sqlite:///usage.db?"),
    ("ndjson:///usage.jsonl", "did you mean jsonl:///usage.jsonl?"),
    ("htps://h/path", "did you mean https://host/path?"),
    # What is no URL at all may be a secret that was pasted into the wrong line.
    ("usage.db", "begins with its scheme and ://; there are sqlite:///usage.db"),
    ("sqlite:usage.db", "begins with its scheme and ://"),
    (f"{SECRET}-key", "begins with its scheme and ://"),
    (f"user:{SECRET}@host/db", "begins with its scheme and ://"),
    (f"https:user:{SECRET}@host/in", "begins with its scheme and ://"),
    (f"user:{SECRET}@https://host/in", "begins with its scheme and ://"),
    ("callable:bill", "begins with its scheme and ://"),
    ("'sqlite:///usage.db'", "in quotation marks, which are no part of it: leave them out"),
    ('"sqlite:///usage.db"', "in quotation marks, which are no part of it: leave them out"),
    (
        "sqlite:///usage.db,jsonl:///usage.jsonl",
        "several sinks are in one URL: in CMDRDATA_SINKS blanks part",
    ),
    (
        "sqlite:///usage.db;jsonl:///usage.jsonl",
        "several sinks are in one URL: in CMDRDATA_SINKS blanks part",
    ),
    ("https://h/\N{ZERO WIDTH SPACE}in", "characters that no URL has"),
    # Files.
    ("sqlite://usage.db", "sqlite:///usage.db with three slashes lies in home, sqlite:////var/lib/usage.db"),
    ("sqlite:///", "three slashes"),
    ("sqlite:///usage.db?mode=rw", "takes a file and nothing else"),
    ("sqlite:///%00", "takes a file and nothing else"),
    ("jsonl://", "jsonl:///usage.jsonl with three slashes"),
    ("sqlite:///.", "sqlite:///. is a directory: name a file in it"),
    ("jsonl:////etc/passwd/usage.jsonl", "jsonl:////etc/passwd/usage.jsonl: /etc/passwd is a file"),
    ("jsonl:////tmp/", "jsonl:////tmp/ is a directory: name a file in it"),
    # Hosts and ports.
    (f"https://user:{SECRET}@[::1/in", f"{NO_HOST} https://host/path, and in a password {PASSWORD}"),
    ("https://[::g]/in", NO_HOST),
    (f"https://example.com:{SECRET}/in", NO_HOST),
    ("https://example.com:99999/in", NO_HOST),
    ("https://example.com:0/in", NO_HOST),
    ("https://exa%mple.com|x/in", NO_HOST),
    (f"postgresql://u:{SECRET}@h:0/db", f"{NO_HOST} postgresql://user@host/database"),
    (f"postgresql://u:{SECRET}@h:65536/db", f"{NO_HOST} postgresql://user@host/database"),
    (f"postgresql://u:a/{SECRET}@h/db", PASSWORD),
    (f"postgresql://u:a?{SECRET}@h/db", PASSWORD),
    (f"postgresql://u:a#{SECRET}@h/db", PASSWORD),
    (f"kafka://u:1/{SECRET}@h/usage", PASSWORD),
    (f"otlp+https://u:1/{SECRET}@h", PASSWORD),
    ("otlp+https://h:70000", f"{NO_HOST} otlp+https://collector:4318"),
    ("kafka://h:70000/usage", "a broker that none can be: write kafka://broker-1:9092,broker-2/usage"),
    ("kafka://h:0/usage", "a broker that none can be"),
    ("https:///path", "https:// has no host: write https://host/path"),
    ("kafka:///usage", "a broker that none can be: write kafka://broker-1:9092,broker-2/usage"),
    ("otlp+https:///v1", "otlp+https:// has no host: write otlp+https://collector:4318"),
    ("kafka://h:9092", "names no topic that Kafka takes: write kafka://h:9092/usage"),
    ("kafka://h/usage/1", "names no topic"),
    # Plain transport to another machine, and secrets in the wrong place.
    ("http://example.com/in", "is not encrypted: write https, or add ?insecure=1"),
    ("otlp+http://h:4318", "is not encrypted: write otlp+https, or add ?insecure=1"),
    (f"postgresql://u:{SECRET}@h/db?sslmode=disable", "write sslmode=verify-full, or add insecure=1"),
    (f"kafka://u:{SECRET}@h/usage?insecure=1", "a password does not travel in the open"),
    (f"https://user:{SECRET}@example.com/in", "without user or password, and the key to CMDRDATA_API_KEY"),
    (f"postgresql://h/db?password={SECRET}", "there is no parameter password"),
    # Options.
    ("https://h/in?insecre=1", "there is no ?insecre=; did you mean ?insecure="),
    ("https://h/in?timeuot=5", "there is no ?timeuot=; did you mean ?timeout="),
    ("kafka://h/usage?insecre=1", "there is no ?insecre="),
    ("otlp+https://h?insecre=1", "there is no ?insecre="),
    ("postgresql://h/db?insecre=1", "there is no parameter insecre"),
    ("http://h/in?insecure=yes", "http://: write ?insecure=1, or leave it out"),
    ("kafka://h/usage?insecure=true", "kafka://: write ?insecure=1, or leave it out"),
    ("postgresql://h/db?insecure=", "postgresql://: write ?insecure=1, or leave it out"),
    ("otlp+http://h?insecure=on", "otlp+http://: write ?insecure=1, or leave it out"),
    ("https://h/in?timeout=soon", "write ?timeout=5 for five seconds; it is at most 300"),
    ("https://h/in?timeout=0", "write ?timeout=5"),
    ("https://h/in?timeout=100000", "write ?timeout=5"),
    ("kafka://h/usage?timeout=nan", "write ?timeout=5"),
    ("otlp+https://h?timeout=-1", "write ?timeout=5"),
    ("postgresql://h/db?timeout=inf", "write ?timeout=5"),
    ("otlp+https://h?signals=traces", "write ?signals=logs"),
    (f"kafka://u:{SECRET}@h/usage?sasl=GSSAPI", "is one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
)


def at_once(spec: str, home: Path, _: pytest.MonkeyPatch) -> str:
    """In Python."""
    with pytest.raises(TrackingSetupError) as raised:
        Tracker([spec], home=home)
    return str(raised.value)


def as_the_default(spec: str, home: Path, _: pytest.MonkeyPatch) -> str:
    """In Python, for all clients; the tracker that was there stays."""
    before = tracker_module._default
    with pytest.raises(TrackingSetupError) as raised:
        configure(sinks=[spec], home=home)
    assert tracker_module._default is before
    return str(raised.value)


def in_the_environment(spec: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Behind a good one, on a line of its own; the variable is named."""
    monkeypatch.setenv("CMDRDATA_SINKS", f"sqlite:///good.db\n\t{spec}\n")
    with pytest.raises(TrackingSetupError, match=r"^CMDRDATA_SINKS: ") as raised:
        Tracker(home=home)
    return str(raised.value).removeprefix("CMDRDATA_SINKS: ")


def typed(home: Path, *words: str, sinks: str = "sqlite:///usage.db") -> str:
    """What a command says that ends with 2, on one line."""
    done = CliRunner().invoke(
        app, list(words), env={"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": sinks, "COLUMNS": "80"}
    )
    assert (done.exit_code, type(done.exception)) == (2, SystemExit), done.output
    (line,) = done.output.splitlines()
    return line.removeprefix("error: ")


def to_a_command(spec: str, home: Path, _: pytest.MonkeyPatch) -> str:
    """A command reads the environment."""
    return typed(home, "stats", sinks=spec).removeprefix("CMDRDATA_SINKS: ")


def as_an_option(spec: str, home: Path, _: pytest.MonkeyPatch) -> str:
    """A command is given a sink."""
    return typed(home, "replay", "--from-ledger", "--sink", spec, "--yes")


@pytest.mark.parametrize(
    "place",
    [at_once, as_the_default, in_the_environment, to_a_command, as_an_option],
    ids=lambda each: each.__name__,
)
def test_a_url_that_cannot_be_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[str, Path, pytest.MonkeyPatch], str]
) -> None:
    """The same sentence wherever it is named; nothing of it is secret, and nothing is made."""
    for number, (spec, says) in enumerate(WRONG_URLS):
        home = tmp_path / str(number)
        home.mkdir()
        said = place(spec, home, monkeypatch)
        assert says in said, (spec, said)
        assert SECRET not in said
        with pytest.raises(TrackingSetupError) as raised:
            open_sink(spec, home=home, environ={})
        assert said == str(raised.value)
        assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (wait, "event loop"),
        (lambda _: None, "needs a name"),
        (Receiver, "not a class"),
        (7, "not int"),
        (None, "sqlite:///usage.db say, a function or an object with `send`, not NoneType"),
        (Path("/var/lib/usage.db"), "not PosixPath"),
        (SECRET.encode(), "not bytes"),
        (object(), "not object"),
    ],
)
def test_an_object_that_is_no_sink_says_what_one_is(tmp_path: Path, spec: Any, says: str) -> None:
    """In its list, which is where it can be."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        Tracker([spec], home=tmp_path)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "sinks", [f"postgresql://u:{SECRET}@h/db", {f"postgresql://u:{SECRET}@h/db": 1, "x": 2}, SECRET.encode()]
)
def test_what_is_no_list_is_not_shown(tmp_path: Path, sinks: Any) -> None:
    """It may be a URL, with all that is in it."""
    with pytest.raises(TrackingSetupError) as raised:
        Tracker(sinks, home=tmp_path)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("sinks", ["", " \n\t ", None])
def test_no_sinks_in_the_environment_are_the_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sinks: str | None
) -> None:
    """An empty variable is one that is not set."""
    monkeypatch.delenv("CMDRDATA_SINKS", raising=False)
    if sinks is not None:
        monkeypatch.setenv("CMDRDATA_SINKS", sinks)
    assert Tracker(home=tmp_path).sinks == ("sqlite:///usage.db",)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sqlite:///usage.db", "sqlite:///usage.db"),
        (f"postgres://u:{SECRET}@h/db", "postgresql://u@h/db?timeout=5"),
        ("https://h/in", "HTTPS://h/in?timeout=5"),
    ],
)
def test_a_sink_that_is_named_twice_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """Also where it is written otherwise; the variable is named, and no secret."""
    monkeypatch.setenv("CMDRDATA_SINKS", f"{first} {second}")
    with pytest.raises(TrackingSetupError, match=r"^CMDRDATA_SINKS: the sink .* is given twice") as raised:
        Tracker(home=tmp_path)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "says"),
    [({}, "set CMDRDATA_API_KEY"), ({"CMDRDATA_API_KEY": f"{SECRET}\n{SECRET}"}, "copy it once more")],
    ids=["none", "two lines"],
)
def test_the_api_needs_a_key_that_can_be_one(tmp_path: Path, environ: dict[str, str], says: str) -> None:
    """Without one, or with something else in its place, it cannot work: it says so at once."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        open_sink("https://api.cmdrdata.ai/api/events", home=tmp_path, environ=environ)
    assert SECRET not in str(raised.value)


def test_the_variable_of_the_receiver_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CMDRDATA_URL` is a sink where no others are listed."""
    monkeypatch.delenv("CMDRDATA_SINKS", raising=False)
    monkeypatch.setenv("CMDRDATA_API_KEY", SECRET)
    monkeypatch.setenv("CMDRDATA_URL", "http://example.com/in")
    with pytest.raises(TrackingSetupError, match=r"^CMDRDATA_URL: http://example\.com/in is not encrypted"):
        Tracker(home=tmp_path)


@pytest.mark.parametrize(
    ("module", "spec", "extra"),
    [
        ("psycopg", "postgresql://u@h/db", "postgres"),
        ("confluent_kafka", "kafka://h/usage", "kafka"),
        ("opentelemetry.proto", "otlp+https://h", "otel"),
    ],
)
def test_a_driver_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, spec: str, extra: str
) -> None:
    """With the line to type, in Python and by a command."""
    monkeypatch.setitem(sys.modules, module, None)
    typing = re.escape(f"pip install 'cmdrdata-transport[{extra}]'")
    with pytest.raises(TrackingSetupError, match=typing):
        Tracker([spec], home=tmp_path)
    assert re.search(typing, typed(tmp_path, "stats", sinks=spec))
    if extra == "postgres":
        assert re.search(typing, typed(tmp_path, "report", "--ledger", spec))


@pytest.mark.parametrize(
    "spec",
    [
        "sqlite:///my%20%22ledger%22.db",
        "jsonl:///my usage.jsonl",
        "https://[2001:db8::1]:8443/in?tenant=a%20b",
        "http://[::1]/in",
        "otlp+https://[2001:db8::1]:4318",
        "kafka://[2001:db8::1]:9093,broker-2/usage",
        f"postgresql://u%40x:a%2F{SECRET}%3F@[2001:db8::1]:5432/my%20db",
        f"postgresql://u:{SECRET}@/db?host=/tmp",
        "HTTPS://EXAMPLE.COM/In",
    ],
)
def test_what_is_unusual_is_right(tmp_path: Path, spec: str) -> None:
    """Addresses of IPv6, escapes, blanks and quotes in names; what a journal calls it opens it again."""
    identity = open_sink(spec, home=tmp_path, environ={}).identity
    assert SECRET not in identity
    assert open_sink(identity, home=tmp_path, environ={}).identity == identity


def test_what_is_suggested_can_be_used(tmp_path: Path) -> None:
    """Each example of an error is a URL that opens."""
    for each in EXAMPLES.values():
        assert open_sink(each, home=tmp_path, environ={"CMDRDATA_API_KEY": SECRET})


def closed_port() -> int:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def newer(home: Path) -> str:
    """A ledger that a later version of this library has made."""
    with closing(connect(home / "newer.db")) as connection:
        connection.execute("INSERT INTO usage_migrations VALUES (99, 'tomorrow')")
    return "sqlite:///newer.db"


def others(home: Path) -> str:
    """Somebody else's table of the same name."""
    with closing(sqlite3.connect(home / "other.db")) as connection:
        connection.execute("CREATE TABLE usage_events (id)")
    return "sqlite:///other.db"


def failing(_: Path) -> Callable[[list[UsageEvent]], None]:
    """A function of the application's, with a mistake in it."""

    def bill(events: list[UsageEvent]) -> None:
        raise LookupError(SECRET, events)

    return bill


LATER: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a newer ledger": (newer, "the ledger has schema 99, and this library knows 1: upgrade it"),
    "another's table": (others, "table usage_events already exists"),
    "no receiver": (lambda _: f"http://127.0.0.1:{closed_port()}/in", "ConnectError"),
    "no collector": (lambda _: f"otlp+http://u:{SECRET}@127.0.0.1:{closed_port()}", "ConnectError"),
    "no broker": (
        lambda _: f"kafka://u:{SECRET}@127.0.0.1:{closed_port()}/usage?timeout=0.5",
        "no broker can be reached",
    ),
    "no database server": (
        lambda _: f"postgresql://u:{SECRET}@127.0.0.1:{closed_port()}/db",
        "Connection refused",
    ),
    "a function that raises": (failing, "callable:bill: LookupError"),
}


def tried(tracker: Tracker, name: str) -> None:
    """Record an event, and try until it has failed more than once."""
    tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
    deadline = monotonic() + 30
    while tracker.stats().get(name, 0) < 2 and monotonic() < deadline:
        assert not tracker.flush(0.6)
    tracker.close(0)


def the_line(caplog: pytest.LogCaptureFixture, name: str) -> str:
    """What was logged under a name: one line, without a traceback and without a secret."""
    (record,) = [each for each in caplog.records if each.message.startswith(name)]
    assert record.exc_info is None
    assert "\n" not in record.message
    assert SECRET not in caplog.text
    assert QUOTED_PASSWORD not in caplog.text
    return record.message


@pytest.mark.parametrize("case", LATER)
def test_what_shows_later_is_a_line_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """However often it fails; the event waits, and a command says the same and not more."""
    make, says = LATER[case]
    tracker = Tracker([make(tmp_path)], home=tmp_path, delivery="flush")
    tried(tracker, "unavailable")
    assert says in the_line(caplog, "unavailable")
    done = CliRunner().invoke(app, ["drain", "--timeout", "0.1"], env={"CMDRDATA_HOME": str(tmp_path)})
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
    assert "1 waiting (" in done.output
    assert SECRET not in done.output


@pytest.mark.parametrize(
    ("database", "password", "says"),
    [
        ("postgres", SECRET, "password authentication failed"),
        ("not_there", QUOTED_PASSWORD, 'database "not_there" does not exist'),
    ],
)
def test_a_database_that_lets_nobody_in(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    postgres_server: Server,
    *,
    database: str,
    password: str,
    says: str,
) -> None:
    """A line a minute in the log, and one line of a command, that name what is wrong and no password."""
    url = postgres_server.url(database, password=password)
    tried(Tracker([url], home=tmp_path, delivery="flush"), "unauthorized")
    assert says in the_line(caplog, "unauthorized")
    for words in (
        "report --latency",
        "tail --once",
        "prune --before 1d --yes",
        "erase --customer acme --yes",
    ):
        said = typed(tmp_path / "new", *words.split(), sinks=url)
        assert says in said
        assert password not in said


def test_a_table_of_somebody_else_is_no_ledger(tmp_path: Path, postgres_server: Server) -> None:
    """Every command that reads says so; what it is given to deliver waits."""
    database = postgres_server.new_database()
    with postgres_server.connect(database) as connection:
        connection.execute("CREATE TABLE usage_events (id int)")
    url = postgres_server.url(database)
    for words in ("report", "tail --once", "replay --from-ledger --sink jsonl:///copy.jsonl --yes"):
        said = typed(tmp_path, *words.split(), "--ledger", url)
        assert "is not a ledger of ours: its table usage_events is another's" in said
        assert QUOTED_PASSWORD not in said


def test_a_ledger_is_shown_without_its_password(tmp_path: Path, postgres_server: Server) -> None:
    """Also where it is said what will be done with it."""
    url = postgres_server.url(postgres_server.new_database())
    tracker = Tracker([url], home=tmp_path, customer_id="acme")
    tracker.record(provider="x-ai", usage={"input_tokens": 1})
    tracker.close(30)
    done = CliRunner().invoke(
        app,
        ["replay", "--from-ledger", "--ledger", url, "--sink", "jsonl:///copy.jsonl", "--yes"],
        env={"CMDRDATA_HOME": str(tmp_path), "CMDRDATA_SINKS": "", "COLUMNS": "200"},
    )
    assert done.exit_code == 0, done.output
    assert f"1 events of {url.replace(f':{QUOTED_PASSWORD}', '')} go to jsonl:///copy.jsonl" in done.output
    assert QUOTED_PASSWORD not in done.output
