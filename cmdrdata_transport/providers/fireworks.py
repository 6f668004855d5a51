"""Fireworks: OpenAI's shapes and Anthropic's messages, under /inference/v1.

Source: the types of the fireworks-ai SDK 1.2 (`types/shared/usage_info.py`). Cached tokens are a part of
the prompt. The numbers of `perf_metrics` and of the `fireworks-` headers repeat them and are not read.
The SDK's type of a message has no usage; that it is Anthropic's is known from its documentation alone.

A batch job's totals grow until it is over (`types/batch_inference_job.py`); its results are in a dataset,
which its owner reads by other ways, so the totals are what counts.
"""

from __future__ import annotations

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Job, Provider, Shape

BATCH_JOB = Shape(
    api="fireworks.batch_jobs",
    operation="chat",
    usage=(("jobProgress",),),
    units={
        "inputTokens": "input_tokens",
        "outputTokens": "output_tokens",
        "cachedInputTokenCount": "cache_read_tokens",
    },
    response_id=(("name",),),
    finish_reason=(("state",),),
    pending={
        ("state",): frozenset(
            f"JOB_STATE_{state}"
            for state in (
                "UNSPECIFIED",
                "CREATING",
                "CREATING_INPUT_DATASET",
                "VALIDATING",
                "PENDING",
                "RE_QUEUEING",
                "RUNNING",
                "IDLE",
                "PAUSED",
                "WRITING_RESULTS",
                "CANCELLING",
            )
        )
    },
    job=Job(),
)

FIREWORKS = Provider(
    id="fireworks",
    hosts=("api.fireworks.ai",),
    endpoints=(
        Endpoint(path=r"/inference/v1/messages$", shape=MESSAGES),
        Endpoint(path=r"/v1/accounts/[^/]+/batchInferenceJobs$", shape=BATCH_JOB),
        Endpoint(
            path=r"/v1/accounts/[^/]+/batchInferenceJobs/[^/]+$", method="GET", shape=BATCH_JOB, poll=True
        ),
        *ENDPOINTS,
    ),
)
