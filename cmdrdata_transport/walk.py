"""Looks through what an object holds, and what that holds, for what is wanted.

Knows how Python objects hold others: by their attributes and slots, in containers, in bound methods and
partials, and in what a function has kept of the place where it was made. Reads them where they lie: no
code of the object's own runs, not a property, not a `__getattr__`, not even a `__class__` that pretends.
Knows no SDK.

Not entered are modules, classes and the globals of functions, through which everything is within reach,
and objects of the standard library other than containers.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, SimpleNamespace
from typing import Any

OBJECTS = 20_000
"""How many objects are looked at: agents with their tools and prompts have some hundreds."""

DEPTH = 16
"""How far from the first object: frameworks keep their clients three to eight steps down."""

_ATOMS = frozenset(map(id, (str, bytes, bytearray, int, float, complex, bool, type(None))))
"""Classes, by identity, whose objects hold nothing."""

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)

_OPEN = (functools.partial, MethodType, SimpleNamespace)
"""What is entered of the standard library, beside containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found, in order of distance. `whole`: whether everything within reach was looked at."""

    things: list[Any]
    whole: bool


def search(start: object, wanted: Callable[[Any], bool]) -> Found:
    """Everything that is `wanted` within reach of an object; what is wanted is not entered."""
    things: list[Any] = []
    # Objects are kept until the end, or another could take the id of one that was made on the way.
    seen: dict[int, object] = {id(start): start}
    waiting = deque([(start, 0)])
    whole = True
    while waiting:
        here, depth = waiting.popleft()
        if wanted(here):
            things.append(here)
            continue
        for held in _held(here):
            if id(type(held)) in _ATOMS or id(held) in seen:
                continue
            if depth == DEPTH or len(seen) == OBJECTS:
                whole = False
                break
            seen[id(held)] = held
            waiting.append((held, depth + 1))
    return Found(things=things, whole=whole)


def attributes(obj: object) -> dict[str, Any]:
    """The attributes that lie in an object's `__dict__` or its slots; properties are not among them."""
    found: dict[str, Any] = {}
    for kind in type.mro(type(obj)):
        for name, descriptor in list(type.__getattribute__(kind, "__dict__").items()):
            is_dict = name == "__dict__" and type(descriptor) is GetSetDescriptorType
            if is_dict or type(descriptor) is MemberDescriptorType:
                with suppress(Exception):  # a slot that has not been set
                    value = descriptor.__get__(obj)
                    found.update(value if is_dict else {name: value})
    return found


def _held(obj: object) -> Iterator[Any]:
    kind = type(obj)
    for container in _CONTAINERS:
        if issubclass(kind, container):
            yield from _members(obj, container)
    if kind is FunctionType:
        for cell in obj.__closure__ or ():  # type: ignore[attr-defined]  # it is a function
            with suppress(ValueError):  # of a name that has no value yet
                yield cell.cell_contents
    elif kind in _OPEN or not _is_closed(kind):
        yield from attributes(obj).values()


def _members(obj: Any, container: Any) -> list[Any]:
    """The members as the built-in class knows them: a subclass may do anything when asked."""
    for _ in range(3):
        try:
            return list(container.values(obj) if container is dict else container.__iter__(obj))
        except RuntimeError:  # another thread has changed it meanwhile
            continue
    return []


def _is_closed(kind: type) -> bool:
    """Whether objects of this class are not entered: classes, and what is built in or standard library."""
    if issubclass(kind, type):
        return True
    module = type.__getattribute__(kind, "__dict__").get("__module__")
    return not isinstance(module, str) or module.partition(".")[0] in sys.stdlib_module_names
