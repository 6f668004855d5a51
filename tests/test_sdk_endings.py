"""How streams of real SDKs end: read to the end, closed, dropped, cancelled, cut off, broken by an error.

The server sends the head of a stream, and the rest only when the test opens the gate: what has been read
when the end comes is then certain. Each ending is tried on a bare client too, which must show the same.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sdks import (
    CONNECT,
    GEMINI,
    LLAMA,
    MESSAGE,
    MESSAGES,
    WITH_USAGE,
    Way,
    both,
    connected,
    entered,
    every,
    items,
)

from cmdrdata_transport import customer_context
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.testing import capture_usage

pytestmark = pytest.mark.usefixtures("one_certificate", "quick_collections")


@pytest.fixture(scope="module")
def quick_collections() -> Iterator[None]:
    """What the SDKs hold for good is left out of garbage collections, of which there are many here."""
    for sdk in {script.sdk for script in SCRIPTS}:
        importlib.import_module(CONNECT[sdk].module)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Script:
    """A stream of one SDK: how it is opened, its head and its rest, and what each of them states."""

    sdk: str
    name: str
    open: Callable[[Any], Any]
    head: bytes
    rest: bytes
    known: dict[str, int]
    """What the head states."""
    whole: dict[str, int]
    """What both of them state."""
    error: bytes
    """An error in the middle, as this provider tells it."""
    told: dict[str, str]
    """What the event says of that error."""

    def __repr__(self) -> str:
        return f"{self.sdk} {self.name}"


def data(*documents: str) -> bytes:
    """Events without a name."""
    return b"".join(f"data: {each}\n\n".encode() for each in documents)


def named(*documents: str) -> bytes:
    """Events whose name is their type."""
    return b"".join(f"event: {each.split(chr(34))[3]}\ndata: {each}\n\n".encode() for each in documents)


CHUNK = '"id":"c1","object":"chat.completion.chunk","created":1790000000,"model":"m"'
CHAT_USAGE = '"usage":{"prompt_tokens":21,"completion_tokens":5,"total_tokens":26}'
CHAT_HEAD = data(
    f'{{{CHUNK},"choices":[{{"index":0,"delta":{{"role":"assistant","content":"12"}},"finish_reason":null}}]}}'
)
CHAT_LAST = f'{{{CHUNK},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]'
RESPONSE = (
    '"id":"resp_1","object":"response","created_at":1790000000,"model":"m","output":[],"tools":[],'
    '"parallel_tool_calls":true,"tool_choice":"auto"'
)
COUNTED = {"input_tokens": 21, "output_tokens": 5, "total_tokens": 26}


def openai_chat(client: Any) -> Any:
    """Chat completions with usage."""
    return client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options=WITH_USAGE
    )


def groq_chat(client: Any) -> Any:
    """Groq's chat completions."""
    return client.chat.completions.create(model=LLAMA, messages=MESSAGES, stream=True)


def openai_responses(client: Any) -> Any:
    """Responses."""
    return client.responses.create(model="m", input="The bill?", stream=True)


def anthropic_messages(client: Any) -> Any:
    """Messages."""
    return client.messages.create(**MESSAGE, stream=True)


def gemini(client: Any) -> Any:
    """GenerateContent."""
    return client.models.generate_content_stream(model=GEMINI, contents="The bill?")


