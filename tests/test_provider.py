"""The scripted provider: right bytes, awkward cuts, and an account that is true."""

from __future__ import annotations

import json
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_transport.demo.calls import CALLED_SDKS, CalledSdk, SdkCall
from cmdrdata_transport.demo.cuts import awkward, framed
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import ACCOUNT_HEADER, Provider

if TYPE_CHECKING:
    from collections.abc import Callable

CHAT = {"model": "gpt-5", "messages": []}
EVERY_CALL = [
    pytest.param(sdk, what, id=f"{sdk.name} {what.name}") for sdk in CALLED_SDKS for what in sdk.calls
]


def answer_of(client: Any, what: SdkCall) -> Any:
    """The answer as its SDK shows it; of a stream, everything that it gave."""
    answer = what.make(client, {})
    return list(answer) if what.streaming else answer


def gemini_counts(shown: Any) -> tuple[int, int]:
    """All input and all output, by Google's rule."""
    usage = shown.usage_metadata
    parts = (usage.prompt_token_count, usage.tool_use_prompt_token_count)
    others = (usage.candidates_token_count, usage.thoughts_token_count)
    return sum(part or 0 for part in parts), sum(part or 0 for part in others)


def anthropic_counts(*usages: Any) -> tuple[int, int]:
    """All input and all output, by Anthropic's rule; the last usage that is told counts."""
    usage = usages[-1]
    cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    return usage.input_tokens + cached, usage.output_tokens


