"""The ledger of a fleet, in a real PostgreSQL: what it takes, refuses, survives, and says when it cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

import pytest
from journals import Receiver, event_of, line_of, once, program, run, set_up
from postgres import PASSWORD, QUOTED_PASSWORD, Server

from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import UNITS
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.ledger.postgresql import _reading
from cmdrdata_transport.sinks import Outlet, Unauthorized, open_sink
from cmdrdata_transport.sinks.postgresql.writing import AHEAD

HOME = Path()


def opened(url: str, **environ: str) -> Outlet:
    """An outlet with an environment of its own."""
    return open_sink(url, home=HOME, environ=environ)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere; a minute is as good as never."""
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


@pytest.fixture
def database(postgres_server: Server) -> str:
    """The name of an empty database."""
    return postgres_server.new_database()


@pytest.fixture
def url(postgres_server: Server, database: str) -> str:
    """Its URL."""
    return postgres_server.url(database)


@pytest.fixture
def outlet(url: str) -> Iterator[Outlet]:
    """The sink that writes to it."""
    opened_one = opened(url)
    yield opened_one
    opened_one.close()


@pytest.fixture
def rows(postgres_server: Server, database: str) -> Iterator[Callable[..., list[Any]]]:
    """What a query finds there, the ids in order by default."""
    with postgres_server.connect(database) as connection:

        def ask(sql: str = "SELECT event_id FROM usage_events ORDER BY seq") -> list[Any]:
            cursor = connection.execute(sql.encode())
            found = cursor.fetchall() if cursor.description else []
            return [each[0] if len(each) == 1 else each for each in found]

        yield ask


# --- what a URL says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        ("postgresql://ann:secret@localhost/usage", "postgresql://ann@localhost/usage"),
        ("postgres://ann@127.0.0.1:5433/usage", "postgresql://ann@127.0.0.1:5433/usage"),
        ("postgresql:///usage", "postgresql:///usage"),
        ("postgresql:///usage?host=/run/PG", "postgresql:///usage?host=%2Frun%2FPG"),
        ("postgresql://%2Frun%2FPG/usage", "postgresql://%2Frun%2FPG/usage"),
        ("postgresql://[::1]:5433/usage", "postgresql://[::1]:5433/usage"),
        ("postgresql://ann:secret@db.example.com/usage", "postgresql://ann@db.example.com/usage"),
        (
            "postgresql://ann@db.example.com/usage?sslmode=verify-full&timeout=5&sslpassword=secret",
            "postgresql://ann@db.example.com/usage?sslmode=verify-full",
        ),
        (
            "postgresql://ann:secret@db.example.com/usage?insecure=1&sslmode=disable",
            "postgresql://ann@db.example.com/usage?insecure=1&sslmode=disable",
        ),
        (
            "postgresql://localhost/usage?options=-csearch_path%3Dbilling",
            "postgresql://localhost/usage?options=-csearch_path%3Dbilling",
        ),
    ],
)
def test_a_database_has_an_identity_without_secrets(spec: str, identity: str) -> None:
    """It opens the same database again, given the password elsewhere."""
    outlet = opened(spec)
    assert outlet.identity == identity
    assert opened(identity).identity == identity
    assert "secret" not in repr(outlet) + repr(vars(outlet))


