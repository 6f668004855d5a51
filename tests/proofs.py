"""What proves that a call is metered, beyond the fixtures: recorded traffic, and the SDKs' own calls.

    python tests/proofs.py --write

looks at what this machine has, recordings and installed SDKs, and keeps it in `proofs.json`; what it has
not stays there as it was. `test_metered_list.py` holds that what is kept is so.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from recorded import are_here

from cmdrdata_transport.demo.calls import EVERY_SDK, CalledSdk, call, call_async, connected, connected_async
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.testing import capture_usage

FILE = Path(__file__).with_name("proofs.json")

STREAMS = ("text/event-stream", "ndjson", "stream+json", "vnd.amazon.eventstream")
"""By what a Content-Type says that an answer is streamed."""

CHECKED = frozenset({"counted", "counted here", "results"})
"""What `test_corpus.py` calls the recordings whose counts it compares."""

BATCH = "batch"
"""The operation of the results of batches, which are of any kind."""

BATCHES = {
    table.id: endpoint.shape.api
    for table in PROVIDERS
    for endpoint in table.endpoints
    if endpoint.shape is not None and endpoint.shape.results is not None
}
"""By the provider, what the list calls the results of its batches; each result says its own API."""


class Proof(NamedTuple):
    """One kind of answer of one provider."""

    provider: str
    api: str
    operation: str
    streamed: bool


def proof_of(event: Mapping[str, Any]) -> Proof:
    """What an event is a proof of."""
    provider, api, operation = event["provider"], event["api"], event["operation"]
    if event.get("service_tier") == "batch" and provider in BATCHES:
        api, operation = BATCHES[provider], BATCH
    return Proof(provider, api, operation, bool(event.get("streaming")))


def recordings() -> dict[Proof, int]:
    """How many recorded answers `test_corpus.py` checks to the token; they must be here."""
    from test_corpus import RECORDINGS, ours  # noqa: PLC0415 - it is skipped where they are not

    router = Router(PROVIDERS, any_host=True)
    found: dict[Proof, int] = defaultdict(int)
    for each in RECORDINGS:
        url = urlsplit(each.exchange.url)
        path = f"{url.path}?{url.query}" if url.query else url.path
        route = router.route(each.exchange.method, (url.hostname or "").encode(), path.encode())
        if each.verdict in CHECKED and route is not None:
            kind = next(
                (value for name, value in each.exchange.headers if name.lower() == "content-type"), ""
            )
            operation = BATCH if route.shape.results is not None else route.shape.operation
            streamed = any(word in kind for word in STREAMS)
            found[Proof(ours(each), route.shape.api, operation, streamed)] += 1
    return dict(found)


def calls() -> dict[str, set[Proof]]:
    """What the calls of each installed SDK give through a server on this machine, sync and async both."""
    given: dict[str, set[Proof]] = {}
    for sdk in EVERY_SDK:
        if sdk.installed:
            given.setdefault(sdk.sdk or sdk.name, set()).update(_calls(sdk))
    return given


def _calls(sdk: CalledSdk) -> set[Proof]:
    with Loopback(Provider(seed=1)) as server:
        with (
            capture_usage() as told,
            connected(sdk, server.url, provider=sdk.provider, customer_id="anybody") as client,
        ):
            for each in sdk.calls:
                call(client, each, {})
        with capture_usage() as told_async:
            asyncio.run(_call_async(sdk, server.url))
    return _complete(told) & _complete(told_async)


async def _call_async(sdk: CalledSdk, url: str) -> None:
    async with connected_async(sdk, url, provider=sdk.provider, customer_id="anybody") as client:
        for each in sdk.calls:
            await call_async(client, each, {})


def _complete(events: list[UsageEvent]) -> set[Proof]:
    return {proof_of(event.to_dict()) for event in events if event.usage_status == "complete"}


def kept() -> tuple[dict[Proof, int], dict[str, set[Proof]]]:
    """What the file says: recordings, and what each SDK's calls give."""
    document = json.loads(FILE.read_text("utf-8"))
    counted = {_read(name): count for name, count in document["recordings"].items()}
    return counted, {sdk: set(map(_read, names)) for sdk, names in document["sdks"].items()}


def seen() -> tuple[dict[Proof, int], dict[str, set[Proof]]]:
    """What the file should say: what can be seen here, and otherwise what it says."""
    counted, called = kept() if FILE.exists() else ({}, {})
    names = {sdk.sdk or sdk.name for sdk in EVERY_SDK}
    called = {name: given for name, given in called.items() if name in names}
    return recordings() if are_here() else counted, called | calls()


def _read(text: str) -> Proof:
    provider, api, operation, framing = text.split()
    return Proof(provider, api, operation, framing == "streamed")


def _write(proof: Proof) -> str:
    return " ".join((*proof[:3], "streamed" if proof.streamed else "plain"))


def _document() -> dict[str, Any]:
    counted, called = seen()
    return {
        "recordings": {_write(proof): counted[proof] for proof in sorted(counted)},
        "sdks": {name: [_write(proof) for proof in sorted(called[name])] for name in sorted(called)},
    }


if __name__ == "__main__":
    text = json.dumps(_document(), indent=1) + "\n"
    if "--write" in sys.argv:
        FILE.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)