SCRIPTS = (
    Script(
        sdk="openai",
        name="chat",
        open=openai_chat,
        head=CHAT_HEAD,
        rest=data(f"{CHAT_LAST}}}", f'{{{CHUNK},"choices":[],{CHAT_USAGE}}}', "[DONE]"),
        known={},
        whole=COUNTED,
        error=data('{"error":{"message":"overloaded","type":"server_error","code":"overloaded"}}'),
        told={"error_type": "server_error", "error_code": "overloaded"},
    ),
    Script(
        sdk="openai",
        name="responses",
        open=openai_responses,
        head=named(
            f'{{"type":"response.created","sequence_number":0,"response":{{{RESPONSE},"status":"in_progress"}}}}'
        ),
        rest=named(
            f'{{"type":"response.completed","sequence_number":1,"response":{{{RESPONSE},"status":"completed",'
            '"usage":{"input_tokens":21,"output_tokens":5,"total_tokens":26}}}'
        ),
        known={},
        whole=COUNTED,
        error=named('{"type":"error","sequence_number":1,"code":"overloaded","message":"overloaded"}'),
        told={"error_code": "overloaded"},
    ),
    Script(
        sdk="anthropic",
        name="messages",
        open=anthropic_messages,
        head=named(
            '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m",'
            '"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":21,"output_tokens":1}}}'
        ),
        rest=named(
            '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
            '"usage":{"output_tokens":5}}',
            '{"type":"message_stop"}',
        ),
        known={"input_tokens": 21, "total_tokens": 21},
        whole=COUNTED,
        error=named('{"type":"error","error":{"type":"overloaded_error","message":"overloaded"}}'),
        told={"error_type": "overloaded_error"},
    ),
    Script(
        sdk="google-genai",
        name="generateContent",
        open=gemini,
        head=data(
            '{"candidates":[{"content":{"parts":[{"text":"1"}],"role":"model"}}],"modelVersion":"m",'
            '"usageMetadata":{"promptTokenCount":21,"candidatesTokenCount":2,"totalTokenCount":23}}'
        ),
        rest=data(
            '{"candidates":[{"content":{"parts":[{"text":"2"}],"role":"model"},"finishReason":"STOP"}],'
            '"modelVersion":"m",'
            '"usageMetadata":{"promptTokenCount":21,"candidatesTokenCount":5,"totalTokenCount":26}}'
        ),
        known={"input_tokens": 21, "output_tokens": 2, "total_tokens": 23},
        whole=COUNTED,
        error=data('{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}'),
        told={"error_type": "UNAVAILABLE", "error_code": "503"},
    ),
    Script(
        sdk="groq",
        name="chat",
        open=groq_chat,
        head=CHAT_HEAD,
        rest=data(f'{CHAT_LAST},"x_groq":{{"id":"req_1",{CHAT_USAGE}}}}}', "[DONE]"),
        known={},
        whole=COUNTED,
        error=data('{"error":{"message":"overloaded","type":"server_error","code":"overloaded"}}'),
        told={"error_type": "server_error", "error_code": "overloaded"},
    ),
)