@pytest.mark.parametrize(
    ("spec", "environ", "says"),
    [
        ("postgresql://ann:secret@db.example.com/usage?sslmode=prefer", {}, "insecure=1"),
        ("postgresql://ann:secret@db.example.com/usage", {"PGSSLMODE": "disable"}, "insecure=1"),
        ("postgresql:///usage?host=/run/pg,10.0.0.7&sslmode=allow", {}, "insecure=1"),
        ("postgresql://ann:secret@localhost/usage?paswort=secret", {}, "no parameter paswort"),
        ("postgresql://localhost/usage?password=secret", {}, "no parameter password"),
        ("postgresql://localhost/usage?service=billing", {}, "no parameter service"),
        ("postgresql://localhost/usage/events", {}, "names no database"),
        ("postgresql://localhost/usage?timeout=soon", {}, "timeout=5"),
        ("postgresql://localhost/usage?timeout=0", {}, "timeout=5"),
        ("postgresql://ann:sec/ret@localhost/usage", {}, "a host or a port"),
        ("postgresql://ann:7/secret@localhost/usage", {}, "%2F for /"),
        ("postgresql://ann:7?secret@localhost/usage", {}, "%3F for"),
    ],
)
def test_a_url_that_cannot_be_says_what_to_write(spec: str, environ: dict[str, str], says: str) -> None:
    """The error is raised where the sink is configured, and shows no password."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        opened(spec, **environ)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "environ", "parameters"),
    [
        ("postgresql://db.example.com/usage", {}, {"sslmode": "require", "gssencmode": "disable"}),
        ("postgresql://db.example.com/usage", {"PGSSLMODE": "verify-full"}, {"sslmode": "verify-full"}),
        ("postgresql:///usage", {"PGHOST": "db.example.com"}, {"sslmode": "require"}),
        ("postgresql:///usage", {"PGSSLMODE": "disable"}, {"sslmode": "require"}),
        ("postgresql://db.example.com/usage?insecure=1", {}, {"require_auth": "!password"}),
        ("postgresql://localhost/usage", {}, {"sslmode": None, "require_auth": None}),
        ("postgresql:///usage?host=%2Frun%2FPG", {}, {"sslmode": None, "host": "/run/PG"}),
    ],
)
def test_the_transport_is_safe_unless_it_need_not_be(
    spec: str, environ: dict[str, str], parameters: dict[str, str | None]
) -> None:
    """TLS beyond this machine; where that is given up, a server that asks for a bare password gets none."""
    told: dict[str, str] = vars(opened(spec, **environ))["_target"].parameters
    assert {name: told.get(name) for name in parameters} == parameters


def test_a_password_is_found_where_the_sinks_are_listed(postgres_server: Server, url: str) -> None:
    """An identity has none: what the environment lists, or libpq's own places, open the database again."""
    identity = opened(url).identity
    assert QUOTED_PASSWORD in url
    again = opened(identity, CMDRDATA_SINKS=f"jsonl:///x kafka://[ {postgres_server.url('other')} {url}")
    again.send([line_of(1)])
    again.close()
    with pytest.raises(Unavailable, match="no password supplied"):
        opened(identity).send([line_of(1)])


def test_without_the_driver_the_extra_is_named(tmp_path: Path) -> None:
    """Where the sink is configured; and with it nothing is imported before there is something to send."""
    says = run(
        """
        from cmdrdata_transport.errors import TrackingSetupError
        open_sink("postgresql://localhost/usage", home=home, environ={})
        print("psycopg" in sys.modules)
        sys.modules["psycopg"] = None
        try: open_sink("postgresql://localhost/usage", home=home, environ={})
        except TrackingSetupError as error: print(error)
        """,
        tmp_path,
    )
    assert says == "False\npostgresql: needs the driver psycopg: pip install 'cmdrdata-transport[postgres]'\n"


# --- what is stored ---------------------------------------------------------------------------------


def test_an_event_is_stored_once(outlet: Outlet, rows: Callable[..., list[Any]]) -> None:
    """A second telling changes nothing, in the same batch or later, also when it states another time."""
    outlet.send([line_of(1, input_tokens=7), line_of(2), line_of(1, input_tokens=8)])
    outlet.send([line_of(1, timestamp="2026-12-24T12:00:00Z", input_tokens=9), line_of(3)])
    assert rows() == ["event-1", "event-2", "event-3"]
    assert rows("SELECT input_tokens FROM usage_events WHERE event_id = 'event-1'") == [7]
    assert rows("SELECT event FROM usage_events WHERE event_id = 'event-2'") == [event_of(2)]
    assert set(rows("SELECT attname FROM pg_attribute WHERE attrelid = 'usage_events'::regclass")) >= set(
        UNITS
    )


