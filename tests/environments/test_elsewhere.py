"""The recipes for SDKs that use no httpx run as they stand, each against a server that speaks its SDK's way.

Two of these SDKs are in the development environment, the others in one that `run.py` beside this file
makes; `CMDRDATA_TEST_SDKS` then names those that are installed. It needs pytest and the SDKs, nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.testing import capture_usage

ROOT = Path(__file__).resolve().parents[2]

RECIPES = dict(
    re.findall(
        r"^## ([^\n]+)\n.*?^```python\n(.*?)^```$",
        (ROOT / "docs" / "by-hand.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
"""The code of each recipe, by the heading above it."""

Substitutions = dict[str, str]
"""What in a recipe stands for another text here: where the server is, if no variable says it."""


def fixture(name: str) -> tuple[list[tuple[str, str]], bytes]:
    """The headers and the body of an exchange that is kept in `fixtures`."""
    folder = ROOT / "fixtures" / name
    headers = json.loads((folder / "response.json").read_text("utf-8"))["headers"]
    return list(headers.items()), (folder / "body").read_bytes()


@contextmanager
def bedrock(environ: pytest.MonkeyPatch) -> Iterator[Substitutions]:
    """Bedrock, as botocore speaks to it."""

    def answer(call: Call) -> Answer:
        assert call.path.startswith("/model/amazon.nova-pro-v1")
        headers, body = fixture(f"aws/{call.path.rpartition('/')[2]}")
        return Answer(headers=headers, body=body)

    with Loopback(answer) as server:
        for name, value in {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": server.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environ.setenv(name, value)
        yield {}


TALK = [
    {
        "type": "conversation.item.input_audio_transcription.completed",
        "event_id": "event_1",
        "item_id": "item_1",
        "content_index": 0,
        "transcript": "SECRET",
        "usage": {
            "type": "tokens",
            "input_tokens": 13,
            "input_token_details": {"audio_tokens": 13, "text_tokens": 0},
            "output_tokens": 9,
            "total_tokens": 22,
        },
    },
    {
        "type": "response.done",
        "event_id": "event_2",
        "response": {
            "object": "realtime.response",
            "id": "resp_1",
            "status": "completed",
            "status_details": None,
            "output": [],
            "usage": {
                "total_tokens": 253,
                "input_tokens": 132,
                "output_tokens": 121,
                "input_token_details": {
                    "text_tokens": 119,
                    "audio_tokens": 13,
                    "cached_tokens": 64,
                    "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4},
                },
                "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
            },
        },
    },
]


@contextmanager
def realtime(environ: pytest.MonkeyPatch) -> Iterator[Substitutions]:
    """A websocket that waits to be asked and then tells what was heard and what was answered."""
    from websockets.sync.server import ServerConnection, serve  # noqa: PLC0415 - where openai[realtime] is

    def talk(connection: ServerConnection) -> None:
        assert json.loads(connection.recv())["type"] == "response.create"
        for event in TALK:
            connection.send(json.dumps(event))
        for _ in connection:  # until it is closed
            pass

    with serve(talk, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        environ.setenv("OPENAI_API_KEY", "none")
        environ.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.socket.getsockname()[1]}/v1")
        try:
            yield {}
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grok(environ: pytest.MonkeyPatch) -> Iterator[Substitutions]:
    """The chat service of xAI over gRPC, in the SDK's own messages."""
    grpc, proto = import_module("grpc"), import_module("xai_sdk.proto")
    chat = proto.chat_pb2

    class Chat(proto.chat_pb2_grpc.ChatServicer):  # type: ignore[misc, name-defined]
        def GetCompletion(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name for it
            said = chat.CompletionMessage(role=chat.ROLE_ASSISTANT, content="SECRET")
            return chat.GetChatCompletionResponse(
                id="r1",
                model=request.model,
                outputs=[chat.CompletionOutput(message=said, finish_reason="REASON_STOP")],
                usage=proto.usage_pb2.SamplingUsage(
                    prompt_tokens=30,
                    prompt_text_tokens=30,
                    cached_prompt_text_tokens=10,
                    completion_tokens=5,
                    reasoning_tokens=100,
                    total_tokens=135,
                    cost_in_usd_ticks=12_500_000,
                ),
            )

    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        proto.chat_pb2_grpc.add_ChatServicer_to_server(Chat(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        environ.setenv("XAI_API_KEY", "none")
        try:
            yield {"Client()": f'Client(api_host="127.0.0.1:{port}", use_insecure_channel=True)'}
        finally:
            server.stop(None).wait()


@contextmanager
def voyage(environ: pytest.MonkeyPatch) -> Iterator[Substitutions]:
    """Voyage's embeddings."""

    def answer(call: Call) -> Answer:
        asked = call.json()
        data = [
            {"object": "embedding", "embedding": "AACAPw==", "index": number}
            for number, _ in enumerate(asked["input"])
        ]
        return Answer.json(
            {"object": "list", "data": data, "model": asked["model"], "usage": {"total_tokens": 7}}
        )

    with Loopback(answer) as server:
        environ.setenv("VOYAGE_API_KEY", "none")
        yield {"voyageai.Client()": f'voyageai.Client(base_url="{server.url}/v1")'}


SERVERS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], Any]]] = {
    "boto3": ("boto3", bedrock),
    "OpenAI Realtime": ("openai", realtime),
    "xai-sdk": ("xai_sdk", grok),
    "voyageai": ("voyageai", voyage),
}
"""The module that a recipe needs, and the server that it is to talk to."""

