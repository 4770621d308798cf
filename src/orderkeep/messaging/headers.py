"""Headers as bytes: written once for the outbox, the queues in the database and the dead letters.

Headers from outside may hold what JSON cannot (bytes, moments, numbers that are none, structures
without end): each such value is kept in a form that a person can read, and never fails.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from orderkeep.messaging.message import Headers

# Deeper structures are no header of anyone's; below this they are shown as Python writes them.
_DEPTH_MAX = 16

# Python refuses to print a number of more than 4,300 digits, which have some 14,000 bits.
_INTEGER_BITS_MAX = 8_192

# What nearly all headers are, written and read the quick way: the same JSON at a tenth of the cost.
# Numbers with a fraction are not among them, for the quick writer makes a null of NaN.
_PLAIN = frozenset({str, int, bool, type(None)})
_NAMES = frozenset({str})

_QUICK_ENCODER = msgspec.json.Encoder()
_QUICK_DECODER = msgspec.json.Decoder()
_ENCODER = json.JSONEncoder(allow_nan=False)


def encode_headers(headers: Mapping[str, object]) -> bytes:
    """Return the headers as JSON in ASCII, whatever they hold."""
    if _NAMES.issuperset(map(type, headers)) and _PLAIN.issuperset(map(type, headers.values())):
        try:
            raw = _QUICK_ENCODER.encode(headers)
        except ValueError:
            # A lone surrogate, or a number too long to print.
            pass
        else:
            if raw.isascii():
                return raw
    return _ENCODER.encode(_representable(headers, depth=0)).encode()


def decode_headers(raw: bytes) -> Headers:
    """Return what `encode_headers` wrote."""
    try:
        headers: dict[str, Any] = _QUICK_DECODER.decode(raw)
    except ValueError:
        # A lone surrogate; what stands in it is JSON all the same, of any depth.
        headers = json.loads(raw)
    return headers


def _representable(value: object, *, depth: int) -> object:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if value.bit_length() <= _INTEGER_BITS_MAX else hex(value)
        case float() if math.isfinite(value):
            return value
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "backslashreplace")
        case Mapping() | list() | tuple() if depth < _DEPTH_MAX:
            return _representable_members(value, depth=depth + 1)
        case _:
            return repr(value)


def _representable_members(
    members: Mapping[object, object] | list[object] | tuple[object, ...], *, depth: int
) -> object:
    if isinstance(members, Mapping):
        return {
            key if isinstance(key, str) else repr(key): _representable(member, depth=depth)
            for key, member in members.items()
        }
    return [_representable(member, depth=depth) for member in members]
