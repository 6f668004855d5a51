"""What a ledger in PostgreSQL survives: servers and connections that break, and what they do not let in."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest
from journals import Receiver, line_of, once, set_up
from postgres import QUOTED_PASSWORD, Rows, Server, gated, opened, running, until

from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks import Outlet


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


def test_a_server_that_falls_silent_is_given_up(postgres_server: Server, database: str, rows: Rows) -> None:
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


def test_a_delivery_outlives_the_server(tmp_path: Path) -> None:
    """Crashed or stopped, and started again: every event is there once, nothing is refused."""
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
