"""Which PostgreSQL a URL means, how safe the way there is, and who is let in."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest
from certificates import Authority
from journals import line_of, run, set_up
from postgres import QUOTED_PASSWORD, Rows, Server, opened, running

from cmdrdata_transport.errors import TrackingSetupError, Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import Outlet, Unauthorized


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        ("postgresql://ann:secret@localhost/usage", "postgresql://ann@localhost/usage"),
        ("postgres://ann@127.0.0.1:5433/usage", "postgresql://ann@127.0.0.1:5433/usage"),
        ("postgresql:///usage", "postgresql:///usage"),
        ("postgresql:///usage?host=/run/PG", "postgresql:///usage?host=%2Frun%2FPG"),
        ("postgresql://%2Frun%2FPG/usage", "postgresql://%2Frun%2FPG/usage"),
        ("postgresql://[::1]:5433/usage", "postgresql://[::1]:5433/usage"),
        ("postgresql://ann:secret@one:5433,two/usage", "postgresql://ann@one:5433,two/usage"),
        ("postgresql://ann:secret@db.example.com/usage", "postgresql://ann@db.example.com/usage"),
        (
            "postgresql://ann@db.example.com/usage?sslmode=require&timeout=5&sslpassword=secret",
            "postgresql://ann@db.example.com/usage?sslmode=require",
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
        ("postgresql://localhost/usage?sslmode=verify_full", {}, "one of disable, .*, verify-full"),
        ("postgresql://ann:secret@db.example.com/usage?sslrootcert=/no/ca.pem", {}, "no file /no/ca.pem"),
        ("postgresql://ann:secret@db.example.com/usage", {"PGSSLKEY": "/no/key"}, "no file /no/key"),
        ("postgresql://ann:secret@db.example.com/usage?sslmode=verify-full", {}, "sslrootcert=system"),
        ("postgresql:///usage?host=/run/pg,10.0.0.7&sslmode=allow", {}, "insecure=1"),
        ("postgresql://ann:secret@localhost/usage?paswort=secret", {}, "no parameter paswort"),
        ("postgresql://localhost/usage?password=secret", {}, "no parameter password"),
        ("postgresql://localhost/usage?service=billing", {}, "no parameter service"),
        ("postgresql://localhost/usage/events", {}, "names no database"),
        ("postgresql://localhost/usage?timeout=soon", {}, "timeout=5"),
        ("postgresql://localhost/usage?timeout=0", {}, "timeout=5"),
        ("postgresql://ann:sec/ret@localhost/usage", {}, "a host or a port"),
        ("postgresql://one:5433,two:99999/usage", {}, "a host or a port"),
        ("postgresql://localhost,two/usage?sslmode=allow", {}, "insecure=1"),
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
        (
            "postgresql://db.example.com/usage?sslrootcert=system",
            {"PGSSLMODE": "verify-full"},
            {"sslmode": "verify-full"},
        ),
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


def test_a_password_is_found_where_the_sinks_are_listed(postgres_server: Server, database_url: str) -> None:
    """An identity has none: what the environment lists, or libpq's own places, open the database again."""
    identity = opened(database_url).identity
    assert QUOTED_PASSWORD in database_url
    again = opened(
        identity, CMDRDATA_SINKS=f"jsonl:///x kafka://[ {postgres_server.url('other')} {database_url}"
    )
    again.send([line_of(1)])
    again.close()
    with pytest.raises(Unavailable, match="no password supplied"):
        opened(identity).send([line_of(1)])


def test_without_the_driver_the_extra_is_named(tmp_path: Path) -> None:
    """Where the sink is configured."""
    says = run(
        """
        from cmdrdata_transport.errors import TrackingSetupError
        sys.modules["psycopg"] = None
        try: open_sink("postgresql://localhost/usage", home=home, environ={})
        except TrackingSetupError as error: print(error)
        """,
        tmp_path,
    )
    assert says == "postgresql: needs the driver psycopg: pip install 'cmdrdata-transport[postgres]'\n"


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


def test_a_server_that_is_not_there_or_speaks_no_tls_is_unavailable(database_url: str) -> None:
    """One line says which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for place, says in {
        f"postgresql://ann@127.0.0.1:{port}/usage": "Connection refused",
        "postgresql:///usage?host=%2Fno%2Fdirectory": "No such file",
        f"{database_url}?sslmode=require": "does not support SSL",
    }.items():
        with pytest.raises(Unavailable, match=says) as raised:
            opened(place).send([line_of(1)])
        assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Authority]]:
    """A server that speaks TLS, and the authority for it."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with running() as server:
        with server.connect() as connection:
            if connection.execute("SHOW ssl_library").fetchone() == ("",):
                pytest.skip("this server was built without TLS")
        server.speak_tls(*authority.issued())
        yield server, authority


