"""Azure: OpenAI's deployments, and the models of Azure AI (Foundry) of whatever maker.

Sources: the openai SDK 3.54 (`lib/azure.py`) for deployments and /openai/v1, and recorded traffic. A path
with a deployment names no model. Azure AI's own path is /models/chat/completions; a serverless model has
a host of its own. What each maker's model states passes through: xAI's leave reasoning out of the
completion, which the total shows, and may report more tokens read from the cache than the prompt has.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.anthropic import ENDPOINTS as ANTHROPIC_ENDPOINTS
from cmdrdata_transport.providers.mistral import OCR
from cmdrdata_transport.providers.openai import CHAT, ENDPOINTS
from cmdrdata_transport.providers.openai_media import ENDPOINTS as MEDIA
from cmdrdata_transport.providers.openai_realtime import ENDPOINTS as REALTIME
from cmdrdata_transport.providers.openai_runs import ENDPOINTS as RUNS
from cmdrdata_transport.providers.table import Apart, Endpoint, Provider

AZURE = Provider(
    id="azure",
    include_usage=True,
    hosts=(
        "*.openai.azure.com",
        "*.cognitiveservices.azure.com",
        "*.services.ai.azure.com",
        "*.models.ai.azure.com",
    ),
    endpoints=(
        Endpoint(path=r"/chat/completions$", shape=replace(CHAT, apart=Apart())),
        *(each for each in ENDPOINTS if each.shape is not CHAT),
        *MEDIA,
        *RUNS,
        *REALTIME,
        Endpoint(path=r"/providers/mistral/azure/ocr$", shape=OCR),
        *ANTHROPIC_ENDPOINTS,  # under /anthropic/v1: the anthropic SDK 2.12 (`lib/foundry.py`)
    ),
    request_id=(b"apim-request-id", b"x-request-id"),
)
