"""Google's words for interactions, images, and what is asked for again: videos and batches.

From the types of its SDK and recorded traffic. Images and videos state nothing but that they are there. In
an interaction thoughts are outside the output's count and tool prompts outside the input's; its stream tells
the usage so far in every step, and all of it in the last event but one.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from cmdrdata_transport.demo.dialects import google
from cmdrdata_transport.demo.dialects.drawing import JSON, Asked, Document, Route, Tokens, Told, compact
from cmdrdata_transport.demo.dialects.jobs import again, as_told


def images(asked: Asked) -> Told:
    """`POST /models/{model}:predict`: as many as were asked for, less one that was filtered."""
    number = int(asked.body["parameters"]["sampleCount"])
    drawn: list[Document] = [{"mimeType": "image/png", "bytesBase64Encoded": "iVBORw0KGgo="}] * (number - 1)
    document = {"predictions": [*drawn, {"raiFilteredReason": "it may not be shown"}]}
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=asked.model,
        units=Counter(images=number - 1),
    )


def begin_video(asked: Asked) -> Told:
    """`POST .../models/{model}:predictLongRunning`: the name of an operation."""
    name = f"{asked.named['at']}/operations/{asked.name('', 12)}"
    asked.begun[name] = {"begun": {"name": name}}
    return as_told({"name": name})


def video(asked: Asked) -> Told:
    """`POST .../models/{model}:fetchPredictOperation`, which names the operation."""
    made = {"videos": [{"gcsUri": "gs://bucket/1.mp4", "mimeType": "video/mp4"}]}
    asked = replace(asked, named={**asked.named, "id": asked.body["operationName"]})
    document, first = again(asked, {"done": True, "response": made}, {})
    told = as_told(document)
    if not first:
        return told
    return replace(told, model=asked.model, response_id=document["name"], units=Counter(videos=1))


def begin_batch(asked: Asked) -> Told:
    """`POST /models/{model}:batchGenerateContent`: one request, whose answer is drawn now."""
    name = f"batches/{asked.name('', 20).lower()}"
    answer = google.generate(asked)
    content = answer.content if isinstance(answer.content, bytes) else b"".join(answer.content)
    metadata: Document = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": f"models/{asked.model}",
        "state": "BATCH_STATE_PENDING",
        "name": name,
    }
    begun: Document = {"name": name, "metadata": metadata}
    asked.begun[name] = {"begun": begun, "response": json.loads(content), "told whole": answer}
    return as_told(begun)


def batch(asked: Asked) -> Told:
    """`GET /batches/{id}`: its results are in it when it is over."""
    job = asked.begun[asked.named["id"]]
    metadata: Document = job["begun"]["metadata"]
    responses = {"inlinedResponses": {"inlinedResponses": [{"response": job["response"]}]}}
    over = {"metadata": {**metadata, "state": "BATCH_STATE_SUCCEEDED", "output": responses}, "done": True}
    document, first = again(asked, over, {"metadata": {**metadata, "state": "BATCH_STATE_RUNNING"}})
    return replace(job["told whole"], content=compact(document).encode()) if first else as_told(document)


def _usage(tokens: Tokens) -> Document:
    """The usage object of an interaction, without what is zero."""
    counts = {
        "total_input_tokens": tokens.fresh + tokens.cache_read,
        "total_cached_tokens": tokens.cache_read,
        "total_tool_use_tokens": tokens.tool,
        "total_output_tokens": tokens.visible,
        "total_thought_tokens": tokens.reasoning,
        "total_tokens": tokens.input + tokens.output,
    }
    return {name: count for name, count in counts.items() if count}


def interaction(asked: Asked) -> Told:
    """`POST /interactions`, whole or streamed."""
    tokens, words = asked.tokens("cache_read", "tool", "reasoning"), asked.text()
    begun: Document = {
        "id": asked.name("v1_", 40),
        "status": "in_progress",
        "created": "2026-11-01T20:26:47Z",
        "updated": "2026-11-01T20:26:47Z",
        "object": "interaction",
        "model": asked.model,
    }
    over = {**begun, "status": "completed", "usage": _usage(tokens), "service_tier": "standard"}
    content: bytes | list[bytes] = compact({**over, "steps": [_step("".join(words))]}).encode()
    if asked.streaming:
        so_far = {"total_usage": _usage(Tokens(fresh=tokens.fresh, visible=1))}
        events: list[Document] = [
            {"interaction": begun, "event_type": "interaction.created"},
            {"index": 0, "step": {"type": "model_output"}, "event_type": "step.start"},
            *(
                {
                    "index": 0,
                    "delta": {"type": "text", "text": word},
                    "event_type": "step.delta",
                    "metadata": so_far,
                }
                for word in words
            ),
            {"index": 0, "event_type": "step.stop", "usage": _usage(Tokens(fresh=tokens.fresh, visible=2))},
            {"interaction": over, "event_type": "interaction.completed"},
        ]
        content = [f"event: {each['event_type']}\ndata: {compact(each)}\n\n".encode() for each in events]
        content.append(b"event: done\ndata: [DONE]\n\n")
    return Told(
        content=content,
        content_type="text/event-stream" if asked.streaming else JSON,
        model=asked.model,
        response_id=begun["id"],
        units=tokens.units(),
    )


def _step(text: str) -> Document:
    return {"type": "model_output", "content": [{"type": "text", "text": text}]}


_DEVELOPER = "/google-later/v1(?:beta)?"
_VERTEX = r"/google-vertex/v1(?:beta1)?/(?P<at>projects/.*/models/(?P<model>[^/:]+))"

ROUTES = (
    Route("google", rf"POST {_DEVELOPER}/models/(?P<model>[^/:]+):batchGenerateContent", begin_batch),
    Route("google", rf"GET {_DEVELOPER}/(?P<id>batches/[^/:]+)", batch),
    Route("google", rf"POST {_DEVELOPER}/interactions", interaction),
    Route("google", rf"POST {_VERTEX}:predict", images),
    Route("google", rf"POST {_VERTEX}:predictLongRunning", begin_video),
    Route("google", rf"POST {_VERTEX}:fetchPredictOperation", video),
)
