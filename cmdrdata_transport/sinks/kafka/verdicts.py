"""What an error of Kafka speaks of: the message, the user, the topic or the moment; and what we say of it.

Knows errors by librdkafka's names of them. Does not know what was sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cmdrdata_transport.errors import Unavailable
from cmdrdata_transport.sinks import Unauthorized

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

REFUSED = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "INVALID_TIMESTAMP"})
"""Errors that speak of a message, or of the batch that it was in: alone, it may do."""

_DENIED = frozenset(
    {
        "_AUTHENTICATION",
        "SASL_AUTHENTICATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
    }
)

_WORDS = {
    "_ALL_BROKERS_DOWN": "no broker can be reached",
    "_AUTHENTICATION": "the brokers refuse the user or the password",
    "_MSG_TIMED_OUT": "no broker answered in time",
    "_RESOLVE": "no broker's name can be resolved",
    "_SSL": "TLS fails: do the brokers speak it there; ?insecure=1 is without it",
    "_SSL_THEIRS": "TLS fails: the brokers' certificate is not trusted: does ?ca= name whoever issued it, "
    "and the URL the host that it is of",
    "_SSL_OURS": "TLS fails: the brokers ask for a certificate of ours: name it with ?cert= and ?key=",
    "_TRANSPORT": "no broker can be reached",
    "_UNKNOWN_TOPIC": "there is no such topic: make it, or put the URL right",
    "CLUSTER_AUTHORIZATION_FAILED": "the user may not write idempotently",
    "SASL_AUTHENTICATION_FAILED": "the brokers refuse the user or the password",
    "TOPIC_AUTHORIZATION_FAILED": "the user may not write to the topic",
    "TOPIC_EXCEPTION": "the brokers do not take the name of the topic: put the URL right",
    "UNKNOWN_TOPIC_OR_PART": "there is no such topic: make it, or put the URL right",
}
"""What an operator is told, by librdkafka's name of the error, or ours; of others, the name."""


class _Unauthorized(Unavailable, Unauthorized):
    """The brokers refuse every event, until somebody puts the user, or what it may do, right."""


def trouble_of(told: Iterable[str], heard: Iterable[KafkaError], taken: int) -> Unavailable:
    """Why not all messages were taken: of what was told of them, and heard meanwhile, what says most."""
    # That a message's time was up says less than what was heard of the brokers meanwhile.
    names = [
        *(name for name in told if name != "_MSG_TIMED_OUT"),
        *(name for each in heard if (name := _kind_of(each)) != "_ALL_BROKERS_DOWN"),
        "_MSG_TIMED_OUT",
    ]
    denied = next((name for name in names if name in _DENIED), None)
    name = denied or names[0]
    kind = _Unauthorized if denied else Unavailable
    return kind(_WORDS.get(name, name), taken=taken)


def _kind_of(error: KafkaError) -> str:
    # A handshake that fails may end as any connection does that is lost; only the text, which quotes
    # OpenSSL or names the state of the connection, tells. What else it quotes is not passed on.
    text = error.str()
    return next((kind for piece, kind in _OF_TLS if piece in text), error.name())


_OF_TLS = (("certificate verify failed", "_SSL_THEIRS"), ("alert certificate", "_SSL_OURS"), ("SSL", "_SSL"))
