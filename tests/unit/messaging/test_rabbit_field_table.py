"""AMQP tables and texts, whatever stands in them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderkeep.messaging.rabbitmq.field_table import (
    NotRepresentableError,
    bytes_of,
    decode_table,
    encode_table,
    read_short_string,
    short_string,
    text_of,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_what_is_written_is_read(table):
    raw = encode_table(table)

    assert decode_table(b"before" + raw + b"after", 6) == (table, 6 + len(raw))


@given(st.binary())
def test_any_bytes_are_text_and_bytes_again(raw: bytes):
    assert bytes_of(text_of(raw)) == raw


def test_surrogates_that_never_were_bytes_can_be_written():
    assert bytes_of("\ud800") == b"\xed\xa0\x80"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xff", -1),
        (b"U\xff\xff", -1),
        (b"u\xff\xff", 65_535),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 4_294_967_295),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f\x3f\x00\x00\x00", 0.5),
        (b"d" + struct.pack(">d", -0.1), -0.1),
        (b"D\x02\x00\x00\x00\x7b", "1.23"),
        (b"D\x00\xff\xff\xff\xff", "-1"),
        (b"T" + struct.pack(">Q", 1_704_103_200), "2024-01-01T10:00:00Z"),
        (b"T" + b"\xff" * 8, 2**64 - 1),
        (b"S\x00\x00\x00\x02\xff\xfe", "\udcff\udcfe"),
        (b"x\x00\x00\x00\x02\xff\xfe", b"\xff\xfe"),
        (b"V", None),
        (b"t\x02", True),
        (b"A\x00\x00\x00\x03t\x00V", [False, None]),
        (b"F\x00\x00\x00\x03\x01aV", {"a": None}),
    ],
)
def test_every_kind_that_others_write_is_read(raw: bytes, value: object):
    body = b"\x01h" + raw
    table = struct.pack(">I", len(body)) + body

    assert decode_table(table, 0) == ({"h": value}, len(table))


@pytest.mark.parametrize("raw", [b"?", b"S\x00\x00\x00\x09short", b"F" * 200])
def test_what_is_no_table_is_told(raw: bytes):
    body = b"\x01h" + raw

    with pytest.raises((ValueError, IndexError, struct.error)):
        decode_table(struct.pack(">I", len(body)) + body, 0)


def test_a_table_nested_without_end_is_no_table():
    nested = b""
    for _ in range(100):
        nested = b"\x01aF" + struct.pack(">I", len(nested)) + nested

    with pytest.raises(ValueError, match="deeper"):
        decode_table(struct.pack(">I", len(nested)) + nested, 0)


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, object(), {1, 2}], ids=["above", "below", "object", "set"]
)
def test_what_amqp_has_no_form_for_is_told(value: object):
    with pytest.raises(NotRepresentableError):
        encode_table({"h": value})


def test_a_short_string_has_at_most_255_bytes():
    assert read_short_string(short_string("ö" * 127, what="it"), 0) == ("ö".encode() * 127, 255)
    with pytest.raises(NotRepresentableError, match="it takes 256 bytes; AMQP has 255"):
        short_string("ö" * 128, what="it")