def test_a_later_telling_may_say_whose_it_was(outlet: Outlet, rows: Callable[..., list[Any]]) -> None:
    """If the first did not know; the first that does counts."""
    outlet.send([line_of(1, customer_id=None), line_of(2, customer_id=None), line_of(3)])
    outlet.send(
        [line_of(1, customer_id="late", timestamp="2026-12-24T12:00:00Z"), line_of(3, customer_id="x")]
    )
    outlet.send([line_of(1, customer_id="later"), line_of(2, customer_id="a"), line_of(2, customer_id="b")])
    outlet.send([line_of(4, customer_id=None), line_of(4, customer_id="at once")])
    told = rows("SELECT customer_id, event->>'customer_id' FROM usage_events ORDER BY seq")
    assert told == [("late", "late"), ("a", "a"), ("acme", "acme"), ("at once", "at once")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "JSON"),
        (line_of(1, format="cmdrdata.usage/2"), "format"),
        (line_of(1, event_id="x" * 513), "event_id"),
        (line_of(1, event_id="a\nb"), "event_id"),
        (line_of(1, timestamp="yesterday"), "timestamp"),
        (line_of(1, timestamp="0001-01-01T00:00:00+05:00"), "timestamp"),
        (line_of(1, model={"name": "gpt"}), "cannot be stored: model"),
        (line_of(1).replace(b"gpt-5", b"\\ud800"), "cannot be stored"),
        (line_of(1, input_tokens=2**63), "cannot be stored: NumericValueOutOfRange"),
        (line_of(1, input_tokens=10**30), "cannot be stored: NumericValueOutOfRange"),
        (line_of(1, input_tokens=2.5), "cannot be stored: InvalidTextRepresentation"),
        (line_of(1, input_tokens="many"), "cannot be stored: InvalidTextRepresentation"),
        (line_of(1).replace(b'"acme"', b'"acme","raw_usage":NaN'), "cannot be stored: InvalidText"),
        (line_of(1).replace(b'"acme"', b'"acme","raw_usage":1e999999'), "cannot be stored: Numeric"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_refused_by_name(
    outlet: Outlet, rows: Callable[..., list[Any]], line: bytes, says: str
) -> None:
    """It would fail again and again; nothing of its batch is stored, and the next batch is."""
    with pytest.raises(Rejected, match=says) as raised:
        outlet.send([line_of(0), line])
    assert "many" not in str(raised.value)
    outlet.send([line_of(2)])
    assert rows() == ["event-2"]


def test_any_text_is_stored(outlet: Outlet, url: str) -> None:
    """What COPY gives a meaning of its own comes back as it was; a NUL, which no database takes, does not."""
    texts = ["\\N", "\\.", "a\tb\r\nc\\d", "'; DROP TABLE usage_events; --", '"{}%s', "\U0001f600ü\u2028", ""]
    outlet.send([line_of(number, model=text) for number, text in enumerate(texts)])
    outlet.send([line_of(99, model="a\0b", raw_usage={"\0": ["\\u0000", "\0"]})])
    with Ledger.open(url) as ledger:
        told = [entry.event for entry in ledger.events()]
        groups = {row["model"] for row in ledger.report(["model"])}
    assert [event.model for event in told] == [*texts, "a\ufffdb"]
    assert told[-1].usage.raw_usage == {"\ufffd": ["\\u0000", "\ufffd"]}
    assert groups == {*texts, "a\ufffdb"}


def test_numbers_are_stored_as_what_they_are(outlet: Outlet, rows: Callable[..., list[Any]]) -> None:
    """A whole number may have come as a fraction or a text; money is exact; no cost is none."""
    outlet.send([line_of(1, input_tokens=5.0, output_tokens="7", audio_seconds=0.1, provider_cost="0.10")])
    outlet.send([line_of(2, provider_cost="free"), line_of(3, provider_cost="1E-3", part=0, streaming=False)])
    assert [
        tuple(map(str, row))
        for row in rows(
            "SELECT input_tokens, output_tokens, audio_seconds, provider_cost, streaming "
            "FROM usage_events ORDER BY seq"
        )
    ] == [
        ("5", "7", "0.1", "0.10", "None"),
        ("10", "2", "None", "None", "None"),
        ("10", "2", "None", "0.001", "False"),
    ]


def test_a_month_is_dropped_at_once(outlet: Outlet, rows: Callable[..., list[Any]]) -> None:
    """Each has a table of its own. What was in it stays known; what comes late makes it anew."""
    ends = ["2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-12-31T23:00:00-02:00"]
    outlet.send([line_of(number, timestamp=end) for number, end in enumerate(ends)])
    tables = "SELECT tableoid::regclass::text, event_id FROM usage_events ORDER BY seq"
    assert rows(tables) == [
        ("usage_events_2026_01", "event-0"),
        ("usage_events_2026_02", "event-1"),
        ("usage_events_2027_01", "event-2"),
    ]
    rows("DROP TABLE usage_events_2026_01")
    outlet.send([line_of(0, timestamp=ends[0]), line_of(3, timestamp="2026-01-15T00:00:00Z")])
    assert rows("SELECT event_id FROM usage_events_2026_01") == ["event-3"]
    assert len(rows()) == 3


def test_the_first_and_the_last_month_there_are(outlet: Outlet, rows: Callable[..., list[Any]]) -> None:
    """A clock that is far off stops nothing."""
    outlet.send([line_of(1, timestamp="0001-01-01T00:00:00Z"), line_of(2, timestamp="9999-12-31T23:59:59Z")])
    assert rows("SELECT tableoid::regclass::text FROM usage_events ORDER BY at") == [
        *("usage_events_0001_01", "usage_events_9999_12"),
    ]


def test_a_ledger_has_its_place_in_a_schema(postgres_server: Server, database: str, url: str) -> None:
    """Two in one database, by libpq's own `options`."""
    with postgres_server.connect(database) as connection:
        connection.execute("CREATE SCHEMA one; CREATE SCHEMA two")
    for schema, events in (("one", 1), ("two", 2)):
        place = f"{url}?options=-csearch_path%3D{schema}"
        with closing(opened(place)) as outlet:
            outlet.send([line_of(number) for number in range(events)])
        with Ledger.open(place) as ledger:
            assert ledger.report([])[0]["events"] == events
            assert ledger.last() > 0


# --- the schema -------------------------------------------------------------------------------------


def test_ten_processes_start_together(tmp_path: Path, url: str, rows: Callable[..., list[Any]]) -> None:
    """One makes the tables; all deliver, what several tell is there once, and nobody fails."""
    code = """
        outlet = open_sink(sys.argv[2], home=home, environ={})
        number = int(sys.argv[3])
        sys.stdin.readline()
        own = [line_of(each) for each in range(1000 + number * 100, 1100 + number * 100)]
        shared = [line_of(each) for each in range(50)][:: 1 if number % 2 else -1]
        outlet.send(own[:50] + shared + own[50:])
        print("done")
    """
    started = [program(code, tmp_path, url, str(each), stdin=subprocess.PIPE) for each in range(10)]
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    assert [each.communicate(timeout=60)[0] for each in started] == ["done\n"] * 10
    assert len(rows()) == len(set(rows())) == 1050
    assert rows("SELECT version FROM usage_migrations") == [1]


def test_a_unit_that_a_later_version_knows_is_filled_from_the_events(
    url: str, outlet: Outlet, rows: Callable[..., list[Any]]
) -> None:
    """A ledger of an older version gets a column for each new unit, and what was stored counts."""
    outlet.send([line_of(1, images=3, audio_seconds=1.5), line_of(2)])
    outlet.close()
    rows("ALTER TABLE usage_events DROP COLUMN images, DROP COLUMN audio_seconds")
    with Ledger.open(url) as ledger:
        assert "images" not in ledger.report([])[0]
    outlet.send([line_of(3, images=4)])
    assert rows("SELECT images, audio_seconds FROM usage_events ORDER BY seq") == [
        (3, 1.5),
        (None, None),
        (4, None),
    ]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("INSERT INTO usage_migrations (version) VALUES (99)", "upgrade"),
        ("DROP TABLE usage_events, usage_migrations; CREATE TABLE usage_events (id int)", "already exists"),
        ("ALTER TABLE usage_events RENAME COLUMN model TO modell", 'column "model"'),
    ],
    ids=["newer", "foreign", "changed"],
)
def test_a_schema_that_is_not_ours_is_unavailable(
    postgres_server: Server, database: str, outlet: Outlet, made: str, says: str
) -> None:
    """It says which it is, and the events wait."""
    outlet.send([line_of(1)])
    outlet.close()
    with postgres_server.connect(database) as connection:
        connection.execute(made.encode())
    with pytest.raises(Unavailable, match=says):
        outlet.send([line_of(2)])


