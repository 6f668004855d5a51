"""Frameworks that are built on SDKs: what they send is metered, tracked or instrumented.

`run.py` beside this file runs it where they are installed; `CMDRDATA_TEST_SDKS` names them. It needs pytest
and the frameworks, nothing else. The README's table of frameworks is this one.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_transport import Tracker, customer_context, instrument, track, uninstrument, untrack
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.testing import capture_usage

INSTALLED = (os.environ.get("CMDRDATA_TEST_SDKS") or "").split()

OPENAI, CLAUDE, GEMINI = "gpt-5-mini", "claude-haiku-4-5", "gemini-2.5-flash"
HELLO: Any = [{"role": "user", "content": "Hello"}]
WITH_USAGE: Any = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """One framework over one provider.

    `name` is what pip calls it. `make` is given the server's URL. `calls` and `async_calls` are given what
    it made, and read the answer to its end. `track`: whether `track()` can be given what `make` makes.
    """

    name: str
    provider: str
    make: Callable[[str], Any]
    calls: tuple[Callable[[Any], object], ...] = ()
    async_calls: tuple[Callable[[Any], Awaitable[object]], ...] = ()
    track: bool = True

    def __str__(self) -> str:
        return f"{self.name}-{self.provider}"


def imported(module: str, name: str) -> Any:
    """Something of a framework that may not be installed."""
    return getattr(importlib.import_module(module), name)


async def through(stream: AsyncIterator[Any]) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


# LangChain: every chat model has the same methods.

LANGCHAIN: dict[str, Any] = {
    "calls": (lambda model: model.invoke("Hello"), lambda model: list(model.stream("Hello"))),
    "async_calls": (
        lambda model: model.ainvoke("Hello"),
        lambda model: through(model.astream("Hello")),
    ),
}


def langchain_openai(url: str) -> Any:
    """It makes the SDK's clients with itself."""
    return imported("langchain_openai", "ChatOpenAI")(
        model=OPENAI, base_url=f"{url}/v1", api_key="k", stream_usage=True
    )


def langchain_anthropic(url: str) -> Any:
    """It makes the SDK's clients at its first call."""
    return imported("langchain_anthropic", "ChatAnthropic")(
        model=CLAUDE, base_url=url, api_key="k", max_tokens=64
    )


def langchain_google(url: str) -> Any:
    """It makes the SDK's client with itself."""
    return imported("langchain_google_genai", "ChatGoogleGenerativeAI")(
        model=GEMINI, base_url=url, api_key="k"
    )


def langchain_chain(url: str) -> Any:
    """A chain of LangChain's, with a model somewhere in it."""
    prompt = imported("langchain_core.prompts", "ChatPromptTemplate").from_messages([("user", "{text}")])
    parser = imported("langchain_core.output_parsers", "StrOutputParser")()
    return prompt | langchain_openai(url) | parser


def langchain_agent(url: str) -> Any:
    """An agent, whose graph has the model in the closures of its nodes."""
    return imported("langchain.agents", "create_agent")(langchain_openai(url), tools=[])


ASKED: Any = {"messages": HELLO}


# LlamaIndex


def llama_index_model(url: str) -> Any:
    """It makes the SDK's clients at its first call."""
    return imported("llama_index.llms.openai", "OpenAI")(
        model="gpt-4.1-mini",
        api_base=f"{url}/v1",
        api_key="k",
        additional_kwargs={"stream_options": {"include_usage": True}},
    )


def llama_index_whole(url: str) -> Any:
    """The same, for calls that are not streamed."""
    return imported("llama_index.llms.openai", "OpenAI")(
        model="gpt-4.1-mini", api_base=f"{url}/v1", api_key="k"
    )


def said() -> list[Any]:
    """A message of LlamaIndex'."""
    return [imported("llama_index.core.llms", "ChatMessage")(role="user", content="Hello")]


async def llama_index_stream(model: Any) -> None:
    """An async stream, which is awaited first."""
    await through(await model.astream_chat(said()))


# pydantic-ai: async only; its sync methods run an event loop each.


def pydantic_ai(provider: str, model: str, kind: str) -> Callable[[str], Any]:
    """An agent with a model of one provider."""

    def make(url: str) -> Any:
        providers = imported(f"pydantic_ai.providers.{provider}", f"{kind}Provider")
        models = imported(
            f"pydantic_ai.models.{provider}", f"{'OpenAIChat' if kind == 'OpenAI' else kind}Model"
        )
        at = f"{url}/v1" if provider == "openai" else url
        return imported("pydantic_ai", "Agent")(models(model, provider=providers(base_url=at, api_key="k")))

    return make


