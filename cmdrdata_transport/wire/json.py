"""JSON as the SDKs read it: whatever they accept, we accept.

orjson first, for speed; the standard library where orjson refuses what an SDK takes (lone
surrogates, NaN, integers beyond 64 bits, bytes that are not quite UTF-8). Knows no provider.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

_BOM = b"\xef\xbb\xbf"


def parse(data: bytes | bytearray) -> Any:
    """The document in `data`. Leading blanks are allowed: DeepSeek keeps a connection alive with them.

    Raises:
        ValueError: this is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    text = bytes(data).removeprefix(_BOM).decode("utf-8", "replace")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parsed(data: bytes | bytearray) -> Any:
    """The same; None for what is no JSON, where that is as good as nothing."""
    try:
        return parse(data)
    except ValueError:
        return None
