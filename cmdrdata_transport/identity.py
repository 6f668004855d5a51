"""Names an event: the moment of its call, and the id by which a second telling of it is known.

An id is random and sorts by time, unless what it is of can be asked for again: then it follows from
that resource's own id, and whoever is told of it, in whatever process and week, gives the same.
"""

from __future__ import annotations

import os
from functools import lru_cache
from random import Random
from time import gmtime, strftime
from uuid import NAMESPACE_DNS, uuid5

_OURS = "7cd7"

_random = Random()  # noqa: S311 - an id is to be unique, not secret; asking the system each time costs more
_chance = _random.getrandbits


def differ() -> None:
    """In a child: give other ids than its parent and its siblings do."""
    _random.seed()


os.register_at_fork(after_in_child=differ)


def new_event_id(seconds: float) -> str:
    """A random id that sorts by time: a UUID of version 7 (RFC 9562), 60 bits of it random.

    The other bits tell it from those that applications make: they may give one of theirs twice.
    """
    when, chance = f"{int(seconds * 1000):012x}", f"{_chance(60):015x}"
    return f"{when[:8]}-{when[8:]}-{_OURS}-8{chance[:3]}-{chance[3:]}"


def derived_event_id(scope: str, resource: str, part: int = 0) -> str:
    """The id of what a provider keeps under a name: a UUID of version 5 (RFC 9562).

    `scope` is the host within which the name is unique.
    """
    return id_of(scope, f"{resource}#{part}")


def id_of(scope: str, name: str) -> str:
    """The UUID of a name within a scope. Both may be any text that JSON can say, lone surrogates too."""
    return str(uuid5(uuid5(NAMESPACE_DNS, _encodable(scope)), _encodable(name)))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def is_derived(event_id: str) -> bool:
    """Whether an id may come a second time for the same thing: it is not one of the random ones."""
    return event_id[14:18] != _OURS or event_id[19:20] != "8"


def timestamp(seconds: float) -> str:
    """A moment as ISO 8601 in UTC, to the microsecond."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))
