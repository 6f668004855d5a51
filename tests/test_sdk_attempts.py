"""One call of an SDK, several requests: retries, redirects, refusals, timeouts.

Each attempt is an event, and only an answer that succeeded has usage. Every case is tried on a bare
client too: the same requests must go out, and the same answer or exception must come back.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sdks import CONNECT, GEMINI, LLAMA, MESSAGE, MESSAGES, Way, both, connected

from cmdrdata_transport import customer_context, tracking_headers
from cmdrdata_transport.demo.loopback import Answer, Call, Handler, Loopback, in_turn
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.testing import capture_usage

pytestmark = pytest.mark.usefixtures("one_certificate")

SDKS = tuple(CONNECT)

sdks = pytest.mark.parametrize("sdk", SDKS)
colours = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


async def ask(
    sdk: str,
    client: Any,
    *,
    retries: int = 0,
    seconds: float | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    """One plain call, with so many retries, the shortest waits between them, and a timeout."""
    if sdk == "google-genai":
        http_options: dict[str, Any] = {
            "headers": headers,
            "timeout": None if seconds is None else int(seconds * 1000),
            "retry_options": {"attempts": retries + 1, "initial_delay": 0.001, "jitter": 0.001},
        }
        return await both(
            client.models.generate_content(
                model=GEMINI, contents="The bill?", config={"http_options": http_options}
            )
        )
    client = client.with_options(max_retries=retries, timeout=30 if seconds is None else seconds)
    if sdk == "anthropic":
        return await both(client.messages.create(**MESSAGE, extra_headers=headers))
    model = "gpt-5" if sdk == "openai" else LLAMA
    return await both(client.chat.completions.create(model=model, messages=MESSAGES, extra_headers=headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came back, the requests that went out, and the events of them."""

    shown: Any
    wire: list[tuple[str, list[tuple[bytes, bytes]], bytes]]
    events: list[dict[str, Any]]


FIELDS = (
    "customer_id",
    "usage_status",
    "outcome",
    "status_code",
    "attempt",
    "error_type",
    "error_code",
    "input_tokens",
    "output_tokens",
)


def see(
    sdk: str, make_handler: Callable[[], Handler], *, asynchronous: bool, tracked: bool, **asking: Any
) -> Seen:
    """Ask, through a tracked client or a bare one."""

    async def go(url: str) -> Any:
        way: Way | None = "given client" if tracked else None
        async with connected(sdk, url, way, asynchronous=asynchronous) as client:
            with customer_context("acme"):
                try:
                    return await ask(sdk, client, **asking)
                except Exception as error:
                    return type(error), str(error)

    with Loopback(make_handler()) as server, capture_usage() as events:
        shown = asyncio.run(go(server.url))
    assert not [event for event in events if b"SECRET" in event.to_json()]
    return Seen(
        shown=shown,
        wire=[
            (call.target, [pair for pair in call.headers if pair[0] != b"host"], call.body)
            for call in server.calls
        ],
        events=[
            {name: value for name, value in event.to_dict().items() if name in FIELDS} for event in events
        ],
    )


def compared(
    sdk: str, make_handler: Callable[[], Handler], *, asynchronous: bool, **asking: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """What comes back, as it does without us, and the events."""
    bare = see(sdk, make_handler, asynchronous=asynchronous, tracked=False, **asking)
    tracked = see(sdk, make_handler, asynchronous=asynchronous, tracked=True, **asking)
    assert tracked.shown == bare.shown
    assert tracked.wire == bare.wire
    assert bare.events == []
    return tracked.shown, tracked.events


REFUSALS: dict[str, dict[str, Any]] = {
    "openai": {"error": {"message": "SECRET", "type": "server_error", "code": "busy", "param": None}},
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "SECRET"}},
    "google-genai": {"error": {"code": 503, "message": "SECRET", "status": "UNAVAILABLE"}},
    "groq": {"error": {"message": "SECRET", "type": "server_error", "code": "busy"}},
}
"""An error as each provider tells it; messages repeat what was asked."""

TOLD = {
    "openai": {"error_type": "server_error", "error_code": "busy"},
    "anthropic": {"error_type": "overloaded_error"},
    "google-genai": {"error_type": "UNAVAILABLE", "error_code": "503"},
    "groq": {"error_type": "server_error", "error_code": "busy"},
}
"""What the event says of it."""


def refusal(sdk: str, status: int) -> Answer:
    """An error, to be retried at once."""
    return Answer.json(REFUSALS[sdk], status=status, headers=[("retry-after-ms", "1")])


def provider_answer(call: Call) -> Answer:
    """The answer of the scripted provider, the same for the same request."""
    return Provider(seed=3)(call)


def after(*answers: Answer | None) -> Callable[[], Handler]:
    """A server that gives these answers, and then the provider's."""

    def make() -> Handler:
        first = in_turn(*answers)
        left = len(answers)

        def handler(call: Call) -> Answer | None:
            nonlocal left
            left -= 1
            return first(call) if left >= 0 else provider_answer(call)

        return handler

    return make


def attempt(sdk: str, number: int) -> dict[str, int]:
    """The attempt's number, where the SDK tells it."""
    return {} if sdk == "google-genai" else {"attempt": number}


