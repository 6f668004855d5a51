"""Real applications, killed: every answer whose end they saw is in the ledger once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cmdrdata_transport.delivery import drain
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.ledger import Ledger

SETTING_UP = """
import asyncio, os, sys
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from cmdrdata_transport import customer_context, tracked_async_http_client, tracked_http_client

url = sys.argv[1]
usage = {"include_usage": True}
ask = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}

def seen(response_id):
    os.write(1, response_id.encode() + b"\\n")  # the end of this answer has been seen
"""

SYNC = """
openai = OpenAI(base_url=url + "/v1", api_key="k", http_client=tracked_http_client("openai"))
claude = Anthropic(base_url=url, api_key="k", http_client=tracked_http_client("anthropic"))
while True:
    with customer_context("acme"):
        seen(openai.chat.completions.create(**ask).id)
        for chunk in openai.chat.completions.create(**ask, stream=True, stream_options=usage):
            pass
        seen(chunk.id)
        for event in openai.responses.create(model="gpt-5", input="Hello", stream=True):
            if event.type == "response.completed":
                seen(event.response.id)
        for event in claude.messages.create(**ask, max_tokens=99, stream=True):
            if event.type == "message_start":
                message = event.message
            elif event.type == "message_stop":
                seen(message.id)
"""

ASYNC = """
async def main():
    openai = AsyncOpenAI(base_url=url + "/v1", api_key="k", http_client=tracked_async_http_client("openai"))
    claude = AsyncAnthropic(base_url=url, api_key="k", http_client=tracked_async_http_client("anthropic"))

    async def customer(name):
        while True:
            with customer_context(name):
                seen((await openai.chat.completions.create(**ask)).id)
                stream = await openai.chat.completions.create(**ask, stream=True, stream_options=usage)
                async for chunk in stream:
                    pass
                seen(chunk.id)
                async for event in await openai.responses.create(model="gpt-5", input="Hello", stream=True):
                    if event.type == "response.completed":
                        seen(event.response.id)
                async for event in await claude.messages.create(**ask, max_tokens=99, stream=True):
                    if event.type == "message_start":
                        message = event.message
                    elif event.type == "message_stop":
                        seen(message.id)

    await asyncio.gather(*map(customer, ("acme", "globex", "initech")))

asyncio.run(main())
"""


def kill_after(home: Path, url: str, application: str, answers: int) -> list[str]:
    """Run an application, kill it after so many answers; the ids of all whose end it saw."""
    environ = os.environ | {"CMDRDATA_HOME": str(home), "CMDRDATA_SINKS": "sqlite:///usage.db"}
    process = subprocess.Popen(
        [sys.executable, "-c", SETTING_UP + application, url],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ids = [process.stdout.readline().strip() for _ in range(answers)]
    process.send_signal(signal.SIGKILL)
    ids += process.stdout.read().split()
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL
    return ids


def killed(home: Path, application: str, *, times: int) -> None:
    """Kill an application so many times; every answer that it saw the end of is in the ledger, once."""
    chance = random.Random(times)
    seen: list[str] = []
    with Loopback(Provider(seed=times, gzipped=0.3)) as server:
        for _ in range(times):
            seen += kill_after(home, server.url, application, chance.randrange(1, 60))
    assert all(seen)
    assert all(each.pending == 0 and each.trouble is None for each in drain(home, environ={}))
    with Ledger.open("sqlite:///usage.db", home=home) as ledger:
        stored = [entry.event for entry in ledger.events()]
    whole = Counter(event.response_id for event in stored if event.usage_status == "complete")
    assert [each for each in seen if whole[each] != 1] == []
    assert max(Counter(event.event_id for event in stored).values()) == 1


@pytest.mark.parametrize("application", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_killed_application_loses_no_answer(tmp_path: Path, application: str) -> None:
    """SIGKILL at a random moment of a program that makes plain and streamed calls through real SDKs."""
    killed(tmp_path, application, times=3)


@pytest.mark.slow
@pytest.mark.parametrize("application", [SYNC, ASYNC], ids=["sync", "async"])
def test_an_application_killed_many_times_loses_no_answer(tmp_path: Path, application: str) -> None:
    """The same, forty times over one home."""
    killed(tmp_path, application, times=40)