def test_tables_that_are_gone_are_made_anew(outlet: Outlet, rows: Callable[..., list[Any]]) -> None:
    """At the next try: the first one says what is missing."""
    outlet.send([line_of(1)])
    rows("DROP TABLE usage_events, usage_event_ids, usage_migrations; DROP SEQUENCE usage_events_seq")
    with pytest.raises(Unavailable, match="usage_events"):
        outlet.send([line_of(2)])
    outlet.send([line_of(2)])
    assert rows() == ["event-2"]


# --- what an operator has to put right --------------------------------------------------------------


def test_a_server_that_lets_nobody_in_says_why(postgres_server: Server, database: str) -> None:
    """Wrong password, no such database, a user who may not: counted under their own name, no secret told."""
    with postgres_server.connect(database) as connection:
        connection.execute(f"CREATE ROLE reader_{database} LOGIN PASSWORD 'r'".encode())
        connection.execute(f"ALTER ROLE reader_{database} SET default_transaction_read_only = on".encode())
        connection.execute(f"CREATE ROLE other_{database} LOGIN PASSWORD 'r'".encode())
        connection.execute("REVOKE CREATE ON SCHEMA public FROM public")
    latin = postgres_server.new_database(ENCODING="'LATIN1'", TEMPLATE="template0")
    for url, says in {
        postgres_server.url(database, password="hidden"): "password authentication failed",
        postgres_server.url("nowhere"): 'database "nowhere" does not exist',
        postgres_server.url(database, user=f"reader_{database}", password="r"): "read-only transaction",
        postgres_server.url(database, user=f"other_{database}", password="r"): "permission denied",
        postgres_server.url(latin): "LATIN1",
    }.items():
        with pytest.raises(Unauthorized, match=says) as raised, closing(opened(url)) as outlet:
            outlet.send([line_of(1)])
        assert isinstance(raised.value, Unavailable)
        assert "hidden" not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_or_speaks_no_tls_is_unavailable(url: str) -> None:
    """One line says which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for place, says in {
        f"postgresql://ann@127.0.0.1:{port}/usage": "Connection refused",
        "postgresql:///usage?host=%2Fno%2Fdirectory": "No such file",
        f"{url}?sslmode=require": "does not support SSL",
    }.items():
        with pytest.raises(Unavailable, match=says) as raised:
            opened(place).send([line_of(1)])
        assert "\n" not in str(raised.value)


def test_reading_says_what_is_not_there(postgres_server: Server, database: str, url: str) -> None:
    """No ledger yet is for whoever set it up, no server is for later; and a reader changes nothing."""
    with pytest.raises(TrackingSetupError, match="nothing has been delivered") as raised:
        Ledger.open(url)
    assert PASSWORD not in str(raised.value)
    with pytest.raises(Unavailable, match="does not exist"):
        Ledger.open(postgres_server.url("nowhere"))
    opened(url).send([line_of(1)])
    with Ledger.open(url) as ledger:
        reader: Any = ledger._reader
        with pytest.raises(Unavailable, match="read-only"), _reading(reader._connection):
            reader._connection.execute("DELETE FROM usage_events")
        with postgres_server.connect(database) as connection:
            connection.execute("DROP TABLE usage_events")
        with pytest.raises(Unavailable, match="usage_events"):
            ledger.report()
        with pytest.raises(Unavailable, match="usage_events"):
            ledger.tail()


# --- what breaks on the way -------------------------------------------------------------------------


class Gate:
    """A way to a server, at whose end everything can be stopped.

    An answer of the server with `cut_at` in it is not passed on, and the connection is closed; one with
    `hang_at` is not passed on either.
    """

    def __init__(self, port: int) -> None:
        self.cut_at: bytes | None = None
        self.hang_at: bytes | None = None
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                for way in ((client, server, False), (server, client, True)):
                    self._threads.append(threading.Thread(target=self._pass, args=way))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    break
                if not answers or self.hang_at is None or self.hang_at not in data:
                    target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def gated(server: Server, database: str, more: str = "") -> Iterator[tuple[Gate, str]]:
    """A gate before a database, and the URL that leads through it."""
    with Gate(server.port) as gate:
        yield gate, server.url(database).replace(f":{server.port}", f":{gate.port}") + more


@pytest.mark.parametrize("answer", [b"COMMIT\0", b"COPY 2\0", b"INSERT 0 2\0"])
def test_a_connection_that_is_lost_costs_nothing(
    postgres_server: Server,
    database: str,
    rows: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
    answer: bytes,
) -> None:
    """Also before the answer to COMMIT, when nobody knows whether the batch is there: it comes again.

    To say so is the delivery's, once a minute; the driver says nothing beside it.
    """
    with gated(postgres_server, database) as (gate, url), closing(opened(url)) as outlet:
        outlet.send([line_of(1)])
        gate.cut_at = answer
        with pytest.raises(Unavailable, match="closed"):
            outlet.send([line_of(2), line_of(3)])
        assert rows() == ["event-1", "event-2", "event-3"][: 3 if answer == b"COMMIT\0" else 1]
        outlet.send([line_of(2), line_of(3), line_of(4)])
    assert rows() == ["event-1", "event-2", "event-3", "event-4"]
    assert caplog.records == []


def test_a_server_that_falls_silent_is_given_up(
    postgres_server: Server, database: str, rows: Callable[..., list[Any]]
) -> None:
    """In the middle of a batch: neither the server's own timeouts nor TCP's would end that."""
    with gated(postgres_server, database, "?timeout=0.3") as (gate, url), closing(opened(url)) as outlet:
        outlet.send([line_of(1)], timeout=10)
        gate.hang_at = b"INSERT 0 1\0"
        with pytest.raises(Unavailable, match=r"has not answered in 0\.3 seconds"):
            outlet.send([line_of(2)])
        gate.hang_at = None
        outlet.send([line_of(2)])
    assert rows() == ["event-1", "event-2"]


def test_a_server_that_never_speaks_delays_its_own_lane_only(tmp_path: Path) -> None:
    """It accepts and says nothing: another sink has its events meanwhile, and the trouble is named."""
    other = Receiver()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        setup = set_up(
            tmp_path, f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/usage?timeout=0.1", other
        )
        setup.append(3)
        setup.delivery.ensure_running()
        until(lambda: other.got == once(3))
        (lane, _) = setup.delivery._lanes
        until(lambda: lane.trouble is not None)
        assert "timeout" in str(lane.trouble)
        setup.delivery.close(0)


def test_a_batch_that_waits_for_another_is_given_up(
    postgres_server: Server, database: str, outlet: Outlet, rows: Callable[..., list[Any]]
) -> None:
    """Somebody's long transaction holds the tables: the batch waits for its time, and comes again."""
    outlet.send([line_of(1)])
    with postgres_server.connect(database) as other, other.transaction():
        other.execute("LOCK TABLE usage_event_ids")
        with pytest.raises(Unavailable, match=r"timeout|has not answered"):
            outlet.send([line_of(2)], timeout=0.2)
    outlet.send([line_of(2)])
    assert rows() == ["event-1", "event-2"]


