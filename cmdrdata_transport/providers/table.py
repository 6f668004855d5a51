"""The words in which a provider is described: data only, read by `reading.py` and `routing.py`.

A `Shape` says how one API states its usage; an `Endpoint` says which path speaks that shape; a
`Provider` says at which hosts. A new provider is a table of these, never a class or a branch.

Usage is described by a tree that mirrors the provider's own JSON: each key leads to the unit its
number counts towards, or to the tree below it.

    {"prompt_tokens": "input_tokens", "prompt_tokens_details": {"cached_tokens": "cache_read_tokens"}}

A number that counts towards several units names them all; a name with a minus in front is
subtracted. Units that several keys name add up: that is how Anthropic's cache reads come to be a
part of all input. A key that is absent adds nothing, and a unit that nothing adds to is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices, from the document's root."""

Paths: TypeAlias = tuple[Path, ...]
"""Places where the same thing may stand; the first that is there and not empty counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Each:
    """A list of `{key: …, value: …}` objects: `value` counts towards the unit that `into` has for `key`."""

    key: str
    value: str
    into: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list whose every item is read by the same tree."""

    tree: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """A list, or a text, whose length is the count."""

    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """A count that stands in several places with different names: each says it again, none adds to it."""

    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A count in a smaller measure, of which `per` make one of the unit: milliseconds, for seconds."""

    unit: str
    per: int


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """A value that is there counts one, whatever it says: of images nothing else may tell."""

    unit: str


Leaf: TypeAlias = "str | tuple[str, ...] | Each | Items | Length | Same | Scaled | One"
Tree: TypeAlias = "Mapping[str, Leaf | Tree]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Entries of the usage object that name what one model or one step did.

    Those of `outside` are not in the object's own totals, those of `inside` are. An entry of another
    model than the answer's becomes an event of its own, with its own raw entry, and leaves the totals
    if it was in them; one from outside of the answer's own model is added to the answer's counts.
    """

    at: str
    kind: str
    """The key that tells entries apart."""
    outside: frozenset[str]
    inside: frozenset[str]
    model: Path = ("model",)


