"""How a message goes back to its own queue: through the outbox, as it came, for another try.

Invariant: what goes back has the identity, the body and the headers it came with; only the
kernel's own headers tell that it is not the first try.
"""

from orderkeep.instant import Instant
from orderkeep.messaging.column_text import clean_start, is_clean
from orderkeep.messaging.identity import IDENTITY_LENGTH_MAX
from orderkeep.messaging.message import (
    AGGREGATE_ID_HEADER,
    RETRY_HEADERS,
    SEQUENCE_HEADER,
    Delivery,
    Event,
    Headers,
)

# AMQP gives a type 255 bytes; ours are short names of plain letters.
_TYPE_LENGTH_MAX = 60

_SEQUENCE_MAX = 2**62


def returned_event(
    delivery: Delivery,
    *,
    message_id: str,
    retry_headers: Headers,
    not_before: Instant | None = None,
    retry_key: str | None = None,
    why: str | None = None,
    ordered: bool = False,
) -> Event:
    """Return the event that brings the message back to the queue it came from.

    Args:
        delivery: The message as it came.
        message_id: Its identity for the consumer.
        retry_headers: Takes the place of the kernel's headers that the message came with.
        not_before: See `Event`.
        retry_key: See `Event`.
        why: See `Event`.
        ordered: Keep those of one aggregate in their order; a retry does not, for its neighbours
            have gone on without it.
    """
    aggregate_id, sequence = place_of(delivery.headers)
    return Event(
        aggregate_id=aggregate_id or message_id,
        sequence=sequence,
        type=clean_start(delivery.type, length_max=_TYPE_LENGTH_MAX),
        route=delivery.queue,
        body=delivery.body,
        ordered=ordered,
        not_before=not_before,
        message_id=message_id,
        retry_key=retry_key,
        why=why,
        headers={
            **{
                name: value for name, value in delivery.headers.items() if name not in RETRY_HEADERS
            },
            **retry_headers,
        },
    )


def place_of(headers: Headers) -> tuple[str | None, int]:
    """Return what a message is about and its place there, as its headers tell; else None and 0."""
    aggregate_id = headers.get(AGGREGATE_ID_HEADER)
    sequence = headers.get(SEQUENCE_HEADER)
    is_named = isinstance(aggregate_id, str) and is_clean(
        aggregate_id, length_max=IDENTITY_LENGTH_MAX
    )
    is_numbered = (
        isinstance(sequence, int)
        and not isinstance(sequence, bool)
        and 0 <= sequence <= _SEQUENCE_MAX
    )
    return (
        str(aggregate_id) if is_named and aggregate_id else None,
        int(sequence or 0) if is_numbered else 0,
    )
