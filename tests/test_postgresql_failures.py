"""What a ledger in PostgreSQL survives: servers and connections that break, and what they do not let in."""

from __future__ import annotations

import re
import signal
import socket
import struct
import threading
from contextlib import closing
from pathlib import Path

import pytest
from journals import Receiver, line_of, once, set_up
from postgres import QUOTED_PASSWORD, Rows, Server, gated, opened, running, until

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import Outlet, Unauthorized


@pytest.mark.parametrize("answer", [b"COMMIT\0", b"COPY 2\0", b"INSERT 0 2\0"])
def test_a_connection_that_is_lost_costs_nothing(
    postgres_server: Server,
    database: str,
    rows: Rows,
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


@pytest.mark.parametrize("hosts", ["127.0.0.1:{away},127.0.0.1:{port}", "127.0.0.1:{port},127.0.0.1:{away}"])
def test_one_of_several_hosts_will_do(postgres_server: Server, database: str, rows: Rows, hosts: str) -> None:
    """Each with its own port, as libpq has them: the one that is there and takes what is written."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = taken.getsockname()[1]
    place = hosts.format(away=away, port=postgres_server.port)
    url = postgres_server.url(database).replace(f"127.0.0.1:{postgres_server.port}", place)
    with closing(opened(f"{url}?target_session_attrs=read-write")) as outlet:
        outlet.send([line_of(1)])
    assert rows() == ["event-1"]
    with Ledger.open(url) as ledger:
        assert ledger.report([])[0]["events"] == 1


@pytest.mark.parametrize(
    ("says", "unauthorized"),
    [
        ("query_wait_timeout", False),
        ("no more connections allowed (max_client_conn)", False),
        ("server login has been failing, try again later (server_login_retry)", False),
        ("Timed-out waiting to acquire database connection", False),
        ("the database system is not yet accepting connections", False),
        ("no such user: ann", True),
        ("unsupported startup parameter: options", True),
    ],
)
def test_a_pooler_lets_nobody_in_while_its_server_is_away(says: str, *, unauthorized: bool) -> None:
    """That is no wrong password, and is not counted as one."""
    fields = b"".join(
        b"%c%b\0" % each for each in ((b"S", b"FATAL"), (b"C", b"08P01"), (b"M", says.encode()))
    )

    def answer() -> None:
        connection, _ = pooler.accept()
        with connection:
            while connection.recv(4096)[4:8] in TO_ENCRYPT:
                connection.sendall(b"N")
            connection.sendall(b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0")

    with socket.create_server(("127.0.0.1", 0)) as pooler:
        pooler.settimeout(50)
        thread = threading.Thread(target=answer)
        thread.start()
        outlet = opened(f"postgresql://ann@127.0.0.1:{pooler.getsockname()[1]}/usage")
        with pytest.raises(Unavailable, match=re.escape(says)) as told:
            outlet.send([line_of(1)])
        thread.join()
    assert isinstance(told.value, Unauthorized) is unauthorized


TO_ENCRYPT = (struct.pack("!i", 80877103), struct.pack("!i", 80877104))
"""What a client asks at first: for TLS, or for Kerberos."""


def test_a_server_that_falls_silent_is_given_up(postgres_server: Server, database: str, rows: Rows) -> None:
    """In the middle of a batch: neither the server's own timeouts nor TCP's would end that."""
    with gated(postgres_server, database) as (gate, url), closing(opened(url)) as outlet:
        outlet.send([line_of(1)])
        gate.hang_at = b"INSERT 0 1\0"
        with pytest.raises(Unavailable, match="has not answered in 1 seconds"):
            outlet.send([line_of(2)], timeout=1)
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
    postgres_server: Server, database: str, outlet: Outlet, rows: Rows
) -> None:
    """Somebody's long transaction holds the tables: the batch waits for its time, and comes again."""
    outlet.send([line_of(1)])
    with postgres_server.connect(database) as other, other.transaction():
        other.execute("LOCK TABLE usage_event_ids")
        with pytest.raises(Unavailable, match=r"timeout|has not answered"):
            outlet.send([line_of(2)], timeout=0.2)
    outlet.send([line_of(2)])
    assert rows() == ["event-1", "event-2"]


def test_a_session_that_is_ended_in_the_middle_of_a_batch_costs_nothing(
    postgres_server: Server, database: str, outlet: Outlet, rows: Rows
) -> None:
    """By an administrator, while rows are copied: nothing of the batch is there, and it comes again."""
    outlet.send([line_of(1)])
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
    with postgres_server.connect(database) as other:

        def end() -> None:
            until(lambda: rows(f"SELECT wait_event_type {ours}") == ["Lock"])
            rows(f"SELECT pg_terminate_backend(pid) {ours}")

        with other.transaction():
            other.execute("LOCK TABLE usage_events")
            administrator = threading.Thread(target=end)
            administrator.start()
            with pytest.raises(Unavailable, match="terminating connection") as raised:
                outlet.send([line_of(number) for number in range(2, 1000)])
            administrator.join()
    assert not isinstance(raised.value, Unauthorized)
    assert rows() == ["event-1"]
    outlet.send([line_of(number) for number in range(2, 1000)])
    assert len(rows()) == 999


def test_a_database_that_becomes_read_only_keeps_all_waiting(
    tmp_path: Path, database: str, database_url: str, rows: Rows
) -> None:
    """As a standby is that nobody has promoted yet: what waits is there once as soon as it may be written."""
    setup = set_up(tmp_path, database_url)
    setup.append(3)
    assert setup.delivery.flush(30)
    rows(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cmdrdata-transport'"
        " AND datname = current_database()"
    )
    setup.append(3, 3)
    assert not setup.delivery.flush(0.5)
    until(lambda: any("read-only" in (lane.trouble or "") for lane in setup.delivery._lanes))
    rows(f"SET default_transaction_read_only = off; ALTER DATABASE {database} RESET ALL")
    assert setup.delivery.flush(60)
    setup.delivery.close()
    assert sorted(rows()) == [f"event-{number}" for number in range(6)]
    assert "rejected" not in setup.counters.snapshot()


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("disk_full", Unavailable),
        ("out_of_memory", Unavailable),
        ("serialization_failure", Unavailable),
        ("data_corrupted", Unavailable),
        ("raise_exception", Unavailable),
        ("string_data_right_truncation", Rejected),
        ("unique_violation", Rejected),
    ],
)
def test_what_the_server_cannot_do_now_waits(
    outlet: Outlet, rows: Rows, state: str, error: type[Exception]
) -> None:
    """Nothing of the batch is there then; what says something about the event itself refuses it."""
    outlet.send([line_of(1)])
    rows(f"""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'acme' USING ERRCODE = '{state}'; END
        $$;
        CREATE TRIGGER fail BEFORE INSERT ON usage_events FOR EACH ROW
            WHEN (NEW.event_id = 'event-150') EXECUTE FUNCTION fail()
    """)
    with pytest.raises(error):
        outlet.send([line_of(number) for number in range(300)])
    assert rows() == ["event-1"]
    rows("DROP FUNCTION fail CASCADE")
    outlet.send([line_of(number) for number in range(300)])
    assert len(rows()) == 300


def test_a_delivery_outlives_the_server(tmp_path: Path) -> None:
    """Killed, crashed or stopped, and started again: every event is there once, nothing is refused."""
    with running() as server:
        url = server.url(server.new_database())
        setup = set_up(tmp_path, url)
        setup.append(2000)
        setup.delivery.ensure_running()
        for how, start in ((signal.SIGKILL, 2000), (signal.SIGQUIT, 4000), (signal.SIGINT, 6000)):
            server.stop(how)
            setup.append(2000, start)
            assert not setup.delivery.flush(0.2)
            server.start()
        assert setup.delivery.flush(60)
        setup.delivery.close()
        with Ledger.open(url) as ledger:
            assert ledger.report([])[0]["events"] == 8000
            assert len({entry.event.event_id for entry in ledger.events()}) == 8000
    assert "rejected" not in setup.counters.snapshot()
    assert setup.counters.snapshot()["unavailable"] > 0


def test_what_is_refused_is_buried_alone(tmp_path: Path, database_url: str, rows: Rows) -> None:
    """The rest of its batch is stored, and it is kept with the reason."""
    setup = set_up(tmp_path, database_url)
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