EVERY = "*"
"""In the path of an `Aside`: each item of a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A usage object beside the answer's own and no part of it: what a tool used that is a model too.

    It becomes an event of its own, with its own raw entry. One that counts nothing is left out.
    """

    at: Paths
    operation: str
    units: Tree
    model: Paths = ()
    """Where the object names its model."""
    answer_model: Paths = ()
    """Where the answer does, if the object does not. Where neither does, the event names none: it is
    never the answer's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A part of a unit that some answers of an API leave out of it, and others do not.

    The usage object's own total tells which: where it is input and output and this part besides, the
    part is added to the unit; where it is anything else, nothing is.
    """

    part: str = "output_reasoning_tokens"
    of: str = "output_tokens"
    total: str = "total_tokens"
    """The key of the usage object's total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How the events of a stream add up to what the plain answer would have said."""

    kind: Path = ("type",)
    """Where an event says what it is."""

    ends: frozenset[Any] = frozenset()
    """What the event is that ends a stream; empty where none does."""

    done: bool = False
    """Whether the stream ends with `data: [DONE]`."""

    mark: bytes | None = None
    """Bytes that the event which ends the stream always holds, and few others do."""

    needles: tuple[bytes, ...] = (b'"usage"',)
    """Bytes by which to find events further up: the first in every event with usage, the others, looked
    for when something is still missing, in events with a finish reason."""

    overlay: bool = False
    """False: the newest usage object replaces the ones before. True: field by field, and absent or
    null leaves the earlier value."""

    placeholders: Mapping[Path, frozenset[str]] = field(default_factory=dict[Path, frozenset[str]])
    """Fields of a usage object, by where it stands, that the provider fills in before it knows."""

    tail: int = 8
    """How many events at the end are read whatever they hold: for the finish reason, or an error."""

    include_usage: bool = False
    """Whether its usage is an event of its own, without choices, for requests that asked for it."""

    finish_ends: bool = False
    """Whether a stream that gave a finish reason is whole, although no event says that it ended."""

    as_list: bool = False
    """Whether a caller who asks for no framing gets the events of a stream as one list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A resource that lives on behind the call that started it: whoever asks for it later is told again.

    It counts once, when it is done, for the customer who started it, under an id that follows from its
    own. An answer in between says that it is `pending`.
    """

    when: Mapping[Path, frozenset[Any]] = field(default_factory=dict[Path, frozenset[Any]])
    """Values that say that an answer is of such a resource; without any, every answer is."""
    id: Paths = ()
    """Where the answer names the resource, if that is not its `response_id`."""
    asked: Path | None = None
    """Where the request names it, for calls that ask for it in their body."""
    yields: Paths = ()
    """Names of further resources, files of results say, that are its starter's as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The answers to many calls in one body: what a batch gives when it is done. Each counts by itself.

    The group `job` of the endpoint's path names the resource that they are the results of.
    """

    shapes: tuple[Shape, ...]
    """What the answers may be: the first that one looks like counts."""
    answer: Paths
    """Where in one of the results the answer stands."""
    id: Paths
    """What tells one result from all others, by preference an id that is the answer's own."""
    at: Paths = ()
    """Where the list of results stands in the document; without any, each line of the body is one."""
    custom_id: Paths = (("custom_id",),)
    """What the caller calls it."""
    error: Paths = (("error",),)
    """Where one that failed says so."""
    marks: Paths = ()
    """What a result has even where it has neither: one that was cancelled or has expired."""
    service_tier: str = "batch"
    """The tier to record: what a batch runs is billed at a price of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one API states what an answer used."""

    api: str
    operation: str
    usage: Paths
    units: Tree
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Keys of the usage object without which a unit does not follow from what was reported."""
    apart: Apart | None = None
    beside: Mapping[Path, Tree] = field(default_factory=dict[Path, Tree])
    """Counts that stand outside the usage object; the object at the path is kept in `raw_usage` too."""
    again: Mapping[Path, Tree] = field(default_factory=dict[Path, Tree])
    """Where the same counts are told a second time; told otherwise there, they are a conflict to be seen."""
    lists: Mapping[Path, Tree] = field(default_factory=dict[Path, Tree])
    """Counts that are lengths of lists of content; these lists are never kept."""
    parts: Parts | None = None
    asides: tuple[Aside, ...] = ()
    only: Mapping[Path, frozenset[Any]] = field(default_factory=dict[Path, frozenset[Any]])
    """Values by one of which a document of the answer is told, where a stream speaks of other things too;
    an empty set: that there is anything."""
    cost: Mapping[Path, str] = field(default_factory=dict[Path, str])
    """Where the usage object says what was charged, and how many US dollars one of that is."""
    headers: Mapping[bytes, str | tuple[str, ...] | Same | Scaled] = field(default_factory=dict[bytes, Any])
    """Response headers with counts, for answers whose body states none."""
    headers_add: bool = False
    """Whether they also state what is missing where the body states something: it has a part of it alone."""
    header_details: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Response headers that say what was charged in other money than dollars: kept as they are written."""
    request: Tree = field(default_factory=dict[str, Any])
    """Counts that follow from what was asked, where the answer states none: characters to be spoken."""
    request_model: Paths = (("model",),)
    request_model_header: bytes | None = None
    """A request header that names the model, where neither path, query nor body does."""
    model_header: bytes | None = None
    """A response header that names the model, for answers whose body does not."""
    request_details: Mapping[str, Paths] = field(default_factory=dict[str, Paths])
    """What was asked for that changes a price: size, quality, voice."""
    error: Paths = (("error",),)
    """Where an answer with status 200 says that it failed."""
    response_id: Paths = (("id",),)
    model: Paths = (("model",),)
    finish_reason: Paths = ()
    service_tier: Paths = ()
    details: Mapping[str, Paths] = field(default_factory=dict[str, Paths])
    pending: Mapping[Path, frozenset[Any]] = field(default_factory=dict[Path, frozenset[Any]])
    """Values that say the answer is not there yet, so that no usage is no loss; an empty set: that there
    is anything. Of several that are there the last one's word counts."""
    free: Mapping[Path, frozenset[Any]] = field(default_factory=dict[Path, frozenset[Any]])
    """Values that say nothing is charged, whatever else the answer states: a video that failed."""
    job: Job | None = None
    """What its answers are when they can be asked for again."""
    results: Results | None = None
    """What its answers hold when they are many."""
    looks: Mapping[Path, frozenset[Any]] = field(default_factory=dict[Path, frozenset[Any]])
    """Values by one of which an answer, or an event of a stream, can be told from those of other shapes;
    an empty set: that there is anything. For answers of which nothing else tells what they are."""
    stream: Stream | None = None
    facts: tuple[tuple[str, str | None, Paths], ...] = field(init=False)
    """Every single value to find: the name under which it is found, the key where it stands, if that is
    its only place and at the root, and its places."""
    objects: Paths = field(init=False)
    """Every object beside the usage that is read."""
    request_model_key: str | None = field(init=False)
    """The key of the request's JSON that names the model, if that is its only place."""
    error_keys: frozenset[str | int] = field(init=False)
    """Keys at the root without one of which an answer states no error."""
    plain: bool = field(init=False)
    """Whether its answers say all there is in one usage object and a few facts, as nearly all of them do."""

    def __post_init__(self) -> None:
        named = {
            "response_id": self.response_id,
            "model": self.model,
            "finish_reason": self.finish_reason,
            "service_tier": self.service_tier,
        }
        facts = tuple((name, _only_key(paths), paths) for name, paths in named.items() if paths)
        object.__setattr__(self, "facts", facts)
        object.__setattr__(self, "objects", (*self.beside, *self.lists, *self.again))
        object.__setattr__(self, "request_model_key", _only_key(self.request_model))
        object.__setattr__(self, "error_keys", frozenset(path[0] for path in self.error))
        object.__setattr__(self, "plain", not any(getattr(self, word) for word in _MORE))


