"""What a receiver beyond this process means: which host is this machine, and how long an answer may take."""

from __future__ import annotations

import ipaddress

from cmdrdata_transport.errors import TrackingSetupError

TIMEOUT_SECONDS = 10.0
"""How long one POST may take to connect, and to answer."""

LONGEST_TIMEOUT_SECONDS = 300.0


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def timeout_of(text: str | None, where: str) -> float:
    """The seconds that `?timeout=` asks for, or ours. Raises `TrackingSetupError`."""
    if text is None:
        return TIMEOUT_SECONDS
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0.0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        raise TrackingSetupError(
            f"{where}: write ?timeout=5 for five seconds; it is at most {LONGEST_TIMEOUT_SECONDS:.0f}"
        )
    return timeout
