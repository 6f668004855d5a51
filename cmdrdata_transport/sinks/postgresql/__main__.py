"""Prints the ledger's tables as SQL, for an administrator who makes them with `psql`."""

from __future__ import annotations

import sys
from inspect import cleandoc

from cmdrdata_transport.sinks.postgresql.schema import MIGRATIONS_TABLE, statements

if __name__ == "__main__":
    for statement in ("BEGIN", MIGRATIONS_TABLE, *statements(), "COMMIT"):
        sys.stdout.write(f"{cleandoc(statement)};\n")
