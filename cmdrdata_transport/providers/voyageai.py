"""Voyage: embeddings and reranking. Its SDK goes by another way than httpx; this is for direct calls.

Sources: the voyageai SDK 0.5 (`object/`), and recorded traffic. All tokens are input, and the answer
names them by their total; of images and videos it counts the pixels. Answers have no id.
"""

from __future__ import annotations

from dataclasses import replace

from cmdrdata_transport.providers.table import Endpoint, Provider, Shape

EMBEDDINGS = Shape(
    api="voyageai.embeddings",
    operation="embeddings",
    usage=(("usage",),),
    units={"total_tokens": "input_tokens", "text_tokens": "input_text_tokens"},
    response_id=(),
)

RERANK = replace(EMBEDDINGS, api="voyageai.rerank", operation="rerank")

VOYAGEAI = Provider(
    id="voyageai",
    hosts=("api.voyageai.com", "ai.mongodb.com"),
    endpoints=(
        Endpoint(path=r"/(contextualized|multimodal)?embeddings$", shape=EMBEDDINGS),
        Endpoint(path=r"/rerank$", shape=RERANK),
    ),
)
