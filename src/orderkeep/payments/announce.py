"""Tell the order service what happened to the money of its orders, in order, through the outbox."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.message import Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.payments.store import known_orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Something to tell about an order.

    Attributes:
        type: The message's type, such as `payment.succeeded`.
        route: The queue that is told.
    """

    order_no: str
    type: str
    route: str
    body: bytes


async def announce(
    transaction: Transaction,
    announcements: Sequence[Announcement],
    *,
    outbox: Outbox,
    now: Instant,
) -> None:
    """Append the announcements, each with its order's next sequence; the orders are locked."""
    counts = Counter(announcement.order_no for announcement in announcements)
    last = await known_orders.raise_sequences(transaction, counts, now=now)
    next_sequence = {order_no: last[order_no] - counts[order_no] + 1 for order_no in counts}
    events: list[Event] = []
    for announcement in announcements:
        order_no = announcement.order_no
        events.append(
            Event(
                aggregate_id=order_no,
                sequence=next_sequence[order_no],
                type=announcement.type,
                route=announcement.route,
                body=announcement.body,
            )
        )
        next_sequence[order_no] += 1
    await outbox.append(transaction, events, now=now)
