"""AMQP field tables and short strings, read and written without loss. PURE.

Invariant: whatever bytes a sender wrote can be read. Text that is not UTF-8 stands in a `str` as
lone surrogates (`surrogateescape`), and is written again as the bytes that it was.

pika has functions of its own for this. They make an integer of every floating-point number, refuse
to write one, and give text that is no UTF-8 as bytes, which cannot be told from a byte array.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from typing import cast

from orderkeep.messaging.message import Headers

SHORT_STRING_LENGTH_MAX = 255

# Deeper tables are no header of anyone's; a reader that recurses must stop somewhere.
_DEPTH_MAX = 64

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1

_LENGTH = Struct(">I")
_INT32 = Struct(">ci")
_INT64 = Struct(">cq")
_DOUBLE = Struct(">cd")
_DECIMAL = Struct(">Bi")
_TIMESTAMP = Struct(">Q")
_TAGGED_LENGTH = Struct(">cI")

# The kinds of fixed width, by their tag. RabbitMQ reads `l` and `L` as signed, unlike the standard.
_NUMBERS = {
    b"b": Struct(">b"),
    b"B": Struct(">B"),
    b"s": Struct(">h"),
    b"U": Struct(">h"),
    b"u": Struct(">H"),
    b"I": Struct(">i"),
    b"i": Struct(">I"),
    b"l": Struct(">q"),
    b"L": Struct(">q"),
    b"f": Struct(">f"),
    b"d": Struct(">d"),
}


class NotRepresentableError(ValueError):
    """AMQP has no form for a value."""


def text_of(raw: bytes) -> str:
    """Return the bytes as text; those that are no UTF-8 become lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes that `text_of` read, or, of any other text, its UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Surrogates that never were bytes.
        return text.encode("utf-8", "surrogatepass")


def short_string(text: str, *, what: str) -> bytes:
    """Return the text as an AMQP short string.

    Raises:
        NotRepresentableError: it takes more than 255 bytes.
    """
    raw = bytes_of(text)
    if len(raw) > SHORT_STRING_LENGTH_MAX:
        message = f"{what} takes {len(raw)} bytes; AMQP has {SHORT_STRING_LENGTH_MAX}"
        raise NotRepresentableError(message)
    return bytes((len(raw),)) + raw


def encode_table(values: Mapping[str, object]) -> bytes:
    """Return the values as an AMQP field table with its length before it.

    Raises:
        NotRepresentableError: a name is too long, or AMQP has no form for a value.
    """
    return _encode_members(values, depth=0)


def _encode_value(value: object, *, depth: int) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return b"t\x01" if value else b"t\x00"
        case str():
            return _tagged(b"S", bytes_of(value))
        case bytes() | bytearray():
            return _tagged(b"x", bytes(value))
        case int():
            return _encode_integer(value)
        case float():
            return _DOUBLE.pack(b"d", value)
        case Mapping() if depth < _DEPTH_MAX:
            return b"F" + _encode_members(value, depth=depth + 1)
        case list() | tuple() if depth < _DEPTH_MAX:
            return _tagged(b"A", b"".join(_encode_value(one, depth=depth + 1) for one in value))
        case _:
            message = f"AMQP has no form for a header of the kind {type(value).__name__}"
            raise NotRepresentableError(message)


def _encode_integer(value: int) -> bytes:
    if _INT32_MIN <= value <= _INT32_MAX:
        return _INT32.pack(b"I", value)
    if _INT64_MIN <= value <= _INT64_MAX:
        return _INT64.pack(b"l", value)
    message = f"a header's number has {value.bit_length()} bits; AMQP has 64"
    raise NotRepresentableError(message)


def _encode_members(values: Mapping[str, object], *, depth: int) -> bytes:
    body = b"".join(
        [
            _encode_name(str(name)) + _encode_value(value, depth=depth)
            for name, value in values.items()
        ]
    )
    return _LENGTH.pack(len(body)) + body


# The same few names stand on every message of ours.
@lru_cache(1024)
def _encode_name(name: str) -> bytes:
    return short_string(name, what=f"the header name {name[:40]!r}")


