"""Cerebras: OpenAI's chat and completions.

Source: the types of the cerebras-cloud-sdk 1.91 (`types/chat/chat_completion.py`), and recorded traffic.
Reasoning is a part of the completion and cached tokens of the prompt; tokens of images stand in the
usage object itself.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.openai import CHAT, CHAT_UNITS, COMPLETIONS
from cmdrdata_transport.providers.table import Endpoint, Provider, Tree

_UNITS: Tree = {**CHAT_UNITS, "image_tokens": "input_image_tokens"}

CEREBRAS = Provider(
    id="cerebras",
    hosts=("api.cerebras.ai",),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=replace(CHAT, units=_UNITS)),
        Endpoint(path=r"/completions$", shape=replace(COMPLETIONS, units=_UNITS)),
    ),
)