EVENTS: dict[str, list[dict[str, Any]]] = {
    "boto3": [
        {
            "provider": "aws",
            "api": "aws.converse",
            "model": "amazon.nova-pro-v1:0",
            "request_model": "amazon.nova-pro-v1:0",
        }
    ]
    * 2,
    "OpenAI Realtime": [
        {
            "operation": "transcription",
            "model": "gpt-4o-transcribe",
            "input_audio_tokens": 13,
            "total_tokens": 22,
        },
        {
            "operation": "chat",
            "model": "gpt-realtime",
            "response_id": "resp_1",
            "input_tokens": 132,
            "cache_audio_read_tokens": 4,
            "output_audio_tokens": 91,
            "total_tokens": 253,
        },
    ],
    "xai-sdk": [
        {
            "provider": "x-ai",
            "model": "grok-4",
            "input_tokens": 30,
            "cache_read_tokens": 10,
            "output_tokens": 105,
            "output_reasoning_tokens": 100,
            "provider_cost": "0.00125",
            "finish_reason": "REASON_STOP",
        }
    ],
    "voyageai": [
        {"provider": "voyageai", "model": "voyage-3.5", "operation": "embeddings", "input_tokens": 7}
    ],
}
"""What must come of each recipe, beside its customer."""

REQUIRED = (os.environ.get("CMDRDATA_TEST_SDKS") or "").split()


def test_every_recipe_has_its_server() -> None:
    """No recipe goes untried, and none is expected that went."""
    assert RECIPES.keys() == SERVERS.keys() == EVENTS.keys()


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as:DeprecationWarning")  # the openai SDK's
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_by_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe runs as it stands, and the events that it promises come of it."""
    module, server = SERVERS[name]
    if importlib.util.find_spec(module) is None:
        assert name not in REQUIRED
        pytest.skip(f"{name} is not installed here; tests/environments/run.py runs this where it is")
    source = RECIPES[name]
    with capture_usage() as events, server(monkeypatch) as substitutions:
        for text, here in substitutions.items():
            assert source.count(text) == 1
            source = source.replace(text, here)
        names: dict[str, Any] = {"__name__": "recipe"}
        exec(compile(source, f"by-hand.md: {name}", "exec"), names)
        for value in list(names.values()):
            if hasattr(type(value), "close"):
                value.close()
    told = [event.to_dict() for event in events]
    assert [event["customer_id"] for event in told] == ["acme"] * len(EVENTS[name])
    assert [event["usage_status"] for event in told] == ["complete"] * len(told)
    for event, says in zip(told, EVENTS[name], strict=True):
        assert {field: event.get(field) for field in says} == says
    assert "SECRET" not in json.dumps(told)
