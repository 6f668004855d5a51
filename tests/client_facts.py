"""What about an HTTP client its calls could tell, so that two clients can be compared; and whose there are.

Knows where httpx and httpx2 keep it, and aiohttp below them. Imports none of the three: in some
environments one is absent.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cmdrdata_transport.clients import SDKS

POOL_FACTS = (
    "_max_connections",
    "_max_keepalive_connections",
    "_keepalive_expiry",
    "_http1",
    "_http2",
    "_retries",
    "_socket_options",
    "_local_address",
    "_uds",
)
AIOHTTP_FACTS = ("limits", "retries", "socket_options", "local_address", "uds", "client")


def installed_sdks() -> list[str]:
    """The SDKs of our table that are installed here."""
    found: list[str] = []
    for row in SDKS:
        with suppress(PackageNotFoundError):
            version(row.name)
            found.append(row.name)
    return found


def transports(client: Any) -> dict[str, Any]:
    """Every place of a client that can hold a transport."""
    return {"": client._transport} | {pattern.pattern: mount for pattern, mount in client._mounts.items()}


def is_tracked(transport: Any) -> bool:
    """Whether this is one of our transports."""
    return type(transport).__module__.startswith("cmdrdata_transport.")


def bare_transport(transport: Any) -> Any:
    """The transport below ours."""
    return transport.unwrapped if is_tracked(transport) else transport


def pool(transport: Any) -> dict[str, Any] | None:
    """What a transport was made with, as far as it can be compared."""
    if transport is None:
        return None
    found = vars(bare_transport(transport))
    if "_pool" not in found:
        return {name: found[name] for name in AIOHTTP_FACTS} | tls(found["ssl_context"])
    kind, found = type(found["_pool"]), vars(found["_pool"])
    facts = {name: found.get(name) for name in POOL_FACTS} | tls(found["_ssl_context"])
    return facts | {"kind": kind, "proxy": str(found.get("_proxy_url", ""))}


def tls(context: Any) -> dict[str, Any]:
    """What a TLS context trusts."""
    return {
        "tls": (type(context), context.verify_mode, context.check_hostname),
        "authorities": len(context.get_ca_certs()) if type(context) is ssl.SSLContext else None,
    }


def family(client: Any) -> list[str]:
    """The library's class that a client is of, and whatever has put itself between the two."""
    kinds = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(client).__mro__]
    return [kind for kind in kinds if kind.startswith(("httpx.", "httpx2.", "httpx_aiohttp."))]


def facts(client: Any) -> dict[str, Any]:
    """Everything about a client that its calls could tell from the SDK's own."""
    return {
        "family": family(client),
        "timeout": client.timeout,
        "follow_redirects": client.follow_redirects,
        "max_redirects": client.max_redirects,
        "trust_env": client.trust_env,
        "headers": dict(client.headers),
        "event_hooks": client.event_hooks,
        "transports": {where: pool(transport) for where, transport in transports(client).items()},
    }
