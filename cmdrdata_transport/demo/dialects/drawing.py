"""What an answer is made of before a provider's words are put around it: its text and its tokens.

Knows the units of the published event. Knows no provider.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from random import Random

Document = dict[str, Any]
"""A JSON object."""

JSON = "application/json"

EPOCH = 1_790_000_000
"""When every answer says it was created, in seconds; a fixed one keeps a seed's bytes the same."""

ANSWERED_AS = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
}
"""Models that providers answer under a dated name; others keep the name they were asked by."""

_WORDS = (
    *(
        "Ja",
        " — the",
        " café",
        " bill",
        " for",
        " 東京",
        " was",
        " paid",
        ".\n",
        " naïve",
        " 🧾",
        " in",
        " Kraków",
    ),
    # What must not be taken for the frame, or for counts:
    *(' "usage"', ' {"total_tokens": 9}', " data: [DONE]", " \u2028", " event: error", ' \\"', "\r\n\r\n"),
)
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of one answer, in disjoint parts.

    `fresh` is input that no cache had; `tool` is input that the provider's own tools put in;
    `visible` is output without reasoning and citations.
    """

    fresh: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    tool: int = 0
    visible: int = 0
    reasoning: int = 0
    citation: int = 0

    @property
    def cache_write(self) -> int:
        """Input that went into a cache, for however long."""
        return self.cache_write_5m + self.cache_write_1h

    @property
    def input(self) -> int:
        """All input."""
        return self.fresh + self.cache_read + self.cache_write + self.tool

    @property
    def output(self) -> int:
        """All output."""
        return self.visible + self.reasoning + self.citation

    def units(self) -> Counter[str]:
        """The counts as the published event names them; without those that are zero."""
        return +Counter(
            input_tokens=self.input,
            output_tokens=self.output,
            total_tokens=self.input + self.output,
            cache_read_tokens=self.cache_read,
            cache_write_tokens=self.cache_write,
            cache_write_5m_tokens=self.cache_write_5m,
            cache_write_1h_tokens=self.cache_write_1h,
            input_tool_tokens=self.tool,
            output_reasoning_tokens=self.reasoning,
            output_citation_tokens=self.citation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request to answer: its JSON or its form, what its URL said, and the randomness of its answer."""

    body: Document
    named: dict[str, str]
    """The named groups of the route's pattern."""
    query: str
    random: Random
    waits: bool = False
    """Whether the client waits for what it starts, by a header."""
    begun: dict[str, Document] = field(default_factory=dict[str, Document])
    """What was started by one request and is told by others, by its id. The provider's, for all requests."""

    @property
    def model(self) -> str:
        """The model that was asked for, by its short name."""
        return str(
            self.named.get("model") or self.body.get("model") or self.body.get("model_id") or "unnamed"
        )

    @property
    def streaming(self) -> bool:
        """Whether the body asks for a stream."""
        return bool(self.body.get("stream"))

    @property
    def with_usage(self) -> bool:
        """Whether the body asks a stream of OpenAI's for its usage."""
        options: Document = self.body.get("stream_options") or {}
        return bool(options.get("include_usage"))

    @property
    def answered_model(self) -> str:
        """The name that the answer gives the model."""
        return ANSWERED_AS.get(self.model, self.model)

    def text(self) -> list[str]:
        """Some words, as a model streams them."""
        return self.random.choices(_WORDS, k=self.random.randint(4, 12))

    def tokens(self, *also: str) -> Tokens:
        """Fresh input and visible output, and of the parts named in `also` some, at times."""
        draw = self.random
        drawn = {name: draw.randint(1, 900) for name in also if draw.random() < 0.6}  # noqa: PLR2004
        return Tokens(fresh=draw.randint(8, 2000), visible=draw.randint(1, 600), **drawn)

    def dollars(self) -> Decimal:
        """What a provider says it charged."""
        return Decimal(self.random.randint(1, 99_999)).scaleb(-7)

    def vector(self) -> list[float]:
        """An embedding, a short one."""
        return [self.random.uniform(-1, 1) for _ in range(8)]

    def name(self, prefix: str, length: int = 24) -> str:
        """An identifier as providers make them."""
        return prefix + "".join(self.random.choices(_LETTERS, k=length))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer: one document, or the events of a stream, and what it states.

    `units` are counts; `amounts` is what is stated with fractions, seconds and the provider's own cost.
    Both are empty where an answer states no usage.
    """

    content: bytes | Sequence[bytes]
    content_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    model: str = ""
    response_id: str = ""
    units: Counter[str] = field(default_factory=Counter[str])
    amounts: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])


class Route(NamedTuple):
    """One endpoint: whose it is, what its method and path look like, and how it answers."""

    provider: str
    pattern: str
    tell: Callable[[Asked], Told]


def compact(document: Any) -> str:
    """JSON without blanks, characters as they are."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def escaped(document: Any) -> str:
    """JSON in ASCII: some SDKs end a line at U+2028, and what they are sent has it escaped."""
    return json.dumps(document, separators=(",", ":"))


def pretty(document: Any) -> bytes:
    """JSON as people read it, which is how OpenAI and Google send it."""
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"