SHOWN: dict[str, Callable[[Any], tuple[int, int]]] = {
    "openai chat": lambda shown: (shown.usage.prompt_tokens, shown.usage.completion_tokens),
    "openai chat, streaming": lambda shown: next(
        (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in shown if chunk.usage
    ),
    "openai responses": lambda shown: (shown.usage.input_tokens, shown.usage.output_tokens),
    "openai responses, streaming": lambda shown: (
        shown[-1].response.usage.input_tokens,
        shown[-1].response.usage.output_tokens,
    ),
    "openai embeddings": lambda shown: (shown.usage.prompt_tokens, 0),
    "anthropic messages": lambda shown: anthropic_counts(shown.usage),
    "anthropic messages, streaming": lambda shown: anthropic_counts(
        *(event.usage for event in shown if event.type == "message_delta")
    ),
    "google-genai generateContent": gemini_counts,
    "google-genai generateContent, streaming": lambda shown: gemini_counts(shown[-1]),
    "google-genai embedContent": lambda shown: (shown.usage_metadata.prompt_token_count, 0),
    "groq chat": lambda shown: (shown.usage.prompt_tokens, shown.usage.completion_tokens),
    "groq chat, streaming": lambda shown: (
        shown[-1].x_groq.usage.prompt_tokens,
        shown[-1].x_groq.usage.completion_tokens,
    ),
}
"""Input and output as each SDK's own objects tell them, read here by hand."""


@pytest.mark.parametrize(("sdk", "what"), EVERY_CALL)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_stated_is_what_the_sdk_shows(sdk: CalledSdk, what: SdkCall, seed: int) -> None:
    """The account holds the numbers that an SDK reads out of the very bytes that were sent."""
    provider = Provider(seed=seed)
    with ExitStack() as stack:
        server = stack.enter_context(Loopback(provider))
        module = pytest.importorskip(sdk.module)
        library = httpx2 if sdk.name != "groq" else pytest.importorskip("httpx")
        http = stack.enter_context(library.Client(trust_env=False))
        shown = SHOWN[f"{sdk.name} {what.name}"](answer_of(sdk.connect(module, server.url, http), what))
    (stated,) = provider.stated
    assert shown == (stated.units["input_tokens"], stated.units["output_tokens"])
    assert stated.units["total_tokens"] == sum(shown)
    assert stated.provider == sdk.provider
    assert stated.streaming == what.streaming


def posted(path: str, body: Any, **headers: str) -> Call:
    """A call as the server would hand it on."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Call(method="POST", target=path, headers=pairs, body=json.dumps(body).encode())


def sent(answer: Answer) -> bytes:
    """The whole body of an answer."""
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/responses", {"model": "gpt-5", "stream": True}),
        ("/v1/messages", {"model": "claude-haiku-4-5", "stream": True}),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", {}),
        ("/openai/v1/chat/completions", {**CHAT, "stream": True}),
    ],
)
def test_a_seed_decides_every_byte(path: str, body: Any) -> None:
    """The same seed and request give the same bytes and cuts; a repeated request, or another seed, others."""
    call = posted(path, body)
    first, second = Provider(seed=5), Provider(seed=5)
    first(posted("/v1/embeddings", {"model": "m", "input": "another call before"}))
    assert first(call) == second(call)
    assert sent(first(call)) != sent(Provider(seed=5)(call))
    assert sent(Provider(seed=6)(call)) != sent(Provider(seed=5)(call))


def chunks_of(body: bytes) -> list[Any]:
    """The JSON of each event, without the end mark."""
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def test_a_chat_stream_tells_its_usage_only_when_asked() -> None:
    """Without include_usage no chunk has the field and nothing is stated; with it the last one has it."""
    provider = Provider()
    silent = sent(provider(posted("/v1/chat/completions", {**CHAT, "stream": True})))
    assert all("usage" not in chunk for chunk in chunks_of(silent))
    assert provider.stated == []
    asking = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    telling = sent(provider(posted("/v1/chat/completions", asking)))
    *before, last = chunks_of(telling)
    assert [chunk["usage"] for chunk in before] == [None] * len(before)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == provider.total("total_tokens") > 0
    assert telling.endswith(b"data: [DONE]\n\n")


def test_groq_tells_the_same_usage_twice_when_asked() -> None:
    """A Groq stream has its usage in x_groq; include_usage repeats it beside, and it is stated once."""
    provider = Provider()
    asking = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    *_, last = chunks_of(sent(provider(posted("/openai/v1/chat/completions", asking))))
    assert last["usage"] == last["x_groq"]["usage"]
    assert last["usage"]["total_tokens"] == provider.total("total_tokens")
    assert len(provider.stated) == 1


def test_gemini_streams_lines_with_crlf_or_an_array() -> None:
    """With alt=sse the lines end in CR LF; without it the answer is one JSON array of the same chunks."""
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
    events = sent(Provider()(posted(f"{path}?alt=sse", {})))
    assert events.endswith(b"}\r\n\r\n")
    assert b"\n" not in events.replace(b"\r\n", b"")
    provider = Provider()
    array = json.loads(sent(provider(posted(path, {}))))
    assert array[-1]["usageMetadata"]["totalTokenCount"] == provider.total("total_tokens")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/responses/input_tokens"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/models/gemini-2.5-flash:countTokens"),
    ],
)
def test_what_is_free_is_not_stated(method: str, path: str) -> None:
    """Lists and token counters answer, and add nothing to the account."""
    provider = Provider()
    assert provider(Call(method=method, target=path)).status == 200
    assert provider.stated == []


@pytest.mark.parametrize("prefix", ["", "/v1", "/proxy/openai/deployments/gpt-5"])
def test_any_path_prefix_is_taken(prefix: str) -> None:
    """What counts is the end of the path, whatever a base_url puts in front."""
    provider = Provider()
    provider(posted(f"{prefix}/chat/completions?api-version=1", CHAT, **{ACCOUNT_HEADER: "acme"}))
    (stated,) = provider.stated
    assert (stated.account, stated.model) == ("acme", "gpt-5-2025-08-07")


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (posted("/v1/unheard-of", {}), 404),
        (Call(method="GET", target="/v1/chat/completions"), 404),
        (Call(method="POST", target="/v1/chat/completions", body=b"{"), 400),
    ],
)
def test_what_it_does_not_know_is_an_error(call: Call, status: int) -> None:
    """Other paths and bodies that are no JSON are answered as a provider would, and stated nowhere."""
    provider = Provider()
    answer = provider(call)
    assert answer.status == status
    assert json.loads(sent(answer))["error"]["message"]
    assert provider.stated == []


def test_first_attempts_can_be_refused() -> None:
    """Only a first attempt is refused, and it states nothing; the next one is answered."""
    provider = Provider(refusals=1.0)
    assert provider(posted("/v1/responses", {}, x_stainless_retry_count="0")).status == 429
    assert provider.stated == []
    assert provider(posted("/v1/responses", {}, x_stainless_retry_count="1")).status == 200
    assert provider(posted("/v1/responses", {})).status == 200
    assert (provider.refused, len(provider.stated)) == (1, 2)


def test_gzip_only_where_it_is_accepted() -> None:
    """A client that does not offer gzip is never sent it."""
    provider = Provider(gzipped=1.0)
    assert provider(posted("/v1/responses", {})).coding is None
    assert provider(posted("/v1/responses", {}, accept_encoding="br, gzip")).coding == "gzip"


@given(data=st.binary() | st.text().map(str.encode), seed=st.integers(), share=st.floats(0, 1))
def test_cuts_keep_every_byte(data: bytes, seed: int, share: float) -> None:
    """Pieces, put together again, are what was cut."""
    assert b"".join(awkward(data, Random(seed), share)) == data


@given(events=st.lists(st.binary(min_size=1)), seed=st.integers())
def test_framing_keeps_every_byte(events: list[bytes], seed: int) -> None:
    """However a stream's events are spread over chunks, their bytes stay the same."""
    assert b"".join(framed(events, Random(seed))) == b"".join(events)


@pytest.mark.parametrize(
    "around", [b"\xc3|\xa9", b"\r|\n", b"\n|\n", b"da|ta:", b"[DO|NE]", b'"us|age"', b"1|2"]
)
def test_cuts_fall_where_they_hurt(around: bytes) -> None:
    """A character, a line end, a blank line, a name, the end mark, a key and a number are cut in two."""
    left, right = around.split(b"|")
    assert awkward(left + right, Random(0), share=1.0) == [left, right]
