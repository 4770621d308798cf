"""The properties of a message, ours and anyone's."""

import struct
from typing import Any

import pytest
from pika.spec import BasicProperties

from orderkeep.instant import Instant
from orderkeep.messaging import Message
from orderkeep.messaging.rabbitmq.properties import (
    UNREADABLE_HEADER,
    ReceivedProperties,
    encode_properties,
    read_properties,
)


def message(**changed) -> Message:
    values: dict[str, Any] = {
        "route": "q",
        "message_id": "m1",
        "type": "t",
        "body": b"",
        "headers": {},
        "published_at": Instant(1_700_000_000_999_999),
    }
    return Message(**(values | changed))


def as_pika_reads(raw: bytes) -> BasicProperties:
    properties = BasicProperties()
    properties.decode(raw)
    return properties


def as_pika_writes(**properties) -> bytes:
    return b"".join(BasicProperties(**properties).encode())


def test_ours_are_what_pika_reads():
    properties = as_pika_reads(
        encode_properties(message(headers={"x-sequence": 7}), expiration_ms=1800)
    )

    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.message_id == "m1"
    assert properties.type == "t"
    assert properties.timestamp == 1_700_000_000
    assert properties.expiration == "1800"
    assert properties.headers == {"x-sequence": 7}


def test_what_a_message_does_not_have_is_left_out():
    properties = as_pika_reads(encode_properties(message(message_id="", type="")))

    assert properties.message_id is None
    assert properties.type is None
    assert properties.expiration is None


def test_the_delay_of_the_plugin_takes_the_place_of_a_header_of_the_same_name():
    properties = as_pika_reads(
        encode_properties(message(headers={"x-delay": -5}), delay_ms=1_800_000)
    )

    assert properties.headers == {"x-delay": 1_800_000}


def test_all_that_a_sender_may_write_is_passed_over_to_what_we_look_at():
    raw = as_pika_writes(
        content_type="c",
        content_encoding="e",
        headers={"h": 1},
        delivery_mode=1,
        priority=3,
        correlation_id="co",
        reply_to="r",
        expiration="5",
        message_id="m",
        timestamp=1,
        type="t",
        user_id="u",
        app_id="a",
        cluster_id="cl",
    )

    assert read_properties(raw) == ReceivedProperties(message_id=b"m", type="t", headers={"h": 1})


def test_nothing_written_is_nothing_read():
    assert read_properties(as_pika_writes()) == ReceivedProperties()
    assert read_properties(as_pika_writes(message_id="", type="")) == ReceivedProperties()


def test_headers_that_cannot_be_read_are_kept_and_the_rest_is_read():
    table = b"\x01h?odd"
    flags = BasicProperties.FLAG_HEADERS | BasicProperties.FLAG_MESSAGE_ID
    raw = struct.pack(">HI", flags, len(table)) + table + b"\x02m1"

    assert read_properties(raw) == ReceivedProperties(
        message_id=b"m1", headers={UNREADABLE_HEADER: "\x01h?odd"}
    )


@pytest.mark.parametrize("length", range(20))
def test_what_is_cut_off_is_read_as_far_as_it_goes(length: int):
    raw = as_pika_writes(message_id="m1", headers={"h": 1}, type="t")

    received = read_properties(raw[:length])

    assert received.message_id in (None, b"m1", b"m", b"")
