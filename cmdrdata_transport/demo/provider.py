"""Many providers behind one loopback server: right bytes, awkward cuts, and an account of what was stated.

    provider = Provider(seed=1)
    with Loopback(provider) as server:
        OpenAI(base_url=f"{server.url}/v1", api_key="none").responses.create(...)
    provider.stated

Speaks chat completions, responses and embeddings (OpenAI), messages (Anthropic), generateContent,
streamGenerateContent and batchEmbedContents (Gemini), and Groq's chat completions, under any path prefix;
the other providers of `dialects` under their own names, such as `/mistral/v1/chat/completions`.
The numbers, texts and cuts of an answer follow from the seed and the request, whatever came before.

Does not know what the library makes of it: its account is kept from the numbers that were drawn.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

from cmdrdata_transport.demo.cuts import awkward, framed
from cmdrdata_transport.demo.dialects import (
    anthropic,
    batches,
    cohere,
    compatible,
    google,
    google_later,
    jobs,
    ollama,
    openai,
    openai_media,
    perplexity,
    speech,
)
from cmdrdata_transport.demo.dialects.drawing import Asked, Told
from cmdrdata_transport.demo.loopback import Answer, Call

ACCOUNT_HEADER = "x-demo-account"
"""A request header that says whom an answer is for; the account is kept apart for each."""

_DIALECTS = (
    *(compatible, perplexity, cohere, ollama, speech, jobs, openai_media, batches, google_later),
    *(openai, anthropic, google),
)
"""Those at a path of their own first: the last three speak under any prefix."""

_ROUTES = tuple((re.compile(route.pattern), route) for dialect in _DIALECTS for route in dialect.ROUTES)

_FIELD = re.compile(rb'form-data; name="(\w+)"\r\n(?:[^\r]+\r\n)*\r\n([^\r]*)\r\n')


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What one answer stated, in the units of the published event."""

    account: str | None
    provider: str
    model: str
    response_id: str
    streaming: bool
    units: Counter[str]
    amounts: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    """What has fractions: seconds, and what the provider says it charged."""


class Provider:
    """A handler for `Loopback`. Safe in any thread.

    `seed` decides the numbers and the cuts. `pace` is the least time between two chunks, in seconds.
    `refusals` is the share of calls with counts, of SDKs that say which attempt it is, whose first
    attempt is answered 429. `gzipped` is the share of answers that are coded where the client accepts it.

    `stated` has one entry for each answer that stated usage, made when the answer is.
    """

    def __init__(
        self, *, seed: int = 0, pace: float = 0.0, refusals: float = 0.0, gzipped: float = 0.4
    ) -> None:
        self.stated: list[Stated] = []
        self.refused = 0
        self._seed = seed
        self._pace = pace
        self._refusals = refusals
        self._gzipped = gzipped
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._begun: dict[str, dict[str, Any]] = {}

    def __call__(self, call: Call) -> Answer:
        """The answer of the provider whose path it is; 404 for a path of none."""
        account = call.header(ACCOUNT_HEADER)
        for pattern, route in _ROUTES:
            if match := pattern.fullmatch(f"{call.method} {call.path}"):
                try:
                    body = _fields(call)
                except ValueError:
                    return _failure(400, "invalid_request_error", "the body is not JSON")
                random = self._random(call, account)
                asked = Asked(
                    body=body,
                    named=match.groupdict(),
                    query=call.query,
                    random=random,
                    waits="wait" in (call.header("prefer") or ""),
                    begun=self._begun,
                )
                told = route.tell(asked)
                if told.units and self._is_refused(call, random):
                    return self._refuse()
                self._keep(told, account, route.provider)
                return self._answer(told, call, random)
        return _failure(404, "not_found_error", f"nothing is at {call.method} {call.path}")

    def total(self, unit: str) -> int:
        """The sum of one unit over everything that was stated."""
        return sum(each.units[unit] for each in self.stated)

    def _random(self, call: Call, account: str | None) -> Random:
        key = f"{self._seed} {account} {call.target} {call.body!r}"
        with self._lock:
            self._seen[key] += 1
            return Random(f"{key} {self._seen[key]}")  # noqa: S311 - a script, not a secret

    def _is_refused(self, call: Call, random: Random) -> bool:
        first = call.method == "POST" and call.header("x-stainless-retry-count") == "0"
        return first and random.random() < self._refusals

    def _refuse(self) -> Answer:
        with self._lock:
            self.refused += 1
        answer = _failure(429, "rate_limit_error", "too many requests")
        return Answer(
            status=answer.status, headers=[*answer.headers, ("retry-after-ms", "20")], body=answer.body
        )

    def _keep(self, told: Told, account: str | None, provider: str) -> None:
        if told.units or told.amounts:
            self.stated.append(
                Stated(
                    account=account,
                    provider=provider,
                    model=told.model,
                    response_id=told.response_id,
                    streaming=not isinstance(told.content, bytes),
                    units=told.units,
                    amounts=told.amounts,
                )
            )

    def _answer(self, told: Told, call: Call, random: Random) -> Answer:
        accepted = "gzip" in (call.header("accept-encoding") or "")
        coding = "gzip" if accepted and random.random() < self._gzipped else None
        chunked = True
        body: bytes | list[bytes]
        if not isinstance(told.content, bytes):
            body = framed(told.content, random)
        elif random.random() < 0.5:  # noqa: PLR2004
            body = awkward(told.content, random, share=0.02)
        else:
            body, chunked = told.content, False
        return Answer(
            status=told.status,
            headers=[("content-type", told.content_type), *told.headers],
            body=body,
            coding=coding,
            chunked=chunked,
            before_chunk=(lambda _: time.sleep(self._pace)) if self._pace else None,
        )


def _fields(call: Call) -> dict[str, Any]:
    """What was asked: the body as JSON, or the short fields of a form."""
    if (call.header("content-type") or "").startswith("multipart/form-data"):
        return {match[1].decode(): match[2].decode() for match in _FIELD.finditer(call.body)}
    asked: dict[str, Any] = json.loads(call.body or b"{}")
    return asked


def _failure(status: int, kind: str, message: str) -> Answer:
    error = {"type": kind, "code": status, "message": message}
    return Answer.json({"type": "error", "error": error}, status=status, chunked=False)
