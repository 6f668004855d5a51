"""Cuts bytes where a careless reader breaks: inside a character, a line end, a field name.

Networks cut anywhere, and proxies move the cuts. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_AWKWARD = re.compile(
    rb"""[\xc2-\xf4](?=[\x80-\xbf])     # inside a UTF-8 character
       | \r(?=\n) | \n(?=[\r\n])        # inside a line end, and between two
       | da(?=ta:) | ev(?=ent:)         # inside a field's name
       | \[DO(?=NE\]) | "us(?=age")     # inside the words that readers look for
       | [0-9](?=[0-9])                 # inside a number
    """,
    re.VERBOSE,
)


def awkward(data: bytes, random: Random, share: float = 0.3) -> list[bytes]:
    """The same bytes in pieces, cut at a `share` of the awkward places."""
    places = [match.end() for match in _AWKWARD.finditer(data) if random.random() < share]
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def framed(events: Sequence[bytes], random: Random) -> list[bytes]:
    """The events of a stream in one of the ways they arrive: one at a time, or cut and run together."""
    if random.random() < 0.4:  # noqa: PLR2004 - which share is of no consequence
        return list(events)
    return awkward(b"".join(events), random, share=random.choice((0.05, 0.3, 1.0)))
