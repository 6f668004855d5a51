"""What the open blocks of attribution say together, at one point of the program.

Knows one `ContextVar`, which holds an immutable `Scope`. Does not know how blocks are entered, nor
requests, headers or defaults.

A scope is a stack of frames, one for each open block. Leaving a block takes that block's own frame
off the stack that is current *there*. So blocks may be left out of order, or in another `Context`
(a stream that is closed by another task, or by garbage collection): there is no token to be refused,
and no old value to put back in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from cmdrdata_transport.attribution.labels import merge


class Unset(Enum):
    """Nothing is said about the customer, which is not the same as `None`: this call has none."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """What one block says. Frames are told apart by identity.

    A frame that names a customer owns its metadata for that customer; one that names none is ambient.
    """

    customer: str | Unset | None = UNSET
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    track: bool = True
    block: bool = True
    """False: said by `set_customer_context`, in force until the block around it is left."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scope:
    """What all open blocks say together. `metadata` is merged when a block is entered; do not change it."""

    frames: tuple[Frame, ...] = ()
    customer: str | Unset | None = UNSET
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    track: bool = True
    truncated: bool = False
    """More metadata than an event carries: that of the outermost blocks is left out."""

    @classmethod
    def of(cls, frames: tuple[Frame, ...]) -> Scope:
        """The scope of these open blocks, outermost first."""
        customer: str | Unset | None = UNSET
        track = True
        for frame in frames:
            if frame.customer is not UNSET or not frame.block:
                customer = frame.customer
            track = track and frame.track
        metadata, whole = merge(_metadata(frames, customer))
        return cls(frames=frames, customer=customer, metadata=metadata, track=track, truncated=not whole)

    def metadata_for(self, customer: str | Unset | None) -> Iterator[dict[str, Any]]:
        """The metadata that belongs to this customer or to everyone, nearest first, not yet merged."""
        return _metadata(self.frames, customer)

    def without(self, frame: Frame) -> Scope:
        """What is left of it when the innermost block of that frame is; itself if no such block is open."""
        frames = self.frames
        for at in reversed(range(len(frames))):
            if frames[at] is frame:
                end = at + 1
                while end < len(frames) and not frames[end].block:
                    end += 1
                return Scope.of(frames[:at] + frames[end:])
        return self


def _metadata(frames: tuple[Frame, ...], customer: str | Unset | None) -> Iterator[dict[str, Any]]:
    started = False
    for frame in reversed(frames):
        if frame.metadata and (frame.customer is UNSET or (frame.customer == customer and not started)):
            yield frame.metadata
        # Setting a customer starts it anew: what outer blocks said of the same one is over.
        started = started or not frame.block


scope_var: ContextVar[Scope] = ContextVar("cmdrdata_scope", default=Scope())  # noqa: B039 - it is frozen


def current() -> Scope:
    """What is said where this is called."""
    return scope_var.get()
