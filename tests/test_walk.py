"""What the object walk finds, and what it leaves alone, in objects of every make."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pydantic
import pytest

from cmdrdata_transport.walk import DEPTH, OBJECTS, attributes, search

if TYPE_CHECKING:
    from collections.abc import Callable


class Treasure:
    """What is looked for."""

    def sing(self) -> None:
        """Do something that can be bound."""


def found(start: object) -> int:
    """How many treasures are found from here, in a walk that gets everywhere."""
    result = search(start, lambda thing: type(thing) is Treasure)
    assert result.whole
    return len(result.things)


class Plain:
    """An object of attributes."""

    def __init__(self, value: object) -> None:
        self.value = value


class Slotted:
    """An object of slots, one of which is never set."""

    __slots__ = ("empty", "value")

    def __init__(self, value: object) -> None:
        self.value = value


class SlottedBelow(Slotted):
    """A class with a `__dict__` below one without."""


@dataclass(slots=True)
class Link:
    """A dataclass that may point to itself."""

    value: object
    next: Link | None = None


class Model(pydantic.BaseModel):
    """A pydantic model that keeps something in a private attribute."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    field: Any = None
    _private: Any = pydantic.PrivateAttr(default=None)


def private(value: object) -> Model:
    """A model with a value that is no field."""
    model = Model()
    model._private = value
    return model


class Listed(list[Any]):
    """A list that will not be iterated."""

    def __iter__(self) -> Any:
        raise RuntimeError("not by you")


class Mapped(dict[str, Any]):
    """A dict that lies about its values, and has an attribute."""

    def values(self) -> Any:
        """Nothing."""
        return []


def closure(value: object) -> Callable[[], object]:
    """A function that has kept a value, and a name that never got one."""

    def inner() -> object:
        return value or never

    if not value:
        never = value
    return inner


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda it: it,
    "attribute": Plain,
    "slot": Slotted,
    "slot of a base class": SlottedBelow,
    "dataclass": Link,
    "dict": lambda it: {"a": {"b": it}},
    "list": lambda it: [[it]],
    "tuple": lambda it: (it,),
    "set": lambda it: {it},
    "frozenset": lambda it: frozenset([it]),
    "deque": lambda it: deque([it]),
    "OrderedDict": lambda it: OrderedDict(a=it),
    "defaultdict": lambda it: defaultdict(list, a=it),
    "SimpleNamespace": lambda it: SimpleNamespace(it=it),
    "pydantic field": lambda it: Model(field=it),
    "pydantic private attribute": private,
    "bound method": lambda it: it.sing,
    "bound method's object": lambda it: Plain(Plain(it).__init__),  # type: ignore[misc]
    "partial": lambda it: functools.partial(print, it),
    "partial's keyword": lambda it: functools.partial(print, end=it),
    "partial of a method": lambda it: functools.partial(it.sing),
    "closure": closure,
    "closure of a closure": lambda it: closure(closure(it)),
    "odd list": lambda it: Listed([it]),
    "odd dict": lambda it: Mapped(a=it),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_it_is_found_where_objects_keep_others(holder: str) -> None:
    """Attributes, slots, containers, models, methods and partials are all looked through."""
    assert found(HOLDERS[holder](Treasure())) == 1


class Hidden:
    """A class attribute holds it."""

    treasure = Treasure()


def function() -> Treasure:
    """A function whose globals hold nearly everything."""
    return Hidden.treasure


def in_a_thread_local(value: object) -> object:
    """Something of the standard library that keeps attributes."""
    local = threading.local()
    local.value = value
    return local


def on_a_logger(value: object) -> object:
    """The same."""
    logger = logging.Logger("test")  # noqa: LOG001 - not one that stays
    logger.value = value  # type: ignore[attr-defined]
    return logger


