"""Whom a request belongs to: the values, the headers, and what takes precedence."""

from __future__ import annotations

import enum
import json
import math
import pickle
import string
from collections.abc import Mapping
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cmdrdata_transport import (
    customer_context,
    metadata_context,
    no_tracking,
    set_customer_context,
    tracking_headers,
)
from cmdrdata_transport.attribution import (
    HEADER_CUSTOMER,
    HEADER_METADATA,
    HEADER_PREFIX,
    HEADER_TRACK,
    Attribution,
    Defaults,
    check_customer,
    check_metadata,
    current,
    resolve,
)
from cmdrdata_transport.attribution.labels import CUSTOMER_LIMIT, DEPTH_LIMIT, METADATA_LIMIT, merge
from cmdrdata_transport.errors import AttributionError
from cmdrdata_transport.event import decode, encode

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
customers = text.filter(bool)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
metadatas = st.dictionaries(text, values, max_size=5)


class Request:
    """What `resolve` makes of one request, and what it counted."""

    def __init__(
        self,
        headers: Mapping[str, str] | None = None,
        extension: object = None,
        *,
        defaults: Defaults | None = None,
    ) -> None:
        found = {name.lower().encode(): value.encode("ascii") for name, value in (headers or {}).items()}
        self.counted: list[str] = []
        self.result = resolve(found or None, extension, defaults or Defaults(), self.counted.append)

    @property
    def customer(self) -> str | None:
        """Whom it belongs to."""
        return self.result.customer

    @property
    def metadata(self) -> dict[str, Any]:
        """With what."""
        return self.result.metadata


# --- values -----------------------------------------------------------------------------------------


@given(customers)
@example("ft:gpt-4o-mini:acme::9x")
@example("SELECT * FROM customers; <script>")
@example("a|b&c`d$(e)\r\n")
@example("x" * CUSTOMER_LIMIT)
def test_any_text_is_a_customer_id(customer: str) -> None:
    """No id is refused or changed for what it says."""
    assert check_customer(customer) == customer


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "pass None"),
        ("x" * (CUSTOMER_LIMIT + 1), "513 characters"),
        ("half \ud83d", "surrogate"),
        ("a\0b", "NUL"),
        (None, "not NoneType"),
        (42, "pass str"),
        (b"acme", "not bytes"),
    ],
)
def test_what_cannot_be_a_customer_id_is_an_error_that_says_what_to_do(value: object, says: str) -> None:
    """The error is ours and a ValueError, and names the way out."""
    with pytest.raises(AttributionError) as caught:
        check_customer(value)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


class Plan(str, enum.Enum):  # noqa: UP042 - such are in use, and str() of one is not its value
    """An enumeration of texts, as applications have them."""

    PRO = "pro"


class Level(enum.IntEnum):
    """An enumeration of numbers."""

    HIGH = 3


@given(metadatas)
def test_any_json_object_is_metadata(metadata: dict[str, Any]) -> None:
    """It is copied unchanged, and comes back from an event as it was."""
    checked = check_metadata(metadata)
    assert checked == metadata
    assert json.loads(encode(checked)) == metadata


def test_metadata_becomes_plain_json_values() -> None:
    """Tuples, enumerations and other mappings are written as what they are in JSON."""
    checked = check_metadata({Plan.PRO: (Plan.PRO, Level.HIGH, True), "big": 2**70, "none": None})
    assert checked == {"pro": ["pro", 3, True], "big": 2**70, "none": None}
    assert [type(each) for each in checked["pro"]] == [str, int, bool]
    assert json.loads(json.dumps(checked)) == checked


def nested(depth: int) -> dict[str, Any]:
    """A dict that holds lists, `depth` deep."""
    inner: list[Any] = []
    for _ in range(depth - 2):
        inner = [inner]
    return {"k": inner}


def test_metadata_may_nest_deep() -> None:
    """What is as deep as allowed is written and read by every JSON reader in use."""
    deepest = nested(DEPTH_LIMIT + 1)
    assert decode(encode(check_metadata(deepest))) == deepest


