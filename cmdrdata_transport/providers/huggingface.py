"""Hugging Face's router, and the vendors behind it.

Source: huggingface_hub 2.4 (`inference/_providers/_common.py`), and recorded traffic: the first segment of
the path names the vendor, below it are the vendor's own paths, and the answer passes through as the vendor
wrote it. So a vendor's usage is read by its own table where there is one. Hugging Face bills for all of
them: the provider is `huggingface_<vendor>` where genai-prices prices it under that name, and
`huggingface` for any other, and where the router chooses.

Hugging Face's own servers, behind the router and at dedicated endpoints, speak shapes of their own. Text
generation (TGI) states its tokens in headers, and, for who asked for details, what it generated in the body;
of a stream, in the details of its last event. Embeddings and ranking (TEI) state tokens in a header alone.
Both answer at the root of an endpoint, and of what else may answer there nothing is known.

Not metered: vendors' images, videos and speech, which state nothing; Replicate's do.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.cerebras import CEREBRAS
from cmdrdata_transport.providers.fireworks import FIREWORKS
from cmdrdata_transport.providers.groq import GROQ
from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.replicate import REPLICATE
from cmdrdata_transport.providers.table import Endpoint, Items, Provider, Same, Shape, Stream
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

_INPUT = Same(unit="input_tokens")

TEXT_GENERATION = Shape(
    api="huggingface.text_generation",
    operation="completion",
    usage=((),),
    units={
        "details": {
            "generated_tokens": "output_tokens",
            "input_length": "input_tokens",
            # `best_of` is paid for, too.
            "best_of_sequences": Items(tree={"generated_tokens": "output_tokens"}),
        }
    },
    headers={
        b"x-prompt-tokens": _INPUT,
        b"x-generated-tokens": "output_tokens",
        b"x-compute-tokens": _INPUT,
    },
    headers_add=True,
    response_id=(),
    model=(),
    finish_reason=(("details", "finish_reason"),),
    stream=Stream(needles=(b'"details":{',), tail=2, finish_ends=True),
)

FEATURE_EXTRACTION = Shape(
    api="huggingface.feature_extraction",
    operation="embeddings",
    usage=(),
    units={},
    headers={b"x-compute-tokens": "input_tokens"},
    response_id=(),
    model=(),
)

RERANK = replace(FEATURE_EXTRACTION, api="huggingface.rerank", operation="rerank")

_OWN = (
    Endpoint(
        path=r"^/hf-inference/models/(?P<model>.+)/pipeline/(feature-extraction|sentence-similarity)$",
        shape=FEATURE_EXTRACTION,
    ),
    Endpoint(path=r"^/hf-inference/models/(?P<model>[^/]+(/[^/]+)?)$", shape=TEXT_GENERATION),
    Endpoint(path=r"^/(embed|embed_all|embed_sparse|similarity)$", shape=FEATURE_EXTRACTION),
    Endpoint(path=r"^/rerank$", shape=RERANK),
    Endpoint(path=r"^/(generate|generate_stream)?$", shape=TEXT_GENERATION),
)

HUGGINGFACE = (
    *(
        Provider(id=f"huggingface_{vendor}", hosts=(_ROUTER,), under=f"/{vendor}/", endpoints=endpoints)
        for vendor, endpoints in _VENDORS.items()
    ),
    Provider(
        id="huggingface",
        include_usage=True,  # of its own servers: TGI and vLLM
        hosts=(_ROUTER, "*.endpoints.huggingface.cloud"),
        endpoints=(*ENDPOINTS, *_OWN, *REPLICATE.endpoints),
    ),
)