treasures = [Treasure()]
NOT_ENTERED: dict[str, Any] = {
    "module": contextlib,
    "class": Hidden,
    "instance's class": Hidden(),
    "function": function,
    "lambda": lambda: Hidden.treasure,
    "thread local": in_a_thread_local(Treasure()),
    "logger": on_a_logger(Treasure()),
    "weak reference": weakref.ref(treasures[0]),
    "decoder": json.JSONDecoder(object_hook=Treasure().sing),  # type: ignore[arg-type]
    "dict's key": {Treasure(): 1},
    "text": "Treasure",
}


@pytest.mark.parametrize("holder", NOT_ENTERED)
def test_what_leads_everywhere_or_nowhere_is_not_entered(holder: str) -> None:
    """Classes, functions, modules and the standard library's objects are not looked through."""
    assert found(Plain(NOT_ENTERED[holder])) == 0


class Touchy:
    """Every way of asking it runs its code, and fails."""

    def __init__(self, value: object) -> None:
        object.__setattr__(self, "value", value)

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")

    def __bool__(self) -> bool:
        raise AssertionError("judged")

    def __len__(self) -> int:
        raise AssertionError("measured")


class Obliging:
    """It has every attribute that it is asked for, and pretends to be a treasure."""

    def __getattr__(self, name: str) -> Any:
        return self

    @property
    def __class__(self) -> Any:
        """Another class than it is of."""
        return Treasure

    @__class__.setter
    def __class__(self, value: Any) -> None: ...

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Self:
        return self


class Dictless:
    """Its `__dict__` is a property that fails."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        """Nothing to be had."""
        raise AssertionError("asked for __dict__")


def test_no_code_of_the_object_runs() -> None:
    """Objects that fail, lie or go on for ever when they are asked are read where they lie."""
    assert found([Touchy(Treasure()), Obliging(), Dictless(), Plain(Treasure())]) == 2


def test_a_treasure_is_found_once_and_in_order_of_distance() -> None:
    """However many ways lead to it; what is nearer comes first."""
    near, far = Treasure(), Treasure()
    start = Plain([Plain(Plain(far)), near, near, {"again": far}])

    assert search(start, lambda thing: type(thing) is Treasure).things == [near, far]


def test_circles_end() -> None:
    """An object that leads back to itself is looked at once."""
    link = Link(Treasure())
    link.next = link
    circle: list[Any] = [link]
    circle.append(circle)

    assert found(circle) == 1


def test_what_is_wanted_is_not_entered() -> None:
    """What an SDK's object holds besides its HTTP client is its own affair."""
    outer = Plain(Plain(Treasure()))

    assert search(outer, lambda thing: type(thing) is Plain).things == [outer]


def chain(length: int) -> Plain:
    """So many objects, each in the next."""
    link = Plain(Treasure())
    for _ in range(length):
        link = Plain(link)
    return link


@pytest.mark.parametrize(
    "large",
    [
        pytest.param(chain(DEPTH), id="deep"),
        pytest.param([Plain(None) for _ in range(OBJECTS + 1)], id="wide"),
    ],
)
def test_what_is_too_large_says_so(large: Any) -> None:
    """Behind its bounds the walk may have missed something, and does not keep that to itself."""
    assert not search(large, lambda thing: type(thing) is Treasure).whole


def test_what_just_fits_is_whole() -> None:
    """The bounds are where they are said to be."""
    assert found(chain(DEPTH - 2)) == 1


def test_numbers_and_texts_do_not_count() -> None:
    """A long list of data is no large object."""
    assert found([*map(str, range(3 * OBJECTS)), Treasure()]) == 1


def test_a_property_is_no_attribute() -> None:
    """Attributes are what lies in the object; an unset slot is none."""
    assert attributes(SlottedBelow(1)) == {"value": 1}
    assert attributes(Obliging()) == {}


def test_many_threads_may_change_what_is_walked() -> None:
    """A dict that grows meanwhile neither fails the walk nor hides what was there."""
    growing: dict[Any, Any] = {"it": Treasure()}
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            growing[len(growing) % 1000] = object()
            growing.pop(500, None)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        assert {found(Plain(growing)) for _ in range(50)} == {1}
    finally:
        stop.set()
        thread.join()
