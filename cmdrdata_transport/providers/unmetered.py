"""What gives no event, and why: data, for the list in the documentation and for whoever asks.

Knows calls of which a reader could expect that they are metered. What a table reads does not stand here;
`tests/test_metered_list.py` holds that the two do not overlap, by the `example` of each row.

Sources: the SDKs of November 2026 and what their providers bill by. "Told again" is usage that another
call has stated and that was counted there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmetered:
    """A kind of call that no event comes of.

    `provider` is a provider's id, or "any". `instead` is what counts it all the same; empty where nothing
    does or nothing is to be counted. `example` is a request of this kind, "POST https://…", where one
    passes an HTTP transport at all. `package`: whose whole traffic it is, as pip calls it.
    """

    provider: str
    what: str
    why: str
    instead: str = ""
    example: str = ""
    package: str = ""


FREE = "it is free"
AGAIN = "told again: it was counted when it was made"
SILENT = "no answer states what it used"
SOCKET = "it is a websocket, which no HTTP transport sees"
RENT = "it is billed by time, not by call"
JOB = "one job of yours, not a call for a customer"

_HAND = "`record_response`, by hand"
_COUNTS = "`record`, by hand"

UNMETERED: tuple[Unmetered, ...] = (
    Unmetered(
        provider="any",
        what="`requests`, `urllib3`, aiohttp, gRPC, websockets",
        why="they do not pass httpx or httpx2",
        instead="`record` or `record_response`, by hand",
    ),
    Unmetered(
        provider="any",
        what="answers that come to your server: webhooks, callbacks",
        why="they are requests to you",
        instead=_HAND,
    ),
    # OpenAI
    Unmetered(provider="openai", what="Realtime, over a websocket or WebRTC", why=SOCKET, instead=_HAND),
    Unmetered(provider="openai", what="Responses over a websocket", why=SOCKET, instead=_HAND),
    Unmetered(
        provider="openai",
        what="chat streams that did not ask, of servers that only speak OpenAI's shape",
        why="they state none unless they are asked; the event says `missing`",
        instead="`include_usage=True`",
    ),
    Unmetered(
        provider="openai",
        what="transcripts as `text`, `srt` or `vtt`",
        why="they state nothing; the event says `missing`",
        instead="`json` or `verbose_json`",
    ),
    Unmetered(
        provider="openai",
        what="agents' sessions",
        why="their totals grow from call to call, of many calls together",
        example="GET https://api.openai.com/v1/agents/sessions/s_1",
    ),
    Unmetered(
        provider="openai",
        what="fine-tuning: `trained_tokens`",
        why=JOB,
        instead=_COUNTS,
        example="GET https://api.openai.com/v1/fine_tuning/jobs/ft_1",
    ),
    Unmetered(
        provider="openai",
        what="evals and graders",
        why=JOB,
        instead=_COUNTS,
        example="GET https://api.openai.com/v1/evals/eval_1/runs/run_1",
    ),
    Unmetered(
        provider="openai",
        what="containers",
        why=RENT,
        example="POST https://api.openai.com/v1/containers",
    ),
    Unmetered(
        provider="openai",
        what="vector stores",
        why=RENT,
        example="GET https://api.openai.com/v1/vector_stores/vs_1",
    ),
    Unmetered(
        provider="openai",
        what="moderation",
        why=FREE,
        example="POST https://api.openai.com/v1/moderations",
    ),
    Unmetered(
        provider="openai",
        what="counting a request's tokens",
        why=FREE,
        example="POST https://api.openai.com/v1/responses/input_tokens",
    ),
    Unmetered(
        provider="openai",
        what="stored chat completions, read or listed",
        why=AGAIN,
        example="GET https://api.openai.com/v1/chat/completions/chatcmpl_1",
    ),
    Unmetered(
        provider="openai",
        what="the steps of an assistant's run",
        why="they are parts of the run's own usage",
        example="GET https://api.openai.com/v1/threads/t_1/runs/r_1/steps",
    ),
    Unmetered(
        provider="openai",
        what="reports of usage and costs",
        why=AGAIN,
        example="GET https://api.openai.com/v1/organization/usage/completions",
    ),
    # Anthropic
    Unmetered(
        provider="anthropic",
        what="managed agents' sessions, and dreams",
        why="their totals grow from call to call, of many calls together",
        example="GET https://api.anthropic.com/v1/sessions/s_1",
    ),
    Unmetered(
        provider="anthropic",
        what="counting a request's tokens",
        why=FREE,
        example="POST https://api.anthropic.com/v1/messages/count_tokens",
    ),
    Unmetered(
        provider="anthropic",
        what="text completions, the first API",
        why=SILENT,
        example="POST https://api.anthropic.com/v1/complete",
    ),
    # Google
    Unmetered(
        provider="google",
        what="Live",
        why=SOCKET,
        instead=_COUNTS,
    ),
    Unmetered(
        provider="google",
        what="cached content, for as long as it is kept",
        why=RENT,
        example="POST https://generativelanguage.googleapis.com/v1beta/cachedContents",
    ),
    Unmetered(
        provider="google",
        what="Vertex batches",
        why="their results are in Cloud Storage or BigQuery, which your program reads by other clients",
        instead="`record_response` for each result",
        example="GET https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/batchPredictionJobs/1",
    ),
    Unmetered(
        provider="google",
        what="videos and batches whose answer is larger than 16 MiB",
        why="it is one document, of which no more is read; counted as `too_large`",
        instead="have them put into a file, or Cloud Storage",
    ),
    Unmetered(
        provider="google",
        what="tuning",
        why=JOB,
        instead=_COUNTS,
        example="POST https://generativelanguage.googleapis.com/v1beta/tuningJobs",
    ),
    Unmetered(
        provider="google",
        what="counting and computing tokens",
        why=FREE,
        example="POST https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:countTokens",
    ),
    Unmetered(
        provider="google",
        what="Vertex with a client certificate (mTLS), unless a tracked client is handed over",
        why="google-genai sends it through `requests` or aiohttp",
        instead="`http_options`, with tracked clients",
    ),
    # AWS
    Unmetered(
        provider="aws",
        what="boto3: Converse, InvokeModel and their streams",
        why="botocore has an HTTP client of its own",
        instead=_HAND,
        package="boto3",
    ),
    Unmetered(
        provider="aws",
        what="batch inference, and asynchronous invocations",
        why="their results are in S3",
        instead="`record_response` for each result",
        example="POST https://bedrock-runtime.us-east-1.amazonaws.com/async-invoke",
    ),
    Unmetered(
        provider="aws",
        what="guardrails alone",
        why="they are billed by units of text",
        instead=_COUNTS,
        example="POST https://bedrock-runtime.us-east-1.amazonaws.com/guardrail/g/version/1/apply",
    ),
    Unmetered(
        provider="aws",
        what="SageMaker's endpoints",
        why=RENT,
        example="POST https://runtime.sagemaker.us-east-1.amazonaws.com/endpoints/e/invocations",
    ),
    # Cohere
    Unmetered(
        provider="cohere",
        what="transcriptions",
        why=SILENT,
        example="POST https://api.cohere.com/v2/audio/transcriptions",
    ),
    Unmetered(
        provider="cohere",
        what="streams of `generate`, the first API",
        why="they state nothing, though the whole answer does; the event says `missing`",
        instead="`chat`",
    ),
    Unmetered(
        provider="cohere",
        what="tokenizing",
        why=FREE,
        example="POST https://api.cohere.com/v1/tokenize",
    ),
    Unmetered(
        provider="oracle",
        what="reranking",
        why=SILENT,
        example="POST https://inference.generativeai.us-chicago-1.oci.oraclecloud.com/20231130/actions/rerankText",
    ),
    # Mistral
    Unmetered(provider="mistral", what="realtime transcription and speech", why=SOCKET, instead=_COUNTS),
    Unmetered(
        provider="mistral",
        what="moderation and classification",
        why=SILENT,
        example="POST https://api.mistral.ai/v1/classifications",
    ),
    Unmetered(
        provider="mistral",
        what="counting a request's tokens",
        why=FREE,
        example="POST https://api.mistral.ai/v1/responses/input_tokens",
    ),
    # Others whose SDKs use httpx
    Unmetered(provider="together", what="realtime speech", why=SOCKET, instead=_COUNTS),
    Unmetered(
        provider="together",
        what="fine-tuning",
        why=JOB,
        example="POST https://api.together.ai/v1/fine-tunes",
    ),
    Unmetered(
        provider="replicate",
        what="predictions that nobody asks for again: `replicate.stream`, at times `replicate.run`",
        why="they give the output before anything says how long it took",
        instead="`replicate.predictions.get(id)` when it is done, or `record_response` in your webhook",
    ),
    Unmetered(
        provider="perplexity",
        what="search",
        why="it is priced by request, and " + SILENT,
        instead=_COUNTS,
        example="POST https://api.perplexity.ai/search",
    ),
    Unmetered(
        provider="ollama",
        what="`web_search` and `web_fetch`",
        why="they are priced by request, and " + SILENT,
        instead=_COUNTS,
        example="POST https://ollama.com/api/web_search",
    ),
    Unmetered(
        provider="ollama",
        what="`embeddings`, the first way to embed",
        why=SILENT,
        instead="`embed`",
        example="POST https://ollama.com/api/embeddings",
    ),
    Unmetered(
        provider="ollama",
        what="pulling, pushing and creating models",
        why=FREE,
        example="POST https://ollama.com/api/pull",
    ),
    Unmetered(
        provider="openrouter",
        what="what a generation cost, asked for later",
        why=AGAIN,
        example="GET https://openrouter.ai/api/v1/generation?id=gen-1",
    ),
    Unmetered(
        provider="ai21",
        what="`conversational_rag`, Maestro, assistants, libraries",
        why=SILENT,
        example="POST https://api.ai21.com/studio/v1/conversational-rag",
    ),
    Unmetered(
        provider="writer",
        what="completions, applications, knowledge graphs, tools, translation, vision",
        why=SILENT,
        example="POST https://api.writer.com/v1/completions",
    ),
    Unmetered(
        provider="elevenlabs",
        what="speech and transcription over websockets, conversational agents",
        why=SOCKET,
        instead=_COUNTS,
    ),
    Unmetered(
        provider="elevenlabs",
        what="transcription with `webhook=`",
        why="the answer comes to your server; the event says `none`",
        instead=_COUNTS,
    ),
    Unmetered(
        provider="elevenlabs",
        what="a transcript, read again",
        why=AGAIN,
        example="GET https://api.elevenlabs.io/v1/speech-to-text/transcripts/t_1",
    ),
    Unmetered(
        provider="elevenlabs",
        what="the history",
        why=AGAIN,
        example="GET https://api.elevenlabs.io/v1/history",
    ),
    Unmetered(provider="deepgram", what="live listening, speaking and agents", why=SOCKET, instead=_COUNTS),
    Unmetered(
        provider="deepgram",
        what="transcription with `callback=`",
        why="the answer comes to your server; the event says `none`",
        instead=_HAND,
    ),
    Unmetered(
        provider="assemblyai", what="streaming, and speech over a websocket", why=SOCKET, instead=_COUNTS
    ),
    Unmetered(
        provider="assemblyai",
        what="sentences, paragraphs and subtitles of a transcript",
        why=AGAIN,
        example="GET https://api.assemblyai.com/v2/transcript/t_1/sentences",
    ),
    Unmetered(
        provider="huggingface",
        what="images, video and speech of fal, WaveSpeed and others, through the router",
        why=SILENT,
        instead=_COUNTS,
        example="POST https://router.huggingface.co/fal-ai/fal-ai/flux/dev",
    ),
    Unmetered(
        provider="replicate",
        what="lists of predictions",
        why=AGAIN,
        example="GET https://api.replicate.com/v1/predictions",
    ),
    Unmetered(
        provider="x-ai",
        what="images and videos of a batch",
        why="how their results state them is not known",
        instead=_HAND,
    ),
    # SDKs that use no httpx
    Unmetered(
        provider="x-ai",
        what="xai-sdk",
        why="it speaks gRPC",
        instead="`record_response`, by hand, or the openai SDK at `https://api.x.ai/v1`",
        package="xai-sdk",
    ),
    Unmetered(
        provider="voyageai",
        what="voyageai",
        why="it uses `requests` and aiohttp",
        instead=_COUNTS,
        package="voyageai",
    ),
)
