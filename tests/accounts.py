"""An event and what the scripted provider stated of the same answer, so that they can be compared."""

from __future__ import annotations

from decimal import Decimal

from cmdrdata_transport.demo.provider import Stated
from cmdrdata_transport.event import UNITS, UsageEvent


def counted(event: UsageEvent) -> dict[str, Decimal]:
    """Every unit of an event but zeros, and what was charged.

    Which of the input is text some providers say by the way; their account here does not.
    """
    names = (*UNITS, "provider_cost")
    units = {name: Decimal(str(value)) for name in names if (value := getattr(event.usage, name))}
    units.pop("input_text_tokens", None)
    return units


def told(stated: Stated) -> dict[str, Decimal]:
    """The same of an answer."""
    return {**{name: Decimal(count) for name, count in stated.units.items()}, **stated.amounts}
