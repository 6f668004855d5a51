"""Replicate: predictions and trainings.

Sources: the replicate SDK 1.0 (`prediction.py`, `client.py`), recorded traffic, and the names that
Replicate's billing has for what a model states of itself (its model code, `record_billing_metric`). What
was used stands in `metrics`, which a prediction has when it is over. A model on hardware is billed by
`predict_time`, an official one by what it took in and gave. A prediction that failed or was cancelled
states its time, too; whether that is billed is for whoever prices it: `finish_reason` says how it ended.

A prediction is a job: the call that starts it, even one that waits, is often answered before its metrics
are known. They come to whoever asks again, or to a webhook. `replicate.stream` never learns them.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.table import Endpoint, Job, Provider, Same, Shape

_INPUT, _OUTPUT = Same(unit="input_tokens"), Same(unit="output_tokens")
_IMAGES = Same(unit="images")

PREDICTION = Shape(
    api="replicate.predictions",
    operation="prediction",
    usage=(("metrics",),),
    units={
        "predict_time": "compute_seconds",
        "input_token_count": _INPUT,
        "token_input_count": _INPUT,
        "output_token_count": _OUTPUT,
        "token_output_count": _OUTPUT,
        "character_input_count": "input_characters",
        "image_count": _IMAGES,
        "image_output_count": _IMAGES,
        "video_output_count": "videos",
        "video_output_duration_seconds": "video_seconds",
        "audio_output_duration_seconds": "audio_seconds",
    },
    request_model=(("version",), ("model",)),
    # A version is enough to start one; who has none names the model.
    model=(("model",), ("version",)),
    finish_reason=(("status",),),
    pending={("status",): frozenset({"starting", "processing"})},
    job=Job(),
    details={"version": (("version",),)},
)

TRAINING = replace(PREDICTION, api="replicate.trainings")

ENDPOINTS = (
    Endpoint(path=r"/v1/(models|deployments)/(?P<model>[^/]+/[^/]+)/predictions$", shape=PREDICTION),
    Endpoint(path=r"/v1/predictions$", shape=PREDICTION),
    Endpoint(path=r"/v1/predictions/[^/]+$", method="GET", shape=PREDICTION, poll=True),
    Endpoint(path=r"/v1/predictions/[^/]+/cancel$", shape=PREDICTION, poll=True),
    Endpoint(path=r"/v1/models/(?P<model>[^/]+/[^/]+)/versions/[^/]+/trainings$", shape=TRAINING),
    Endpoint(path=r"/v1/trainings/[^/]+$", method="GET", shape=TRAINING, poll=True),
    Endpoint(path=r"/v1/trainings/[^/]+/cancel$", shape=TRAINING, poll=True),
)

REPLICATE = Provider(id="replicate", hosts=("api.replicate.com",), endpoints=ENDPOINTS)
