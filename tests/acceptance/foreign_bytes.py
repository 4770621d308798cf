r"""AMQP's message properties by hand: what no library would send, and any program may.

program.send(queue, body, properties=properties(message_id=b"\xff", headers={b"\xfe": [None]}))
"""

from collections.abc import Mapping, Sequence
from struct import pack
from typing import TypeAlias

# Bytes are text of any kind, a bytearray is an array of bytes.
Value: TypeAlias = (
    "bool | int | float | bytes | bytearray | Sequence[Value] | Mapping[bytes, Value] | None"
)

_HEADERS = 1 << 13
_MESSAGE_ID = 1 << 7
_TYPE = 1 << 5


def properties(
    *,
    headers: Mapping[bytes, Value] | None = None,
    message_id: bytes | None = None,
    type_: bytes | None = None,
) -> bytes:
    """Return the flags of what is given, and then what is given."""
    flags, parts = 0, b""
    if headers is not None:
        flags, parts = flags | _HEADERS, parts + _table(headers)
    if message_id is not None:
        flags, parts = flags | _MESSAGE_ID, parts + _short(message_id)
    if type_ is not None:
        flags, parts = flags | _TYPE, parts + _short(type_)
    return pack(">H", flags) + parts


def _short(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def _long(raw: bytes) -> bytes:
    return pack(">I", len(raw)) + raw


def _table(members: Mapping[bytes, Value]) -> bytes:
    return _long(b"".join(_short(name) + _value(value) for name, value in members.items()))


def _value(value: Value) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return pack(">c?", b"t", value)
        case int():
            return pack(">cq", b"l", value)
        case float():
            return pack(">cd", b"d", value)
        case bytearray():
            return b"x" + _long(bytes(value))
        case bytes():
            return b"S" + _long(value)
        case Mapping():
            return b"F" + _table(value)
        case _:
            return b"A" + _long(b"".join(_value(each) for each in value))