recursive: dict[str, Any] = {}
recursive["self"] = recursive


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("feature=chat", "must be a dict, not str"),
        (["feature"], "must be a dict, not list"),
        ({1: "x"}, "keys must be str"),
        ({"when": object()}, "metadata['when'] is object, not a JSON value"),
        ({"tags": ["a", {"b"}]}, "metadata['tags'][1] is set"),
        ({"share": math.nan}, "metadata['share'] is not a finite number"),
        ({"share": {"of": -math.inf}}, "metadata['share']['of'] is not a finite number"),
        ({"a": "\ud800"}, "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({"a": "b\0"}, "NUL"),
        ({"a\0": 1}, "NUL"),
        ({"a": "x" * METADATA_LIMIT}, "larger than 16384 bytes"),
        ({"a": "é" * (METADATA_LIMIT // 2)}, "larger than 16384 bytes"),
        ({"a": 10**5000}, "larger than 16384 bytes"),
        (nested(DEPTH_LIMIT + 2), "nested more than"),
        (recursive, "nested more than"),
    ],
)
def test_what_cannot_be_metadata_is_an_error_that_names_the_place(value: object, says: str) -> None:
    """The error says which value is wrong."""
    with pytest.raises(AttributionError) as caught:
        check_metadata(value)
    assert says in str(caught.value)


@given(st.lists(metadatas, max_size=4))
def test_merged_metadata_has_every_key_with_its_nearest_value(origins: list[dict[str, Any]]) -> None:
    """The nearer origin wins for each key, and no origin is changed."""
    before = json.dumps(origins)
    merged, whole = merge(origins)
    assert whole
    assert merged == {key: value for origin in reversed(origins) for key, value in origin.items()}
    assert json.dumps(origins) == before


# --- headers ----------------------------------------------------------------------------------------


@given(customers, metadatas)
@example("UTF-8''acme", {})
@example("utf-8'en'caf%C3%A9", {})
@example(" acme", {})
@example("acme ", {})
@example("a\tb", {})
@example("a%20b", {})
@example("\x7f", {"\x7f": "\x85"})
@example("\N{SNOWMAN}" * CUSTOMER_LIMIT, {"big": 2**80, "small": 5e-324})
@example("a", {"k": "é" * 8000})
def test_whatever_is_valid_survives_the_headers(customer: str, metadata: dict[str, Any]) -> None:
    """Written and read back, id and metadata are the same, and the headers are plain ASCII text."""
    headers = tracking_headers(customer, metadata)
    assert all(
        value.isascii() and value.isprintable() and value == value.strip() for value in headers.values()
    )
    request = Request(headers)
    assert request.result == Attribution(customer, metadata, track=True)
    assert request.counted == []


@given(
    st.text(string.ascii_letters + string.digits + "-_.:/@|%+ ", min_size=1).filter(
        lambda id_: id_ == id_.strip()
    )
)
def test_an_ordinary_id_stands_in_the_header_as_it_is(customer: str) -> None:
    """Plain ASCII without blanks around it is readable in any log of headers."""
    assert tracking_headers(customer) == {"X-Cmdrdata-Customer-Id": customer}


def test_headers_say_what_was_asked_and_no_more() -> None:
    """What is not given has no header, so that contexts and defaults apply."""
    assert tracking_headers() == {}
    assert tracking_headers("acme") == {"X-Cmdrdata-Customer-Id": "acme"}
    assert tracking_headers("Zoë") == {"X-Cmdrdata-Customer-Id": "UTF-8''Zo%C3%AB"}
    assert tracking_headers(metadata={"a": "é"}) == {"X-Cmdrdata-Metadata": '{"a":"\\u00e9"}'}
    assert tracking_headers(track=False) == {"X-Cmdrdata-Track": "0"}
    assert all(name.lower().encode().startswith(HEADER_PREFIX) for name in tracking_headers("a", {"b": 1}))


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_headers_pass_through_the_http_libraries(library: Any) -> None:
    """A request made by httpx or httpx2 carries them so that they are read back."""
    headers = tracking_headers("Zoë\r\n ", {"a": "é\n"}, track=False)
    raw = library.Request("POST", "http://localhost/", headers=headers).headers.raw
    found = {name.lower(): value for name, value in raw}
    assert resolve(found, None, Defaults(), pytest.fail) == Attribution("Zoë\r\n ", {"a": "é\n"}, track=False)


@pytest.mark.parametrize("wrong", [{"customer_id": ""}, {"customer_id": 7}, {"metadata": {"a": object()}}])
def test_headers_of_a_wrong_value_are_an_error_where_they_are_made(wrong: dict[str, Any]) -> None:
    """What could not be recorded is not put into a header."""
    with pytest.raises(AttributionError):
        tracking_headers(**wrong)


@pytest.mark.parametrize("value", ["0", "false", "False", "OFF", "no", " off "])
def test_a_track_header_can_switch_one_request_off(value: str) -> None:
    """0, false, off and no, in any case."""
    assert Request({"X-Cmdrdata-Track": value}).result.track is False


@pytest.mark.parametrize("value", ["1", "true", "On", "YES"])
def test_a_track_header_can_switch_one_request_on(value: str) -> None:
    """It takes precedence over `no_tracking()`, as every header does over the context."""
    with no_tracking():
        assert Request({"X-Cmdrdata-Track": value}).result.track is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (HEADER_METADATA, b""),
        (HEADER_METADATA, b"{"),
        (HEADER_METADATA, b"[1]"),
        (HEADER_METADATA, b'"text"'),
        (HEADER_METADATA, b'{"a": NaN}'),
        (HEADER_METADATA, b'{"a": 1e999}'),
        (HEADER_METADATA, b'{"a": "\\ud800"}'),
        (HEADER_METADATA, b'{"a": "\xff"}'),
        (HEADER_METADATA, b'{"a": ' + b"[" * 100_000),
        (HEADER_METADATA, b'{"a": ' + b"9" * 5000 + b"}"),
        (HEADER_METADATA, b'{"a": "' + b"x" * METADATA_LIMIT + b'"}'),
        (HEADER_TRACK, b""),
        (HEADER_TRACK, b"maybe"),
    ],
)
def test_a_header_that_cannot_be_read_is_counted_and_ignored(name: bytes, value: bytes) -> None:
    """Context and defaults apply as if it were not there."""
    counted: list[str] = []
    with customer_context("acme", metadata={"a": 1}):
        assert resolve({name: value}, None, Defaults(), counted.append) == Attribution(
            "acme", {"a": 1}, track=True
        )
    assert counted == ["bad_attribution"]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"  ",
        b"\xff\xfe",
        b"UTF-8''%FF",
        b"UTF-8''",
        b"UTF-8''%00",
        b"x" * 513,
    ],
)
def test_a_customer_in_a_header_that_cannot_be_read_is_nobody(value: bytes) -> None:
    """The context's customer does not pay for a call that names another one, however badly."""
    counted: list[str] = []
    with customer_context("acme", metadata={"a": 1}), metadata_context({"b": 2}):
        result = resolve({HEADER_CUSTOMER: value}, None, Defaults(customer="everybody"), counted.append)
    assert result == Attribution(None, {"b": 2}, track=True)
    assert counted == ["bad_attribution"]


