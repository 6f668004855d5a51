"""The command `cmdrdata-transport`, and `python -m cmdrdata_transport`.

Knows only how to say what is missing: the commands are in `cli`, which needs the extra of that name.
"""

from __future__ import annotations

import sys

_EXTRA = frozenset({"typer", "rich", "click"})


def main() -> None:
    """Run a command; ends with its exit code."""
    try:
        from cmdrdata_transport.cli import run  # noqa: PLC0415 - the library works without the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit(f"The command line needs {error.name}: pip install 'cmdrdata-transport[cli]'")
    run()


if __name__ == "__main__":
    main()