def _tagged(kind: bytes, raw: bytes) -> bytes:
    return _TAGGED_LENGTH.pack(kind, len(raw)) + raw


def read_short_string(raw: bytes, offset: int) -> tuple[bytes, int]:
    """Return the short string at the offset, and where the next thing begins."""
    end = offset + 1 + raw[offset]
    return raw[offset + 1 : end], end


def decode_table(raw: bytes, offset: int) -> tuple[Headers, int]:
    """Return the field table at the offset, and where the next thing begins.

    Moments and decimals become text, as a person writes them.

    Raises:
        ValueError: it is none, or one nested without end.
        IndexError: it is cut off.
        struct.error: likewise.
    """
    table, offset = _decode_table(raw, offset, depth=0)
    # A sender may give values of more kinds than ours may: they are kept and shown, never trusted.
    return cast("Headers", table), offset


def _decode_table(raw: bytes, offset: int, *, depth: int) -> tuple[dict[str, object], int]:
    if depth > _DEPTH_MAX:
        message = f"a table deeper than {_DEPTH_MAX}"
        raise ValueError(message)
    (length,) = _LENGTH.unpack_from(raw, offset)
    offset += _LENGTH.size
    end = offset + length
    table: dict[str, object] = {}
    while offset < end:
        name, offset = read_short_string(raw, offset)
        table[text_of(name)], offset = _decode_value(raw, offset, depth=depth)
    return table, end


def _decode_array(raw: bytes, offset: int, *, depth: int) -> tuple[list[object], int]:
    if depth > _DEPTH_MAX:
        message = f"an array deeper than {_DEPTH_MAX}"
        raise ValueError(message)
    (length,) = _LENGTH.unpack_from(raw, offset)
    offset += _LENGTH.size
    end = offset + length
    values: list[object] = []
    while offset < end:
        value, offset = _decode_value(raw, offset, depth=depth)
        values.append(value)
    return values, end


def _decode_value(raw: bytes, offset: int, *, depth: int) -> tuple[object, int]:
    kind = raw[offset : offset + 1]
    offset += 1
    if kind == b"S":
        value, offset = _decode_long_string(raw, offset)
        return text_of(value), offset
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        return number.unpack_from(raw, offset)[0], offset + number.size
    reader = _READERS.get(kind)
    if reader is None:
        message = f"a header of an unknown kind, {kind!r}"
        raise ValueError(message)
    return reader(raw, offset, depth)


def _decode_long_string(raw: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(raw, offset)
    offset += _LENGTH.size
    end = offset + length
    if end > len(raw):
        message = "a header's text is cut off"
        raise ValueError(message)
    return raw[offset:end], end


def _decode_timestamp(raw: bytes, offset: int) -> tuple[object, int]:
    (seconds,) = _TIMESTAMP.unpack_from(raw, offset)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        # Farther than the calendar goes.
        return seconds, offset + _TIMESTAMP.size
    return moment, offset + _TIMESTAMP.size


def _decode_decimal(raw: bytes, offset: int) -> tuple[object, int]:
    places, digits = _DECIMAL.unpack_from(raw, offset)
    return f"{Decimal(digits).scaleb(-places):f}", offset + _DECIMAL.size


_Reader = Callable[[bytes, int, int], tuple[object, int]]

_READERS: Mapping[bytes, _Reader] = {
    b"t": lambda raw, offset, _depth: (raw[offset] != 0, offset + 1),
    b"V": lambda _raw, offset, _depth: (None, offset),
    b"x": lambda raw, offset, _depth: _decode_long_string(raw, offset),
    b"T": lambda raw, offset, _depth: _decode_timestamp(raw, offset),
    b"D": lambda raw, offset, _depth: _decode_decimal(raw, offset),
    b"F": lambda raw, offset, depth: _decode_table(raw, offset, depth=depth + 1),
    b"A": lambda raw, offset, depth: _decode_array(raw, offset, depth=depth + 1),
}