async def pydantic_ai_stream(agent: Any) -> None:
    """A run whose answer is streamed."""
    async with agent.run_stream("Hello") as run:
        await through(run.stream_text())


PYDANTIC_AI: dict[str, Any] = {
    "calls": (lambda agent: agent.run_sync("Hello"), lambda agent: agent.run_sync("Hello")),
    "async_calls": (lambda agent: agent.run("Hello"), pydantic_ai_stream),
}


# OpenAI's agents


def openai_agent(url: str) -> Any:
    """An agent with an SDK's object of its own; its traces, which go elsewhere, are off."""
    imported("agents", "set_tracing_disabled")(disabled=True)
    client = imported("openai", "AsyncOpenAI")(base_url=f"{url}/v1", api_key="k")
    return imported("agents", "Agent")(
        name="agent",
        model=imported("agents", "OpenAIChatCompletionsModel")(model=OPENAI, openai_client=client),
        model_settings=imported("agents", "ModelSettings")(include_usage=True),
    )


def runner() -> Any:
    """What runs an agent of OpenAI's."""
    return imported("agents", "Runner")


# instructor


def instructor(name: str) -> Callable[[str], Any]:
    """An SDK's object, patched by instructor."""

    def make(url: str) -> Any:
        client = imported("openai", name)(base_url=f"{url}/v1", api_key="k")
        return imported("instructor", "from_openai")(client)

    return make


def create(client: Any, **options: Any) -> Any:
    """One call of instructor's, for an answer without a model of its own."""
    return client.chat.completions.create(model=OPENAI, messages=HELLO, response_model=None, **options)


async def create_stream(client: Any) -> None:
    """An async stream, which is awaited first."""
    await through(await create(client, **WITH_USAGE))


# LiteLLM: functions of a module, which make HTTP clients when it is imported and when they are called.


def litellm(model: str, at: str = "") -> dict[str, Any]:
    """The module's functions, with the options of one provider."""

    def make(url: str) -> Any:
        for name in [each for each in sys.modules if each.partition(".")[0] == "litellm"]:
            del sys.modules[name]
        module = importlib.import_module("litellm")
        return module, {"model": model, "messages": HELLO, "api_base": url + at, "api_key": "k"}

    def stream(it: Any) -> None:
        list(it[0].completion(**it[1], **WITH_USAGE))

    async def astream(it: Any) -> None:
        await through(await it[0].acompletion(**it[1], **WITH_USAGE))

    return {
        "make": make,
        "calls": (lambda it: it[0].completion(**it[1]), stream),
        "async_calls": (lambda it: it[0].acompletion(**it[1]), astream),
        "track": False,
    }


FRAMEWORKS = (
    Framework(name="langchain-openai", provider="openai", make=langchain_openai, **LANGCHAIN),
    Framework(name="langchain-openai", provider="openai", make=langchain_chain, **LANGCHAIN),
    Framework(
        name="langchain",
        provider="openai",
        make=langchain_agent,
        calls=(lambda agent: agent.invoke(ASKED), lambda agent: list(agent.stream(ASKED))),
        async_calls=(
            lambda agent: agent.ainvoke(ASKED),
            lambda agent: through(agent.astream(ASKED, stream_mode="messages")),
        ),
    ),
    Framework(name="langchain-anthropic", provider="anthropic", make=langchain_anthropic, **LANGCHAIN),
    Framework(name="langchain-google-genai", provider="google", make=langchain_google, **LANGCHAIN),
    Framework(
        name="llama-index-llms-openai",
        provider="openai",
        make=llama_index_whole,
        calls=(lambda model: model.chat(said()),),
        async_calls=(lambda model: model.achat(said()),),
    ),
    Framework(
        name="llama-index-llms-openai",
        provider="openai",
        make=llama_index_model,
        calls=(lambda model: list(model.stream_chat(said())),),
        async_calls=(llama_index_stream,),
    ),
    Framework(
        name="pydantic-ai-slim",
        provider="openai",
        make=pydantic_ai("openai", OPENAI, "OpenAI"),
        **PYDANTIC_AI,
    ),
    Framework(
        name="pydantic-ai-slim",
        provider="anthropic",
        make=pydantic_ai("anthropic", CLAUDE, "Anthropic"),
        **PYDANTIC_AI,
    ),
    Framework(
        name="pydantic-ai-slim",
        provider="google",
        make=pydantic_ai("google", GEMINI, "Google"),
        **PYDANTIC_AI,
    ),
    Framework(
        name="openai-agents",
        provider="openai",
        make=openai_agent,
        async_calls=(
            lambda agent: runner().run(agent, "Hello"),
            lambda agent: through(runner().run_streamed(agent, "Hello").stream_events()),
        ),
    ),
    Framework(
        name="instructor",
        provider="openai",
        make=instructor("OpenAI"),
        calls=(create, lambda client: list(create(client, **WITH_USAGE))),
    ),
    Framework(
        name="instructor",
        provider="openai",
        make=instructor("AsyncOpenAI"),
        async_calls=(create, create_stream),
    ),
    Framework(name="litellm", provider="openai", **litellm("openai/gpt-5-mini", "/v1")),
    Framework(name="litellm", provider="anthropic", **litellm("anthropic/claude-haiku-4-5")),
    Framework(name="litellm", provider="google", **litellm("gemini/gemini-2.5-flash")),
)

