"""Hugging Face's router, and the vendors behind it.

Source: huggingface_hub 2.4 (`inference/_providers/_common.py`), and recorded traffic: the first segment of
the path names the vendor, below it are the vendor's own paths, and the answer passes through as the vendor
wrote it. So a vendor's usage is read by its own table where there is one. Hugging Face bills for all of
them: the provider is `huggingface_<vendor>` where genai-prices prices it under that name, and
`huggingface` for any other, and where the router chooses.

Not metered: text generation and feature extraction in Hugging Face's own shapes, and vendors' images.
"""

from __future__ import annotations

from cmdrdata_transport.providers.cerebras import CEREBRAS
from cmdrdata_transport.providers.fireworks import FIREWORKS
from cmdrdata_transport.providers.groq import GROQ
from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Provider
from cmdrdata_transport.providers.together import TOGETHER

_ROUTER = "router.huggingface.co"

_VENDORS: dict[str, tuple[Endpoint, ...]] = {
    "cerebras": CEREBRAS.endpoints,
    "fireworks-ai": FIREWORKS.endpoints,
    "groq": GROQ.endpoints,
    "hyperbolic": ENDPOINTS,
    "nebius": ENDPOINTS,
    "novita": ENDPOINTS,
    "nscale": ENDPOINTS,
    "ovhcloud": ENDPOINTS,
    "publicai": ENDPOINTS,
    "sambanova": ENDPOINTS,
    "together": TOGETHER.endpoints,
}
"""Those that genai-prices knows, as the router's path spells them."""

HUGGINGFACE = (
    *(
        Provider(id=f"huggingface_{vendor}", hosts=(_ROUTER,), under=f"/{vendor}/", endpoints=endpoints)
        for vendor, endpoints in _VENDORS.items()
    ),
    Provider(id="huggingface", hosts=(_ROUTER, "*.endpoints.huggingface.cloud"), endpoints=ENDPOINTS),
)
