"""Google's images and videos: Imagen and Veo, which are billed by how many there are.

Source: google-genai 3.4 (`models.py`, `_operations_converters.py`). No answer states usage. An image that was
filtered has neither bytes nor a place, and is not counted. A video is made by an operation, which whoever
started it asks for: on Vertex by a POST that names it, on the Developer API by a GET. The seconds of a video
are those that were asked for.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.table import Endpoint, Items, Job, Length, One, Shape

PREDICT_IMAGE = Shape(
    api="google.predict",
    operation="image",
    usage=(),
    units={},
    lists={
        (): {
            "predictions": Items(
                tree={"bytesBase64Encoded": One(unit="images"), "gcsUri": One(unit="images")}
            )
        }
    },
    response_id=(),
    model=(),
    free={("predictions", 0, "raiFilteredReason"): frozenset()},
    request_details={
        "size": (("parameters", "sampleImageSize"),),
        "aspect_ratio": (("parameters", "aspectRatio"),),
        "mode": (("parameters", "mode"),),
        "upscale_factor": (("parameters", "upscaleConfig", "upscaleFactor"),),
    },
)

PREDICT_VIDEO = Shape(
    api="google.predict_video",
    operation="video",
    usage=(),
    units={},
    lists={
        ("response",): {"videos": Length(unit="videos"), "generatedSamples": Length(unit="videos")},
        ("response", "generateVideoResponse"): {"generatedSamples": Length(unit="videos")},
    },
    response_id=(("name",),),
    model=(),
    # Where all were filtered there is nothing but this.
    free={
        ("response", "raiMediaFilteredCount"): frozenset(),
        ("response", "generateVideoResponse", "raiMediaFilteredCount"): frozenset(),
    },
    job=Job(asked=("operationName",)),
)

_BEGIN = replace(
    PREDICT_VIDEO,
    pending={("name",): frozenset(), ("done",): frozenset({False})},
    job=Job(),
    request_details={
        "seconds": (("parameters", "durationSeconds"),),
        "resolution": (("parameters", "resolution"),),
        "aspect_ratio": (("parameters", "aspectRatio"),),
        "audio": (("parameters", "generateAudio"),),
    },
)

_MODEL = r"/models/(?P<model>[^/:]+)"

ENDPOINTS = (
    Endpoint(path=r"/models/(?P<model>(imag|virtual-try-on)[^/:]*):predict$", shape=PREDICT_IMAGE),
    Endpoint(path=rf"{_MODEL}:predictLongRunning$", shape=_BEGIN),
    Endpoint(path=rf"{_MODEL}:fetchPredictOperation$", shape=PREDICT_VIDEO, poll=True),
    Endpoint(path=rf"{_MODEL}/operations/[^/]+$", method="GET", shape=PREDICT_VIDEO, poll=True),
)
