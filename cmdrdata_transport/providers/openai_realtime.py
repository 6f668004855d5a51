"""OpenAI's Realtime API: events of a websocket, which no transport sees and `record_response` reads.

Source: the types of the openai SDK 3.54 (`types/realtime/realtime_response_usage.py` and its details,
`conversation_item_input_audio_transcription_completed_event.py`). What was read from the cache is a part of
the input, and is split by what it is. What the user said is transcribed by another model, billed beside the
conversation. No event names its model: the session does.
"""

from __future__ import annotations

from cmdrdata_transport.providers.table import BY_HAND, Endpoint, Shape

REALTIME = Shape(
    api="openai.realtime",
    operation="chat",
    usage=(("response", "usage"),),
    units={
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "input_token_details": {
            "text_tokens": "input_text_tokens",
            "audio_tokens": "input_audio_tokens",
            "image_tokens": "input_image_tokens",
            "cached_tokens": "cache_read_tokens",
            "cached_tokens_details": {
                "text_tokens": "cache_text_read_tokens",
                "audio_tokens": "cache_audio_read_tokens",
                "image_tokens": "cache_image_read_tokens",
            },
        },
        "output_token_details": {
            "text_tokens": "output_text_tokens",
            "audio_tokens": "output_audio_tokens",
        },
    },
    error=(("response", "status_details", "error"), ("error",)),
    response_id=(("response", "id"),),
    model=(),
    finish_reason=(("response", "status_details", "reason"), ("response", "status")),
    looks={("type",): frozenset({"response.done"})},
)

HEARD = Shape(
    api="openai.realtime",
    operation="transcription",
    usage=(("usage",),),
    units={
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "input_token_details": {
            "text_tokens": "input_text_tokens",
            "audio_tokens": "input_audio_tokens",
        },
        "seconds": "audio_seconds",
    },
    response_id=(("item_id",),),
    model=(),
    looks={("type",): frozenset({"conversation.item.input_audio_transcription.completed"})},
)

ENDPOINTS = (
    Endpoint(path=r"response\.done$", method=BY_HAND, shape=REALTIME),
    Endpoint(path=r"conversation\.item\.input_audio_transcription\.completed$", method=BY_HAND, shape=HEARD),
)
