"""A home, and a ledger, may be called anything that a file may be called."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from journals import set_up

from cmdrdata_transport import housekeeping
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.sinks.damage import aside_from

NO_TEXT = "n\udcf6tes"
"""A name in another encoding than this system's."""


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """Events are delivered and read back, and a customer's are found and removed."""
    home = tmp_path / NO_TEXT
    setup = set_up(home, "sqlite:///n%F6tes.db", mode="flush")
    setup.append(20)
    assert setup.delivery.close(50)
    assert examine(home).pending == ()
    with Ledger.open(home / f"{NO_TEXT}.db") as ledger:
        assert len(list(ledger.events())) == 20
    places = housekeeping.of_customer(home, ["sqlite:///n%F6tes.db"], "acme")
    assert sum(place.remove() for place in places) == 20
    assert housekeeping.remains(home, [], "acme") == []


@pytest.mark.parametrize("name", ["50%25 ?#[1]*", "new\nline"], ids=ascii)
def test_a_damaged_ledger_whatever_it_is_called(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside, and it is said what can be read in it; nothing lands beside its home."""
    home, file = tmp_path / name / "home", f"{name}.db"
    sink = f"sqlite:///{quote(file)}"
    setup = set_up(home, sink, mode="flush")
    setup.append(20)
    assert setup.delivery.close(50)
    with (home / file).open("r+b") as ledger:
        ledger.seek(4096)
        ledger.write(b"\xa5" * 4096)
    caplog.set_level(logging.WARNING)
    setup = set_up(home, sink, mode="flush")
    setup.append(5, 100)
    assert setup.delivery.close(50)
    assert setup.counters.snapshot()["ledger_corrupt"] == 1
    assert "20 events of 2026-11-21" in caplog.text
    with Ledger.open(home / file) as ledger_then:
        assert len(list(ledger_then.events())) == 5
    assert examine(home).pending == ()
    (aside,) = aside_from(home / file)
    for place in housekeeping.of_customer(home, [sink], "acme"):
        place.remove()
    assert housekeeping.remains(home, [sink], "acme") == [aside]  # of which SQLite takes nothing any more
    assert sorted(each.name for each in tmp_path.iterdir()) == [name]
