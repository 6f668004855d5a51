"""The pytest fixture `cmdrdata_usage`: `capture_usage()` for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cmdrdata_transport.event import UsageEvent


@pytest.fixture
def cmdrdata_usage() -> Iterator[list[UsageEvent]]:
    """The usage events of this test's calls, in the order in which their answers ended."""
    # Imported when it is used: a plugin is loaded in every test session of whoever installed us.
    from cmdrdata_transport.testing import capture_usage  # noqa: PLC0415

    with capture_usage() as events:
        yield events
