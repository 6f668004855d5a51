"""The words of the provider tables, read by the interpreter: what each adds, and when it adds nothing."""

from __future__ import annotations

from decimal import Context, Inexact, Rounded, localcontext
from typing import Any

import pytest

from cmdrdata_transport.providers.openai import CHAT_UNITS
from cmdrdata_transport.providers.reading import Answer, pick, read_headers
from cmdrdata_transport.providers.table import (
    EVERY,
    Apart,
    Aside,
    Each,
    Items,
    Job,
    Length,
    One,
    Parts,
    Same,
    Scaled,
    Shape,
    Stream,
)


def counts(shape: Shape, usage: dict[str, Any]) -> dict[str, Any]:
    """The counts of an answer with this usage object, of which none is spoiled."""
    answer = Answer(shape)
    answer.absorb({"usage": usage})
    spoiled: list[str] = []
    (only,) = answer.parts(spoiled.append)
    assert spoiled == []
    return dict(only.counts)


APART = Shape(api="test", operation="chat", usage=(("usage",),), units=CHAT_UNITS, apart=Apart())


@pytest.mark.parametrize(
    ("total", "reasoning", "output"),
    [
        pytest.param(130, 100, 120, id="left out"),
        pytest.param(30, 15, 20, id="part of it"),
        pytest.param(30, 0, 20, id="none"),
        pytest.param(31, 15, 20, id="another total"),
        pytest.param(None, 100, 20, id="no total"),
        pytest.param("130", 100, 20, id="no number"),
        pytest.param(130, None, 20, id="no part"),
    ],
)
def test_a_part_is_added_where_the_total_says_that_it_was_left_out(
    total: object, reasoning: int | None, output: int
) -> None:
    """Reasoning joins the output if and only if input, output and it make up the stated total."""
    said = counts(
        APART,
        {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        },
    )
    assert said["output_tokens"] == output
    assert said["total_tokens"] == 10 + output
    assert said.get("output_reasoning_tokens") == reasoning


def test_a_part_does_not_make_a_whole() -> None:
    """Where no output was stated, reasoning alone is not taken for it."""
    usage = {
        "prompt_tokens": 10,
        "total_tokens": 15,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert counts(APART, usage) == {
        "input_tokens": 10,
        "output_reasoning_tokens": 5,
        "total_tokens": 10,
    }


def shape_of(**words: Any) -> Shape:
    """A shape that needs these words alone."""
    return Shape(**{"api": "test", "operation": "chat", "usage": (("usage",),), "units": {}, **words})


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"old": 3}, {"cache_read_tokens": 3}),
        ({"new": 3, "old": None}, {"cache_read_tokens": 3}),
        ({"new": 3, "old": 3}, {"cache_read_tokens": 3}),
        ({"new": None}, {}),
    ],
)
def test_a_count_that_is_said_twice_counts_once(usage: dict[str, Any], expected: dict[str, int]) -> None:
    """Two names of the same count, alone or together, say it once."""
    units = {"old": Same(unit="cache_read_tokens"), "new": Same(unit="cache_read_tokens")}
    assert counts(shape_of(units=units), usage) == expected


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        pytest.param(1234, 1.234, id="whole"),
        pytest.param(0, 0.0, id="none"),
        pytest.param("90001", 90.001, id="in digits"),
        pytest.param(2.5, 0.0025, id="fraction"),
    ],
)
def test_a_count_in_a_smaller_measure_is_turned_into_the_unit(said: Any, seconds: float) -> None:
    """Milliseconds give the number of seconds that is nearest to them, from a body or a header."""
    rule = Scaled(unit="audio_seconds", per=1000)
    assert counts(shape_of(units={"ms": rule}), {"ms": said}) == {"audio_seconds": seconds}
    assert read_headers({b"x-ms": rule}, {b"x-ms": str(said).encode()}) == {"audio_seconds": seconds}


