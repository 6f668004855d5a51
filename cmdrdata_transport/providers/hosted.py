"""Services that host models behind OpenAI's and Anthropic's shapes and add nothing of their own.

Sources: recorded traffic of Z.AI, Snowflake Cortex, Heroku and Crusoe; the types of the ai21 SDK 4.3 for
AI21, whose answers name no model. What each of them leaves out is absent: Snowflake sends no id.
Z.AI's and Snowflake's answers in Anthropic's shape are known from their documentation alone.
"""

from __future__ import annotations

from cmdrdata_transport.providers.anthropic import MESSAGES
from cmdrdata_transport.providers.openai import CHAT, EMBEDDINGS, ENDPOINTS
from cmdrdata_transport.providers.table import Endpoint, Provider

AI21 = Provider(
    id="ai21",
    hosts=("api.ai21.com",),
    endpoints=(Endpoint(path=r"/studio/v1/chat/completions$", shape=CHAT),),
)

SNOWFLAKE = Provider(
    id="snowflake",
    hosts=("*.snowflakecomputing.com",),
    endpoints=(
        Endpoint(path=r"/api/v2/cortex/v1/chat/completions$", shape=CHAT),
        Endpoint(path=r"/api/v2/cortex/v1/messages$", shape=MESSAGES),
    ),
)

ZAI = Provider(
    id="zai",
    hosts=("api.z.ai",),
    endpoints=(
        Endpoint(path=r"/paas/v4/chat/completions$", shape=CHAT),
        Endpoint(path=r"/paas/v4/embeddings$", shape=EMBEDDINGS),
        Endpoint(path=r"/api/anthropic/v1/messages$", shape=MESSAGES),
    ),
)

HEROKU = Provider(id="heroku", hosts=("*.inference.heroku.com",), endpoints=ENDPOINTS)

CRUSOE = Provider(id="crusoe", hosts=("api.inference.crusoecloud.com",), endpoints=ENDPOINTS)

HOSTED = (AI21, SNOWFLAKE, ZAI, HEROKU, CRUSOE)
