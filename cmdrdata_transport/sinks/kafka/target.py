"""Which topic of Kafka, and how safely: what a URL says, as settings of librdkafka.

Knows who we are to the brokers, and that beyond this machine the transport is TLS unless somebody asks for
the open, where no password is sent. Does not know what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.sinks.remote import (
    TLS_FILES,
    is_loopback,
    options_of,
    refuse_torn_login,
    timeout_of,
    tls_files_of,
)

CLIENT_ID = "cmdrdata-transport"

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

OPTIONS = ("tls", *TLS_FILES, "sasl", "insecure", "timeout")

_OF_TLS = ("tls", *TLS_FILES)

_SETTING = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}

_TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the events go. `settings` are librdkafka's; `identity` is the URL without what is secret."""

    identity: str
    topic: str
    timeout: float
    settings: Mapping[str, Any] = field(repr=False)


def target_of(url: SplitResult, environ: Mapping[str, str]) -> Target:
    """What a URL means. Raises `TrackingSetupError`, which never shows the user or the password."""
    refuse_torn_login(url)
    user_info, _, hosts = url.netloc.rpartition("@")
    topic = unquote(url.path[1:])
    where = f"kafka://{hosts}{url.path}"
    local = all(is_loopback(host) for host in _hosts(hosts, where))
    if not _TOPIC_NAME.fullmatch(topic):
        raise TrackingSetupError(f"{where} names no topic that Kafka takes: write kafka://{hosts}/usage")
    options = options_of(url, OPTIONS, where)
    insecure = options.get("insecure") == "1"
    if insecure and not options.keys().isdisjoint(_OF_TLS):
        raise TrackingSetupError(f"{where}: ?insecure=1 is without TLS: leave it out, or the options of TLS")
    tls = not insecure and (not local or not options.keys().isdisjoint(_OF_TLS))
    files = tls_files_of(options, where)
    login = _login(user_info, options.get("sasl"), environ, where)
    if login.get("sasl.mechanism") == "PLAIN" and not (tls or local):
        raise TrackingSetupError(
            f"{where}: a password does not travel in the open: leave out ?insecure=1, or use SCRAM, "
            "which does not send it"
        )
    timeout = timeout_of(options.pop("timeout", None), where)
    return Target(
        identity=f"{where}?{urlencode(options, safe='/')}" if options else where,
        topic=topic,
        timeout=timeout,
        settings={
            "bootstrap.servers": hosts,
            "client.id": CLIENT_ID,
            "security.protocol": ("SASL_" if login else "") + ("SSL" if tls else "PLAINTEXT"),
            **{_SETTING[name]: path for name, path in files.items()},
            **login,
            **_settings(timeout),
        },
    )


def _hosts(hosts: str, where: str) -> list[str]:
    try:
        brokers = [urlsplit(f"//{each}") for each in hosts.split(",")]
        if all(each.hostname and each.port != 0 and not each.path for each in brokers):
            return [each.hostname or "" for each in brokers]
    except ValueError:
        pass
    raise TrackingSetupError(
        f"{where} has a broker that none can be: write kafka://broker-1:9092,broker-2/usage"
    )


def _login(user_info: str, asked: str | None, environ: Mapping[str, str], where: str) -> dict[str, str]:
    if user_info:
        user, password = (unquote(each) for each in user_info.partition(":")[::2])
    else:
        user, password = (
            environ.get(f"CMDRDATA_KAFKA_{each}", "").strip() for each in ("USERNAME", "PASSWORD")
        )
    if not user and asked is None:
        return {}
    mechanism = asked or "PLAIN"
    if mechanism not in MECHANISMS:
        raise TrackingSetupError(f"{where}: ?sasl= is one of {', '.join(MECHANISMS)}")
    if not user or not password:
        raise TrackingSetupError(
            f"{where} needs a user and a password: set CMDRDATA_KAFKA_USERNAME and CMDRDATA_KAFKA_PASSWORD"
        )
    return {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password}


def _settings(timeout: float) -> dict[str, Any]:
    milliseconds = int(timeout * 1000)
    return {
        "acks": "all",
        "enable.idempotence": True,
        # It looks once a second whose time is up, and is to say so before ours is; but to get to know
        # the brokers may take it a second, and what is under way is waited for again.
        "message.timeout.ms": max(milliseconds - 1500, 2000),
        # So that it is known within our time that there is no such topic; brokers say so for a
        # moment also of one that is being made.
        "topic.metadata.propagation.max.ms": milliseconds // 8,
        "partitioner": "murmur2_random",
        "linger.ms": 100,  # which ends when we wait for the batch: it goes out at once, and whole
        "compression.type": "lz4",
        "log_level": 0,
    }
