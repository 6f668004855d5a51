"""The four SDKs' own calls as tables, made by sync and async clients alike, tracked in any way or not.

Knows how to get a client of an SDK, and what people type into it. Does not know what ought to be
recorded: the tests judge.

A call is an async function, whatever the colour of its client: `both`, `items` and `entered` take what
the sync and the async client give. What it gives back is what the SDK showed its user, so that a tracked
client can be compared with a bare one.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import httpx2
from pydantic import BaseModel

from cmdrdata_transport import track, tracked_async_http_client, tracked_http_client
from cmdrdata_transport.demo.calls import CALLED_SDKS
from cmdrdata_transport.demo.loopback import Answer, Call

CONNECT = {sdk.name: sdk for sdk in CALLED_SDKS}
"""How each SDK's object is made from a URL and an HTTP client, or from None for its own."""

Way = Literal["given client", "track", "client of the other library"]

TRACKED_WAYS: tuple[Way, ...] = ("given client", "track", "client of the other library")

OTHER_LIBRARY = {"openai": httpx, "google-genai": httpx, "anthropic": httpx2, "groq": httpx}
"""Which library a client that the user makes is of: the older one where the SDK takes it."""


async def both(value: Any) -> Any:
    """A value, awaited where it has to be."""
    return await value if hasattr(value, "__await__") else value


async def items(values: Any) -> AsyncIterator[Any]:
    """What an iterable of either colour holds."""
    if hasattr(values, "__aiter__"):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value