def counts(sdk: str, shown: Any) -> dict[str, int]:
    """All input and all output, from what the SDK shows."""
    match sdk:
        case "anthropic":
            usage = shown.usage
            cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
            return {"input_tokens": usage.input_tokens + cached, "output_tokens": usage.output_tokens}
        case "google-genai":
            usage = shown.usage_metadata
            given = usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0)
            answered = usage.candidates_token_count + (usage.thoughts_token_count or 0)
            return {"input_tokens": given, "output_tokens": answered}
        case _:
            usage = shown.usage
            return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}


OK = {"customer_id": "acme", "usage_status": "complete", "outcome": "ok", "status_code": 200}
REFUSED = {"customer_id": "acme", "usage_status": "none", "outcome": "error"}


@sdks
@colours
def test_retries_are_attempts(sdk: str, *, asynchronous: bool) -> None:
    """Two refusals and an answer are three events, of which one has usage."""
    shown, events = compared(
        sdk, after(refusal(sdk, 500), refusal(sdk, 429)), asynchronous=asynchronous, retries=2
    )
    assert events == [
        {**REFUSED, "status_code": 500, **attempt(sdk, 0), **TOLD[sdk]},
        {**REFUSED, "status_code": 429, **attempt(sdk, 1), **TOLD[sdk]},
        {**OK, **attempt(sdk, 2), **counts(sdk, shown)},
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 503, 529])
@sdks
@colours
def test_refusals(sdk: str, status: int, *, asynchronous: bool) -> None:
    """A refusal raises what it raises without us, and is an event without usage."""
    (kind, _), events = compared(sdk, after(refusal(sdk, status)), asynchronous=asynchronous)
    assert issubclass(kind, Exception)
    assert events == [{**REFUSED, "status_code": status, **attempt(sdk, 0), **TOLD[sdk]}]


@sdks
@colours
def test_hung_up(sdk: str, *, asynchronous: bool) -> None:
    """A server that hangs up without an answer may have billed: the outcome is unknown."""
    _, events = compared(sdk, after(None), asynchronous=asynchronous)
    assert events == [
        {
            "customer_id": "acme",
            "usage_status": "none",
            "outcome": "unknown",
            "error_type": "RemoteProtocolError",
            **attempt(sdk, 0),
        }
    ]


@sdks
@colours
def test_cut_off_answer(sdk: str, *, asynchronous: bool) -> None:
    """An answer that breaks off is partial; where the SDK asks again, that is one more event."""
    broken = Answer(
        headers=[("content-type", "application/json")], body=[b'{"id": "c1", ', b"..."], close_after=1
    )
    shown, events = compared(sdk, after(broken), asynchronous=asynchronous, retries=1)
    first = {
        "customer_id": "acme",
        "usage_status": "partial",
        "outcome": "error",
        "status_code": 200,
        "error_type": "RemoteProtocolError",
        **attempt(sdk, 0),
    }
    if sdk == "google-genai":  # it raises
        assert events == [first]
    else:
        assert events == [first, {**OK, **attempt(sdk, 1), **counts(sdk, shown)}]


@sdks
@colours
def test_nobody_listens(sdk: str, *, asynchronous: bool) -> None:
    """A request that never left cannot have been billed: an error, not an unknown outcome."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    async def go() -> None:
        async with connected(
            sdk, f"http://127.0.0.1:{port}", "given client", asynchronous=asynchronous
        ) as client:
            with customer_context("acme"):
                await ask(sdk, client)

    with capture_usage() as events, pytest.raises(Exception, match=r"(?i)connect"):
        asyncio.run(go())
    [event] = events
    assert (event.usage_status, event.outcome, event.status_code) == ("none", "error", None)
    assert event.error_type == "ConnectError"


@sdks
@colours
def test_timeout(sdk: str, *, asynchronous: bool) -> None:
    """A call that times out may have been billed: the outcome is unknown."""
    gate = threading.Event()

    def handler(_: Call) -> None:
        gate.wait(20)

    async def go(url: str) -> None:
        async with connected(sdk, url, "given client", asynchronous=asynchronous) as client:
            with customer_context("acme"):
                await ask(sdk, client, seconds=0.1)

    with Loopback(handler) as server, capture_usage() as events:
        try:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - each SDK has its own
                asyncio.run(go(server.url))
        finally:
            gate.set()
    assert "Timeout" in type(raised.value).__name__
    [event] = events
    assert (event.usage_status, event.outcome, event.status_code) == ("none", "unknown", None)
    assert event.error_type == "ReadTimeout"


@pytest.mark.parametrize("status", [307, 308])
@sdks
@colours
def test_redirects(sdk: str, status: int, *, asynchronous: bool) -> None:
    """A redirected call is one event, of the customer in its header; no server sees that header."""

    def make() -> Handler:
        def handler(call: Call) -> Answer:
            assert not [name for name, _ in call.headers if name.startswith(b"x-cmdrdata")]
            if call.target.startswith("/moved"):
                return provider_answer(call)
            return Answer(status=status, headers=[("location", f"/moved{call.target}")])

        return handler

    bare = see(sdk, make, asynchronous=asynchronous, tracked=False)
    tracked = see(
        sdk, make, asynchronous=asynchronous, tracked=True, headers=tracking_headers("globex", {"n": 1})
    )
    assert tracked.shown == bare.shown
    assert tracked.wire == bare.wire
    assert len(tracked.wire) == 2
    assert tracked.events == [
        {**OK, "customer_id": "globex", **attempt(sdk, 0), **counts(sdk, tracked.shown)}
    ]
