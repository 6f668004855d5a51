"""`TrackedTransport` and `AsyncTrackedTransport` for httpx.

The twin of the module for the other library, equal but for the name; these two are the only ones that
know one. The request goes down as it came (a copy only where a tracking header must go), the response
comes up as it came with its stream watched, and what the transport below raises is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

import httpx

from cmdrdata_transport.asking import REFUSAL_READ, REFUSALS
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.recorder import Recorder
from cmdrdata_transport.tee import AsyncPeeked, AsyncTee, AsyncVeiledTee, Peeked, Tee, VeiledTee
from cmdrdata_transport.tracker import Binding, BindingSettings, Tracker


class _Body(Tee, httpx.SyncByteStream):
    """The client asserts that a stream is of its own library."""


class _AsyncBody(AsyncTee, httpx.AsyncByteStream):
    """The same, async."""


class _VeiledBody(VeiledTee, httpx.SyncByteStream):
    """The same, without the answer to what we asked."""


class _AsyncVeiledBody(AsyncVeiledTee, httpx.AsyncByteStream):
    """The same, async."""


class TrackedTransport(httpx.BaseTransport):
    """Meters what passes through the transport that it wraps.

    `tracker`: where events go; None is the default tracker. `customer_id`, `metadata`: defaults of this
    transport, below what a context or a header says. `provider`: whom to record at any host.
    `include_usage`: None is the tracker's. `any_host`: whether a known path at an unknown host counts
    (recorded as `openai-compatible` and the like).

    Attributes that it lacks are the wrapped transport's. Raises `TrackingSetupError` for what is no
    transport and for a provider that is not known, and `AttributionError` for a customer id or metadata
    that no event can carry.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport,
        *,
        tracker: Tracker | None = None,
        customer_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        provider: str | None = None,
        include_usage: bool | Literal["auto"] | None = None,
        any_host: bool = True,
    ) -> None:
        self._inner: httpx.BaseTransport = _checked(inner, "handle_request")
        self._binding = Binding(
            BindingSettings.checked(
                tracker=tracker,
                customer_id=customer_id,
                metadata=metadata,
                provider=provider,
                include_usage=include_usage,
                any_host=any_host,
            )
        )

    @property
    def unwrapped(self) -> httpx.BaseTransport:
        """The transport below."""
        return self._inner

    @property
    def settings(self) -> BindingSettings:
        """What this transport was made with; equal settings meter equally."""
        return self._binding.settings

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the transport below, and watch its answer."""
        recorder, headers = self._binding.start(request)
        if headers is not None:
            request = _with_headers(request, headers)
        if recorder is None:
            return self._inner.handle_request(request)
        asked = recorder.asked
        try:
            response = self._inner.handle_request(request if asked is None else _with_content(request, asked))
            if asked is not None and response.status_code in REFUSALS:
                response = self._reconsidered(request, response, recorder)
        except BaseException as error:
            recorder.sent()
            recorder.end(error)
            raise
        recorder.sent()
        content = _content(response) if response.is_closed else None
        if recorder.answered(response.status_code, response.headers.raw, content):
            if recorder.drains:
                recorder.connection = response.extensions
            if (veil := recorder.veil) is None:
                response.stream = _Body(response.stream, recorder)
            else:
                response.stream = _VeiledBody(response.stream, recorder, veil)
                response.headers.pop("content-length", None)
        elif recorder.shown is not None:
            _show(response, recorder.shown)
        return response

    def _reconsidered(
        self, request: httpx.Request, response: httpx.Response, recorder: Recorder
    ) -> httpx.Response:
        """A refusal of what we added is for us: the request is sent again as it was. Any other goes up."""
        if response.is_closed:
            if not recorder.is_refused([], _content(response) or b""):
                return response
        else:
            body = Peeked(response.stream)
            try:
                refused = recorder.is_refused(response.headers.raw, body.peek(REFUSAL_READ))
            except BaseException:
                body.close()
                raise
            if not refused:
                response.stream = body  # type: ignore[assignment]  # a tee of the library's own kind covers it
                return response
            body.close()
        response = self._inner.handle_request(request)
        recorder.answered_without(response.status_code)
        return response

    def close(self) -> None:
        """Close the transport below."""
        self._inner.close()

    def __enter__(self) -> TrackedTransport:  # noqa: PYI034 - the library's own signature
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)

    def __getattr__(self, name: str) -> Any:
        return _below(self, name)


class AsyncTrackedTransport(httpx.AsyncBaseTransport):
    """`TrackedTransport`, async: the same options, the same promises."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        tracker: Tracker | None = None,
        customer_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        provider: str | None = None,
        include_usage: bool | Literal["auto"] | None = None,
        any_host: bool = True,
    ) -> None:
        self._inner: httpx.AsyncBaseTransport = _checked(inner, "handle_async_request")
        self._binding = Binding(
            BindingSettings.checked(
                tracker=tracker,
                customer_id=customer_id,
                metadata=metadata,
                provider=provider,
                include_usage=include_usage,
                any_host=any_host,
            )
        )

    @property
    def unwrapped(self) -> httpx.AsyncBaseTransport:
        """The transport below."""
        return self._inner

    @property
    def settings(self) -> BindingSettings:
        """What this transport was made with; equal settings meter equally."""
        return self._binding.settings

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the transport below, and watch its answer."""
        recorder, headers = self._binding.start(request)
        if headers is not None:
            request = _with_headers(request, headers)
        if recorder is None:
            return await self._inner.handle_async_request(request)
        asked = recorder.asked
        try:
            response = await self._inner.handle_async_request(
                request if asked is None else _with_content(request, asked)
            )
            if asked is not None and response.status_code in REFUSALS:
                response = await self._reconsidered(request, response, recorder)
        except BaseException as error:
            recorder.sent()
            recorder.end(error)
            raise
        recorder.sent()
        content = _content(response) if response.is_closed else None
        if recorder.answered(response.status_code, response.headers.raw, content):
            if (veil := recorder.veil) is None:
                response.stream = _AsyncBody(response.stream, recorder)
            else:
                response.stream = _AsyncVeiledBody(response.stream, recorder, veil)
                response.headers.pop("content-length", None)
        elif recorder.shown is not None:
            _show(response, recorder.shown)
        return response

    async def _reconsidered(
        self, request: httpx.Request, response: httpx.Response, recorder: Recorder
    ) -> httpx.Response:
        """A refusal of what we added is for us: the request is sent again as it was. Any other goes up."""
        if response.is_closed:
            if not recorder.is_refused([], _content(response) or b""):
                return response
        else:
            body = AsyncPeeked(response.stream)
            try:
                refused = recorder.is_refused(response.headers.raw, await body.peek(REFUSAL_READ))
            except BaseException:
                await body.aclose()
                raise
            if not refused:
                response.stream = body  # type: ignore[assignment]  # a tee of the library's own kind covers it
                return response
            await body.aclose()
        response = await self._inner.handle_async_request(request)
        recorder.answered_without(response.status_code)
        return response

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._inner.aclose()

    async def __aenter__(self) -> AsyncTrackedTransport:  # noqa: PYI034 - the library's own signature
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)

    def __getattr__(self, name: str) -> Any:
        return _below(self, name)


def _checked(inner: Any, method: str) -> Any:
    """The transport to wrap. `TrackingSetupError` for what could only fail, at its first call."""
    if isinstance(inner, type) or not callable(getattr(inner, method, None)):
        what = f"the class {inner.__name__}" if isinstance(inner, type) else f"a {type(inner).__name__}"
        raise TrackingSetupError(
            f"{what} has no {method}() to call and so is no transport to wrap; give an HTTPTransport(), "
            "AsyncTrackedTransport an AsyncHTTPTransport(), and track() a client"
        )
    # By name, for the other library is not to be imported: its transports have bases of these names too.
    foreign = any(kind.__name__ in {"BaseTransport", "AsyncBaseTransport"} for kind in type(inner).__mro__)
    if foreign and not isinstance(inner, httpx.BaseTransport | httpx.AsyncBaseTransport):
        raise TrackingSetupError(
            f"{type(inner).__name__} is of another library than {httpx.__name__}: take the module of that "
            "library, cmdrdata_transport.httpx or cmdrdata_transport.httpx2"
        )
    return inner


def _below(transport: Any, name: str) -> Any:
    # Copying and unpickling ask a new object, which has no `_inner` yet, for names like these.
    if name == "_inner" or name.startswith("__"):
        raise AttributeError(f"{type(transport).__name__!r} object has no attribute {name!r}")
    return getattr(transport.unwrapped, name)


def _with_headers(request: httpx.Request, headers: list[tuple[bytes, bytes]]) -> httpx.Request:
    return _sent_instead(request, headers, request.stream)


def _with_content(request: httpx.Request, content: bytes) -> httpx.Request:
    ours = {b"content-length": str(len(content)).encode(), b"accept-encoding": b"identity"}
    headers = [(name, ours.get(name.lower(), value)) for name, value in request.headers.raw]
    if "accept-encoding" not in request.headers:
        headers.append((b"Accept-Encoding", b"identity"))
    return _sent_instead(request, headers, httpx.ByteStream(content))


def _sent_instead(request: httpx.Request, headers: list[tuple[bytes, bytes]], stream: Any) -> httpx.Request:
    sent = httpx.Request(request.method, request.url, headers=headers, stream=stream)
    sent.extensions = request.extensions
    if isinstance(stream, httpx.ByteStream):
        sent.read()  # it is in memory, and what is below may ask for its content
    return sent


def _content(response: httpx.Response) -> bytes | None:
    try:
        return response.content
    except httpx.ResponseNotRead:
        return None


def _show(response: httpx.Response, content: bytes) -> None:
    """Of a response that has been read there is no stream any more to show it by."""
    response._content = content  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
