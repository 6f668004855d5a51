"""What OpenAI and Anthropic tell later: responses in the background, and batches with their results.

As in `jobs`, what was started is under way when it is asked for first, and over at the second time. A
batch's results are a file of lines, one a request; who fetches it again is told the same.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from cmdrdata_transport.demo.dialects import anthropic, openai
from cmdrdata_transport.demo.dialects.drawing import EPOCH, Asked, Document, Route, Told, compact
from cmdrdata_transport.demo.dialects.jobs import again, as_told

_LINES = "application/x-jsonl"


def _document(told: Told) -> Document:
    """The JSON of an answer that is told elsewhere at once."""
    content = told.content if isinstance(told.content, bytes) else b"".join(told.content)
    document: Document = json.loads(content)
    return document


def _first(told: Told, *, first: bool) -> Told:
    """An answer that states what it used when it is told first, and repeats it afterwards."""
    return told if first else replace(told, units=Counter())


def begin_response(asked: Asked) -> Told:
    """`POST /responses`, in the background: queued."""
    told = openai.responses(asked)
    over: Document = {**_document(told), "background": True}
    begun = {**over, "status": "queued", "output": [], "usage": None}
    asked.begun[told.response_id] = {"begun": begun, "over": over, "told whole": told}
    return as_told(begun)


def response(asked: Asked) -> Told:
    """`GET /responses/{id}`."""
    job = asked.begun[asked.named["id"]]
    document, first = again(asked, job["over"], {"status": "in_progress"})
    if document["status"] != "completed":
        return as_told(document)
    return _first(replace(job["told whole"], content=compact(document).encode()), first=first)


def upload(asked: Asked) -> Told:
    """`POST /files`, a form."""
    file: Document = {"object": "file", "bytes": 120, "created_at": EPOCH, "filename": "asked.jsonl"}
    return as_told({"id": asked.name("file-", 22), **file, "purpose": "batch", "status": "processed"})


def begin_batch(asked: Asked) -> Told:
    """`POST /batches`: one request, whose answer is drawn now."""
    batch_id, file_id = asked.name("batch_", 32), asked.name("file-", 22)
    answer = openai.chat_completions(replace(asked, body={"model": "gpt-5"}))
    line: Document = {
        "id": asked.name("batch_req_", 32),
        "custom_id": "1",
        "response": {
            "status_code": 200,
            "request_id": asked.name("", 32),
            "body": _document(answer),
        },
        "error": None,
    }
    begun: Document = {
        "id": batch_id,
        "object": "batch",
        "endpoint": asked.body["endpoint"],
        "errors": None,
        "input_file_id": asked.body["input_file_id"],
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": EPOCH,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": None,
    }
    asked.begun[batch_id] = {"begun": begun, "file": file_id}
    asked.begun[file_id] = {"begun": {}, "line": line, "told whole": answer}
    return as_told(begun)


def batch(asked: Asked) -> Told:
    """`GET /batches/{id}`."""
    counts = {"total": 1, "completed": 1, "failed": 0}
    over: Document = {
        "status": "completed",
        "output_file_id": asked.begun[asked.named["id"]]["file"],
        "request_counts": counts,
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},  # the lines', not to be added
    }
    return as_told(again(asked, over, {"status": "in_progress"})[0])


def batch_results(asked: Asked) -> Told:
    """`GET /files/{id}/content`."""
    file = asked.begun[asked.named["id"]]
    first = not file.get("asked for")
    file["asked for"] = True
    return _first(
        replace(
            file["told whole"],
            content=f"{compact(file['line'])}\n".encode(),
            content_type="application/octet-stream",
        ),
        first=first,
    )


def begin_messages(asked: Asked) -> Told:
    """`POST /v1/messages/batches`: one request, whose answer is drawn now."""
    batch_id = asked.name("msgbatch_01", 22)
    answer = anthropic.messages(replace(asked, body=asked.body["requests"][0]["params"]))
    begun: Document = {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": "2026-11-01T20:26:47.872905Z",
        "expires_at": "2026-11-02T20:26:47.872905Z",
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
    message = _document(answer)
    line: Document = {"custom_id": "1", "result": {"type": "succeeded", "message": message}}
    asked.begun[batch_id] = {"begun": begun, "line": line, "told whole": answer}
    return as_told(begun)


def messages(asked: Asked) -> Told:
    """`GET /v1/messages/batches/{id}`."""
    over: Document = {
        "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
        "ended_at": "2026-11-01T20:36:47.872905Z",
        "results_url": f"/v1/messages/batches/{asked.named['id']}/results",
    }
    return as_told(again(asked, over, {})[0])


def message_results(asked: Asked) -> Told:
    """`GET /v1/messages/batches/{id}/results`."""
    job = asked.begun[asked.named["id"]]
    first = not job.get("fetched")
    job["fetched"] = True
    content = f"{compact(job['line'])}\n".encode()
    return _first(replace(job["told whole"], content=content, content_type=_LINES), first=first)


ROUTES = (
    Route("openai", r"POST /openai-later/v1/responses", begin_response),
    Route("openai", r"GET /openai-later/v1/responses/(?P<id>[^/]+)", response),
    Route("openai", r"POST /openai-later/v1/files", upload),
    Route("openai", r"POST /openai-later/v1/batches", begin_batch),
    Route("openai", r"GET /openai-later/v1/batches/(?P<id>[^/]+)", batch),
    Route("openai", r"GET /openai-later/v1/files/(?P<id>[^/]+)/content", batch_results),
    Route("anthropic", r"POST /anthropic-later/v1/messages/batches", begin_messages),
    Route("anthropic", r"GET /anthropic-later/v1/messages/batches/(?P<id>[^/]+)", messages),
    Route("anthropic", r"GET /anthropic-later/v1/messages/batches/(?P<id>[^/]+)/results", message_results),
)
