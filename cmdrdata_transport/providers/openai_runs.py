"""OpenAI's Assistants: runs, which use nothing until they are over.

Source: the types of the openai SDK 3.54 (`types/beta/threads/run.py`), and recorded traffic, whose usage
objects have details that the types do not. A run goes on behind the call that started it: its usage is null
until the status says that it is over, and is all that the run used, whatever tools asked for in between. The
usage of its steps is a part of that, and is never read: in a stream only the run's own events count.
"""

from __future__ import annotations

from cmdrdata_transport.providers.table import Endpoint, Job, Shape, Stream

RUNS = Shape(
    api="openai.runs",
    operation="chat",
    usage=(("usage",),),
    units={
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "prompt_token_details": {"cached_tokens": "cache_read_tokens"},
        "completion_tokens_details": {"reasoning_tokens": "output_reasoning_tokens"},
    },
    only={("object",): frozenset({"thread.run"}), ("error",): frozenset()},
    error=(("last_error",), ("error",)),
    finish_reason=(("incomplete_details", "reason"), ("status",)),
    pending={("status",): frozenset({"queued", "in_progress", "requires_action", "cancelling"})},
    job=Job(when={("object",): frozenset({"thread.run"})}),
    stream=Stream(done=True),
)

_RUN = r"/threads/[^/]+/runs/[^/]+"

ENDPOINTS = (
    # Others have threads and runs too: LangGraph's servers.
    Endpoint(path=r"/threads(/[^/]+)?/runs$", shape=RUNS, own=True),
    Endpoint(path=rf"{_RUN}$", method="GET", shape=RUNS, poll=True),
    Endpoint(path=rf"{_RUN}/(submit_tool_outputs|cancel)$", shape=RUNS, poll=True),
)