@pytest.mark.parametrize("customer", ["", 42, b"acme", "x" * 513])
def test_a_customer_in_an_extension_that_cannot_be_read_is_nobody(customer: object) -> None:
    """As in a header."""
    counted: list[str] = []
    with customer_context("acme"):
        result = resolve(None, {"customer_id": customer}, Defaults(customer="everybody"), counted.append)
    assert result == Attribution(None, {}, track=True)
    assert counted == ["bad_attribution"]


@given(st.sampled_from([HEADER_CUSTOMER, HEADER_METADATA, HEADER_TRACK]), st.binary())
def test_no_bytes_in_a_header_raise(name: bytes, value: bytes) -> None:
    """Whatever arrives is either read, and then valid, or counted."""
    counted: list[str] = []
    result = resolve({name: value}, None, Defaults(), counted.append)
    assert counted in ([], ["bad_attribution"])
    assert result.customer is None or check_customer(result.customer)
    assert check_metadata(result.metadata) == result.metadata


def test_other_headers_are_not_looked_at() -> None:
    """A header of another name says nothing."""
    assert Request({"X-Cmdrdata-Other": "x", "X-Request-Id": "y"}).result == Attribution(None, {}, track=True)


# --- extension --------------------------------------------------------------------------------------


class Hostile(Mapping[str, object]):
    """A mapping that fails whatever is asked of it."""

    def __getitem__(self, key: str) -> object:
        raise RuntimeError(key)

    def __iter__(self) -> Any:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class Unreadable:
    """Fails when an error message wants to show it."""

    def __repr__(self) -> str:
        raise RuntimeError

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "extension",
    [
        "acme",
        42,
        Hostile(),
        {"metadata": "x"},
        {"metadata": {"a": object()}},
        {"metadata": {Unreadable(): 1}},
        {"metadata": Hostile()},
        {"track": "no"},
        {"track": 0},
        {"customer": "a name that we do not know"},
        {Unreadable(): 1},
    ],
)
def test_an_extension_that_cannot_be_read_is_counted_and_ignored(extension: object) -> None:
    """Context and defaults apply as if it were not there."""
    with customer_context("acme", metadata={"a": 1}):
        request = Request(extension=extension)
    assert request.result == Attribution("acme", {"a": 1}, track=True)
    assert request.counted == ["bad_attribution"]