class Server:
    """Sends the head of a script, and the rest when the gate opens."""

    def __init__(self, script: Script, *, cut_off: bool = False, error: bool = False) -> None:
        self._script = script
        self._cut_off = cut_off
        self._error = error
        self.holds_back_the_head = False
        self.called = threading.Event()
        self.gate = threading.Event()
        if cut_off or error:
            self.gate.set()

    def __call__(self, call: Call) -> Answer:
        """The answer to whatever is asked."""
        self.called.set()
        if self.holds_back_the_head:
            self.gate.wait(20)
        return Answer(
            headers=[("content-type", "text/event-stream")],
            body=self._body(),
            close_after=1 if self._cut_off else None,
        )

    def _body(self) -> Iterator[bytes]:
        yield self._script.head
        self.gate.wait(20)
        yield self._script.error if self._error else self._script.rest


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Its URL; the gate is opened in the end, so that no thread of its waits."""
    with Loopback(server) as loopback:
        try:
            yield loopback.url
        finally:
            server.gate.set()


Ending = Callable[[Script, Any, Server], Awaitable[Any]]


async def read_it_all(script: Script, client: Any, server: Server) -> Any:
    """The usual."""
    stream = await both(script.open(client))
    server.gate.set()
    return await every(stream)


async def close_after_the_head(script: Script, client: Any, server: Server) -> Any:
    """Whoever has seen enough, and says so."""
    stream = await both(script.open(client))
    shown = await head_of(stream)
    await both(stream.aclose() if hasattr(stream, "aclose") else stream.close())
    return shown


async def leave_the_block_after_the_head(script: Script, client: Any, server: Server) -> Any:
    """The same, in the way that SDKs recommend."""
    async with entered(await both(script.open(client))) as stream:
        return await head_of(stream)


async def drop_after_the_head(script: Script, client: Any, server: Server) -> Any:
    """Whoever has seen enough, and says nothing."""
    return await head_of(await both(script.open(client)))


async def fail_after_the_head(script: Script, client: Any, server: Server) -> Any:
    """Whoever stumbles over what came."""

    async def read() -> None:
        async for item in items(await both(script.open(client))):
            raise LookupError(item)

    with pytest.raises(LookupError) as stumbled:
        await read()
    return stumbled.value.args


async def never_read(script: Script, client: Any, server: Server) -> Any:
    """A stream that is asked for and left."""
    await both(script.open(client))


async def head_of(stream: Any) -> Any:
    """The one item that the head holds; the iteration is left there."""
    return await anext(items(stream))


async def read_until_it_fails(script: Script, client: Any, server: Server) -> Any:
    """What came, and the error that ended it."""
    shown: list[Any] = []
    try:
        async for item in items(await both(script.open(client))):
            shown.append(item)  # noqa: PERF401 - what came before the error is wanted
    except Exception as error:
        return shown, type(error), str(error)
    return shown


async def cancelled_before_the_head(script: Script, client: Any, server: Server) -> Any:
    """A task that waits for the answer when it is cancelled."""
    server.holds_back_the_head = True
    task = asyncio.ensure_future(drop_after_the_head(script, client, server))
    await asyncio.to_thread(server.called.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_after_the_head(script: Script, client: Any, server: Server) -> Any:
    """A task that reads the stream when it is cancelled."""
    shown: list[Any] = []
    began = asyncio.Event()

    async def read() -> None:
        async for item in items(await both(script.open(client))):
            shown.append(item)
            began.set()

    task = asyncio.ensure_future(read())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return shown


async def timed_out_after_the_head(script: Script, client: Any, server: Server) -> Any:
    """A deadline that passes in the middle."""
    shown: list[Any] = []

    async def read() -> None:
        async with asyncio.timeout(None) as deadline:
            async for item in items(await both(script.open(client))):
                shown.append(item)
                deadline.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        await read()
    return shown


async def read_by_another(script: Script, client: Any, server: Server) -> Any:
    """A stream that is opened for one customer, and read in the context of another, elsewhere."""
    stream = await both(script.open(client))
    server.gate.set()
    with customer_context("globex"):
        if hasattr(stream, "__aiter__"):
            return await asyncio.create_task(every(stream))
        return await asyncio.to_thread(list, stream)


FIELDS = ("customer_id", "usage_status", "outcome", "streaming", "status_code", "error_type", "error_code")


def run(
    script: Script, ending: Ending, *, asynchronous: bool, tracked: bool, **server_options: bool
) -> tuple[Any, list[dict[str, Any]]]:
    """The ending, tried on a tracked client or a bare one: what is shown, and what is recorded of it."""
    server = Server(script, **server_options)

    async def go(url: str) -> Any:
        way: Way | None = "given client" if tracked else None
        async with connected(script.sdk, url, way, asynchronous=asynchronous) as client:
            with customer_context("acme"):
                shown = await ending(script, client, server)
            gc.collect()
            await asyncio.sleep(0)  # the turn in which an event loop closes the generators that it lost
            return shown

    with serving(server) as url, capture_usage() as events:
        shown = asyncio.run(go(url))
        gc.collect()
    return shown, [
        {
            name: value
            for name, value in event.to_dict().items()
            if name in FIELDS or (name.endswith("_tokens") and value)
        }
        for event in events
    ]


def compared(
    script: Script, ending: Ending, *, asynchronous: bool, **server_options: bool
) -> list[dict[str, Any]]:
    """What is recorded of this ending, which must show what it shows on a bare client."""
    shown, nothing = run(script, ending, asynchronous=asynchronous, tracked=False, **server_options)
    assert nothing == []
    shown_when_tracked, recorded = run(
        script, ending, asynchronous=asynchronous, tracked=True, **server_options
    )
    assert shown_when_tracked == shown
    return recorded


ENDED = {"customer_id": "acme", "streaming": True, "status_code": 200}
COMPLETE = {**ENDED, "usage_status": "complete", "outcome": "ok"}
GIVEN_UP = {**ENDED, "usage_status": "partial", "outcome": "cancelled"}
BROKEN = {**ENDED, "usage_status": "partial", "outcome": "error"}

scripts = pytest.mark.parametrize("script", SCRIPTS, ids=repr)
colours = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@scripts
@colours
def test_read_to_the_end(script: Script, *, asynchronous: bool) -> None:
    """A stream that is read whole is complete."""
    recorded = compared(script, read_it_all, asynchronous=asynchronous)
    assert recorded == [{**COMPLETE, **script.whole}]


@pytest.mark.parametrize("ending", [close_after_the_head, drop_after_the_head, fail_after_the_head])
@scripts
@colours
def test_left_early(script: Script, ending: Ending, *, asynchronous: bool) -> None:
    """A stream that is left early, with a word or without, is partial: what its head stated is known."""
    recorded = compared(script, ending, asynchronous=asynchronous)
    assert recorded == [{**GIVEN_UP, **script.known}]


@pytest.mark.parametrize("script", [each for each in SCRIPTS if each.sdk != "google-genai"], ids=repr)
@colours
def test_left_by_the_end_of_a_block(script: Script, *, asynchronous: bool) -> None:
    """Where a stream is a context manager, leaving its block early is as good as closing it."""
    recorded = compared(script, leave_the_block_after_the_head, asynchronous=asynchronous)
    assert recorded == [{**GIVEN_UP, **script.known}]


@scripts
@colours
def test_never_read(script: Script, *, asynchronous: bool) -> None:
    """A stream that nobody reads was answered all the same, except Google's, which asks when it is read."""
    recorded = compared(script, never_read, asynchronous=asynchronous)
    assert recorded == ([] if script.sdk == "google-genai" else [GIVEN_UP])


