"""The list of what is metered, and of what is not, is what the tables and the proofs say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from metered import PAGES, Row, rows
from proofs import calls, kept, recordings
from recorded import MISSING, are_here

from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.providers.unmetered import UNMETERED, Unmetered


@pytest.mark.parametrize(("page", "make"), PAGES.items(), ids=lambda each: getattr(each, "name", ""))
def test_the_documents_list_what_the_tables_meter(page: Path, make: Callable[[], str]) -> None:
    """They are made anew, by `python tests/metered.py --write`, when a table or a proof changes."""
    assert page.read_text("utf-8") == make()


def test_every_shape_is_proven_somewhere() -> None:
    """A shape that no fixture of any provider proves is not in a table."""
    proven = {row.api for row in rows() if row.fixtures}
    assert {row.api for row in rows() if row.framing != "by hand"} <= proven


def test_every_row_is_proven_somewhere() -> None:
    """A kind of answer, whole or streamed, that nothing proves with any provider is not on the list."""
    every = [row for row in rows() if row.framing != "by hand"]
    proven = {kind_of(row) for row in every if row.fixtures or row.recordings or row.sdks}
    assert {kind_of(row) for row in every} <= proven


def kind_of(row: Row) -> tuple[str, str, str]:
    """What two providers' rows have in common."""
    return row.api, row.operation, row.framing


def test_every_provider_is_listed() -> None:
    """No table is without a row."""
    assert {row.provider for row in rows()} == {table.id for table in PROVIDERS}


@pytest.mark.skipif(not are_here(), reason=MISSING)
def test_the_recordings_are_those_that_are_checked() -> None:
    """What is said of recordings was counted, by `python tests/proofs.py --write`."""
    assert kept()[0] == recordings()


def test_the_sdks_prove_what_is_said_of_them() -> None:
    """What is said of an SDK that is here comes of its calls, by `python tests/proofs.py --write`."""
    given, said = calls(), kept()[1]
    assert given
    assert {name: said.get(name) for name in given} == given


@pytest.mark.parametrize("call", [each for each in UNMETERED if each.example], ids=lambda each: each.example)
def test_what_is_not_metered_is_in_no_table(call: Unmetered) -> None:
    """A call that a table reads does not stand among those that are not metered: take its row away."""
    method, url = call.example.split()
    parts = urlsplit(url)
    target = url.partition(parts.netloc)[2]
    assert Router(PROVIDERS).route(method, parts.netloc.encode(), target.encode()) is None


def test_what_is_not_metered_is_of_a_provider_we_know() -> None:
    """A row names a provider as the tables do, and stands once."""
    assert {each.provider for each in UNMETERED} <= {table.id for table in PROVIDERS} | {"any"}
    assert len({(each.provider, each.what) for each in UNMETERED}) == len(UNMETERED)