def test_one_bad_value_costs_no_other() -> None:
    """The customer of a request counts though its metadata cannot be read."""
    request = Request(
        {"X-Cmdrdata-Metadata": "{"}, {"customer_id": "acme", "metadata": {"a": object()}, "track": 1}
    )
    assert request.customer == "acme"
    assert request.counted == ["bad_attribution"] * 3


def test_an_extension_may_leave_out_or_leave_empty() -> None:
    """What is absent is not stated; neither is metadata or track that is `None`."""
    with customer_context("acme", metadata={"a": 1}), no_tracking():
        for extension in ({}, {"metadata": None, "track": None}):
            request = Request(extension=extension)
            assert request.result == Attribution("acme", {"a": 1}, track=False)
            assert request.counted == []


@given(customers, metadatas)
def test_whatever_is_valid_passes_an_extension_unchanged(customer: str, metadata: dict[str, Any]) -> None:
    """Id and metadata are taken as they are, and metadata is copied."""
    request = Request(extension={"customer_id": customer, "metadata": metadata, "track": False})
    assert request.result == Attribution(customer, metadata, track=False)
    assert request.metadata is not metadata


# --- precedence -------------------------------------------------------------------------------------

LEVELS = ("header", "extension", "context", "client", "tracker")


def request_with(customers: Mapping[str, str | None], metadata: Mapping[str, dict[str, Any]]) -> Request:
    """A request to which each level says what is given for it."""
    headers = tracking_headers(customers.get("header"), metadata.get("header"))
    extension: dict[str, object] = {}
    if "extension" in customers:
        extension["customer_id"] = customers["extension"]
    if "extension" in metadata:
        extension["metadata"] = metadata["extension"]
    client, tracker = (
        Defaults(customer=customers.get(level), metadata=metadata.get(level, {}))
        for level in ("client", "tracker")
    )
    with metadata_context(metadata.get("context", {})):
        if "context" in customers:
            set_customer_context(customers["context"])
        return Request(headers, extension or None, defaults=client.over(tracker))


@given(st.sets(st.sampled_from(LEVELS)), st.sets(st.sampled_from(LEVELS)))
def test_the_nearest_level_names_the_customer_and_metadata_merges(
    naming: set[str], labelling: set[str]
) -> None:
    """Header, extension, context, client, tracker: whichever of them say anything, in this order."""
    nearest_first = [level for level in LEVELS if level in naming]
    request = request_with(
        {level: level for level in naming},
        {level: {"nearest": level, f"of {level}": 1} for level in labelling},
    )
    assert request.customer == next(iter(nearest_first), None)
    expected: dict[str, Any] = {f"of {level}": 1 for level in labelling}
    if labelling:
        expected["nearest"] = next(level for level in LEVELS if level in labelling)
    assert request.metadata == expected
    assert request.counted == []


