"""What a test has to say beyond passing, `record_property("says", …)`, is printed at the end of the run.

And fixtures that several files share: for tests that make many clients and speak no TLS, for those that ask
which threads there are, and for those that need a PostgreSQL.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import pytest

if TYPE_CHECKING:
    from postgres import Rows, Server

    from cmdrdata_transport.sinks import Outlet

_END = "-----END CERTIFICATE-----\n"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it here, because workers of pytest-xdist have no terminal."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "says":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell has what it starts in the background ignore SIGINT, and programs that we start with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def started() -> Callable[[], list[threading.Thread]]:
    """The library's threads that have been started since the test began, and are alive.

    A thread that an earlier test left may end at any moment: to count threads is to count that one, too.
    """
    before = set(threading.enumerate())
    return lambda: [
        each for each in threading.enumerate() if each not in before and each.name.startswith("cmdrdata")
    ]


@pytest.fixture(scope="module")
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clients trust one certificate only: to load all of them is four fifths of what a client costs."""
    first, _, _ = Path(certifi.where()).read_text("utf-8").partition(_END)
    bundle = tmp_path_factory.mktemp("certificates") / "one.pem"
    bundle.write_text(first + _END, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(bundle))
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One server for all tests of a process; each makes a database of its own."""
    from postgres import running  # noqa: PLC0415 - other environments run other tests, without the driver

    with running() as server:
        yield server


@pytest.fixture
def database(postgres_server: Server) -> str:
    """The name of an empty database."""
    return postgres_server.new_database()


@pytest.fixture
def database_url(postgres_server: Server, database: str) -> str:
    """Its URL."""
    return postgres_server.url(database)


@pytest.fixture
def outlet(database_url: str) -> Iterator[Outlet]:
    """The sink that writes to it."""
    from postgres import opened  # noqa: PLC0415 - see `postgres_server`

    opened_one = opened(database_url)
    yield opened_one
    opened_one.close()


@pytest.fixture
def rows(postgres_server: Server, database: str) -> Iterator[Rows]:
    """What is there."""
    with postgres_server.connect(database) as connection:

        def ask(sql: str = "SELECT event_id FROM usage_events ORDER BY seq") -> list[Any]:
            cursor = connection.execute(sql.encode())
            found = cursor.fetchall() if cursor.description else []
            return [each[0] if len(each) == 1 else each for each in found]

        yield ask


collect_ignore = ["environments/test_gevent.py", "environments/test_places_of_sdks.py"]
"""They only make sense beside other packages than those here: `environments/run.py` runs them, without this
file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests that have nothing to be about here: no SDK that is installed does what they ask."""
    items[:] = [item for item in items if "NOTSET" not in item.name]
