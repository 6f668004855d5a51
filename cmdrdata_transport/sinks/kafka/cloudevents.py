"""An event as a message of Kafka: CloudEvents 1.0, in JSON, in structured mode.

(The CloudEvents specification 1.0.2, its JSON event format, and its binding to Kafka.) `data` is the
event as published, byte by byte. `id` is the `event_id`, and `source` the same for all of us, so that
what is told twice, by two programs even, has the same `source` and `id`: that is how a reader of
CloudEvents tells duplicates. The key is the customer; an event of nobody has no key and no subject.

Does not know where messages go.
"""

from __future__ import annotations

import re
from typing import Any

from cmdrdata_transport.errors import Rejected
from cmdrdata_transport.event import decode, encode

SOURCE = "cmdrdata-transport"
TYPE = "cmdrdata.usage"

HEADERS: list[tuple[str, str | bytes | None]] = [
    ("content-type", b"application/cloudevents+json; charset=UTF-8")
]

_TEXT_OR_NONE = (str, type(None))

_START = re.compile(
    rb'\{"format":"cmdrdata\.usage/1","event_id":"([^"\\]+)","timestamp":"([^"\\]+)",'
    rb'"customer_id":"([^"\\]+)"[,}]'
)
"""How an event begins that states all we need at once: to read the whole of it would take longer than to
send it. Any other event is read."""

_ENVELOPE = (
    encode({"specversion": "1.0", "source": SOURCE, "type": TYPE, "datacontenttype": "application/json"})[:-1]
    + b","
)


def message_of(line: bytes) -> tuple[bytes | None, bytes]:
    """A message's key and value: the customer, and the event in its envelope. Raises `Rejected`."""
    if (start := _START.match(line)) is not None and line.endswith(b"}"):
        event_id, at, customer = start.groups()
        own = (b'"id":"', event_id, b'","time":"', at, b'","subject":"', customer)
        return customer, b"".join((_ENVELOPE, *own, b'","data":', line, b"}"))
    try:
        event: dict[str, Any] = decode(line)
        event_id, timestamp, customer = event["event_id"], event["timestamp"], event.get("customer_id")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Rejected("it is not an event") from None
    if not (isinstance(event_id, str) and isinstance(timestamp, str) and isinstance(customer, _TEXT_OR_NONE)):
        raise Rejected("its event_id, timestamp or customer_id is no text")
    attributes = {"id": event_id, "time": timestamp}
    if customer:
        attributes["subject"] = customer
    key = customer.encode("utf-8", "replace") if customer else None
    # Put together as text, for the event to come into it as it is.
    return key, b"".join((_ENVELOPE, encode(attributes)[1:-1], b',"data":', line, b"}"))