@pytest.mark.parametrize("level", ["extension", "context"])
def test_an_explicit_none_stops_the_search(level: str) -> None:
    """`None` in an extension or a context is no customer, not an invitation to defaults."""
    assert request_with({level: None, "client": "client", "tracker": "tracker"}, {}).customer is None
    assert request_with({level: None, "header": "header"}, {}).customer == "header"


def test_metadata_given_with_a_context_labels_its_customer_only() -> None:
    """A request that names another customer has the ambient metadata, not that of the context's customer."""
    with metadata_context({"env": "live"}), customer_context("acme", metadata={"plan": "pro"}):
        assert Request(tracking_headers("beta")).metadata == {"env": "live"}
        assert Request(extension={"customer_id": None}).metadata == {"env": "live"}
        assert Request(tracking_headers("acme")).metadata == {"env": "live", "plan": "pro"}
        assert Request(tracking_headers(metadata={"a": 1})).metadata == {"env": "live", "plan": "pro", "a": 1}


def test_a_request_can_be_excluded_at_every_level_and_the_nearest_counts() -> None:
    """Header over extension over context."""
    off = tracking_headers(track=False)
    assert Request(off, {"track": True}).result.track is False
    assert Request(extension={"track": False}).result.track is False
    with no_tracking():
        assert Request().result.track is False
        assert Request(tracking_headers("acme")).result.track is False
        assert Request(extension={"track": True}).result.track is True


LARGE = "x" * (METADATA_LIMIT * 3 // 4)


@pytest.mark.parametrize(
    ("labelled", "kept"),
    [
        (("header", "tracker"), ["header"]),
        (("extension", "context"), ["extension"]),
        (("context", "client"), ["context"]),
        (("context", "tracker"), ["context"]),
        (("client", "tracker"), ["client"]),
    ],
)
def test_metadata_that_does_not_fit_together_is_counted_and_the_farthest_is_left_out(
    labelled: tuple[str, ...], kept: list[str]
) -> None:
    """The customer is never lost to the size of metadata."""
    request = request_with({"tracker": "acme"}, {level: {level: LARGE} for level in labelled})
    assert request.customer == "acme"
    assert request.metadata == dict.fromkeys(kept, LARGE)
    assert request.counted == ["metadata_truncated"]


def test_contexts_that_do_not_fit_together_are_counted_with_each_request() -> None:
    """What the contexts themselves left out is a loss of each request made there."""
    with metadata_context({"far": LARGE}), metadata_context({"near": LARGE}):
        for headers in ({}, tracking_headers("acme")):
            request = Request(headers)
            assert request.metadata == {"near": LARGE}
            assert request.counted == ["metadata_truncated"]


def test_the_common_cases_share_the_metadata_that_was_merged_before() -> None:
    """Nothing is copied for a request that says nothing itself."""
    defaults = Defaults(customer="acme", metadata={"a": 1})
    assert Request(defaults=defaults).metadata is defaults.metadata
    with customer_context("beta", metadata={"b": 1}):
        assert Request().metadata is current().metadata


@pytest.mark.parametrize("wrong", [{"customer": ""}, {"customer": 42}, {"metadata": {"a": object()}}])
def test_wrong_defaults_are_an_error_where_they_are_made(wrong: dict[str, Any]) -> None:
    """A client or tracker with a wrong customer or metadata is not made."""
    with pytest.raises(AttributionError):
        Defaults(**wrong)


def test_defaults_and_attributions_can_be_compared_and_pickled() -> None:
    """Clients that carry defaults are copied, pickled and compared by them."""
    defaults = Defaults(customer="acme", metadata={"a": [1]})
    assert pickle.loads(pickle.dumps(defaults)) == defaults
    assert defaults != Defaults(customer="acme")
    assert Request(defaults=defaults).result == Attribution("acme", {"a": [1]}, track=True)
