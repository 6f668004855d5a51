"""Providers of one's own: tables in Python and in TOML, used, and refused with the place that is wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cmdrdata_transport import Tracker, TrackingSetupError, tracked_http_client
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.openai import CHAT
from cmdrdata_transport.providers.table import Endpoint, Provider, Same, Shape
from cmdrdata_transport.testing import capture_usage

pytestmark = pytest.mark.usefixtures("one_certificate")

TOML = """
[[provider]]
id = "acme-llm"
hosts = ["llm.acme.example", "*.llm.acme.example"]
request_id = "x-acme-id"

[[provider.endpoint]]
path = "/v1/chat/completions$"
shape = "openai.chat_completions"

[[provider.endpoint]]
path = "/v1/generate$"
api = "acme.generate"
operation = "completion"
usage = ["meta.usage", "final.usage"]
model = "meta.model"
finish_reason = "why"
stream = { ends = "end", kind = "event" }

[provider.endpoint.units]
prompt = "input_tokens"
cached = ["input_tokens", "cache_read_tokens"]
generated = "output_tokens"
inner = { thinking = "output_reasoning_tokens" }
"""

GENERATED: dict[str, Any] = {
    "meta": {
        "model": "acme-7",
        "usage": {"prompt": 5, "cached": 3, "generated": 7, "inner": {"thinking": 2}},
    },
    "why": "done",
}

STREAMED = (
    b'data: {"event": "text", "text": "Grass"}\n\n'
    b'data: {"event": "end", "final": {"usage": {"prompt": 5, "generated": 7}}, "why": "done"}\n\n'
)


def call(tracker: Tracker, url: str, response: httpx.Response) -> dict[str, Any]:
    """The one event of a call that is answered so."""
    transport = TrackedTransport(httpx.MockTransport(lambda _: response), tracker=tracker, any_host=False)
    with capture_usage() as events, httpx.Client(transport=transport) as client:
        client.post(url, json={"model": "asked"})
    (event,) = events
    return event.to_dict()


def tracker_of(tmp_path: Path, text: str) -> Tracker:
    """A tracker with the providers of a TOML file."""
    file = tmp_path / "providers.toml"
    file.write_text(text, "utf-8")
    return Tracker([], home=tmp_path, providers=[file])


def test_a_provider_in_toml_is_metered_at_its_hosts(tmp_path: Path) -> None:
    """Its own shape is read by its own words: places, units, sums, ids."""
    answer = httpx.Response(200, json=GENERATED, headers={"x-acme-id": "r-1"})
    event = call(tracker_of(tmp_path, TOML), "https://eu.llm.acme.example/v1/generate", answer)
    expected = {
        "provider": "acme-llm",
        "api": "acme.generate",
        "operation": "completion",
        "model": "acme-7",
        "request_id": "r-1",
        "finish_reason": "done",
        "input_tokens": 8,
        "cache_read_tokens": 3,
        "output_tokens": 7,
        "output_reasoning_tokens": 2,
        "total_tokens": 15,
        "usage_status": "complete",
    }
    assert {name: event.get(name) for name in expected} == expected


def test_its_streams_end_as_it_says(tmp_path: Path) -> None:
    """The event that it names ends the stream, and usage is where it says."""
    answer = httpx.Response(200, content=STREAMED, headers={"content-type": "text/event-stream"})
    event = call(tracker_of(tmp_path, TOML), "https://llm.acme.example/v1/generate", answer)
    assert (event["usage_status"], event["total_tokens"], event["streaming"]) == ("complete", 12, True)


def test_a_shape_that_we_know_can_be_named(tmp_path: Path) -> None:
    """A server that speaks a known shape needs its hosts and paths only."""
    answer = httpx.Response(200, json={"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    event = call(tracker_of(tmp_path, TOML), "https://llm.acme.example/v1/chat/completions", answer)
    assert (event["provider"], event["api"], event["total_tokens"]) == (
        "acme-llm",
        "openai.chat_completions",
        3,
    )


def test_a_shape_is_that_of_whoever_made_it(tmp_path: Path) -> None:
    """Of a shape that others speak with less in it the first table's is meant: images have tokens."""
    text = TOML.replace('shape = "openai.chat_completions"', 'shape = "openai.images"')
    answer = httpx.Response(
        200, json={"data": [{"url": "x"}], "usage": {"input_tokens": 5, "output_tokens": 70}}
    )
    event = call(tracker_of(tmp_path, text), "https://llm.acme.example/v1/chat/completions", answer)
    assert (event["images"], event["total_tokens"]) == (1, 75)