@pytest.mark.parametrize("said", [-1, True, "long", 2**70, [3]])
def test_what_is_no_count_in_a_smaller_measure_is_none_in_the_unit(said: Any) -> None:
    """It is left out and reported."""
    answer = Answer(shape_of(units={"ms": Scaled(unit="audio_seconds", per=1000)}))
    answer.absorb({"usage": {"ms": said}})
    spoiled: list[str] = []
    (only,) = answer.parts(spoiled.append)
    assert (only.counts, spoiled) == ({}, ["audio_seconds"])


def test_counts_among_content_are_kept_without_it() -> None:
    """Where the counts stand at the root, the raw usage has them and nothing that stands beside them."""
    shape = shape_of(
        usage=(("usage",), ()), units={"eval_count": "output_tokens", "texts": Items(tree={"n": "images"})}
    )
    answer = Answer(shape)
    answer.absorb({"message": "content", "eval_count": 3, "texts": [{"n": 1, "text": "content"}]})
    (only,) = answer.parts(lambda _: None)
    assert (only.counts, only.raw) == (
        {"output_tokens": 3, "images": 1, "total_tokens": 3},
        {"eval_count": 3, "texts": [{"n": 1}]},
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"x-in": b"4", b"x-cached": b" 100 "}, {"input_tokens": 104, "cache_read_tokens": 100}),
        ({b"x-in": b"4"}, {"input_tokens": 4}),
        ({b"x-in": b"-1", b"x-cached": b"many"}, {}),
    ],
)
def test_a_header_counts_towards_every_unit_it_names(
    headers: dict[bytes, bytes], expected: dict[str, int]
) -> None:
    """Headers are read as counts are; what is no count is as good as absent."""
    units: dict[bytes, str | tuple[str, ...]] = {
        b"x-in": "input_tokens",
        b"x-cached": ("input_tokens", "cache_read_tokens"),
    }
    read = read_headers(units, headers)
    assert {name: count for name, count in read.items() if name != "total_tokens"} == expected


def test_a_header_adds_to_what_the_body_states() -> None:
    """The body's count wins over a header's, and without any header there is nothing to add."""
    units: dict[bytes, str | tuple[str, ...]] = {b"x-in": "input_tokens", b"x-out": "output_tokens"}
    body = {"output_tokens": 7, "total_tokens": 7}
    assert read_headers(units, {b"x-in": b"4"}, body) == {
        "input_tokens": 4,
        "output_tokens": 7,
        "total_tokens": 11,
    }
    assert read_headers(units, {b"x-out": b"8"}, body) == body
    assert read_headers(units, {}, body) == {}


# --- counts -----------------------------------------------------------------------------------------


def answer_of(shape: Shape, *newest_first: Any) -> Answer:
    """What is known after these documents."""
    answer = Answer(shape)
    for document in newest_first:
        answer.absorb(document)
    return answer