@scripts
@colours
def test_cut_off(script: Script, *, asynchronous: bool) -> None:
    """A connection that breaks in the middle raises what it raises without us, and is partial."""
    recorded = compared(script, read_until_it_fails, asynchronous=asynchronous, cut_off=True)
    assert recorded == [{**BROKEN, "error_type": "RemoteProtocolError", **script.known}]


@scripts
@colours
def test_error_in_the_middle(script: Script, *, asynchronous: bool) -> None:
    """An error that the provider tells in the middle of a stream ends it; what came before counts."""
    recorded = compared(script, read_until_it_fails, asynchronous=asynchronous, error=True)
    assert recorded == [{**BROKEN, **script.told, **script.known}]


@pytest.mark.parametrize("ending", [cancelled_after_the_head, timed_out_after_the_head])
@scripts
def test_cancelled_in_the_middle(script: Script, ending: Ending) -> None:
    """A task that is cancelled while it reads, by hand or by a deadline, is cancelled as without us."""
    recorded = compared(script, ending, asynchronous=True)
    assert recorded == [{**GIVEN_UP, **script.known}]


@scripts
def test_cancelled_while_it_waits(script: Script) -> None:
    """A call that is cancelled before its answer may have been billed, and nothing is known of it."""
    recorded = compared(script, cancelled_before_the_head, asynchronous=True)
    assert recorded == [{"customer_id": "acme", "usage_status": "none", "outcome": "cancelled"}]


@scripts
@colours
def test_read_by_another(script: Script, *, asynchronous: bool) -> None:
    """A stream counts for the customer for whom its request was sent; Google's is sent when it is read."""
    recorded = compared(script, read_by_another, asynchronous=asynchronous)
    sent_for = "globex" if script.sdk == "google-genai" else "acme"
    assert recorded == [{**COMPLETE, "customer_id": sent_for, **script.whole}]
