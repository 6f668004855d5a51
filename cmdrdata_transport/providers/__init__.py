"""Who is metered: one table a provider, and the interpreters that route by them and read by them."""

from __future__ import annotations

from cmdrdata_transport.providers.anthropic import ANTHROPIC
from cmdrdata_transport.providers.assemblyai import ASSEMBLYAI
from cmdrdata_transport.providers.aws import AWS
from cmdrdata_transport.providers.azure import AZURE
from cmdrdata_transport.providers.cerebras import CEREBRAS
from cmdrdata_transport.providers.cohere import COHERE
from cmdrdata_transport.providers.deepgram import DEEPGRAM
from cmdrdata_transport.providers.deepseek import DEEPSEEK
from cmdrdata_transport.providers.elevenlabs import ELEVENLABS
from cmdrdata_transport.providers.fireworks import FIREWORKS
from cmdrdata_transport.providers.google import GOOGLE
from cmdrdata_transport.providers.groq import GROQ
from cmdrdata_transport.providers.hosted import HOSTED
from cmdrdata_transport.providers.huggingface import HUGGINGFACE
from cmdrdata_transport.providers.mistral import MISTRAL
from cmdrdata_transport.providers.ollama import OLLAMA
from cmdrdata_transport.providers.openai import OPENAI
from cmdrdata_transport.providers.openrouter import OPENROUTER
from cmdrdata_transport.providers.oracle import ORACLE
from cmdrdata_transport.providers.perplexity import PERPLEXITY
from cmdrdata_transport.providers.replicate import REPLICATE
from cmdrdata_transport.providers.table import Provider
from cmdrdata_transport.providers.together import TOGETHER
from cmdrdata_transport.providers.voyageai import VOYAGEAI
from cmdrdata_transport.providers.writer import WRITER
from cmdrdata_transport.providers.xai import XAI

PROVIDERS: tuple[Provider, ...] = (
    OPENAI,
    AZURE,
    ANTHROPIC,
    GOOGLE,
    AWS,
    COHERE,
    MISTRAL,
    VOYAGEAI,
    DEEPGRAM,
    ELEVENLABS,
    ASSEMBLYAI,
    REPLICATE,
    ORACLE,
    GROQ,
    TOGETHER,
    CEREBRAS,
    FIREWORKS,
    PERPLEXITY,
    DEEPSEEK,
    OPENROUTER,
    XAI,
    WRITER,
    *HOSTED,
    *HUGGINGFACE,
    OLLAMA,
)
"""Every provider we know. Where two know a path at an unknown host, the first one's word counts."""