@pytest.mark.parametrize(
    ("units", "usage", "expected"),
    [
        pytest.param({"a": "images"}, {"a": 3, "b": 9}, {"images": 3}, id="a name"),
        pytest.param({"a": "images"}, {}, {}, id="nothing said"),
        pytest.param({"a": "images"}, {"a": None}, {}, id="null"),
        pytest.param({"a": "images"}, {"a": 0}, {"images": 0}, id="zero"),
        pytest.param({"a": {"b": {"c": "images"}}}, {"a": {"b": {"c": 1}}}, {"images": 1}, id="below"),
        pytest.param({"a": {"b": "images"}}, {"a": [{"b": 1}]}, {}, id="no object"),
        pytest.param({"a": "images", "b": "images"}, {"a": 1, "b": 2}, {"images": 3}, id="a sum"),
        pytest.param(
            {"a": Items(tree={"b": One(unit="images"), "c": One(unit="images")})},
            {"a": [{"b": "x"}, {"c": [1]}, {"d": 1}, {"b": None}, 7]},
            {"images": 2},
            id="what is there",
        ),
        pytest.param({"a": "images", "b": {"c": "images"}}, {"b": {"c": 2}, "a": 1}, {"images": 3}, id="far"),
        pytest.param({"a": ("images", "videos")}, {"a": 2}, {"images": 2, "videos": 2}, id="two units"),
        pytest.param(
            {"all": "output_tokens", "in": ("input_tokens", "-output_tokens")},
            {"all": 10, "in": 4},
            {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10},
            id="a difference",
        ),
        pytest.param(
            {"all": "output_tokens", "in": ("input_tokens", "-output_tokens")},
            {"in": 4, "all": 10},
            {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10},
            id="the other way round",
        ),
        pytest.param({"a": "audio_seconds"}, {"a": 1.5}, {"audio_seconds": 1.5}, id="a fraction"),
        pytest.param({"a": "audio_seconds"}, {"a": "1.50"}, {"audio_seconds": 1.5}, id="a written fraction"),
        pytest.param({"a": "audio_seconds"}, {"a": 2}, {"audio_seconds": 2}, id="whole seconds"),
        pytest.param({"a": Length(unit="images")}, {"a": [None, {}]}, {"images": 2}, id="a length"),
        pytest.param({"a": Length(unit="images")}, {"a": []}, {"images": 0}, id="no length"),
        pytest.param({"a": Length(unit="images")}, {"a": "text"}, {"images": 4}, id="a text's"),
        pytest.param({"a": Length(unit="images")}, {"a": {"b": 1}}, {}, id="an object has none"),
        pytest.param(
            {"a": Items(tree={"n": "images"})}, {"a": [{"n": 1}, 7, {"n": 2}, {}]}, {"images": 3}, id="items"
        ),
        pytest.param({"a": Items(tree={"n": "images"})}, {"a": {"n": 1}}, {}, id="no items"),
        pytest.param(
            {"a": Each(key="k", value="n", into={"T": "input_text_tokens", "A": "input_audio_tokens"})},
            {"a": [{"k": "A", "n": 1}, {"k": "T", "n": 2}, {"k": "A", "n": 3}, {"k": "X", "n": 4}, 6]},
            {"input_text_tokens": 2, "input_audio_tokens": 4},
            id="each by its kind",
        ),
        pytest.param(
            {"a": Each(key="k", value="n", into={"T": "images"})},
            {"a": [{"k": ["T"], "n": 1}, {"n": 5}]},
            {},
            id="no kind",
        ),
        pytest.param({"a": "input_tokens"}, {"a": 3}, {"input_tokens": 3, "total_tokens": 3}, id="input"),
    ],
)  # fmt: skip
def test_units_are_read_as_the_tree_says(
    units: dict[str, Any], usage: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A name, a tree below, a sum, a difference, several units, lists of three kinds."""
    (part,) = answer_of(shape_of(units={"x": "web_searches", **units}), {"usage": {"x": 1, **usage}}).parts(
        pytest.fail
    )
    assert part.counts == {"web_searches": 1, **expected}
    assert all(type(part.counts[unit]) is type(count) for unit, count in expected.items())


@pytest.mark.parametrize(
    ("usage", "expected", "spoiled"),
    [
        ({"a": "x", "b": 2, "out": 1}, {"output_tokens": 1}, ["input_tokens"]),
        ({"a": 1, "b": -2, "out": 1}, {"output_tokens": 1}, ["input_tokens"]),
        ({"a": 1, "b": True, "out": [3]}, {}, ["input_tokens", "output_tokens"]),
        ({"a": 1, "more": {"c": 1.5}}, {"input_tokens": 1, "total_tokens": 1}, ["images"]),
        ({"a": 3, "rest": 5, "out": 1}, {"input_tokens": 3}, ["output_tokens"]),
    ],
)  # fmt: skip
def test_what_is_no_count_spoils_the_sum_that_it_is_a_part_of(
    usage: dict[str, Any], expected: dict[str, int], spoiled: list[str]
) -> None:
    """A sum is as little known as its parts, and is nothing below zero; each is told."""
    shape = shape_of(
        units={
            "a": "input_tokens",
            "b": "input_tokens",
            "out": "output_tokens",
            "rest": "-output_tokens",
            "more": {"c": "images"},
        },
        needs={"output_tokens": frozenset({"out"})},
    )
    told: list[str] = []
    (part,) = answer_of(shape, {"usage": usage}).parts(told.append)
    assert part.counts == expected
    assert sorted(told) == spoiled


def test_a_unit_that_needs_a_key_is_absent_without_it() -> None:
    """Cache reads alone are not all input."""
    shape = shape_of(
        units={"fresh": "input_tokens", "cached": ("input_tokens", "cache_read_tokens")},
        needs={"input_tokens": frozenset({"fresh"})},
    )
    assert counts(shape, {"cached": 3}) == {"cache_read_tokens": 3}
    assert counts(shape, {"cached": 3, "fresh": None}) == {"cache_read_tokens": 3}
    assert counts(shape, {"cached": 3, "fresh": 0})["input_tokens"] == 3


def test_counts_beside_the_usage_object_and_lengths_of_content() -> None:
    """What stands beside is kept as it was said; what is content is counted, and not kept."""
    shape = shape_of(
        units={"a": "input_tokens"},
        beside={("tools",): {"n": "web_searches"}},
        lists={("content", 0): {"queries": Length(unit="web_fetches")}},
    )
    document = {"usage": {"a": 1}, "tools": {"n": 2, "x": 3}, "content": [{"queries": ["secret", "secret"]}]}
    (part,) = answer_of(shape, document).parts(pytest.fail)
    assert part.counts == {"input_tokens": 1, "web_searches": 2, "web_fetches": 2, "total_tokens": 1}
    assert part.raw == {"a": 1, "tools": {"n": 2, "x": 3}}


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        (0.5, "0.5"),
        (0, "0"),
        ("0.000012", "0.000012"),
        (1e-7, "0.0000001"),
        (3, "3"),
        (-1, None),
        (True, None),
        ("free", None),
        ("NaN", None),
        ("sNaN", None),
        ("1e999999", None),
        ("1e-999999", None),
        (1e300, None),
        (10**400, None),
        (float("inf"), None),
        ([1], None),
        (None, None),
    ],
    ids=lambda said: str(said)[:12],
)
def test_a_cost_is_told_as_it_was_written(said: Any, cost: str | None) -> None:
    """Exactly, in dollars; what cannot be a charge is none."""
    shape = shape_of(units={"a": "images"}, cost={("cost",): "1"})
    (part,) = answer_of(shape, {"usage": {"a": 1, "cost": said}}).parts(pytest.fail)
    assert part.cost == cost


@pytest.mark.parametrize("said", ["0.0012345678901", "1234567890.123456789012345678901234567"])
def test_a_cost_is_exact_however_the_application_reckons(said: str) -> None:
    """An application may have its numbers rounded to a few digits, and want an error where they are."""
    shape = shape_of(units={"a": "images"}, cost={("cost",): "1"})
    answer = answer_of(shape, {"usage": {"a": 1, "cost": said}})
    with localcontext(Context(prec=3, traps=[Inexact, Rounded])):
        (part,) = answer.parts(pytest.fail)
    assert part.cost == said


def test_a_cost_in_another_unit_is_turned_into_dollars() -> None:
    """The first place that states one counts."""
    shape = shape_of(units={"a": "images"}, cost={("total",): "1", ("ticks",): "0.0000000001"})
    (part,) = answer_of(shape, {"usage": {"a": 1, "ticks": 12345}}).parts(pytest.fail)
    assert part.cost == "0.0000012345"


# --- parts ------------------------------------------------------------------------------------------

PARTS = shape_of(
    units={"in": "input_tokens", "out": "output_tokens"},
    parts=Parts(at="steps", kind="kind", outside=frozenset({"extra"}), inside=frozenset({"step"})),
)


def split(*steps: Any) -> tuple[list[dict[str, Any]], list[str | None], list[Any]]:
    """Counts, models and raw entries of an answer of the model `own` whose totals are 10 and 5."""
    usage = {"in": 10, "out": 5, "steps": list(steps)}
    parts = answer_of(PARTS, {"model": "own", "usage": usage}).parts(pytest.fail)
    return [dict(part.counts) for part in parts], [part.model for part in parts], [part.raw for part in parts]


def test_a_step_of_the_same_model_is_in_the_totals_or_is_added() -> None:
    """What is inside stays, what is outside joins; kinds that nobody knows change nothing."""
    steps = [
        {"kind": "step", "model": "own", "in": 4},
        {"kind": "extra", "in": 2, "out": 1},
        {"kind": "new", "model": "other", "in": 9},
        {"kind": ["extra"], "in": 9},
        {"kind": "extra", "model": {"name": "other"}, "out": 1},
        "extra",
    ]
    said, models, raw = split(*steps)
    assert said == [{"input_tokens": 12, "output_tokens": 7, "total_tokens": 19}]
    assert models == [None]
    assert raw == [{"in": 10, "out": 5, "steps": steps}]


def test_a_step_of_another_model_is_a_part_of_its_own() -> None:
    """It leaves the totals if it was in them, and takes its raw entry along."""
    inside = {"kind": "step", "model": "other", "in": 4, "out": 2}
    outside = {"kind": "extra", "model": "third", "in": 100}
    said, models, raw = split(inside, outside)
    assert said == [
        {"input_tokens": 6, "output_tokens": 3, "total_tokens": 9},
        {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6},
        {"input_tokens": 100, "total_tokens": 100},
    ]
    assert models == [None, "other", "third"]
    assert raw == [{"in": 10, "out": 5, "steps": []}, inside, outside]


def test_a_step_that_says_more_than_the_totals_leaves_nothing() -> None:
    """There is no count below zero."""
    said, _, _ = split({"kind": "step", "model": "other", "in": 11})
    assert said[0] == {"input_tokens": 0, "output_tokens": 5, "total_tokens": 5}


# --- what newer and older documents say -------------------------------------------------------------

NEWEST = shape_of(units={"a": "input_tokens", "b": "images"}, finish_reason=(("finish",),), stream=Stream())
OVERLAY = shape_of(
    usage=(("usage",), ("start", "usage")),
    units={"a": "input_tokens", "b": "images"},
    stream=Stream(overlay=True, placeholders={("start", "usage"): frozenset({"b"})}),
)


@pytest.mark.parametrize("stretches", [1, 2])
@pytest.mark.parametrize(
    ("shape", "documents", "expected"),
    [
        (NEWEST, [{"usage": {"a": 3}}, {"usage": {"a": 1, "b": 2}}], {"a": 3}),
        (NEWEST, [{"usage": None}, {"usage": {"x": 1}}, {"usage": {"a": 1}}], {"a": 1}),
        (OVERLAY, [{"usage": {"a": 3, "b": None}}, {"usage": {"a": 1, "b": 2}}], {"a": 3, "b": 2}),
        (OVERLAY, [{"usage": {"a": 3}}, {"start": {"usage": {"a": 1, "b": 2, "c": 3}}}], {"a": 3, "c": 3}),
        (OVERLAY, [{"x": 1}, {"start": {"usage": {"a": 1, "b": 2}}}], {"a": 1}),
    ],
)
def test_a_newer_usage_object_replaces_an_older_one_or_lies_over_it(
    shape: Shape, documents: list[Any], expected: dict[str, int], stretches: int
) -> None:
    """Whole, or field by field, without what the provider fills in before it knows; in one stretch or two."""
    answer = answer_of(shape, *documents[: len(documents) // stretches])
    answer.absorb_older(answer_of(shape, *documents[len(documents) // stretches :]))
    assert answer.usage == expected


def test_the_newest_word_on_each_fact_counts() -> None:
    """Ids, models, reasons, tiers, details, what stands beside: from the newest document that says it."""
    shape = shape_of(
        units={"a": "images"},
        finish_reason=(("delta", "finish"), ("finish",)),
        service_tier=(("tier",),),
        details={"speed": (("speed",),)},
        beside={("tools",): {"n": "web_searches"}},
        pending={("status",): frozenset({"queued"})},
        stream=Stream(ends=frozenset({"end"})),
    )
    old = {
        "id": "1",
        "model": "m",
        "finish": "old",
        "tier": "t",
        "speed": "slow",
        "tools": {"n": 1},
        "status": "queued",
    }
    new = {
        "id": None,
        "model": "",
        "delta": {"finish": "new"},
        "speed": "fast",
        "status": "done",
        "type": "end",
    }
    for answer in (answer_of(shape, new, old), answer_of(shape, new)):
        answer.absorb_older(answer_of(shape, old))
        assert answer.found == {"response_id": "1", "model": "m", "finish_reason": "new", "service_tier": "t"}
        assert dict(answer.details) == {"speed": "fast"}
        assert dict(answer.objects) == {("tools",): {"n": 1}}
        assert answer.pending is False
        assert answer.ended


@pytest.mark.parametrize(
    ("value", "found"),
    [("x" * 600, "x" * 512), (7, "7"), (True, None), (1.5, None), (["x"], None), ({}, None)],
)
def test_a_name_is_text_or_a_number(value: Any, found: str | None) -> None:
    """Google numbers its reasons for some clients; what is long is cut."""
    assert answer_of(shape_of(finish_reason=(("f",),)), {"f": value}).found.get("finish_reason") == found


def test_an_answer_that_waits_says_so() -> None:
    """Only the values that the table names."""
    shape = shape_of(pending={("status",): frozenset({"queued"})})
    assert answer_of(shape, {"status": "queued"}).pending is True
    for other in ({"status": "done"}, {"status": ["queued"]}, {"status": 1}):
        assert answer_of(shape, other).pending is False
    assert answer_of(shape, {}).pending is None


def test_an_answer_waits_where_there_is_anything_at_a_place() -> None:
    """Where the table names no values, any value says so, and its absence nothing."""
    shape = shape_of(pending={("request_id",): frozenset()})
    assert answer_of(shape, {"request_id": "r"}).pending is True
    assert answer_of(shape, {"request_id": None, "metadata": {}}).pending is None


def test_of_several_words_on_waiting_the_last_one_counts() -> None:
    """A name that was given to what is to come stays when it is there; what it says of itself is newer."""
    shape = shape_of(pending={("request_id",): frozenset(), ("status",): frozenset({"pending"})})
    assert answer_of(shape, {"request_id": "r", "status": "pending"}).pending is True
    assert answer_of(shape, {"request_id": "r", "status": "done"}).pending is False


def test_what_is_free_has_no_usage() -> None:
    """Whatever it states, whether it can be asked for again or not."""
    for job in (None, Job()):
        shape = shape_of(units={"a": "images"}, free={("status",): frozenset({"failed"})}, job=job)
        free = answer_of(shape, {"id": "x", "status": "failed", "usage": {"a": 1}})
        assert (free.free, free.parts(lambda _: None)[0].counts) == (True, {})
        assert answer_of(shape, {"id": "x", "status": "done", "usage": {"a": 1}}).free is False


def test_of_what_a_stream_speaks_only_the_answer_is_read() -> None:
    """A step's usage, its id and its status are none of the run's."""
    shape = shape_of(units={"a": "images"}, only={("object",): frozenset({"run"}), ("error",): frozenset()})
    step = {"object": "step", "id": "step_1", "usage": {"a": 9}}
    run = {"object": "run", "id": "run_1", "usage": {"a": 1}}
    read = answer_of(shape, step, run, {"object": ["run"], "id": "x"})
    assert (read.usage, read.found["response_id"]) == ({"a": 1}, "run_1")
    assert answer_of(shape, {"error": {"code": "c"}}).errors == {"error_code": "c"}


TOOLS = shape_of(
    units={"a": "images"},
    asides=(
        Aside(
            at=(("tool",), ("answer", "tool")),
            operation="image",
            units={"in": "input_tokens"},
            answer_model=(("tools", EVERY, "model"),),
        ),
        Aside(
            at=(("output", EVERY, "drawn"),),
            operation="speech",
            units={"out": "output_tokens"},
            model=(("by",),),
        ),
    ),
)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            {"tool": {"in": 5}}, [("image", None, {"input_tokens": 5, "total_tokens": 5})], id="one"
        ),
        pytest.param(
            {"answer": {"tool": {"in": 5}}, "tools": [{"type": "x"}, {"model": "m"}, {"model": "n"}]},
            [("image", "m", {"input_tokens": 5, "total_tokens": 5})],
            id="a model of the answer's tools",
        ),
        pytest.param(
            {"output": [{"drawn": {"out": 1, "by": "m"}}, {"drawn": None}, {}, {"drawn": {"out": 2}}]},
            [
                ("speech", "m", {"output_tokens": 1, "total_tokens": 1}),
                ("speech", None, {"output_tokens": 2, "total_tokens": 2}),
            ],
            id="in a list",
        ),
        pytest.param({"tool": {"in": 0}}, [], id="idle"),
        pytest.param({"tool": {}}, [], id="nothing said"),
        pytest.param({"tool": [1], "output": {"drawn": 1}, "tools": "m"}, [], id="something else"),
        pytest.param({"tool": {"in": -1}}, [], id="no count"),
    ],
)
def test_what_a_tool_used_is_a_part_of_its_own(document: dict[str, Any], expected: list[Any]) -> None:
    """Its counts are never among the answer's, and it never has the answer's model."""
    answer = answer_of(TOOLS, {"model": "talks", "usage": {"a": 3}, **document})
    first, *others = answer.parts(lambda _: None)
    assert first.counts == {"images": 3}
    assert [(each.operation, each.model, each.counts) for each in others] == expected


def test_the_newest_word_on_tools_counts() -> None:
    """Older events of a stream say it again, and an older stretch of it adds nothing."""
    newest, older = {"tool": {"in": 5}}, {"tool": {"in": 4}}
    read = answer_of(TOOLS, newest, older)
    read.absorb_older(answer_of(TOOLS, older))
    assert [part.counts.get("input_tokens") for part in read.parts(lambda _: None)] == [None, 5]


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ({"error": {"type": "t", "code": "c", "message": "m"}},
         {"error_type": "t", "error_code": "c", "error_message": "m"}),
        ({"error": {"status": "T", "code": 429}}, {"error_type": "T", "error_code": "429"}),
        ({"error": "text"}, {"error_message": "text"}),
        ({"type": "error", "code": "c", "message": "m"}, {"error_code": "c", "error_message": "m"}),
        ({"type": "error", "error": {"type": "t"}}, {"error_type": "t"}),
        ({"error": {}}, {}),
        ({"error": [1]}, {}),
    ],
)  # fmt: skip
def test_an_answer_that_says_that_it_failed(document: dict[str, Any], errors: dict[str, str]) -> None:
    """Wherever the providers say it; an error that says nothing is one all the same."""
    answer = answer_of(shape_of(), document)
    assert answer.failed
    assert dict(answer.errors) == errors


def test_an_error_of_null_is_none() -> None:
    """Every good answer of the Responses API carries one."""
    answer = answer_of(shape_of(), {"error": None, "type": "response"})
    assert not answer.failed
    assert not answer.errors


def test_when_nothing_older_can_matter() -> None:
    """When usage and reason are there; never, where usage objects lie over each other."""
    assert not answer_of(NEWEST, {"usage": {"a": 1}}).satisfied()
    assert not answer_of(NEWEST, {"finish": "stop"}).satisfied()
    assert answer_of(NEWEST, {"finish": "stop", "usage": {"a": 1}}).satisfied()
    assert not answer_of(OVERLAY, {"usage": {"a": 1, "b": 2}}).satisfied()


@pytest.mark.parametrize("document", [None, 7, "text", [], [{"usage": {"a": 1}}], True, float("nan")])
def test_what_is_no_object_says_nothing(document: Any) -> None:
    """Not even by accident."""
    answer = answer_of(NEWEST, document)
    assert (answer.usage, answer.found, answer.failed) == (None, {}, False)


@pytest.mark.parametrize(
    ("paths", "value"),
    [
        ((("a",),), 1),
        ((("b", 1, "c"),), 2),
        ((("b", 9, "c"), ("a",)), 1),
        ((("a", "x"), ("b", "x"), ("n",), ("e",), ("z",)), 0),
        ((("b", "0"),), None),
        (((),), {"a": 1, "b": [0, {"c": 2}], "n": None, "e": "", "z": 0}),
        ((), None),
    ],
)
def test_the_first_place_that_says_something_counts(paths: Any, value: Any) -> None:
    """Null and empty text say nothing; zero does."""
    assert pick({"a": 1, "b": [0, {"c": 2}], "n": None, "e": "", "z": 0}, paths) == value
