"""Recorded exchanges with providers: where they lie, and how one is read.

They are not part of this repository: they lie in `../shared/wire`, or where `CMDRDATA_WIRE` says, and
their README describes them. Knows the form of a record; what is to come of one, its tests say.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exchange import ROOT, Exchange

WIRE = Path(os.environ.get("CMDRDATA_WIRE") or ROOT.parent / "shared" / "wire")

MISSING = f"the recordings are not at {WIRE}; CMDRDATA_WIRE says where they are"
"""What to say where they are not."""

NOT_ON_THE_WIRE = {"content-length", "transfer-encoding", "connection", "host"}
"""Request headers that the replaying client makes itself."""


def are_here() -> bool:
    """Whether this machine has them."""
    return (WIRE / "README.md").exists()


def records(name: str) -> Iterator[dict[str, Any]]:
    """The records of one file, as the README describes them."""
    yield from map(json.loads, (WIRE / f"{name}.jsonl").read_text("utf-8").splitlines())


def recorded(record: dict[str, Any]) -> Exchange:
    """The exchange of one record, with what its recorder changed put right."""
    request, response = record["request"], record["response"]
    left_out = {"content-encoding"} if response["body_state"] == "decoded" else set[str]()
    if response["content_length_matches"] is False:
        left_out.add("content-length")
    asked = request["body"].encode() if request["body"] is not None else base64.b64decode(request["body_b64"])
    return Exchange(
        method=request["method"],
        url=request["url"],
        request_headers=[each for each in request["headers"] if each[0].lower() not in NOT_ON_THE_WIRE],
        request_body=asked or None,
        status=response["status"],
        headers=[(name, value) for name, value in response["headers"] if name.lower() not in left_out],
        body=base64.b64decode(response["body_b64"]),
    )
