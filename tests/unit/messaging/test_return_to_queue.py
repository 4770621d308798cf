"""A message goes back to its queue as it came."""

from typing import Any

from orderkeep.messaging import Delivery
from orderkeep.messaging.return_to_queue import returned_event


def delivery(**changed) -> Delivery:
    values: dict[str, Any] = {
        "queue": "q",
        "tag": 1,
        "body": b"\x00\xff",
        "message_id": None,
        "type": "order.paid",
        "headers": {"x-aggregate-id": "O1", "x-sequence": 5, "x-mine": "kept"},
        "redelivered": False,
    }
    return Delivery(**(values | changed))


def test_identity_body_and_headers_stay():
    event = returned_event(delivery(), message_id="m1", retry_headers={})

    assert (event.route, event.message_id, event.body) == ("q", "m1", b"\x00\xff")
    assert event.headers == {"x-aggregate-id": "O1", "x-sequence": 5, "x-mine": "kept"}
    assert (event.aggregate_id, event.sequence, event.type) == ("O1", 5, "order.paid")
    assert not event.ordered


def test_the_kernels_own_headers_are_replaced():
    earlier = {"x-orderkeep-attempt": 3, "x-orderkeep-failed-tries": 2, "x-mine": 1}

    again = returned_event(
        delivery(headers=earlier), message_id="m1", retry_headers={"x-orderkeep-attempt": 4}
    )
    anew = returned_event(delivery(headers=earlier), message_id="m1", retry_headers={})

    assert again.headers == {"x-orderkeep-attempt": 4, "x-mine": 1}
    assert anew.headers == {"x-mine": 1}


def test_a_message_that_names_no_aggregate_stands_for_itself():
    headers = {"x-aggregate-id": "a\x00b", "x-sequence": True}

    event = returned_event(delivery(headers=headers), message_id="m1", retry_headers={})

    assert (event.aggregate_id, event.sequence) == ("m1", 0)


def test_a_type_that_fits_no_column_is_made_to():
    event = returned_event(delivery(type="\x00\ud800" * 50), message_id="m1", retry_headers={})

    assert len(event.type) <= 60
    assert event.type.isprintable()
