"""The ledger of a fleet: events in a PostgreSQL database, each once.

Any number of processes and hosts write one database, and nothing of ours coordinates them but event
ids. A batch is one transaction (`writing.py`). A connection that is lost before the answer to COMMIT
leaves open whether the batch is there: it comes again, and its ids tell. `schema.py` says what the
tables are, `target.py` what a URL means; `ledger/postgresql.py` reads the events back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from cmdrdata_transport.errors import Rejected, Unavailable
from cmdrdata_transport.sinks.postgresql.rows import FIELDS
from cmdrdata_transport.sinks.postgresql.schema import PATIENCE_SECONDS, is_current, migrate
from cmdrdata_transport.sinks.postgresql.target import (
    Target,
    connect,
    has_ended,
    limited,
    load_driver,
    refusal_of,
    target_of,
)
from cmdrdata_transport.sinks.postgresql.writing import Writer

if TYPE_CHECKING:
    import psycopg


def open_url(url: SplitResult, home: Path, environ: Mapping[str, str]) -> PostgresOutlet:  # noqa: ARG001
    """The outlet of `postgresql://user@host/database`."""
    target = target_of(url, environ)
    load_driver()
    return PostgresOutlet(target)


class PostgresOutlet:
    """Writes to the ledger in one database, and makes it where it is not there yet."""

    batch = 1000
    keyed = True

    def __init__(self, target: Target) -> None:
        self.identity = target.identity
        self._target = target
        self._writer: Writer | None = None

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Write the events in one transaction.

        Raises:
            Rejected: one of them cannot be stored; none is.
            Unavailable: the server is not there, is busy, or does not let us.
        """
        import psycopg  # noqa: PLC0415 - see `load_driver`

        patience = self._target.timeout if timeout is None else min(timeout, self._target.timeout)
        try:
            writer = self._connected(patience)
            with limited(writer.connection, patience):
                writer.write(lines, patience)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded) as error:
            if isinstance(error, psycopg.errors.NotNullViolation) and error.diag.column_name not in FIELDS:
                raise refusal_of(error) from None  # a column that somebody has added is no event's to fill
            # Its message may quote the event: the kind must do.
            raise Rejected(f"it cannot be stored: {type(error).__name__}") from None
        except psycopg.Error as error:
            self.close()
            raise refusal_of(error) from None
        except Unavailable:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. The next `send` opens another."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(Exception):
                writer.connection.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def forget(self) -> None:
        """The connection is the parent's: it is kept, unused, since closing it would end the session."""
        if self._writer is not None:
            _PARENTS.append(self._writer.connection)
            self._writer = None

    def _connected(self, patience: float) -> Writer:
        if self._writer is not None and has_ended(self._writer.connection):
            self.close()
        if self._writer is None:
            connection = connect(self._target, patience)
            self._writer = Writer(connection)
            with limited(connection, patience):
                current = is_current(connection, patience)
            if not current:
                with limited(connection, PATIENCE_SECONDS):
                    migrate(connection)
        return self._writer


_PARENTS: list[psycopg.Connection[Any]] = []
