"""For the tests of applications: what would have been recorded, in a list.

    with capture_usage() as events:
        answer_a_question(customer="acme")
    assert events[0].customer_id == "acme"

Every tracker of the process is overridden, disabled ones too; nothing touches the disk and no thread
starts. Works under whatever answers the requests: pytest-httpx, respx, a mock transport, a server. The
pytest fixture `cmdrdata_usage` is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.tracker import capture


@contextmanager
def capture_usage() -> Generator[list[UsageEvent]]:
    """The events of the calls that are made inside, in the order in which their answers ended."""
    events: list[UsageEvent] = []

    def record(line: bytes) -> None:
        events.append(UsageEvent.from_json(line))

    _open.append(record)
    capture(record)
    try:
        yield events
    finally:
        # Tests that run side by side do not end in the order in which they began.
        _open.remove(record)
        capture(_open[-1] if _open else None)


_open: list[Callable[[bytes], None]] = []