HERE = [row for row in FRAMEWORKS if row.name in INSTALLED]


def readable(answer: Answer) -> Answer:
    """An answer in one piece, without U+2028, at which google-genai before 3 cuts an event in two, and fails.

    In one piece because LiteLLM stops to read Anthropic's streams at the last line but one, and leaves them
    open: cut there, they end when they are collected.
    """
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    return replace(answer, body=[body.replace("\u2028".encode(), b" ")], chunked=True)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is fetched from elsewhere, and every test ends without `instrument`."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    yield
    uninstrument()


@pytest.mark.parametrize("way", ["track", "instrument"])
@pytest.mark.parametrize("framework", HERE, ids=str)
def test_what_the_provider_states_is_what_is_recorded(framework: Framework, way: str, tmp_path: Path) -> None:
    """Each call, sync and async, whole and streamed, gives one event with the tokens that were stated."""
    provider = Provider(seed=7, gzipped=0)

    def handler(call: Call) -> Answer:
        return readable(provider(call))

    async def run_async(it: Any) -> None:
        for call in framework.async_calls:
            await call(it)

    with Loopback(handler) as server, capture_usage() as events, customer_context("acme"):
        if way == "instrument":
            table = next(each for each in PROVIDERS if each.id == framework.provider)
            here = replace(table, hosts=("127.0.0.1",))
            instrument(tracker=Tracker([], home=tmp_path, providers=[here]))
        it = framework.make(server.url)
        if way == "track" and not framework.track:
            with pytest.raises(TrackingSetupError, match=r"instrument\(\) before the module is imported"):
                track(it[0])
            return
        if way == "track":
            assert track(it) is it
        for call in framework.calls:
            call(it)
        asyncio.run(run_async(it))
        if way == "track":
            untrack(it)

    assert len(provider.stated) == len(framework.calls) + len(framework.async_calls)
    assert [
        {unit: getattr(event.usage, unit) for unit in stated.units}
        for event, stated in zip(events, provider.stated, strict=True)
    ] == [dict(stated.units) for stated in provider.stated]
    assert {event.customer_id for event in events} == {"acme"}


@pytest.mark.skipif("llama-index-llms-openai" not in INSTALLED, reason="LlamaIndex is not installed here")
def test_a_llama_index_model_that_keeps_no_client_is_refused() -> None:
    """Made anew for each call, its clients cannot be tracked; track() says what to type."""
    model = imported("llama_index.llms.openai", "OpenAI")(
        model="gpt-4.1-mini", api_key="k", reuse_client=False
    )

    with pytest.raises(TrackingSetupError, match=r"leave reuse_client=True.*instrument\(\)"):
        track(model)


@pytest.mark.skipif("llama-index-llms-openai" not in INSTALLED, reason="LlamaIndex is not installed here")
def test_a_model_inside_llama_indexes_objects_is_tracked() -> None:
    """An engine holds its model some steps down."""
    model = llama_index_whole("http://127.0.0.1:9")
    engine = imported("llama_index.core.chat_engine", "SimpleChatEngine").from_defaults(llm=model)

    track(engine)

    assert type(model._get_client()._client._transport).__module__.startswith("cmdrdata_transport.")
    assert type(model._get_aclient()._client._transport).__module__.startswith("cmdrdata_transport.")


def test_the_readme_names_what_is_tried() -> None:
    """Its table has every framework of this one and no other, and says which of them `track()` refuses."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    _, _, section = readme.partition("\n### Frameworks\n")
    rows = [
        row.split(" | ") for row in re.findall(r"^\| (.*) \|$", section.partition("\n#")[0], re.MULTILINE)
    ]
    refused = {name: row[1].startswith("no") for row in rows[1:] for name in row[0].split(", ")}

    assert refused == {framework.name: not framework.track for framework in FRAMEWORKS}
