"""Which receiver of OTLP, and how it is spoken to: what a URL says, and OpenTelemetry's own environment.

The environment variables are those of every exporter (OpenTelemetry's specification, "OTLP Exporter
Configuration"): headers and compression, for all signals or for one, and the certificates. An option of the
URL comes before them. Does not know what is sent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlencode

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.sinks.remote import (
    TLS_FILES,
    is_loopback,
    options_of,
    refuse_torn_login,
    timeout_of,
    tls_files_of,
)

SIGNALS = ("logs", "metrics")

OPTIONS = ("signals", "customer", "compression", *TLS_FILES, "timeout", "insecure")

_ADDED = ("/v1/logs", "/v1/metrics", "/v1/traces")
"""What exporters add to an address, and some receivers name as a part of theirs."""

_VARIABLES = {
    "ca": "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "cert": "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "key": "OTEL_EXPORTER_OTLP_CLIENT_KEY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the signals go. `identity` is the URL without what is secret."""

    url: str
    identity: str
    scheme: str
    host: str
    timeout: float
    signals: tuple[str, ...]
    gzipped: frozenset[str]
    """The signals that are compressed."""
    customer: bool
    """Whether the customer is an attribute of metrics."""
    files: Mapping[str, str]
    """What TLS is to use, by `TLS_FILES`."""
    headers: Mapping[str, Mapping[str, str]] = field(repr=False)
    """Of each signal, what it is sent with."""


def target_of(url: SplitResult, environ: Mapping[str, str]) -> Target:
    """What a URL means. Raises `TrackingSetupError`, which never shows user, password or headers."""
    refuse_torn_login(url)
    user_info, _, authority = url.netloc.rpartition("@")
    scheme, host, path = url.scheme.removeprefix("otlp+"), url.hostname or "", url.path.rstrip("/")
    where = f"{url.scheme}://{authority}{path}"
    if not host:
        raise TrackingSetupError(f"{where} has no host: write otlp+https://collector:4318")
    if ending := next((each for each in _ADDED if path.endswith(each)), None):
        raise TrackingSetupError(
            f"{where}: write it without {ending}: each signal has its own such path, which is added"
        )
    options = options_of(url, OPTIONS, where)
    trusted = scheme == "https" or is_loopback(host)
    if not trusted and options.get("insecure") != "1":
        raise TrackingSetupError(
            f"{where} is not encrypted: write otlp+https, or add ?insecure=1, "
            "which sends the events in the open, and never a header with a key"
        )
    signals = tuple(options.get("signals", "logs,metrics").split(","))
    if not set(signals).issubset(SIGNALS):
        raise TrackingSetupError(f"{where}: write ?signals=logs, or metrics, or leave it out for both")
    timeout = timeout_of(options.pop("timeout", None), where)
    return Target(
        url=f"{scheme}://{authority}{path}",
        identity=f"{where}?{urlencode(options, safe=',/')}" if options else where,
        scheme=scheme,
        host=host,
        timeout=timeout,
        signals=signals,
        gzipped=frozenset(each for each in signals if _is_gzipped(each, options, environ, where)),
        customer=options.get("customer") != "0",
        files=_files(options, scheme, environ, where),
        headers={each: _headers(each, user_info, environ) if trusted else {} for each in signals},
    )


def _files(options: Mapping[str, str], scheme: str, environ: Mapping[str, str], where: str) -> dict[str, str]:
    if scheme == "http":
        if named := [name for name in TLS_FILES if name in options]:
            raise TrackingSetupError(f"{where} is without TLS: leave out ?{named[0]}=, or write otlp+https")
        return {}
    known = {
        name: (variable, path)
        for name, variable in _VARIABLES.items()
        if (path := environ.get(variable, "").strip())
    }
    return tls_files_of(options, where, known)


def _is_gzipped(signal: str, options: Mapping[str, str], environ: Mapping[str, str], where: str) -> bool:
    known = (environ.get(each, "").strip() for each in reversed(_variables(signal, "COMPRESSION")))
    asked = options.get("compression") or next(filter(None, known), "none")
    if asked not in ("gzip", "none"):
        raise TrackingSetupError(
            f"{where}: compression is gzip or none, in ?compression= and in OTEL_EXPORTER_OTLP_COMPRESSION"
        )
    return asked == "gzip"


def _headers(signal: str, user_info: str, environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if user_info:
        found["authorization"] = "Basic " + base64.b64encode(unquote(user_info).encode()).decode()
    for variable in _variables(signal, "HEADERS"):
        for pair in filter(None, map(str.strip, environ.get(variable, "").split(","))):
            name, equals, value = pair.partition("=")
            name, value = name.strip().lower(), unquote(value.strip())
            if not (equals and name.isascii() and name and value.isascii() and value.isprintable()):
                raise TrackingSetupError(f"{variable} is written name=value,name=value")
            found[name] = value
    return found


def _variables(signal: str, name: str) -> tuple[str, str]:
    """Of all signals, and of one, which comes before."""
    return f"OTEL_EXPORTER_OTLP_{name}", f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