async def every(values: Any) -> list[Any]:
    """All of it, in a list."""
    return [value async for value in items(values)]


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """A context manager of either colour."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


@asynccontextmanager
async def connected(
    sdk: str, url: str, way: Way | None, *, asynchronous: bool, own_library: bool = True, **tracking: Any
) -> AsyncIterator[Any]:
    """The SDK's object, talking to the server at `url`; tracked in this way, or with None not at all.

    Without `own_library` an untracked one has a client that the user made, of the other library.
    """
    row = CONNECT[sdk]
    connect = row.connect_async if asynchronous else row.connect
    async with AsyncExitStack() as stack:
        http = None
        if way == "given client":
            make = tracked_async_http_client if asynchronous else tracked_http_client
            http = await stack.enter_async_context(entered(make(sdk, **tracking)))
        elif way == "client of the other library" or not own_library:
            library: Any = OTHER_LIBRARY[sdk]
            kind = library.AsyncClient if asynchronous else library.Client
            http = await stack.enter_async_context(entered(kind(timeout=30, follow_redirects=True)))
            if way is not None:
                track(http, **tracking)
        client = connect(importlib.import_module(row.module), url, http)
        held = client._api_client if sdk == "google-genai" else client
        if sdk == "google-genai":
            # The object makes clients of both colours; those that it made are its user's to close.
            for own in (held._httpx_client, held._async_httpx_client):
                if own is not http:
                    stack.push_async_callback(_close, own)
        else:
            stack.push_async_callback(_close, client)
        if way == "track":
            assert track(client, **tracking) is client
        yield client


async def _close(closeable: Any) -> None:
    await both(closeable.aclose() if hasattr(closeable, "aclose") else closeable.close())


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class SdkCall:
    """One thing that people do with an SDK.

    `make` does it and gives what the SDK showed. `model` is what it asks for, None where the answer's
    event has none; `api` and `operation` are as the event names them. `status` is the event's
    `usage_status`. `answers` replaces the scripted provider, for answers that it does not give; `stated`
    is then what they state, one item an answer, in the event's words.
    """

    sdk: str
    name: str
    make: Callable[[Any], Awaitable[Any]]
    api: str
    operation: str = "chat"
    model: str = ""
    streaming: bool = False
    status: str = "complete"
    finish_reason: str | None = None
    service_tier: str | None = None
    details: Mapping[str, str] | None = None
    answers: Callable[[], Callable[[Call], Answer]] | None = None
    stated: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"{self.sdk} {self.name}"


MESSAGES: list[Any] = [{"role": "user", "content": "What did the café bill?"}]
WITH_USAGE = {"include_usage": True}


class Bill(BaseModel):
    """What `parse()` is asked to read out of an answer."""

    total: int


# --- openai, and groq where its SDK is the same ---


async def chat(client: Any, **options: Any) -> Any:
    """`chat.completions.create`; a stream is read to its end."""
    answer = await both(client.chat.completions.create(messages=MESSAGES, **options))
    return await every(answer) if options.get("stream") else answer


def chatting(model: str, **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """A chat with this model."""

    async def make(client: Any) -> Any:
        return await chat(client, model=model, **options)

    return make


def chatting_raw(model: str, **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """The same through `with_raw_response`: status, headers and what it parses to."""

    async def make(client: Any) -> Any:
        raw = await both(
            client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, **options)
        )
        return await shown_raw(raw, streaming=bool(options.get("stream")))

    return make


async def shown_raw(raw: Any, *, streaming: bool = False) -> Any:
    """What a raw response shows."""
    parsed = await both(raw.parse())
    return raw.status_code, sorted(raw.headers.multi_items()), await every(parsed) if streaming else parsed


def chatting_by_lines(model: str, **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """The same through `with_streaming_response`, read line by line."""

    async def make(client: Any) -> Any:
        manager = client.chat.completions.with_streaming_response.create(
            model=model, messages=MESSAGES, **options
        )
        async with entered(manager) as response:
            return response.status_code, await every(response.iter_lines())

    return make


def chatting_with_options(model: str) -> Callable[[Any], Awaitable[Any]]:
    """The same through a copy of the client."""

    async def make(client: Any) -> Any:
        return await chat(client.with_options(max_retries=0, timeout=30), model=model)

    return make


async def chat_helper(client: Any) -> Any:
    """`chat.completions.stream`: its events, and the completion that it puts together."""
    manager = client.chat.completions.stream(model="gpt-5", messages=MESSAGES, stream_options=WITH_USAGE)
    async with entered(manager) as stream:
        return await every(stream), await both(stream.get_final_completion())


async def chat_parse(client: Any) -> Any:
    """`chat.completions.parse`."""
    answer = await both(client.chat.completions.parse(model="gpt-5", messages=MESSAGES, response_format=Bill))
    assert answer.choices[0].message.parsed == Bill(total=12)
    return answer


async def chat_streamed_response_parse(client: Any) -> Any:
    """`with_streaming_response` with `parse()`."""
    manager = client.chat.completions.with_streaming_response.create(model="gpt-5", messages=MESSAGES)
    async with entered(manager) as response:
        return await both(response.parse())


async def completion(client: Any) -> Any:
    """The legacy `completions.create`."""
    return await both(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="The bill is"))


def responding(**options: Any) -> Callable[[Any], Awaitable[Any]]:
    """`responses.create`."""

    async def make(client: Any) -> Any:
        answer = await both(client.responses.create(model="gpt-5-mini", input="The bill?", **options))
        return await every(answer) if options.get("stream") else answer

    return make


async def responses_helper(client: Any) -> Any:
    """`responses.stream`: its events, and the response that it ends with."""
    async with entered(client.responses.stream(model="gpt-5-mini", input="The bill?")) as stream:
        return await every(stream), await both(stream.get_final_response())


async def responses_parse(client: Any) -> Any:
    """`responses.parse`."""
    answer = await both(client.responses.parse(model="gpt-5-mini", input="The bill?", text_format=Bill))
    assert answer.output_parsed == Bill(total=12)
    return answer


async def responses_raw(client: Any) -> Any:
    """`responses.with_raw_response`."""
    return await shown_raw(
        await both(client.responses.with_raw_response.create(model="gpt-5-mini", input="The bill?"))
    )


async def responses_by_lines(client: Any) -> Any:
    """`responses.with_streaming_response` of a stream."""
    manager = client.responses.with_streaming_response.create(
        model="gpt-5-mini", input="The bill?", stream=True
    )
    async with entered(manager) as response:
        return await every(response.iter_lines())


def embedding(model: str, **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """`embeddings.create`."""

    async def make(client: Any) -> Any:
        return await both(client.embeddings.create(model=model, input=["café", "bill"], **options))

    return make


async def embedding_raw(client: Any) -> Any:
    """`embeddings.with_raw_response`."""
    return await shown_raw(
        await both(client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="café"))
    )


# --- anthropic ---

MESSAGE: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": MESSAGES}


def messaging(*, beta: bool = False, **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """`messages.create`."""

    async def make(client: Any) -> Any:
        messages = client.beta.messages if beta else client.messages
        answer = await both(messages.create(**MESSAGE, **options))
        return await every(answer) if options.get("stream") else answer

    return make


async def message_helper(client: Any) -> Any:
    """`messages.stream`: its events, and the message that it puts together."""
    async with entered(client.messages.stream(**MESSAGE)) as stream:
        return await every(stream), await both(stream.get_final_message())


async def message_text(client: Any) -> Any:
    """`messages.stream`, of which only the text is read."""
    async with entered(client.messages.stream(**MESSAGE)) as stream:
        return await every(stream.text_stream)


def messaging_raw(**options: Any) -> Callable[[Any], Awaitable[Any]]:
    """`messages.with_raw_response`."""

    async def make(client: Any) -> Any:
        raw = await both(client.messages.with_raw_response.create(**MESSAGE, **options))
        return await shown_raw(raw, streaming=bool(options.get("stream")))

    return make


def messaging_by_lines(**options: Any) -> Callable[[Any], Awaitable[Any]]:
    """`messages.with_streaming_response`."""

    async def make(client: Any) -> Any:
        manager = client.messages.with_streaming_response.create(**MESSAGE, **options)
        async with entered(manager) as response:
            return await every(response.iter_lines())

    return make


async def message_with_options(client: Any) -> Any:
    """`messages.create` through a copy of the client."""
    return await both(client.with_options(max_retries=0, timeout=30).messages.create(**MESSAGE))


# --- google-genai ---

GEMINI = "gemini-2.5-flash"


async def generate(client: Any) -> Any:
    """`models.generate_content`."""
    return await both(client.models.generate_content(model=GEMINI, contents="The bill?"))


async def generate_stream(client: Any) -> Any:
    """`models.generate_content_stream`."""
    return await every(await both(client.models.generate_content_stream(model=GEMINI, contents="The bill?")))


async def generate_raw(client: Any) -> Any:
    """The HTTP response as the SDK gives it to those who ask."""
    answer = await both(
        client.models.generate_content(
            model=GEMINI, contents="The bill?", config={"should_return_http_response": True}
        )
    )
    return answer.sdk_http_response


async def embed(client: Any) -> Any:
    """`models.embed_content`."""
    return await both(client.models.embed_content(model="gemini-embedding-001", contents=["café", "bill"]))


async def chat_session(client: Any) -> Any:
    """`chats`: one message, whole."""
    return await both(client.chats.create(model=GEMINI).send_message("The bill?"))


async def chat_session_stream(client: Any) -> Any:
    """`chats`: one message, streamed."""
    return await every(await both(client.chats.create(model=GEMINI).send_message_stream("The bill?")))


def total_of_the_bill(month: str) -> int:
    """The total of the bill of one month."""
    return 12 + len(month)


async def chat_session_with_function(client: Any) -> Any:
    """Automatic function calling: the SDK runs the function and asks a second time."""
    session = client.chats.create(model=GEMINI, config={"tools": [total_of_the_bill]})
    answer = await both(session.send_message("The bill?"))
    assert answer.text == "15 euros"
    return answer


# --- answers that the scripted provider does not give ---


def once(document: dict[str, Any]) -> Callable[[], Callable[[Call], Answer]]:
    """A provider that gives this one answer, to anything."""
    return lambda: lambda _: Answer.json(document)


CHAT_USAGE = {"prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 26}


def counted(response_id: str, given: int = 21, answered: int = 5) -> dict[str, Any]:
    """What an answer states, in the event's words."""
    return {
        "response_id": response_id,
        "input_tokens": given,
        "output_tokens": answered,
        "total_tokens": given + answered,
    }


