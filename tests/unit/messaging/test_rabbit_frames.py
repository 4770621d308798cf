"""The frames of a publication are those that pika makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.frame import Body, Header, Method
from pika.spec import Basic

from orderkeep.messaging.rabbitmq.field_table import NotRepresentableError
from orderkeep.messaging.rabbitmq.frames import publication_frames
from orderkeep.messaging.rabbitmq.properties import RawProperties

FRAME_SIZE_MAX = 4096
PART_SIZE_MAX = FRAME_SIZE_MAX - 8

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def frames_of(channel_number: int = 1, **changed):
    publication = {
        "exchange": "order.timeout.exchange",
        "routing_key": "order.timeout.hold.60000",
        "is_mandatory": True,
        "properties": b"\x00\x00",
        "body": b"{}",
        "frame_size_max": FRAME_SIZE_MAX,
    }
    return publication_frames(channel_number, **{**publication, **changed})


@given(
    channel_number=st.integers(1, 65_535),
    exchange=names,
    routing_key=names,
    is_mandatory=st.booleans(),
    properties=st.binary(max_size=100),
    body=st.one_of(
        st.binary(max_size=100),
        st.integers(PART_SIZE_MAX - 1, 3 * PART_SIZE_MAX + 1).map(bytes),
    ),
)
def test_they_are_byte_for_byte_what_pika_would_write(
    *, channel_number, exchange, routing_key, is_mandatory, properties, body
):
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=is_mandatory)
    expected = [
        Method(channel_number, method).marshal(),
        Header(channel_number, len(body), RawProperties(properties)).marshal(),
        *(
            Body(channel_number, body[start : start + PART_SIZE_MAX]).marshal()
            for start in range(0, len(body), PART_SIZE_MAX)
        ),
    ]

    ours = frames_of(
        channel_number,
        exchange=exchange,
        routing_key=routing_key,
        is_mandatory=is_mandatory,
        properties=properties,
        body=body,
    )

    assert ours == expected


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 0), (1, 1), (PART_SIZE_MAX, 1), (PART_SIZE_MAX + 1, 2), (2 * PART_SIZE_MAX, 2)],
)
def test_no_frame_is_larger_than_was_agreed_on(size: int, count: int):
    frames = frames_of(body=bytes(size))

    assert len(frames) == 2 + count
    assert max(map(len, frames)) <= FRAME_SIZE_MAX


@pytest.mark.parametrize("name", ["exchange", "routing_key"])
def test_a_name_that_amqp_has_no_room_for_is_refused(name: str):
    with pytest.raises(NotRepresentableError):
        frames_of(**{name: "x" * 256})  # type: ignore[arg-type]  # reason: never the channel's number
