"""What a test has to say beyond passing, `record_property("says", …)`, is printed at the end of the run."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it here, because workers of pytest-xdist have no terminal."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "says":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))