def test_a_delivery_outlives_the_server(tmp_path: Path) -> None:
    """Crashed or stopped, and started again: every event is there once, nothing is refused."""
    from postgres import running  # noqa: PLC0415 - a server of its own

    with running() as server:
        url = server.url(server.new_database())
        setup = set_up(tmp_path, url)
        setup.append(2000)
        setup.delivery.ensure_running()
        for how, start in ((signal.SIGQUIT, 2000), (signal.SIGINT, 4000)):
            server.stop(how)
            setup.append(2000, start)
            assert not setup.delivery.flush(0.2)
            server.start()
        assert setup.delivery.flush(60)
        setup.delivery.close()
        with Ledger.open(url) as ledger:
            assert ledger.report([])[0]["events"] == 6000
            assert len({entry.event.event_id for entry in ledger.events()}) == 6000
    assert "rejected" not in setup.counters.snapshot()
    assert setup.counters.snapshot()["unavailable"] > 0


def test_what_is_refused_is_buried_alone(tmp_path: Path, url: str, rows: Callable[..., list[Any]]) -> None:
    """The rest of its batch is stored, and it is kept with the reason."""
    setup = set_up(tmp_path, url)
    setup.append(3)
    setup.journal.append(line_of(3, input_tokens=2**70))
    setup.append(3, 4)
    assert setup.delivery.flush(30)
    setup.delivery.close()
    assert sorted(rows()) == [f"event-{number}" for number in (0, 1, 2, 4, 5, 6)]
    (letter,) = (tmp_path / "dead").glob("*.jsonl")
    assert "NumericValueOutOfRange" in letter.read_text()
    assert QUOTED_PASSWORD not in letter.read_text()
    assert "s3cret" not in letter.name