def test_the_environment_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CMDRDATA_PROVIDERS` adds the tables of a TOML file."""
    (tmp_path / "own.toml").write_text(TOML, "utf-8")
    monkeypatch.setenv("CMDRDATA_PROVIDERS", str(tmp_path / "own.toml"))
    event = call(
        Tracker([], home=tmp_path),
        "https://llm.acme.example/v1/generate",
        httpx.Response(200, json=GENERATED),
    )
    assert event["provider"] == "acme-llm"


def test_a_table_in_python_comes_before_ours(tmp_path: Path) -> None:
    """Whoever writes a table for a host that we know has the last word."""
    own = Provider(
        id="my-openai",
        hosts=("api.openai.com",),
        endpoints=(Endpoint(path="/chat/completions$", shape=CHAT),),
    )
    answer = httpx.Response(200, json={"usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    event = call(
        Tracker([], home=tmp_path, providers=[own]), "https://api.openai.com/v1/chat/completions", answer
    )
    assert event["provider"] == "my-openai"


# --- whole journeys: a file, a client, a server that answers ---

ZOO = """
[[provider]]
id = "zoo"
hosts = ["127.0.0.1"]
under = "/zoo/"
request_id = "X-Zoo-Id"
service_tier = "x-zoo-tier"

[[provider.endpoint]]
path = "/counted-by-headers$"
api = "zoo.headers"
operation = "completion"
headers = { X-Tokens-In = ["input_tokens", "input_text_tokens"], x-tokens-out = "output_tokens" }

[[provider.endpoint]]
path = "/speak$"
api = "zoo.speak"
operation = "speech"
request = { text = "length of input_characters" }
request_model = "voice.model"
request_details = { voice = ["voice.name", "name"] }

[[provider.endpoint]]
path = "/charged$"
api = "zoo.charged"
operation = "search"
units = { tokens = "input_tokens" }
cost = "charge.total"

[[provider.endpoint]]
path = "/charged-in-cents$"
api = "zoo.cents"
operation = "search"
units = { tokens = "input_tokens" }
cost = { cents = "0.01" }

[[provider.endpoint]]
path = "/paint$"
api = "zoo.paint"
operation = "image"
query_model = "with"
lists = { "pictures.done" = "images" }
details = { size = "pictures.size" }
service_tier = "tier"

[[provider.endpoint]]
path = "/steps$"
api = "zoo.steps"
operation = "agent"
usage = "."
response_id = []

[provider.endpoint.units]
steps = [{ read = "input_tokens", wrote = "output_tokens" }]

[provider.endpoint.beside."tools.used"]
searches = "web_searches"

[[provider.endpoint]]
path = "/think$"
api = "zoo.think"
operation = "chat"
units = { in = "input_tokens", out = "output_tokens", thought = "output_reasoning_tokens" }
apart = { total = "all" }
needs = { input_tokens = ["in", "cached"] }

[[provider.endpoint]]
path = "/think-aloud$"
api = "zoo.think_aloud"
operation = "chat"
units = { in = "input_tokens", out = "output_tokens", thought = "output_reasoning_tokens" }
apart = true

[[provider.endpoint]]
path = "/jobs$"
api = "zoo.jobs"
operation = "prediction"
units = { seconds = "compute_seconds" }
pending = { state = ["queued", "running"] }

[[provider.endpoint]]
path = "/told$"
method = "put"
api = "zoo.told"
operation = "chat"
units = { tokens = ["input_tokens"] }
error = "failure"
finish_reason = ["choices.0.why", "why"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A call of the zoo: what is asked, what is answered, what the event must say, what it must not."""

    target: str
    answer: Any
    says: Mapping[str, Any]
    asked: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"
    not_said: frozenset[str] = field(default_factory=frozenset[str])


JOURNEYS = (
    Journey(
        target="/counted-by-headers",
        answer={"text": "Grass"},
        headers=(("x-tokens-in", "12"), ("X-Tokens-Out", "3"), ("x-zoo-id", "r-1"), ("x-zoo-tier", "fast")),
        says={
            "provider": "zoo",
            "usage_source": "header",
            "input_tokens": 12,
            "input_text_tokens": 12,
            "output_tokens": 3,
            "total_tokens": 15,
            "request_id": "r-1",
            "service_tier": "fast",
        },
    ),
    Journey(
        target="/speak",
        asked={"text": "Hello, wombat", "voice": {"name": "keeper", "model": "v2"}},
        answer={"audio": "UklGRg=="},
        says={
            "usage_source": "request",
            "input_characters": 13,
            "request_model": "v2",
            "details": {"voice": "keeper"},
        },
        not_said=frozenset({"input_tokens"}),
    ),
    Journey(
        target="/charged",
        answer={"usage": {"tokens": 5, "charge": {"total": 0.0015}}},
        says={"input_tokens": 5, "provider_cost": "0.0015"},
    ),
    Journey(
        target="/charged-in-cents",
        answer={"usage": {"tokens": 5, "cents": "12.5"}},
        says={"provider_cost": "0.125"},
    ),
    Journey(
        target="/paint?with=brush-2",
        answer={"pictures": {"done": ["a", "b"], "size": "1024x768"}, "tier": "slow"},
        says={
            "images": 2,
            "details": {"size": "1024x768"},
            "request_model": "brush-2",
            "service_tier": "slow",
        },
        not_said=frozenset({"raw_usage", "total_tokens"}),
    ),
    Journey(
        target="/steps",
        answer={
            "id": "not-an-id",
            "text": "SECRET",
            "steps": [{"read": 5, "wrote": 2, "text": "SECRET"}, {"read": 7, "wrote": 1}],
            "tools": {"used": {"searches": 3}},
        },
        says={
            "input_tokens": 12,
            "output_tokens": 3,
            "web_searches": 3,
            "raw_usage": {
                "steps": [{"read": 5, "wrote": 2}, {"read": 7, "wrote": 1}],
                "used": {"searches": 3},
            },
        },
        not_said=frozenset({"response_id"}),
    ),
    Journey(
        target="/think",
        answer={"usage": {"in": 5, "cached": 0, "out": 2, "thought": 7, "all": 14}},
        says={"input_tokens": 5, "output_tokens": 9, "output_reasoning_tokens": 7, "total_tokens": 14},
    ),
    Journey(
        target="/think",
        answer={"usage": {"in": 5, "out": 2}},
        says={"output_tokens": 2},
        not_said=frozenset({"input_tokens"}),
    ),
    Journey(
        target="/think-aloud",
        answer={"usage": {"in": 5, "out": 9, "thought": 7, "total_tokens": 14}},
        says={"output_tokens": 9, "total_tokens": 14},
    ),
    Journey(
        target="/jobs",
        answer={"id": "job-1", "state": "queued"},
        says={"usage_status": "none", "outcome": "ok", "response_id": "job-1"},
        not_said=frozenset({"compute_seconds"}),
    ),
    Journey(
        target="/jobs",
        answer={"id": "job-1", "state": "done", "usage": {"seconds": 1.25}},
        says={"usage_status": "complete", "compute_seconds": 1.25},
    ),
    Journey(
        target="/told",
        method="PUT",
        answer={"usage": {"tokens": 1}, "failure": {"type": "tired"}, "choices": [{"why": "error"}]},
        says={"input_tokens": 1, "outcome": "error", "error_type": "tired", "finish_reason": "error"},
    ),
)


@pytest.mark.parametrize("way", ["environment", "tracker"])
@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: f"{journey.target} {journey.answer}"[:40])
def test_a_provider_in_a_file_is_metered_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journey: Journey, way: str
) -> None:
    """Each word of a table means in TOML what it means in Python, from the file to the event."""
    file = tmp_path / "zoo.toml"
    file.write_text(ZOO, "utf-8")
    if way == "environment":
        monkeypatch.setenv("CMDRDATA_PROVIDERS", str(file))
    tracker = Tracker([], home=tmp_path, providers=() if way == "environment" else [file])

    def answer(call: Call) -> Answer:
        assert (call.method, call.path) == (journey.method, f"/zoo{journey.target.partition('?')[0]}")
        return Answer.json(journey.answer, headers=journey.headers)

    with (
        Loopback(answer) as server,
        capture_usage() as events,
        tracked_http_client(tracker=tracker) as client,
    ):
        client.request(journey.method, f"{server.url}/zoo{journey.target}", json=journey.asked or {})
    (event,) = (event.to_dict() for event in events)
    assert {name: event.get(name) for name in journey.says} == journey.says
    assert event["provider"] == "zoo"
    assert not journey.not_said & event.keys()


def test_paths_beside_those_of_the_provider_are_not_its(tmp_path: Path) -> None:
    """`under` says how its paths begin, at a host that has others."""
    answer = httpx.Response(200, json={"usage": {"tokens": 5}})
    transport = TrackedTransport(
        httpx.MockTransport(lambda _: answer), tracker=tracker_of(tmp_path, ZOO), any_host=False
    )
    with capture_usage() as events, httpx.Client(transport=transport) as client:
        client.post("http://127.0.0.1/elsewhere/charged", json={})
    assert events == []


def test_a_compatible_provider_is_known_at_any_host(tmp_path: Path) -> None:
    """With `compatible`, a server of the same kind is metered under that name wherever it stands."""
    text = TOML.replace('id = "acme-llm"', 'id = "acme-llm"\ncompatible = "acme-compatible"', 1)
    transport = TrackedTransport(
        httpx.MockTransport(lambda _: httpx.Response(200, json=GENERATED)), tracker=tracker_of(tmp_path, text)
    )
    with capture_usage() as events, httpx.Client(transport=transport) as client:
        client.post("http://10.0.0.7:9000/v1/generate", json={})
    assert [(event.provider, event.usage.total_tokens) for event in events] == [("acme-compatible", 15)]


def test_an_answer_told_by_hand_is_read_by_ones_own_table_first(tmp_path: Path) -> None:
    """A provider that is described anew is known as that wherever its answers come from."""
    shape = Shape(api="anew", operation="chat", usage=(("used",),), units={"in": Same(unit="input_tokens")})
    anew = Provider(id="openai", hosts=("x.example",), endpoints=(Endpoint(path="/", shape=shape),))
    tracker = Tracker([], home=tmp_path, providers=[anew])
    with capture_usage() as events:
        tracker.record_response("openai", {"used": {"in": 5}})
    assert [(event.api, event.usage.input_tokens) for event in events] == [("anew", 5)]


# --- what is wrong ---

_HOSTS = 'hosts = ["llm.acme.example", "*.llm.acme.example"]'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "acme-llm"', 'id = "Acme LLM"', r"provider\[0\]\.id is 'Acme LLM'"),
        ('id = "acme-llm"', "", r"provider\[0\]\.id is missing"),
        ('id = "acme-llm"', "id = 7", r"provider\[0\]\.id is 7; text is expected"),
        (_HOSTS, "", r"provider\[0\]\.hosts is None; text, or a list"),
        (_HOSTS, "hosts = []", r"provider\[0\]\.hosts is empty"),
        (_HOSTS, "hosts = [5]", r"provider\[0\]\.hosts is 5; text is expected"),
        (
            _HOSTS,
            'hosts = "https://llm.acme.example"',
            r"hosts has 'https://llm.acme.example'; write a host's",
        ),
        (_HOSTS, 'hosts = "llm.acme.example:8000"', r"without scheme, port and path"),
        (_HOSTS, 'hosts = "LLM.acme.example"', r"in lower case"),
        (_HOSTS, f'{_HOSTS}\nunder = "v1"', r"provider\[0\]\.under is 'v1'; it is how paths begin"),
        (_HOSTS, f'{_HOSTS}\ncompatible = "no good"', r"provider\[0\]\.compatible is 'no good'"),
        (_HOSTS, f"{_HOSTS}\nport = 80", r"provider\[0\]\.port means nothing here; there are compatible, "),
        ('path = "/v1/generate$"', 'path = "("', r"endpoint\[1\]\.path is no regular expression"),
        (
            'path = "/v1/generate$"',
            "path = '/(?P<modle>[^/]+)/generate$'",
            r"endpoint\[1\]\.path has the group 'modle', which means nothing; there is \(\?P<model>",
        ),
        (
            'shape = "openai.chat_completions"',
            'shape = "openai.chat"',
            r"endpoint\[0\]\.shape is 'openai.chat'; there",
        ),
        ('shape = "openai.chat_completions"', 'shape = "openai.chat_completions"\napi = "x"', "taken whole"),
        (
            'operation = "completion"',
            'operation = "talk"',
            r"endpoint\[1\]\.operation is 'talk'; there are agent",
        ),
        (
            'prompt = "input_tokens"',
            'prompt = "tokens"',
            r"endpoint\[1\]\.units\.prompt names the unit 'tokens'",
        ),
        ('prompt = "input_tokens"', "prompt = 5", r"endpoint\[1\]\.units\.prompt is 5"),
        (
            'thinking = "output_reasoning_tokens"',
            'thinking = "x"',
            r"units\.inner\.thinking names the unit 'x'",
        ),
        ('kind = "event"', 'done = "yes"', r"stream\.done is 'yes'; true or false"),
        ('kind = "event"', "start = 1", r"endpoint\[1\]\.stream\.start means nothing here"),
        (
            'model = "meta.model"',
            'model = "meta..model"',
            r"endpoint\[1\]\.model is 'meta..model'; write keys",
        ),
        ('model = "meta.model"', "cost = { cents = 0.01 }", r"cost\.cents is 0.01; text is expected"),
        ('model = "meta.model"', 'cost = { cents = "few" }', r"cost\.cents is 'few'; how many US dollars"),
        ('model = "meta.model"', 'cost = { cents = "-1" }', r"cost\.cents is '-1'; how many US dollars"),
        ('model = "meta.model"', 'headers = { x-in = "tokens" }', r"headers\.x-in names the unit 'tokens'"),
        ('model = "meta.model"', 'headers = { "x in" = "images" }', r"headers has 'x in', which is no name"),
        ('model = "meta.model"', "headers = 5", r"endpoint\[1\]\.headers is 5; a table is expected"),
        ('model = "meta.model"', 'request = { a = "length of it" }', r"request\.a names the unit 'it'"),
        ('model = "meta.model"', 'lists = { "." = "images" }', r"lists has \"\.\"; name the list"),
        (
            'model = "meta.model"',
            'lists = { data = "pictures" }',
            r"lists\.data names the unit 'pictures'",
        ),
        ('model = "meta.model"', 'beside = { "a.b" = "images" }', r"beside\.a\.b is 'images'; a table"),
        ('model = "meta.model"', 'beside = { "a.b" = { c = "d" } }', r"beside\.a\.b\.c names the unit 'd'"),
        ('model = "meta.model"', 'needs = { tokens = "in" }', r"needs\.tokens names the unit 'tokens'"),
        ('model = "meta.model"', 'apart = { part = "thoughts" }', r"apart\.part names the unit 'thoughts'"),
        ('model = "meta.model"', "apart = 5", r"endpoint\[1\]\.apart is 5; a table is expected"),
        ('model = "meta.model"', "pending = { status = true }", r"pending\.status is True; text, or a list"),
        ('model = "meta.model"', "details = { size = 5 }", r"details\.size is 5; text, or a list"),
        ('path = "/v1/generate$"', "", r"endpoint\[1\]\.path is missing"),
        ('path = "/v1/generate$"', 'path = "/v1"\nmethod = 5', r"endpoint\[1\]\.method is 5"),
        (
            'shape = "openai.chat_completions"',
            'api = "x"\noperation = "chat"',
            r"endpoint\[0\]\.units is missing; a table of units is expected, or headers",
        ),
        ('finish_reason = "why"', 'finish = "why"', r"endpoint\[1\]\.finish means nothing here"),
        ("[[provider]]", "[[", "cannot be read"),
        ("[[provider]]", "[provider]", "provider is {'id'.*write it as \\[\\[…\\]\\]"),
        ("[[provider]]", "x = 1\n[[provider]]", "x means nothing here; there are provider"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    """The error names the file, the place and what could stand there."""
    assert old in TOML
    with pytest.raises(TrackingSetupError, match=says):
        tracker_of(tmp_path, TOML.replace(old, new, 1))


def test_a_provider_is_described_once(tmp_path: Path) -> None:
    """A second table of the same id would be a table that is never used."""
    with pytest.raises(TrackingSetupError, match=r"provider\[1\]\.id is 'acme-llm' again; put all"):
        tracker_of(tmp_path, TOML + TOML)


@pytest.mark.parametrize("text", ["", "# nothing yet"])
def test_a_file_without_a_provider_is_an_error(tmp_path: Path, text: str) -> None:
    """An empty file is somebody's mistake."""
    with pytest.raises(TrackingSetupError, match=r"provider is missing; write it as \[\[…\]\], with two"):
        tracker_of(tmp_path, text)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path that cannot be read says so when the tracker is made."""
    with pytest.raises(TrackingSetupError, match="cannot be read"):
        Tracker([], home=tmp_path, providers=[tmp_path / "none.toml"])


@pytest.mark.parametrize(
    "given", ["own.toml", Path("own.toml"), PROVIDERS[0], 5], ids=["str", "path", "table", "int"]
)
def test_what_is_no_list_is_an_error(given: Any) -> None:
    """A file's name is a sequence too, of letters: whoever forgets the brackets is told so."""
    with pytest.raises(TrackingSetupError, match=r"takes a list.*write providers=\[\.\.\.\]"):
        Tracker([], disabled=True, providers=given)


@pytest.mark.parametrize("content", [b"\xff\xfe[\x00", b"<html>", None], ids=["UTF-16", "HTML", "directory"])
def test_a_file_that_is_something_else_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """What is no TOML in UTF-8, or no file at all, is named with the reason."""
    file = tmp_path / "own.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    monkeypatch.setenv("CMDRDATA_PROVIDERS", os.fspath(file))
    with pytest.raises(TrackingSetupError, match=r"own\.toml' cannot be read: .+"):
        Tracker([], home=tmp_path)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"id": "x"}, r"providers\[0\] is a dict"),
        (Provider(id="x", hosts=("https://x",), endpoints=()), r"providers\[0\]\.hosts has 'https://x'"),
        (
            Provider(
                id="x",
                hosts=("x",),
                endpoints=(
                    Endpoint(
                        path="/",
                        shape=Shape(api="x", operation="chat", usage=(), units={"a": Same(unit="tokens")}),
                    ),
                ),
            ),
            r"endpoint\[0\]\.units\.a names the unit 'tokens'",
        ),
        (
            Provider(
                id="x",
                hosts=("x",),
                endpoints=(
                    Endpoint(
                        path="/", shape=Shape(api="x", operation="chat", usage=(), units={"a": "tokens"})
                    ),
                ),
            ),
            r"providers\[0\]\.endpoint\[0\]\.units\.a names the unit 'tokens'",
        ),
    ],
    ids=["no table", "no host", "no unit said again", "no unit"],
)
def test_a_wrong_table_in_python_is_refused_too(tmp_path: Path, own: Any, says: str) -> None:
    """What comes from Python is checked as what comes from a file."""
    with pytest.raises(TrackingSetupError, match=says):
        Tracker([], home=tmp_path, providers=[own])


@pytest.mark.parametrize("table", PROVIDERS, ids=lambda table: table.id)
def test_what_the_tables_here_say_may_be_said(table: Provider) -> None:
    """A table of ours, given again for hosts of one's own, is taken: every word of theirs is known."""
    Tracker([], disabled=True, providers=[replace(table, hosts=("llm.acme.example",))])
