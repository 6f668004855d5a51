"""Who is metered: one table a provider, and the interpreters that route by them and read by them."""

from __future__ import annotations

from cmdrdata_transport.providers.anthropic import ANTHROPIC
from cmdrdata_transport.providers.google import GOOGLE
from cmdrdata_transport.providers.groq import GROQ
from cmdrdata_transport.providers.openai import AZURE, OPENAI
from cmdrdata_transport.providers.table import Provider

PROVIDERS: tuple[Provider, ...] = (OPENAI, AZURE, ANTHROPIC, GOOGLE, GROQ)
"""Every provider we know. Where two know a path at an unknown host, the first one's word counts."""
