"""The list of what is metered, in the README: made from the tables, and from the fixtures that prove them.

    python tests/metered.py --write

writes it between its two marks; `test_metered_list.py` holds that nobody forgot to.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cmdrdata_transport.providers import PROVIDERS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- metered: made by tests/metered.py -->\n", "<!-- /metered -->\n"


def proofs() -> dict[tuple[str, str], list[int]]:
    """For each provider and API, how many fixtures there are whose answers are plain, and streamed."""
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for file in (ROOT / "fixtures").glob("*/*/expected.json"):
        for event in json.loads(file.read_text("utf-8"))["events"]:
            if event.get("usage_status") == "complete":
                found[event["provider"], event["api"]][bool(event.get("streaming"))] += 1
    return found


def rows() -> Iterator[tuple[str, ...]]:
    """Provider, API, operation, and the fixtures that prove it plain and streamed."""
    proven = proofs()
    seen: set[tuple[str, str]] = set()
    for table in PROVIDERS:
        for endpoint in table.endpoints:
            shape = endpoint.shape
            if shape is None or (table.id, shape.api) in seen:
                continue
            seen.add((table.id, shape.api))
            plain, streamed = proven.get((table.id, shape.api), (0, 0))
            yield (
                table.id,
                f"`{shape.api}`",
                shape.operation,
                str(plain or "shape"),
                "no" if shape.stream is None else str(streamed or "shape"),
            )


def listing() -> str:
    """The list as a Markdown table."""
    head = ("provider", "API", "operation", "plain", "streamed")
    lines = [head, ("---",) * len(head), *rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written() -> str:
    """The README as it should be."""
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{listing()}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(written(), "utf-8")
    else:
        sys.stdout.write(listing())
