"""A delivery as its consumer sees it: who it is, which try this is, and what its body says."""

from typing import Generic

from msgspec import Struct

from orderkeep.instant import Instant
from orderkeep.messaging.column_text import is_clean
from orderkeep.messaging.consumer import Body, Consumer, Received
from orderkeep.messaging.identity import IDENTITY_LENGTH_MAX, message_identity
from orderkeep.messaging.message import (
    AGGREGATE_ID_HEADER,
    ATTEMPT_HEADER,
    FAILED_TRIES_HEADER,
    FIRST_RECEIVED_HEADER,
    Delivery,
)

# A message that waits for years at the longest pause stays below this; more is a forged header.
_TRIES_MAX = 1_000_000


class Unread(Struct, frozen=True):
    """A body that nobody has tried to read."""


_UNREAD = Unread()


class Content(Struct, Generic[Body], frozen=True, kw_only=True):
    """A body that could be read."""

    body: Body


class Arrival(Struct, Generic[Body], frozen=True, kw_only=True):
    """A delivery in hand.

    Attributes:
        message_id: Its identity for this consumer.
        aggregate_id: What it is about, by its sender's header; empty where there is none.
        attempt: Which try this is; 1 is the first.
        failed_tries: How many of the earlier tries failed.
        first_received_at: When the first try was, or None if this is the first.
        content: The body, or why it could not be read.
    """

    delivery: Delivery
    message_id: str
    aggregate_id: str
    attempt: int
    failed_tries: int
    first_received_at: Instant | None
    content: Content[Body] | Unread | Exception

    def received(self, content: Content[Body], *, now: Instant) -> Received[Body]:
        """Return the message as its handler gets it."""
        return Received(
            message_id=self.message_id,
            body=content.body,
            attempt=self.attempt,
            first_received_at=self.first_received_by(now),
        )

    def first_received_by(self, now: Instant) -> Instant:
        """Return when the first try was; `now` if this is it, or if its header lies ahead."""
        return now if self.first_received_at is None else min(self.first_received_at, now)


def identity_unread(delivery: Delivery) -> str:
    """Return the identity of a delivery whose body has not been read, and may be deadly."""
    return message_identity(
        queue=delivery.queue,
        body=delivery.body,
        sender_message_id=delivery.message_id,
        business_key=None,
    )


def unread_arrival(delivery: Delivery) -> Arrival[Body]:
    """Return the delivery with its body left unread."""
    return _arrival(delivery, message_id=identity_unread(delivery), content=_UNREAD)


def read_arrival(delivery: Delivery, *, consumer: Consumer[Body]) -> Arrival[Body]:
    """Return the delivery with its body read, or with what kept it from being read."""
    try:
        body = consumer.decode(delivery.body)
        message_id = message_identity(
            queue=delivery.queue,
            body=delivery.body,
            sender_message_id=delivery.message_id,
            business_key=consumer.business_key(body),
        )
    except Exception as error:  # noqa: BLE001 (kept in the arrival; delivery decides and logs)
        return _arrival(delivery, message_id=identity_unread(delivery), content=error)
    return _arrival(delivery, message_id=message_id, content=Content(body=body))


def _arrival(
    delivery: Delivery, *, message_id: str, content: Content[Body] | Unread | Exception
) -> Arrival[Body]:
    header = delivery.headers.get
    first_received_at = _whole_number(header(FIRST_RECEIVED_HEADER), minimum=1, maximum=2**62)
    aggregate_id = header(AGGREGATE_ID_HEADER)
    is_named = isinstance(aggregate_id, str) and is_clean(
        aggregate_id, length_max=IDENTITY_LENGTH_MAX
    )
    return Arrival(
        delivery=delivery,
        message_id=message_id,
        aggregate_id=str(aggregate_id) if is_named else "",
        attempt=_whole_number(header(ATTEMPT_HEADER), minimum=1, maximum=_TRIES_MAX) or 1,
        failed_tries=_whole_number(header(FAILED_TRIES_HEADER), minimum=0, maximum=_TRIES_MAX) or 0,
        first_received_at=None if first_received_at is None else Instant(first_received_at),
        content=content,
    )


def _whole_number(value: object, *, minimum: int, maximum: int) -> int | None:
    # A header comes from outside, like a body.
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
        return value
    return None