PARSED_CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "gpt-5",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"total": 12}'}}
    ],
    "usage": CHAT_USAGE,
}
COMPLETION: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1790000000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "finish_reason": "stop", "text": " 12", "logprobs": None}],
    "usage": CHAT_USAGE,
}
PARSED_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1790000000,
    "status": "completed",
    "model": "gpt-5-mini",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": '{"total": 12}', "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {"input_tokens": 21, "output_tokens": 5, "total_tokens": 26},
}

CHUNK = '"id":"chatcmpl-2","object":"chat.completion.chunk","created":1790000000,"model":"gpt-5"'

SILENT_STREAM = Answer(
    headers=[("content-type", "text/event-stream")],
    body=[
        f'data: {{{CHUNK},"choices":[{{"index":0,"delta":{{"content":"12"}}}}]}}\n\n'.encode(),
        f'data: {{{CHUNK},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'.encode(),
        b"data: [DONE]\n\n",
    ],
)
"""A stream that was not asked for its usage."""


def gemini_answer(response_id: str, part: dict[str, Any], given: int, answered: int) -> Answer:
    """A generateContent answer of one part."""
    return Answer.json(
        {
            "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
            "usageMetadata": {
                "promptTokenCount": given,
                "candidatesTokenCount": answered,
                "totalTokenCount": given + answered,
            },
            "modelVersion": GEMINI,
            "responseId": response_id,
        }
    )


