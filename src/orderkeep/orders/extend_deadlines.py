"""Note payments that were opened, and give their orders the time to be paid.

Invariant: a deadline moves once for each order, later and never earlier, to `extension_s` behind
the opening of a payment at most, and only while the order waits for its payment. A payment that was
noted before moves nothing, whatever is sent again.

The new deadline has a timeout check of its own, appended with it. The check of the old deadline
finds the order early, which is a new wait (`close_orders.py`); the sweep goes by the row.

Locks: orders by number, then payments by number. A crash before the commit leaves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from orderkeep.database.transaction import Transaction
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.events import extended_events
from orderkeep.orders.order import Order, OrderNumber, find_extended
from orderkeep.orders.store.orders import lock_orders
from orderkeep.orders.store.payments import OpenedPayment, insert_opened_payments
from orderkeep.orders.write_changes import OrderChange, write_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A deadline that moved; `order` has the new one."""

    order: Order
    payment_no: str


async def extend_deadlines(
    transaction: Transaction,
    opened: Sequence[OpenedPayment],
    *,
    extension_s: float,
    outbox: Outbox,
) -> list[Extension]:
    """Note the payments, and return the deadlines that moved for one of them.

    Args:
        extension_s: How far behind the opening of a payment a deadline may move; 0 moves none.
    """
    first = {payment.payment_no: payment for payment in reversed(opened)}
    orders = await lock_orders(transaction, {payment.order_no for payment in opened})
    new = await insert_opened_payments(transaction, list(first.values()))
    now = await transaction.now()
    extensions: dict[OrderNumber, Extension] = {}
    for payment in reversed(first.values()):
        order = orders.get(payment.order_no)
        if order is None or payment.payment_no not in new or order.order_no in extensions:
            continue
        extended = find_extended(
            order, opened_at=payment.opened_at, extension_s=extension_s, now=now
        )
        if extended is not None:
            extensions[order.order_no] = Extension(order=extended, payment_no=payment.payment_no)
    changes = [
        _change(orders[order_no], extension.order) for order_no, extension in extensions.items()
    ]
    await write_changes(transaction, changes, outbox=outbox, now=now)
    return list(extensions.values())


def _change(before: Order, extended: Order) -> OrderChange:
    assert extended.deadline_extended_at is not None
    events = extended_events(
        extended, sequence=before.event_seq + 1, now=extended.deadline_extended_at
    )
    return OrderChange(
        before=before,
        after=replace(extended, event_seq=before.event_seq + len(events)),
        events=events,
    )
