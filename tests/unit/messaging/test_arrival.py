"""What a consumer makes of a delivery from anyone."""

from typing import Any

import pytest

from orderkeep.instant import Instant
from orderkeep.messaging import HANDLED, BadMessageError, Consumer, Delivery
from orderkeep.messaging.arrival import Content, read_arrival, unread_arrival

NOW = Instant(1_700_000_000_000_000)


async def handle(_transaction, batch):
    return [HANDLED] * len(batch)


def decode(raw: bytes) -> str:
    if raw == b"bad":
        reason = "malformed"
        raise BadMessageError(reason, "as bad as can be")
    if raw == b"bug":
        raise ZeroDivisionError
    return raw.decode()


CONSUMER = Consumer(
    name="q", queue="q", decode=decode, business_key=lambda body: f"key {body}", handle=handle
)


def delivery(body: bytes = b"body", **changed) -> Delivery:
    values: dict[str, Any] = {
        "queue": "q",
        "tag": 1,
        "body": body,
        "message_id": b"m1",
        "type": "t",
        "headers": {},
        "redelivered": False,
    }
    return Delivery(**(values | changed))


def test_a_message_without_our_headers_is_at_its_first_try():
    arrival = read_arrival(delivery(headers={"x-aggregate-id": "O1"}), consumer=CONSUMER)

    assert arrival.message_id == "m1"
    assert arrival.aggregate_id == "O1"
    assert arrival.content == Content(body="body")
    assert (arrival.attempt, arrival.failed_tries) == (1, 0)
    assert arrival.first_received_by(NOW) == NOW


def test_our_headers_tell_of_earlier_tries():
    headers = {
        "x-orderkeep-attempt": 7,
        "x-orderkeep-failed-tries": 3,
        "x-orderkeep-first-received-at": NOW - 5,
    }

    arrival = read_arrival(delivery(headers=headers), consumer=CONSUMER)

    assert (arrival.attempt, arrival.failed_tries) == (7, 3)
    assert arrival.first_received_by(NOW) == NOW - 5


@pytest.mark.parametrize("forged", ["7", -1, 0, True, 1.5, None, 10**30, {"n": 1}])
def test_forged_headers_tell_nothing(forged: object):
    headers = {
        "x-orderkeep-attempt": forged,
        "x-orderkeep-failed-tries": forged,
        "x-orderkeep-first-received-at": forged,
        "x-aggregate-id": forged if not isinstance(forged, str) else "a\x00b",
    }

    arrival = read_arrival(delivery(headers=headers), consumer=CONSUMER)

    assert (arrival.attempt, arrival.failed_tries) == (1, 0)
    assert arrival.aggregate_id == ""
    assert arrival.first_received_by(NOW) == NOW


def test_nobody_received_a_message_in_the_future():
    headers = {"x-orderkeep-first-received-at": NOW + 5}

    arrival = read_arrival(delivery(headers=headers), consumer=CONSUMER)

    assert arrival.first_received_by(NOW) == NOW


def test_the_business_key_stands_in_for_a_missing_id():
    arrival = read_arrival(delivery(message_id=None), consumer=CONSUMER)

    assert arrival.message_id == "key body"


@pytest.mark.parametrize(
    ("body", "error"), [(b"bad", BadMessageError), (b"bug", ZeroDivisionError)]
)
def test_what_cannot_be_read_says_why_and_keeps_an_identity(body: bytes, error: type):
    arrival = read_arrival(delivery(body, message_id=None), consumer=CONSUMER)

    assert isinstance(arrival.content, error)
    assert arrival.message_id.startswith("sha256:")


def test_what_may_be_deadly_is_left_unread():
    arrival = unread_arrival(delivery(b"bug"))

    assert not isinstance(arrival.content, Exception)
    assert arrival.message_id == "m1"
