"""A host that does not know the option by which usage is asked for is asked no more, and nobody notices."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from asking_hosts import (
    ASKS,
    KNOWN,
    UNKNOWN_OPTION,
    Server,
    answers,
    asking_at,
    over_network,
    read_of,
    seen,
)
from four_ways import EVERY, FOUR, App, Script, Wait, World, run

from cmdrdata_transport.demo.loopback import Answer

four_ways = pytest.mark.parametrize("world", FOUR, ids=str)

REFUSALS = {
    "400": Answer(status=400, body=UNKNOWN_OPTION),
    "400 in a coding": Answer(status=400, body=UNKNOWN_OPTION, coding="gzip"),
    "400 in pieces": Answer(status=400, body=[UNKNOWN_OPTION[:30], UNKNOWN_OPTION[30:]]),
    "400 cut off": Answer(status=400, body=[UNKNOWN_OPTION, b" "], close_after=1),
    "422": Answer(status=422, body=b'{"detail":[{"loc":["body","stream_options","include_usage"]}]}'),
}


@four_ways
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_host_that_refuses_is_not_asked_again(world: World, refusal: Answer) -> None:
    """The request is sent again as it was; the application sees that answer; the host is remembered."""

    async def twice(app: App) -> None:
        for _ in range(2):
            await asking_at(KNOWN)(app)

    server = Server(refusing=refusal)
    done = over_network(server, world, twice)
    assert [b"include_usage" in call.body for call in server.calls] == [True, False, False]
    assert server.calls[1].body == server.calls[2].body == json.dumps(ASKS, separators=(",", ":")).encode()
    assert seen(done) == ["app: 200", answers(asked=False)] * 2
    assert [event["usage_status"] for event in done.events] == ["missing", "missing"]
    assert (done.stats["injected"], done.stats["injections_refused"]) == (1, 1)


@four_ways
def test_two_calls_at_once_are_both_sent_again(world: World) -> None:
    """Neither sees the other's refusal, nor its own."""

    async def both(app: App) -> None:
        await app.together(*[lambda: asking_at(KNOWN)(app)] * 2)

    server = Server(refusing=REFUSALS["400"])
    done = over_network(server, world, both)
    assert [line for line in done.log if isinstance(line, list)] == [answers(asked=False)] * 2
    assert {event["status_code"] for event in done.events} == {200}


@four_ways
def test_one_host_that_refuses_does_not_speak_for_others(world: World) -> None:
    """Another host is asked all the same."""

    async def here_and_there(app: App) -> None:
        await asking_at(KNOWN)(app)
        server.refusing = None
        await asking_at(KNOWN.replace("api.", "eu.api."))(app)

    server = Server(refusing=REFUSALS["400"])
    over_network(server, world, here_and_there)
    assert [b"include_usage" in call.body for call in server.calls] == [True, False, True]


@four_ways
def test_a_refusal_of_both_is_shown_and_not_remembered(world: World) -> None:
    """A server that repeats the request in its error names our option, and did not refuse it."""
    server = Server(always=Answer(status=422, body=b'{"input":{"stream_options":{}},"msg":"temperature"}'))
    done = over_network(server, world, asking_at(KNOWN))
    assert [b"include_usage" in call.body for call in server.calls] == [True, False]
    assert done.log[-2:] == ["app: 422", [b'{"input":{"stream_options":{}},"msg":"temperature"}']]
    assert "injections_refused" not in done.stats


OTHER_REFUSALS = {
    "400": Answer(status=400, body=[b'{"error":', b'"bad"}']),
    "400, empty": Answer(status=400, body=b""),
    "400 in a coding": Answer(status=400, body=[b'{"error":', b'"bad"}'], coding="gzip"),
    "400, large": Answer(status=400, body=[b"x" * 40_000] * 3 + [UNKNOWN_OPTION]),
    "400, damaged": Answer(status=400, headers=[("content-encoding", "gzip")], body=[b"no", b"gzip"]),
    "401 that names it": Answer(status=401, body=UNKNOWN_OPTION),
    "500 that names it": Answer(status=500, body=UNKNOWN_OPTION),
}


@four_ways
@pytest.mark.parametrize("refusal", OTHER_REFUSALS.values(), ids=OTHER_REFUSALS)
def test_other_refusals_are_the_applications(world: World, refusal: Answer) -> None:
    """The same head, the same bytes, one request."""
    logs = []
    for tracked in (False, True):
        server = Server(always=refusal)
        done = over_network(server, world, asking_at(KNOWN), tracked=tracked)
        assert len(server.calls) == 1
        logs.append([*done.log[:-1], b"".join(read_of(done))])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("world", EVERY, ids=str)
@pytest.mark.parametrize("broken", [True, False], ids=["lost", "whole"])
def test_a_refusal_comes_up_in_the_same_chunks(world: World, broken: bool) -> None:  # noqa: FBT001
    """Each chunk, and the error that a lost connection is, come as from below, if a little later."""
    runs = []
    for tracked in (False, True):
        read: list[bytes] = []

        async def act(app: App, read: list[bytes] = read) -> None:
            response = await app.send()
            async for chunk in app.chunks(response):
                read.append(chunk)  # noqa: PERF401 - what came before an error counts

        error = [world.library.ReadError("the network's own")] if broken else []
        script = Script(status=400, body=[b"a", b"b", *error], headers=[])
        done = run(act, world, script, asks=ASKS, tracked=tracked)
        runs.append((read, sorted(done.log), repr(done.raised)))
    assert runs[0] == runs[1]
    assert runs[0][0] == [b"a", b"b"]


@pytest.mark.parametrize("world", [world for world in EVERY if world.way.is_async], ids=str)
def test_a_call_that_is_given_up_while_a_refusal_is_read_leaves_nothing_open(world: World) -> None:
    """A task that is cancelled then closes the answer that nobody has seen."""

    async def act(app: App) -> None:
        async def asking(now: Callable[[], None]) -> None:
            now()
            await app.send()

        await app.give_up_on(asking)
        await app.turn()

    done = run(act, world, Script(status=400, body=[b"a", Wait()], headers=[]), asks=ASKS)
    assert "stream: close" in done.log
    assert [event["outcome"] for event in done.events] == ["cancelled"]
