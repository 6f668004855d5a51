"""replicate and assemblyai: what is started, and asked for again until it is done. They take no client."""

from __future__ import annotations

import importlib
from typing import Any

from cmdrdata_transport.demo.calls.openai import QUESTION
from cmdrdata_transport.demo.calls.table import KEY, LOOPBACK, CalledSdk, Headers, SdkCall

_SOON = 0.01
"""How long to wait before asking again, in seconds."""

_VERSION = "727e49a643e999d602a896c774a0658ffefea21465756a6ce24b7ea4165eba6a"
_LLAMA = "meta/meta-llama-3-70b-instruct"


def _polled(client: Any, _: Headers) -> Any:
    prediction = client.predictions.create(version=_VERSION, input={"prompt": QUESTION})
    prediction.wait()
    prediction.reload()
    return prediction


async def _polled_async(client: Any, _: Headers) -> Any:
    prediction = await client.predictions.async_create(version=_VERSION, input={"prompt": QUESTION})
    await prediction.async_wait()
    await prediction.async_reload()
    return prediction


def _run(client: Any, _: Headers) -> Any:
    """`run` is not told what it used; whoever wants to know looks the prediction up."""
    client.run(_LLAMA, input={"prompt": QUESTION}, use_file_output=False)
    last = client.predictions.list().results[-1]
    client.predictions.get(last.id)
    return client.predictions.get(last.id)


async def _run_async(client: Any, _: Headers) -> Any:
    await client.async_run(_LLAMA, input={"prompt": QUESTION}, use_file_output=False)
    last = (await client.predictions.async_list()).results[-1]
    await client.predictions.async_get(last.id)
    return await client.predictions.async_get(last.id)


def _replicate(module: Any, url: str, _: Any) -> Any:
    client = module.Client(api_token=KEY, base_url=url, **LOOPBACK)
    client.poll_interval = _SOON
    return client


REPLICATE = CalledSdk(
    name="replicate",
    module="replicate",
    provider="replicate",
    connect=_replicate,
    connect_async=_replicate,
    at="/replicate",
    ways=("track", "instrument"),
    opened=lambda client: (client._client, client._async_client),  # noqa: SLF001 - it can't be closed
    calls=(
        SdkCall(name="predictions, polled", make=_polled, make_async=_polled_async),
        SdkCall(name="run, and looked up", make=_run, make_async=_run_async),
    ),
)


def _settings(module: Any, url: str) -> Any:
    return module.Settings(api_key=KEY, base_url=url, polling_interval=_SOON)


def _transcribe(client: Any, _: Headers) -> Any:
    transcriber = importlib.import_module("assemblyai").Transcriber(client=client)
    return transcriber.transcribe("https://example.com/bill.mp3")


def _transcribe_async(client: Any, _: Headers) -> Any:
    transcriber = importlib.import_module("assemblyai").AsyncTranscriber(client=client)
    return transcriber.transcribe("https://example.com/bill.mp3")


ASSEMBLYAI = CalledSdk(
    name="assemblyai",
    module="assemblyai",
    provider="assemblyai",
    connect=lambda module, url, _: module.Client(settings=_settings(module, url)),
    connect_async=lambda module, url, _: module.AsyncClient(settings=_settings(module, url)),
    at="/assemblyai",
    ways=("track", "instrument"),
    opened=lambda client: (client.http_client,),
    calls=(SdkCall(name="transcribe", make=_transcribe, make_async=_transcribe_async),),
)