_MORE = (
    "needs",
    "apart",
    "beside",
    "again",
    "lists",
    "parts",
    "asides",
    "only",
    "cost",
    "headers",
    "header_details",
    "request",
    "request_model_header",
    "model_header",
    "request_details",
    "details",
    "pending",
    "free",
    "job",
    "results",
)
"""The words of a shape that is more than plain."""


def _only_key(paths: Paths) -> str | None:
    return str(paths[0][0]) if len(paths) == 1 and len(paths[0]) == 1 else None


BY_HAND = "by hand"
"""The method of what no HTTP request asks for: it comes by a websocket or by gRPC, and `record_response`
reads it. The path is then what that event or procedure is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path, as a regular expression searched in the URL's path; a group `model` names the model.

    Without a shape the path is known and carries no usage: a free counter, a report of what was
    counted before.
    """

    path: str
    shape: Shape | None
    method: str = "POST"
    query_model: str | None = None
    """The key of the URL's query that names the model, where neither path nor body does."""
    poll: bool = False
    """Whether it asks for what another call started. Such a call counts when that is done, not for itself."""
    own: bool = False
    """Whether it means this at the provider's own hosts alone: elsewhere a path like it may be anybody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where a provider answers, and what its paths speak. `id` is genai-prices' where it has one."""

    id: str
    hosts: tuple[str, ...]
    """Host names; `*` stands for anything within one."""
    endpoints: tuple[Endpoint, ...]
    under: str = "/"
    """How the paths begin that are this provider's, at a host that routes to several."""
    compatible: str | None = None
    """The provider to record for these paths at any other host; None: they mean nothing there."""
    request_id: tuple[bytes, ...] = (b"x-request-id",)
    """Response headers that carry the provider's id for the request, in order."""
    service_tier: tuple[bytes, ...] = ()
    """Response headers that carry the tier that served."""
    include_usage: bool = False
    """Whether it takes `stream_options.include_usage`, and states the usage of streams only then."""


ERROR_FIELDS: Mapping[str, Paths] = {
    "error_type": (("error", "type"), ("error", "status"), (0, "error", "status"), ("error_type",)),
    "error_code": (("error", "code"), (0, "error", "code"), ("code",)),
    "error_message": (("error", "message"), (0, "error", "message"), ("message",), ("error",)),
}
"""Where the providers' error bodies say what went wrong."""