def function_caller() -> Callable[[Call], Answer]:
    """A Gemini that wants the function called, and then answers with what it gave."""

    def answers(call: Call) -> Answer:
        *_, last = call.json()["contents"]
        [part] = last["parts"]
        if "functionResponse" in part:
            return gemini_answer("second", {"text": "15 euros"}, 40, 6)
        wanted = {"functionCall": {"name": "total_of_the_bill", "args": {"month": "May"}}}
        return gemini_answer("first", wanted, 30, 4)

    return answers


# --- the table ---


def _openai(name: str, make: Callable[[Any], Awaitable[Any]], **options: Any) -> SdkCall:
    defaults = {
        "api": "openai.chat_completions",
        "model": "gpt-5",
        "finish_reason": "stop",
        "service_tier": "default",
    }
    return SdkCall(sdk="openai", name=name, make=make, **{**defaults, **options})


def _responses(name: str, make: Callable[[Any], Awaitable[Any]], **options: Any) -> SdkCall:
    defaults = {"api": "openai.responses", "model": "gpt-5-mini", "finish_reason": "completed"}
    return _openai(name, make, **{**defaults, **options})


def _embeddings(name: str, make: Callable[[Any], Awaitable[Any]], **options: Any) -> SdkCall:
    return _openai(
        name,
        make,
        api="openai.embeddings",
        operation="embeddings",
        model="text-embedding-3-small",
        finish_reason=None,
        service_tier=None,
        **options,
    )


def _anthropic(name: str, make: Callable[[Any], Awaitable[Any]], **options: Any) -> SdkCall:
    return SdkCall(
        sdk="anthropic",
        name=name,
        make=make,
        api="anthropic.messages",
        model="claude-haiku-4-5",
        finish_reason="end_turn",
        service_tier="standard",
        details={"inference_geo": "us"},
        **options,
    )


def _google(name: str, make: Callable[[Any], Awaitable[Any]], **options: Any) -> SdkCall:
    defaults = {
        "api": "google.generate_content",
        "model": GEMINI,
        "finish_reason": "STOP",
        "service_tier": "standard",
    }
    return SdkCall(sdk="google-genai", name=name, make=make, **{**defaults, **options})


LLAMA = "llama-3.3-70b-versatile"


def _groq(name: str, make: Callable[[Any], Awaitable[Any]], **options: Any) -> SdkCall:
    defaults = {"api": "openai.chat_completions", "model": LLAMA, "finish_reason": "stop"}
    return SdkCall(sdk="groq", name=name, make=make, **{**defaults, **options})


STREAM = {"stream": True}
STREAM_WITH_USAGE = {"stream": True, "stream_options": WITH_USAGE}

