"""The list of what is metered: made from the tables, and from what proves them.

    python tests/metered.py --write

writes the whole list to `docs/metered.md`, and the short one and that of the SDKs into the README, each
between its two marks;
`test_metered_list.py` holds that nobody forgot to. What proves a row is counted from the fixtures, and
read from what `proofs.py` has seen.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proofs import BATCH, Proof, kept, proof_of

from cmdrdata_transport.clients import SDKS
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.table import BY_HAND, Shape
from cmdrdata_transport.providers.unmetered import UNMETERED

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
WHOLE = ROOT / "docs" / "metered.md"

FRAMINGS = {
    "application/json": "JSON",
    "text/event-stream": "SSE",
    "application/x-ndjson": "JSON lines",
    "application/jsonl": "JSON lines",
    "application/stream+json": "JSON lines",
    "application/vnd.amazon.eventstream": "AWS event stream",
    "audio/mpeg": "bytes",
    "audio/wav": "bytes",
    "text/plain": "text",
}
"""What an answer is made of, by its Content-Type."""

TOP = """\
# What is metered

Made by `python tests/metered.py --write` from the tables in
[providers](../cmdrdata_transport/providers), and held by a test. A row is one kind of answer of one
provider, and what proves that it is read to the token:

- **fixtures**: exchanges in [fixtures](../fixtures/README.md), written by hand from what is known of the
  provider's answers, and read whole, cut at every byte and in every content coding, sync and async
- **recordings**: real answers of the provider, recorded by others, compared with what they state
- **SDK**: those whose own calls, sync and async, are metered end to end through a server on this machine

A row without any of the three is one whose shape is proven with another provider.

"""

UNMETERED_TOP = """
# What is not metered

No event comes of these, or one that says `usage_status: "missing"`. "By hand" is
[told here](../README.md#by-hand).

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of answer of one provider."""

    provider: str
    api: str
    operation: str
    batch: bool
    """Whether it holds the answers to many calls."""
    framing: str
    fixtures: int
    recordings: int
    sdks: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as it is shown."""
        proofs = (str(self.fixtures or ""), str(self.recordings or ""), ", ".join(self.sdks))
        return (self.provider, f"`{self.api}`", self.operation, self.framing, *proofs)


def fixtures() -> Iterator[tuple[Proof, str]]:
    """What each fixture with a complete answer proves, and what its answer is made of."""
    for file in sorted((ROOT / "fixtures").glob("*/*/expected.json")):
        response = json.loads(file.with_name("response.json").read_text("utf-8"))
        headers = {name.lower(): value for name, value in response["headers"].items()}
        kind = headers.get("content-type", "application/json")
        found: set[Proof] = set()
        for event in json.loads(file.read_text("utf-8"))["events"]:
            if event.get("usage_status") == "complete":
                found.add(proof_of(event))
        for proof in found:
            lines = proof.operation == BATCH and not kind.startswith("application/json")
            yield proof, "JSON lines" if lines else FRAMINGS.get(kind.partition(";")[0], kind)


def unstated() -> set[Proof]:
    """What a table reads, and a fixture shows to state nothing: a stream, say, of what is stated whole."""
    return {
        proof_of(event)
        for file in (ROOT / "fixtures").glob("*/*/expected.json")
        for event in json.loads(file.read_text("utf-8"))["events"]
        if event.get("usage_status") == "missing"
    }


def rows() -> Iterator[Row]:
    """Every kind of answer that a table reads, once."""
    counted, called = kept()
    nothing = unstated().difference(counted, *called.values())
    written = Counter(proof for proof, _ in fixtures())
    framings: dict[Proof, set[str]] = defaultdict(set)
    elsewhere: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    for proof, framing in fixtures():
        framings[proof].add(framing)
        elsewhere[proof.api, proof.streamed][framing] += 1
    seen: set[Proof] = set()
    for provider, shape, method in shapes():
        for streamed in (False, True):
            operation = shape.operation if shape.results is None else BATCH
            proof = Proof(provider, shape.api, operation, streamed)
            if proof in seen or (streamed and shape.stream is None):
                continue
            seen.add(proof)
            if proof in nothing and not written[proof]:
                continue
            usual = next(
                iter(elsewhere[shape.api, streamed].most_common(1)), (_guess(shape, streamed=streamed),)
            )
            yield Row(
                provider=provider,
                api=shape.api,
                operation=_operations(shape),
                batch=shape.results is not None,
                framing=method if method == BY_HAND else ", ".join(sorted(framings[proof] or usual[:1])),
                fixtures=written[proof],
                recordings=counted.get(proof, 0),
                sdks=tuple(sorted(sdk for sdk, given in called.items() if proof in given)),
            )


def _guess(shape: Shape, *, streamed: bool) -> str:
    if streamed:
        return "SSE"
    return "JSON" if shape.results is None or shape.results.at else "JSON lines"


def _operations(shape: Shape) -> str:
    many = (shape,) if shape.results is None else shape.results.shapes
    return ", ".join(dict.fromkeys(each.operation for each in many))


def shapes() -> Iterator[tuple[str, Shape, str]]:
    """The shapes of every table that state usage: the provider's id, the shape, the method to ask by."""
    for table in PROVIDERS:
        for endpoint in table.endpoints:
            if (shape := endpoint.shape) is not None and (
                shape.units or shape.headers or shape.request or shape.lists or shape.results
            ):
                yield table.id, shape, endpoint.method


def whole() -> str:
    """`docs/metered.md` as it should be."""
    head = ("provider", "API", "operation", "answer", "fixtures", "recordings", "SDK")
    unmetered_head = ("provider", "what", "why", "instead")
    unmetered = ((each.provider, each.what, each.why, each.instead) for each in UNMETERED)
    metered = _table(head, (row.cells for row in rows()))
    return TOP + metered + UNMETERED_TOP + _table(unmetered_head, unmetered)


def short() -> str:
    """The list of the README: what each provider is metered for."""
    operations: dict[str, dict[str, None]] = {}
    for row in rows():
        # The router of Hugging Face has a table for each of its partners.
        name = row.provider.partition("_")[0]
        listed = operations.setdefault(name, {})
        listed.update(dict.fromkeys(["batches"] if row.batch else [row.operation]))
    return _table(("provider", "metered"), ((name, ", ".join(each)) for name, each in operations.items()))


def sdks() -> str:
    """What to type for each SDK."""
    lines = {sdk.name: f"`{sdk.line or sdk.instead}`" for sdk in SDKS}
    lines |= {
        each.package: f"[by hand](docs/by-hand.md#{each.package})" for each in UNMETERED if each.package
    }
    return _table(("SDK", "to type"), lines.items())


def readme() -> str:
    """The README as it should be."""
    text = README.read_text("utf-8")
    for name, listed in {"metered": short(), "sdks": sdks()}.items():
        begin, end = f"<!-- {name}: made by tests/metered.py -->\n", f"<!-- /{name} -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{listed}\n{end}{after}"
    return text


PAGES: Mapping[Path, Any] = {WHOLE: whole, README: readme}
"""What is written, and how it is made."""


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    every = (head, ("---",) * len(head), *lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in every)


if __name__ == "__main__":
    for page, make in PAGES.items():
        if "--write" in sys.argv:
            page.parent.mkdir(exist_ok=True)
            page.write_text(make(), "utf-8")
        else:
            sys.stdout.write(make())
