"""Providers of one's own: tables in Python and in TOML, used, and refused with the place that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from cmdrdata_transport import Tracker, TrackingSetupError
from cmdrdata_transport.httpx import TrackedTransport
from cmdrdata_transport.providers.openai import CHAT
from cmdrdata_transport.providers.table import Endpoint, Provider, Shape
from cmdrdata_transport.testing import capture_usage

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


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "acme-llm"', 'id = "Acme LLM"', r"provider\[0\]\.id is 'Acme LLM'"),
        ('id = "acme-llm"', "", r"provider\[0\]\.id is missing"),
        ('hosts = ["llm.acme.example", "*.llm.acme.example"]', "", r"provider\[0\]\.hosts is None"),
        (
            'hosts = ["llm.acme.example", "*.llm.acme.example"]',
            "hosts = []",
            r"provider\[0\]\.hosts is empty",
        ),
        ('path = "/v1/generate$"', 'path = "("', r"endpoint\[1\]\.path is no regular expression"),
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
        ('finish_reason = "why"', 'finish = "why"', r"endpoint\[1\]\.finish means nothing here"),
        ("[[provider]]", "[[", "cannot be read"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    """The error names the file, the place and what could stand there."""
    assert old in TOML
    with pytest.raises(TrackingSetupError, match=says):
        tracker_of(tmp_path, TOML.replace(old, new, 1))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path that cannot be read says so when the tracker is made."""
    with pytest.raises(TrackingSetupError, match="cannot be read"):
        Tracker([], home=tmp_path, providers=[tmp_path / "none.toml"])


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"id": "x"}, r"providers\[0\] is a dict"),
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
    ids=["no table", "no unit"],
)
def test_a_wrong_table_in_python_is_refused_too(tmp_path: Path, own: Any, says: str) -> None:
    """What comes from Python is checked as what comes from a file."""
    with pytest.raises(TrackingSetupError, match=says):
        Tracker([], home=tmp_path, providers=[own])