CALLS = (
    _openai("chat", chatting("gpt-5")),
    _openai("chat, stream", chatting("gpt-5", **STREAM_WITH_USAGE), streaming=True),
    _openai(
        "chat, stream that was not asked for usage",
        chatting("gpt-5", **STREAM),
        streaming=True,
        status="missing",
        service_tier=None,
        answers=lambda: lambda _: SILENT_STREAM,
        stated=({"response_id": "chatcmpl-2"},),
    ),
    _openai("chat, stream helper", chat_helper, streaming=True),
    _openai(
        "chat, parse",
        chat_parse,
        service_tier=None,
        answers=once(PARSED_CHAT),
        stated=(counted("chatcmpl-1"),),
    ),
    _openai("chat, raw response", chatting_raw("gpt-5")),
    _openai("chat, raw response of a stream", chatting_raw("gpt-5", **STREAM_WITH_USAGE), streaming=True),
    _openai("chat, streaming response", chatting_by_lines("gpt-5")),
    _openai("chat, streaming response parsed", chat_streamed_response_parse),
    _openai(
        "chat, streaming response of a stream",
        chatting_by_lines("gpt-5", **STREAM_WITH_USAGE),
        streaming=True,
    ),
    _openai("chat, with_options", chatting_with_options("gpt-5")),
    _openai(
        "completion",
        completion,
        api="openai.completions",
        operation="completion",
        model="gpt-3.5-turbo-instruct",
        service_tier=None,
        answers=once(COMPLETION),
        stated=(counted("cmpl-1"),),
    ),
    _responses("responses", responding()),
    _responses("responses, stream", responding(**STREAM), streaming=True),
    _responses("responses, stream helper", responses_helper, streaming=True),
    _responses(
        "responses, parse",
        responses_parse,
        service_tier=None,
        answers=once(PARSED_RESPONSE),
        stated=(counted("resp_1"),),
    ),
    _responses("responses, raw response", responses_raw),
    _responses("responses, streaming response of a stream", responses_by_lines, streaming=True),
    _embeddings("embeddings", embedding("text-embedding-3-small")),
    _embeddings("embeddings, as floats", embedding("text-embedding-3-small", encoding_format="float")),
    _embeddings("embeddings, raw response", embedding_raw),
    _anthropic("messages", messaging()),
    _anthropic("messages, stream", messaging(**STREAM), streaming=True),
    _anthropic("messages, stream helper", message_helper, streaming=True),
    _anthropic("messages, text of the stream helper", message_text, streaming=True),
    _anthropic("messages, raw response", messaging_raw()),
    _anthropic("messages, raw response of a stream", messaging_raw(**STREAM), streaming=True),
    _anthropic("messages, streaming response", messaging_by_lines()),
    _anthropic("messages, streaming response of a stream", messaging_by_lines(**STREAM), streaming=True),
    _anthropic("messages, with_options", message_with_options),
    _anthropic("beta messages", messaging(beta=True)),
    _google("generate_content", generate),
    _google("generate_content_stream", generate_stream, streaming=True),
    _google("generate_content, HTTP response", generate_raw),
    _google(
        "embed_content",
        embed,
        api="google.embed_content",
        operation="embeddings",
        model="gemini-embedding-001",
        finish_reason=None,
    ),
    _google("chats", chat_session),
    _google("chats, stream", chat_session_stream, streaming=True),
    _google(
        "chats, function called",
        chat_session_with_function,
        service_tier=None,
        answers=function_caller,
        stated=(counted("first", 30, 4), counted("second", 40, 6)),
    ),
    _groq("chat", chatting(LLAMA), service_tier="on_demand"),
    _groq("chat, stream", chatting(LLAMA, **STREAM), streaming=True),
    _groq("chat, raw response", chatting_raw(LLAMA), service_tier="on_demand"),
    _groq("chat, streaming response", chatting_by_lines(LLAMA), service_tier="on_demand"),
    _groq("chat, with_options", chatting_with_options(LLAMA), service_tier="on_demand"),
    _groq(
        "embeddings",
        embedding("nomic-embed-text-v1_5"),
        api="openai.embeddings",
        operation="embeddings",
        model="nomic-embed-text-v1_5",
        finish_reason=None,
    ),
)
"""Every call, by its SDK and name."""
