"""A publication as bytes: its method, its header and its body, each in a frame of AMQP 0-9-1.

pika makes an object for each frame and each part of it, which takes three times as long.

The forms are those of the AMQP 0-9-1 specification, sections 2.3.5 (frames), 4.2.6 (content), and
of `basic.publish` (class 60, method 40).
"""

import struct
from functools import lru_cache

from orderkeep.messaging.rabbitmq.field_table import short_string

FRAME_HEADER = struct.Struct(">BHI")
FRAME_END = b"\xce"

# Around what a frame carries.
FRAME_OVERHEAD_BYTES = FRAME_HEADER.size + len(FRAME_END)

CONTENT_HEADER = struct.Struct(">HHQ")

_METHOD_TYPE = 1
HEADER_TYPE = 2
_BODY_TYPE = 3

_BASIC_CLASS = 60
_PUBLISH_METHOD = 40
# With a field that is reserved.
_PUBLISH = struct.pack(">HHH", _BASIC_CLASS, _PUBLISH_METHOD, 0)


def publication_frames(
    channel_number: int,
    *,
    exchange: str,
    routing_key: str,
    is_mandatory: bool,
    properties: bytes,
    body: bytes,
    frame_size_max: int,
) -> list[bytes]:
    """Return the frames that publish a message, in their order.

    Args:
        channel_number: 1..65535.
        exchange: Takes the message; at most 255 bytes.
        routing_key: Likewise.
        is_mandatory: The broker returns what it can route nowhere.
        properties: As AMQP encodes them, with their flags.
        body: Of any size; empty is no frame.
        frame_size_max: The largest frame that was agreed on, in bytes.

    Raises:
        NotRepresentableError: exchange or routing key is too long.
    """
    header = CONTENT_HEADER.pack(_BASIC_CLASS, 0, len(body)) + properties
    frames = [
        _method_frame(channel_number, exchange, routing_key, is_mandatory),
        _frame(HEADER_TYPE, channel_number, header),
    ]
    part_size_max = frame_size_max - FRAME_OVERHEAD_BYTES
    frames.extend(
        _frame(_BODY_TYPE, channel_number, body[start : start + part_size_max])
        for start in range(0, len(body), part_size_max)
    )
    return frames


# There are few routes and fewer channels.
@lru_cache(1024)
def _method_frame(
    channel_number: int,
    exchange: str,
    routing_key: str,
    is_mandatory: bool,  # noqa: FBT001 (by place: names make the key of the cache dearer)
) -> bytes:
    names = short_string(exchange, what="the exchange") + short_string(
        routing_key, what="the routing key"
    )
    return _frame(_METHOD_TYPE, channel_number, _PUBLISH + names + bytes((is_mandatory,)))


def _frame(frame_type: int, channel_number: int, payload: bytes) -> bytes:
    return FRAME_HEADER.pack(frame_type, channel_number, len(payload)) + payload + FRAME_END
