"""What only makes sense beside other SDKs than those here is left to `run.py`, which wants no conftest."""

from __future__ import annotations

collect_ignore = ["test_places_of_sdks.py"]


def pytest_collection_modifyitems(items: list[object]) -> None:
    """Leave out tests that have nothing to be about here: no SDK that is installed does what they ask."""
    items[:] = [item for item in items if "NOTSET" not in str(getattr(item, "name", ""))]