# --- forks, threads ---------------------------------------------------------------------------------


def test_a_forked_child_has_a_connection_of_its_own(
    tmp_path: Path, url: str, rows: Callable[..., list[Any]]
) -> None:
    """It leaves the parent's alone, also when it ends; both deliver, before and after."""
    printed = run(
        """
        setup = set_up(home, sys.argv[2])
        setup.append(10)
        setup.delivery.ensure_running()
        assert setup.delivery.flush(30)
        children = []
        for child in range(3):
            setup.append(5, 10 + child * 5)
            if not (pid := os.fork()):
                setup.append(10, 100 + child * 10)
                setup.delivery.ensure_running()
                assert setup.delivery.close(30)
                sys.exit(0)
            children.append(pid)
        setup.append(10, 200)
        assert setup.delivery.flush(30)
        print([os.waitpid(pid, 0)[1] for pid in children])
        setup.append(1, 300)
        print(setup.delivery.close(30), "unavailable" in setup.counters.snapshot())
        """,
        tmp_path,
        url,
    )
    assert printed == "[0, 0, 0]\nTrue False\n"
    expected = [*range(25), *range(100, 130), *range(200, 210), 300]
    assert sorted(int(each.removeprefix("event-")) for each in rows()) == expected


def test_a_program_that_becomes_another_leaves_no_session(
    tmp_path: Path, url: str, rows: Callable[..., list[Any]]
) -> None:
    """After exec the connection is gone, and so is the session at the server."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cmdrdata-transport'"
    sessions += " AND datname = current_database()"
    process = program(
        """
        outlet = open_sink(sys.argv[2], home=home, environ={})
        outlet.send([line_of(1)])
        os.execv(sys.executable, [sys.executable, "-c", "print('here', flush=True); input()"])
        """,
        tmp_path,
        url,
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    until(lambda: rows(sessions) == [0])
    process.communicate("\n", timeout=60)
    assert rows() == ["event-1"]


# --- following --------------------------------------------------------------------------------------


def test_who_follows_misses_nothing_that_is_late(
    postgres_server: Server, database: str, url: str, outlet: Outlet
) -> None:
    """A batch that has its positions and is not there yet holds the tail back, but no report."""
    outlet.send([line_of(1)])
    with Ledger.open(url) as ledger, postgres_server.connect(database) as late:
        start = ledger.last()
        with late.transaction():
            late.execute(AHEAD)
            late.execute(
                "INSERT INTO usage_events (event_id, at, event) VALUES ('event-2', '2026-11-21', %s)",
                [line_of(2).decode()],
            )
            outlet.send([line_of(3)])
            assert ledger.last() >= start
            assert ledger.tail(start) == []
            assert [entry.event.event_id for entry in ledger.newest(9)] == ["event-1"]
            assert ledger.report([])[0]["events"] == 2
        assert [entry.event.event_id for entry in ledger.tail(start)] == ["event-2", "event-3"]
        late.execute("SELECT setval('usage_events_seq', %s)", [2**31 * 3 - 2])
        with late.transaction():
            late.execute(AHEAD)
            outlet.send([line_of(4), line_of(5)])
            assert len(ledger.newest(9)) == 3
        assert len(ledger.newest(9)) == 5


# --- the commands -----------------------------------------------------------------------------------


def command(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a home, with nothing of this machine's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CMDRDATA_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", "cmdrdata_transport", *arguments],
        env={**kept, "CMDRDATA_HOME": str(home), "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_read_it(tmp_path: Path, url: str) -> None:
    """Named or as the first sink; what dead processes left is delivered first; no password is shown."""
    run(
        """
        setup = set_up(home, sys.argv[2])
        setup.append(3)
        os._exit(0)
        """,
        tmp_path,
        url,
    )
    named = command(tmp_path, "report", "--by", "model", "--format", "json", "--ledger", url)
    assert (named.returncode, named.stderr) == (0, "")
    assert [(row["model"], row["events"]) for row in json.loads(named.stdout)] == [("gpt-5", 3)]
    listed = command(tmp_path, "report", "--format", "json", CMDRDATA_SINKS=f"jsonl:///x.jsonl {url}")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert json.loads(listed.stdout)[0]["events"] == 3
    shown = command(tmp_path, "tail", "--once", "--json", "-n", "2", "--ledger", url)
    assert [json.loads(line)["event_id"] for line in shown.stdout.splitlines()] == ["event-1", "event-2"]


def test_the_commands_say_what_is_wrong(tmp_path: Path, postgres_server: Server, url: str) -> None:
    """In one line without a password; a ledger that nothing has been delivered to is no error."""
    empty = command(tmp_path, "report", "--format", "json", CMDRDATA_SINKS=url)
    assert (empty.returncode, json.loads(empty.stdout)) == (0, [])
    assert "nothing has been delivered" in empty.stderr
    for place, says in {
        postgres_server.url("nowhere"): "does not exist",
        "postgresql://ann:secret@db.example.com/usage?sslmode=prefer": "insecure=1",
    }.items():
        told = command(tmp_path, "report", "--ledger", place)
        assert told.returncode == 2
        assert says in told.stderr
        assert len(told.stderr.splitlines()) == 1
        assert "secret" not in told.stderr
        assert "s3cret" not in told.stderr


# --- the page about it ------------------------------------------------------------------------------


def test_the_page_shows_sql_that_works(
    postgres_server: Server, database: str, outlet: Outlet, rows: Callable[..., list[Any]]
) -> None:
    """Every statement of it; who is given the rights that it names can write, and read."""
    outlet.send(
        [line_of(1, provider_cost="0.1"), line_of(2, timestamp="2025-01-31T00:00:00Z", customer_id=None)]
    )
    page = (Path(__file__).parent.parent / "docs" / "postgresql.md").read_text("utf-8")
    query, *statements = re.findall(r"^```sql\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    assert rows(query) == [("acme", 10, 2, Decimal("0.1"))]
    for statement in statements:
        rows(statement)
    assert rows("SELECT event_id FROM usage_event_ids") == rows() == ["event-1"]
    for role in ("writer", "reader"):
        rows(f"CREATE ROLE {role}_{database} LOGIN PASSWORD 'x' IN ROLE usage_{role}")
    written, read = (
        postgres_server.url(database, user=f"{role}_{database}", password="x")
        for role in ("writer", "reader")
    )
    with closing(opened(written)) as writer:
        writer.send([line_of(3, customer_id=None)])
        writer.send([line_of(3)])
    with Ledger.open(read) as ledger:
        assert [row["events"] for row in ledger.report()] == [2]
        assert [entry.event.event_id for entry in ledger.tail()] == ["event-1", "event-3"]
    with pytest.raises(Unauthorized, match="permission denied"), closing(opened(read)) as reader:
        reader.send([line_of(4)])


# --- a fleet ----------------------------------------------------------------------------------------

FLEET_EVENTS = 1_000_000
"""All processes together."""

FLEET_PROCESSES = 8

MEMORY_GROWTH_KIB = 24 * 1024
"""What a process may hold at its end beyond what it held after a tenth of its events."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux tells it")
def test_a_fleet_writes_one_database(
    tmp_path: Path, url: str, record_property: Callable[[str, object], None]
) -> None:
    """Trackers of many processes, coordinated by nothing but ids: sums are exact, memory is flat."""
    code = """
        from cmdrdata_transport import Tracker
        def peak():  # of this program alone: what `resource` tells began in the one that started it
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0])
        number, events = int(sys.argv[3]), int(sys.argv[4])
        tracker = Tracker([sys.argv[2]], home=home / str(number))
        for each in range(events):
            tracker.record(
                provider="openai", model="gpt-5", operation="chat", customer_id=f"customer-{each % 50}",
                usage={"input_tokens": each + number, "output_tokens": 1},
            )
            if each == events // 10:
                early = peak()
        whole = tracker.flush(600)
        tracker.close()
        refused = [tracker.stats().get(name, 0) for name in ("rejected", "unauthorized", "internal_errors")]
        print(whole, peak() - early, sum(refused))
    """
    share = FLEET_EVENTS // FLEET_PROCESSES
    began = monotonic()
    started = [program(code, tmp_path, url, str(number), str(share)) for number in range(FLEET_PROCESSES)]
    told = [each.communicate(timeout=3000)[0].split() for each in started]
    seconds = monotonic() - began
    assert [(whole, refused) for whole, _, refused in told] == [("True", "0")] * FLEET_PROCESSES
    growth = max(int(kib) for _, kib, _ in told)
    with Ledger.open(url) as ledger:
        (row,) = ledger.report([])
        customers = ledger.report()
    assert row["events"] == share * FLEET_PROCESSES
    assert row["input_tokens"] == sum(sum(range(number, number + share)) for number in range(FLEET_PROCESSES))
    assert [each["events"] for each in customers] == [share * FLEET_PROCESSES // 50] * 50
    record_property("says", f"{row['events'] / seconds:,.0f} events/s; memory grew by {growth:,} KiB at most")
    assert growth < MEMORY_GROWTH_KIB