def test_a_server_that_is_who_it_says_is_trusted(secure: tuple[Server, Authority], tmp_path: Path) -> None:
    """Its certificate is for this host, and of the authority that the URL names; reports trust it as well."""
    server, authority = secure
    url = f"{server.url(server.new_database())}?sslmode=verify-full&sslrootcert={authority.file}"
    setup = set_up(tmp_path, url)
    setup.append(3)
    assert setup.delivery.flush(30)
    with server.connect() as connection:
        told = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
        told += "WHERE application_name = 'cmdrdata-transport'"
        assert connection.execute(told.encode()).fetchall() == [(True,)]
    setup.delivery.close()
    with Ledger.open(url) as ledger:
        assert ledger.report([])[0]["events"] == 3


@pytest.mark.parametrize(
    ("issuer", "host", "says"),
    [
        ("a stranger", "127.0.0.1", "certificate verify failed"),
        ("authority", "db.example.com", 'does not match host name "db.example.com"'),
    ],
)
def test_a_server_that_may_be_anybody_gets_nothing(
    secure: tuple[Server, Authority], tmp_path: Path, issuer: str, host: str, says: str
) -> None:
    """One that our authority has not named, or has named for another host."""
    server, authority = secure
    trusted = authority if issuer == "authority" else Authority(tmp_path, issuer)
    database = server.new_database()
    place = f"{server.url(database).replace('127.0.0.1', host)}?hostaddr=127.0.0.1&sslmode=verify-full"
    with pytest.raises(Unavailable, match=says) as raised:
        opened(f"{place}&sslrootcert={quote(str(trusted.file))}").send([line_of(1)])
    assert "s3cret" not in str(raised.value)
    with server.connect(database) as connection:
        assert connection.execute("SELECT to_regclass('usage_events')").fetchone() == (None,)


def test_who_is_not_let_in_is_told_so_in_one_line(
    tmp_path: Path, postgres_server: Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A minute, however often it is tried, and without the password; when it is put right, all is there."""
    role = f"meter_{database}"
    with postgres_server.connect(database) as connection:
        connection.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD 'another'; GRANT CREATE ON SCHEMA public TO {role}"
        )
        setup = set_up(tmp_path, postgres_server.url(database, user=role, password="hidden"))
        setup.append(5)
        for _ in range(3):
            assert not setup.delivery.flush(0.5)
        (line,) = [each.getMessage() for each in caplog.records]
        assert "password authentication failed" in line
        assert setup.counters.snapshot()["unauthorized"] > 1
        assert "hidden" not in caplog.text
        connection.execute(f"ALTER ROLE {role} PASSWORD 'hidden'".encode())
        assert setup.delivery.flush(60)
        setup.delivery.close()
        assert connection.execute("SELECT count(*) FROM usage_events").fetchone() == (5,)


def test_a_user_without_rights_is_told_what_to_grant(
    postgres_server: Server, database: str, rows: Rows
) -> None:
    """Who may not make the tables, nor write to them, nor make those of a month; granted that, it may."""
    role = f"meter_{database}"
    rows(f"CREATE ROLE {role} LOGIN PASSWORD 'r'; REVOKE CREATE ON SCHEMA public FROM public")
    with closing(opened(postgres_server.url(database, user=role, password="r"))) as outlet:

        def refusal() -> str:
            with pytest.raises(Unauthorized) as raised:
                outlet.send([line_of(1)])
            return str(raised.value)

        assert f"GRANT CREATE ON SCHEMA public TO {role}, or have an administrator run" in refusal()
        made = subprocess.run(
            [sys.executable, "-m", "cmdrdata_transport.sinks.postgresql"],
            capture_output=True,
            text=True,
            check=True,
        )
        rows(made.stdout)
        assert f"GRANT SELECT ON usage_migrations TO {role}" in refusal()
        rows(f"GRANT SELECT ON usage_migrations TO {role}")
        assert "permission denied for sequence usage_events_seq; see Rights" in refusal()
        rows(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
        rows(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
        assert "made by postgres, who owns usage_events" in refusal()
        rows(
            "CREATE TABLE usage_events_2026_11 PARTITION OF usage_events "
            "FOR VALUES FROM ('2026-11-01 UTC') TO ('2026-12-01 UTC')"
        )
        outlet.send([line_of(1)])
    assert rows() == ["event-1"]
    assert rows("SELECT version FROM usage_migrations") == [1]


def test_the_page_shows_sql_that_works(
    postgres_server: Server, database: str, outlet: Outlet, rows: Rows
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
