"""The words of those whose work is asked for again until it is done: Replicate and AssemblyAI.

A job is under way when it is asked for the first time, and done at the second, with what it used; later on
it tells the same again, which adds nothing. Replicate's answer to whoever waits for it has the output and
not yet what it took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal

from cmdrdata_transport.demo.dialects.drawing import JSON, Asked, Document, Route, Told, compact


def as_told(document: Document, status: int = 200) -> Told:
    """What states nothing, yet or any more."""
    return Told(content=compact(document).encode(), content_type=JSON, status=status)


def again(asked: Asked, over: Document, under_way: Document) -> tuple[Document, bool]:
    """The job as it is now, and whether it is told to be over for the first time."""
    job = asked.begun[asked.named["id"]]
    times = job["asked for"] = job.get("asked for", 0) + 1
    if times == 1:
        job["told"] = {**job["begun"], **under_way}
    elif times == 2:  # noqa: PLR2004 - it is over when it is asked for again
        job["told"] = {**job["begun"], **over}
    return job["told"], times == 2  # noqa: PLR2004


def predict(asked: Asked) -> Told:
    """`POST /v1/predictions`, and those of a model: what was asked for has been started."""
    response_id = asked.name("", 26).lower()
    owner = asked.named.get("owner")
    url = f"https://api.replicate.com/v1/predictions/{response_id}"
    begun: Document = {
        "id": response_id,
        "model": owner or "bytedance/sdxl-lightning-4step",
        "version": "hidden" if owner else asked.body["version"],
        "input": asked.body["input"],
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "source": "api",
        "status": "starting",
        "created_at": "2026-11-01T20:26:47.872Z",
        "started_at": None,
        "completed_at": None,
        "metrics": None,
        "urls": {"get": url, "cancel": f"{url}/cancel"},
    }
    asked.begun[response_id] = {"begun": begun}
    if asked.waits:
        begun = {**begun, "status": "processing", "output": ["".join(asked.text())]}
    return as_told(begun, 201)


def prediction(asked: Asked) -> Told:
    """`GET /v1/predictions/{id}`."""
    seconds = Decimal(asked.random.randint(50, 99_999)).scaleb(-3)
    tokens = {
        "input_token_count": asked.random.randint(8, 2000),
        "output_token_count": asked.random.randint(1, 600),
    }
    over: Document = {
        "status": "succeeded",
        "output": ["".join(asked.text())],
        "completed_at": "2026-11-01T20:27:47.872Z",
        "metrics": {"predict_time": float(seconds), "total_time": float(seconds) + 1.5, **tokens},
    }
    document, first = again(asked, over, {"status": "processing"})
    counts = Counter(
        input_tokens=tokens["input_token_count"],
        output_tokens=tokens["output_token_count"],
        total_tokens=sum(tokens.values()),
    )
    return _over(document, first, counts, {"compute_seconds": seconds}, document["model"])


def predictions(asked: Asked) -> Told:
    """`GET /v1/predictions`: everything, as it stands."""
    results = [job.get("told", job["begun"]) for job in asked.begun.values() if "urls" in job["begun"]]
    return as_told({"previous": None, "next": None, "results": results})


def transcribe(asked: Asked) -> Told:
    """`POST /v2/transcript`: queued."""
    response_id = asked.name("", 36)
    begun: Document = {
        "id": response_id,
        "audio_url": asked.body["audio_url"],
        "status": "queued",
        "speech_models": asked.body.get("speech_models"),
        "text": None,
        "audio_duration": None,
    }
    asked.begun[response_id] = {"begun": begun}
    return as_told(begun)


def transcript(asked: Asked) -> Told:
    """`GET /v2/transcript/{id}`."""
    seconds = asked.random.randint(5, 9000)
    over: Document = {
        "status": "completed",
        "text": "".join(asked.text()),
        "words": [],
        "confidence": 0.98,
        "audio_duration": seconds,
        "speech_model_used": "universal-3-pro",
    }
    document, first = again(asked, over, {"status": "processing"})
    amounts = {"audio_seconds": Decimal(seconds)}
    return _over(document, first, Counter(), amounts, "universal-3-pro")


def _over(
    document: Document,
    first: bool,  # noqa: FBT001
    units: Counter[str],
    amounts: Mapping[str, Decimal],
    model: str,
) -> Told:
    return Told(
        content=compact(document).encode(),
        content_type=JSON,
        model=model,
        response_id=document["id"],
        units=units if first else Counter(),
        amounts=amounts if first else {},
    )


ROUTES = (
    Route("replicate", r"POST /replicate/v1/predictions", predict),
    Route("replicate", r"POST /replicate/v1/models/(?P<owner>[^/]+/[^/]+)/predictions", predict),
    Route("replicate", r"GET /replicate/v1/predictions", predictions),
    Route("replicate", r"GET /replicate/v1/predictions/(?P<id>[^/]+)", prediction),
    Route("assemblyai", r"POST /assemblyai/v2/transcript", transcribe),
    Route("assemblyai", r"GET /assemblyai/v2/transcript/(?P<id>[^/]+)", transcript),
)
