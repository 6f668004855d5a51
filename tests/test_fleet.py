"""Nothing that an application saw the end of is lost, whatever application it is and whenever it dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet import PRELOADED, WORKERS, Fleet, fleet

THREADS = """
from anthropic import Anthropic
from openai import OpenAI

openai = OpenAI(base_url=URL + "/v1", api_key="k", http_client=tracked_http_client("openai"))
claude = Anthropic(base_url=URL, api_key="k", http_client=tracked_http_client("anthropic"))

def work(name):
    while True:
        with customer_context(name):
            seen(openai.chat.completions.create(**ASK).id)
            for chunk in openai.chat.completions.create(**ASK, stream=True, stream_options=USAGE):
                pass
            seen(chunk.id)
            for event in openai.responses.create(model="gpt-5", input="Hello", stream=True):
                if event.type == "response.completed":
                    seen(event.response.id)
            for event in claude.messages.create(**ASK, max_tokens=99, stream=True):
                if event.type == "message_start":
                    message = event.message
                elif event.type == "message_stop":
                    seen(message.id)

threads = [threading.Thread(target=work, args=(name,)) for name in ("acme", "globex", "initech")]
for each in threads:
    each.start()
for each in threads:  # a Python from 3.12 on starts no thread of ours when its main one has ended
    each.join()
"""

ASYNCIO = """
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

async def main():
    openai = AsyncOpenAI(base_url=URL + "/v1", api_key="k", http_client=tracked_async_http_client("openai"))
    claude = AsyncAnthropic(base_url=URL, api_key="k", http_client=tracked_async_http_client("anthropic"))

    async def work(name):
        while True:
            with customer_context(name):
                seen((await openai.chat.completions.create(**ASK)).id)
                stream = await openai.chat.completions.create(**ASK, stream=True, stream_options=USAGE)
                async for chunk in stream:
                    pass
                seen(chunk.id)
                async for event in await openai.responses.create(model="gpt-5", input="Hello", stream=True):
                    if event.type == "response.completed":
                        seen(event.response.id)
                async for event in await claude.messages.create(**ASK, max_tokens=99, stream=True):
                    if event.type == "message_start":
                        message = event.message
                    elif event.type == "message_stop":
                        seen(message.id)

    await asyncio.gather(*map(work, ("acme", "globex", "initech")))

asyncio.run(main())
"""

SCRIPT = """
with tracked_http_client() as client:
    use(client)
"""

POOL = """
def work():
    with tracked_http_client() as client:
        while True:
            use(client)

def start(context, started=[]):
    started[:] = [each for each in started if each.is_alive()]
    while len(started) < 3:
        started.append(context.Process(target=work, daemon=True))
        started[-1].start()

if __name__ == "__main__":
    with tracked_http_client() as client:
        use(client)  # so that threads, files and locks are there when the workers are made
        context = multiprocessing.get_context(sys.argv[1])
        while True:
            start(context)
            use(client)
"""

ASGI = """
mine = []

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if not mine:
        mine.append(tracked_async_http_client())
    with customer_context("acme"):
        seen((await mine[0].post(URL + "/v1/chat/completions", json=ASK)).json()["id"])
        asked = {**ASK, "stream": True, "stream_options": USAGE}
        async with mine[0].stream("POST", URL + "/v1/chat/completions", json=asked) as response:
            events = [line[6:] async for line in response.aiter_lines() if line.startswith("data: {")]
        seen(json.loads(events[-1])["id"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""


def gunicorn(listening: int) -> list[str]:
    """Three workers, forked from a master that has loaded the application."""
    where = ["--bind", f"fd://{listening}", "--log-level", "critical"]
    return ["-m", "gunicorn", "application:app", "--preload", "--workers", "3", *where]


def uvicorn(listening: int) -> list[str]:
    """Two workers, started anew by a parent that has made no call."""
    where = ["--fd", str(listening), "--log-level", "critical"]
    return ["-m", "uvicorn", "application:app", "--workers", "2", *where]


APPLICATIONS: dict[str, Callable[[Fleet, int], None]] = {
    "threads": lambda made, times: made.kill_whole(THREADS, times),
    "asyncio": lambda made, times: made.kill_whole(ASYNCIO, times),
    "gunicorn": lambda made, times: made.serve(PRELOADED + WORKERS, gunicorn, times),
    "uvicorn": lambda made, times: made.serve(ASGI, uvicorn, times),
    "fork": lambda made, times: made.kill_workers(POOL, times, "fork"),
    "spawn": lambda made, times: made.kill_workers(POOL, times, "spawn"),
    "script": lambda made, times: made.cut_short(SCRIPT, times),
}


HARD: dict[str, Any] = {"failing": True, "durability": "fsync"}
"""A second sink that fails half of the time, and a thread that syncs."""


@pytest.mark.parametrize("application", APPLICATIONS)
def test_what_a_killed_application_has_seen_is_in_the_ledger_once(
    tmp_path: Path, application: str, record_property: Callable[[str, object], None]
) -> None:
    """SIGKILL at moments of chance, and of deliveries; the receiver beside the ledger fails meanwhile."""
    record_property("says", kill(tmp_path, application, times=3, **HARD))


@pytest.mark.slow
@pytest.mark.parametrize("conditions", [{}, HARD], ids=["easy", "hard"])
@pytest.mark.parametrize("application", APPLICATIONS)
def test_nor_is_anything_lost_when_it_is_killed_many_times(
    tmp_path: Path,
    application: str,
    conditions: dict[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    """The same, eighteen times over one home: some two hundred and fifty kills in all."""
    record_property("says", kill(tmp_path, application, times=18, **conditions))


def kill(home: Path, application: str, *, times: int, **conditions: Any) -> str:
    """Kill an application so many times, settle the account, and say what that was."""
    with fleet(home, seed=times, **conditions) as made:
        APPLICATIONS[application](made, times)
        made.check()
        return made.says()
