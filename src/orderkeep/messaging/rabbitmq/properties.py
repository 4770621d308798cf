"""What stands before a body on the wire: written for our messages, read from anyone's. PURE.

Invariant: what a sender wrote never keeps its message from being handed out. What cannot be read is
kept as bytes, and the rest is read.
"""

import struct
from functools import lru_cache

from msgspec import Struct, field
from pika.spec import BasicProperties

from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.messaging.message import Headers, HeaderValue, Message
from orderkeep.messaging.rabbitmq.field_table import (
    decode_table,
    encode_table,
    read_short_string,
    short_string,
    text_of,
)

# What a broker writes into headers while it carries a message, and what makes it send copies. A
# message that is sent again is a new one: with the history of the old one an older RabbitMQ takes
# it for one that goes in circles, and drops it; and who had a copy shall not get another.
_BROKER_HEADER_PREFIXES = ("x-first-death-", "x-last-death-")
_BROKER_HEADERS = frozenset({"x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC"})

# How long the delayed message plugin holds a message, in milliseconds.
DELAY_HEADER = "x-delay"

# On an empty message that finds out where a routing key leads; it says nothing to anyone.
PROBE_HEADER = "x-orderkeep-probe"

# Long enough to be returned or let go; nobody finds it afterwards.
_PROBE_EXPIRATION_MS = 10_000

# Under this name stands a table of headers that could not be read.
UNREADABLE_HEADER = "x-orderkeep-unreadable-headers"

_CONTENT_TYPE = b"\x10application/json"
_PERSISTENT = b"\x02"

_FLAGS_OF_ALL = (
    BasicProperties.FLAG_CONTENT_TYPE
    | BasicProperties.FLAG_HEADERS
    | BasicProperties.FLAG_DELIVERY_MODE
    | BasicProperties.FLAG_TIMESTAMP
)
_FLAGS = struct.Struct(">H")
_TIMESTAMP = struct.Struct(">Q")
_TABLE_LENGTH = struct.Struct(">I")

# Which properties stand before the one we look for, in the order of the wire.
_SHORT_STRING, _TABLE, _OCTET, _LONG = range(4)
_LAYOUT = (
    (BasicProperties.FLAG_CONTENT_TYPE, _SHORT_STRING),
    (BasicProperties.FLAG_CONTENT_ENCODING, _SHORT_STRING),
    (BasicProperties.FLAG_HEADERS, _TABLE),
    (BasicProperties.FLAG_DELIVERY_MODE, _OCTET),
    (BasicProperties.FLAG_PRIORITY, _OCTET),
    (BasicProperties.FLAG_CORRELATION_ID, _SHORT_STRING),
    (BasicProperties.FLAG_REPLY_TO, _SHORT_STRING),
    (BasicProperties.FLAG_EXPIRATION, _SHORT_STRING),
    (BasicProperties.FLAG_MESSAGE_ID, _SHORT_STRING),
    (BasicProperties.FLAG_TIMESTAMP, _LONG),
    (BasicProperties.FLAG_TYPE, _SHORT_STRING),
)


class RawProperties(BasicProperties):
    """Properties as the bytes that stand on the wire, for pika to hand over without looking."""

    def __init__(self, raw: bytes) -> None:  # pika's own would set fourteen attributes
        """Carry the bytes."""
        self.raw = raw

    def encode(self) -> list[bytes]:
        """Return the bytes, for those tests and benchmarks that publish by pika."""
        return [self.raw]


class ReceivedProperties(Struct, frozen=True, kw_only=True):
    """What we look at of a sender's properties; see `Delivery`."""

    message_id: bytes | None = None
    type: str = ""
    headers: Headers = field(default_factory=dict)


def encode_properties(
    message: Message, *, expiration_ms: int | None = None, delay_ms: int | None = None
) -> bytes:
    """Return the properties of a message of ours.

    Args:
        message: About to be sent.
        expiration_ms: How long a hold queue holds it; None where it goes straight.
        delay_ms: How long the plugin holds it; likewise.

    Raises:
        NotRepresentableError: a property or a header has no form in AMQP.
    """
    headers: dict[str, HeaderValue] = {
        name: value
        for name, value in message.headers.items()
        if name not in _BROKER_HEADERS and not name.startswith(_BROKER_HEADER_PREFIXES)
    }
    if delay_ms is not None:
        headers[DELAY_HEADER] = delay_ms
    flags = _FLAGS_OF_ALL
    parts = [_CONTENT_TYPE, encode_table(headers), _PERSISTENT]
    if expiration_ms is not None:
        flags |= BasicProperties.FLAG_EXPIRATION
        parts.append(short_string(str(expiration_ms), what="the expiration"))
    if message.message_id:
        flags |= BasicProperties.FLAG_MESSAGE_ID
        parts.append(short_string(message.message_id, what="the message id"))
    parts.append(_TIMESTAMP.pack(max(message.published_at, 0) // MICROSECONDS_PER_SECOND))
    if message.type:
        flags |= BasicProperties.FLAG_TYPE
        parts.append(_encode_type(message.type))
    return _FLAGS.pack(flags) + b"".join(parts)


# There are few types.
@lru_cache(1024)
def _encode_type(message_type: str) -> bytes:
    return short_string(message_type, what="the type")


def encode_probe_properties(message_id: str) -> bytes:
    """Return the properties of a probe: not persistent, and soon gone."""
    flags = (
        BasicProperties.FLAG_HEADERS
        | BasicProperties.FLAG_EXPIRATION
        | BasicProperties.FLAG_MESSAGE_ID
    )
    return b"".join(
        (
            _FLAGS.pack(flags),
            encode_table({PROBE_HEADER: True}),
            short_string(str(_PROBE_EXPIRATION_MS), what="the expiration"),
            short_string(message_id, what="the message id"),
        )
    )


def read_properties(raw: bytes) -> ReceivedProperties:
    """Return what we look at of a sender's properties, as far as it can be read."""
    message_id: bytes | None = None
    type_ = ""
    headers: Headers = {}
    try:
        (flags,) = _FLAGS.unpack_from(raw)
        offset = _end_of_flags(raw)
        for flag, kind in _LAYOUT:
            if not flags & flag:
                continue
            if kind == _SHORT_STRING:
                value, offset = read_short_string(raw, offset)
                if flag == BasicProperties.FLAG_MESSAGE_ID:
                    message_id = value or None
                elif flag == BasicProperties.FLAG_TYPE:
                    type_ = text_of(value)
            elif kind == _TABLE:
                headers, offset = _read_headers(raw, offset)
            else:
                offset += 1 if kind == _OCTET else _TIMESTAMP.size
    except (IndexError, struct.error):
        # Cut off: nothing but a broken broker writes that. What came before it stands.
        pass
    return ReceivedProperties(message_id=message_id, type=type_, headers=headers)


def _end_of_flags(raw: bytes) -> int:
    # A flag word whose lowest bit is set has another one behind it. There are no such properties.
    offset = 0
    while True:
        (word,) = _FLAGS.unpack_from(raw, offset)
        offset += _FLAGS.size
        if not word & 1:
            return offset


def _read_headers(raw: bytes, offset: int) -> tuple[Headers, int]:
    try:
        return decode_table(raw, offset)
    except (ValueError, IndexError, struct.error):
        (length,) = _TABLE_LENGTH.unpack_from(raw, offset)
        end = offset + _TABLE_LENGTH.size + length
        unread = raw[offset + _TABLE_LENGTH.size : end]
        return {UNREADABLE_HEADER: text_of(unread)}, end
