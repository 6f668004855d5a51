"""Is this call metered, and for whom.

Knows requests only by the few attributes that httpx and httpx2 share. What goes wrong in here is
counted, and the call goes on as if we were not there. What becomes of a metered call's answer is the
recorder's matter.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Literal

from cmdrdata_transport.account import Headers, Request, Settings, content_of
from cmdrdata_transport.asking import LARGEST_REQUEST, asking, may_change
from cmdrdata_transport.attribution import HEADER_PREFIX, Defaults, resolve
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.recorder import Recorder, is_being_metered

RETRY_COUNT = b"x-stainless-retry-count"
"""How the SDKs that Stainless generates number their attempts, from 0."""


IncludeUsage = bool | Literal["auto"]

_first = itemgetter(0)


class Meter:
    """Meters the calls of one client."""

    __slots__ = ("_defaults", "_include_usage", "_router", "_settings")

    def __init__(
        self, settings: Settings, router: Router, defaults: Defaults, *, include_usage: IncludeUsage
    ) -> None:
        self._include_usage = include_usage
        self._settings = settings
        self._router = router
        self._defaults = defaults

    def start(self, request: Request) -> tuple[Recorder | None, Headers | None]:
        """A recorder if this request is metered; and the headers to send, if they must differ."""
        settings = self._settings
        headers: Headers | None = None
        try:
            raw = request.headers.raw
            ours: dict[bytes, bytes] | None = None
            attempt: bytes | None = None
            # Most requests have none of these; asking all names at once is cheaper than asking each.
            names = b"\n".join(map(_first, raw)).lower()
            if RETRY_COUNT in names or HEADER_PREFIX in names:
                for name, value in raw:
                    lower = name.lower()
                    if lower == RETRY_COUNT:
                        attempt = value
                    elif lower.startswith(HEADER_PREFIX):
                        ours = {**(ours or {}), lower: value}
            headers = None if ours is None else self._without(raw, ours)
            if settings.disabled:
                return None, headers
            url = request.url
            route = self._router.route(request.method, url.raw_host, url.raw_path)
            if route is None or is_being_metered(url):
                return None, headers
            who = resolve(ours, request.extensions.get("cmdrdata"), self._defaults, settings.count)
            if not who.track:
                settings.count("not_tracked")
                return None, headers
            # Whose call it is that asks for what another started, or that may be none of ours, is told later.
            told_now = not route.poll and not route.guesses
            recorded = who.customer is not None or not told_now or settings.records_nobodys()
            settings.ready()  # in any case, or nobody would be there to log what was counted
            if not recorded:
                return None, headers
            recorder = Recorder(settings, route, who, request, attempt)
            if route.asks and (self._include_usage is True or (route.known and self._include_usage)):
                self._ask(recorder, request, names)
        except Exception as error:
            settings.count("internal_errors", type(error).__name__)
            return None, headers
        return recorder, headers

    def _ask(self, recorder: Recorder, request: Request, names: bytes) -> None:
        """Ask for the usage of a stream that does not; not where anything depends on its body."""
        settings = self._settings
        try:
            content = content_of(request)
            if content is None or len(content) > LARGEST_REQUEST or b'"stream"' not in content:
                return
            if request.url.netloc in settings.declined or not may_change(names, request.headers.raw):
                return
            if (body := asking(content)) is not None:
                recorder.ask(body)
        except Exception as error:
            settings.count("internal_errors", type(error).__name__)

    def _without(self, raw: Headers, ours: dict[bytes, bytes]) -> Headers | None:
        for name, value in raw:
            if name.lower() == b"authorization" and value.startswith(b"AWS4-"):
                # Taking a signed header away would break the signature, which lists them by name (SigV4).
                signed = value.partition(b"SignedHeaders=")[2].partition(b",")[0].lower().split(b";")
                if any(each.strip() in ours for each in signed):
                    self._settings.count("signed_headers")
                    return None
        return [pair for pair in raw if pair[0].lower() not in ours]
