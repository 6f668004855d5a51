"""The calls that the demo, the doctor and their tests make: each SDK's own, as a table.

Knows how each SDK is pointed at a server and what its calls are. Knows nothing of what comes of them.
To add a call is to add a row, in the module of its SDK's kind. An SDK's sync and async clients take the
same call: the async one gives what the sync one gives, or an awaitable of it.
"""

from __future__ import annotations

from cmdrdata_transport.demo.calls.anthropic import ANTHROPIC
from cmdrdata_transport.demo.calls.batches import ANTHROPIC_LATER, OPENAI_LATER
from cmdrdata_transport.demo.calls.cohere import COHERE_V1, COHERE_V2
from cmdrdata_transport.demo.calls.google import GOOGLE
from cmdrdata_transport.demo.calls.google_later import GOOGLE_LATER, GOOGLE_VERTEX
from cmdrdata_transport.demo.calls.hosted import AI21, HUGGINGFACE
from cmdrdata_transport.demo.calls.jobs import ASSEMBLYAI, REPLICATE
from cmdrdata_transport.demo.calls.mistral import MISTRAL
from cmdrdata_transport.demo.calls.ollama import OLLAMA
from cmdrdata_transport.demo.calls.openai import DEEPSEEK, OPENAI, OPENROUTER, XAI
from cmdrdata_transport.demo.calls.openai_media import OPENAI_MEDIA
from cmdrdata_transport.demo.calls.speech import DEEPGRAM, ELEVENLABS
from cmdrdata_transport.demo.calls.stainless import CEREBRAS, FIREWORKS, GROQ, PERPLEXITY, TOGETHER, WRITER
from cmdrdata_transport.demo.calls.table import (
    CalledSdk,
    SdkCall,
    Way,
    call,
    call_async,
    connected,
    connected_async,
)

CALLED_SDKS = (OPENAI, ANTHROPIC, GOOGLE, GROQ)
"""The SDKs of the demo, which its extra installs."""

EVERY_SDK = (
    *CALLED_SDKS,
    OPENAI_MEDIA,
    OPENAI_LATER,
    ANTHROPIC_LATER,
    GOOGLE_LATER,
    GOOGLE_VERTEX,
    COHERE_V2,
    COHERE_V1,
    MISTRAL,
    TOGETHER,
    CEREBRAS,
    FIREWORKS,
    PERPLEXITY,
    WRITER,
    AI21,
    HUGGINGFACE,
    OLLAMA,
    ELEVENLABS,
    DEEPGRAM,
    ASSEMBLYAI,
    REPLICATE,
    XAI,
    DEEPSEEK,
    OPENROUTER,
)
"""Every SDK that we know how to call: the doctor calls those that are installed."""

__all__ = [
    "CALLED_SDKS",
    "EVERY_SDK",
    "CalledSdk",
    "SdkCall",
    "Way",
    "call",
    "call_async",
    "connected",
    "connected_async",
]
