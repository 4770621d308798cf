"""`order.timeout.dlq`: an order timed out; enter it in the abandoned-orders report.

Invariant: an order stands in the report at most once, whatever is sent again. The report is read
from the row itself, so nothing is lost if the process dies before the commit: the message comes
again.
"""

from collections.abc import Sequence

from orderkeep.contracts import order_timeout_dlq
from orderkeep.contracts.order_timeout_dlq import TimedOutOrder as TimedOutOrderBody
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received, SetAside
from orderkeep.orders.order import Order, OrderNumber
from orderkeep.orders.store.orders import find_orders
from orderkeep.orders.store.reports import TimedOutOrder, insert_timed_out


def order_timeout_dlq_consumer() -> Consumer[TimedOutOrderBody]:
    """Return the consumer that writes the abandoned-orders report."""
    return Consumer(
        name=order_timeout_dlq.QUEUE,
        queue=order_timeout_dlq.QUEUE,
        decode=order_timeout_dlq.decode,
        business_key=order_timeout_dlq.business_key,
        handle=_handle,
    )


async def _handle(
    transaction: Transaction, messages: Sequence[Received[TimedOutOrderBody]]
) -> Sequence[Outcome]:
    orders = await find_orders(transaction, {message.body.order_no for message in messages})
    now = await transaction.now()
    entries: list[TimedOutOrder] = []
    outcomes: list[Outcome] = []
    for message in messages:
        order = orders.get(OrderNumber(message.body.order_no))
        if order is None:
            detail = f"there is no order {message.body.order_no}"
            outcomes.append(SetAside(reason="unknown_order", detail=detail))
            continue
        entries.append(_entry(message.body, order=order, timed_out_at=order.closed_at or now))
        outcomes.append(HANDLED)
    await insert_timed_out(transaction, entries)
    return outcomes


def _entry(body: TimedOutOrderBody, *, order: Order, timed_out_at: Instant) -> TimedOutOrder:
    # Who and how much are the order's own: a message can be short of them, the row cannot.
    return TimedOutOrder(
        order_no=order.order_no,
        user_id=order.user_id,
        pay_amount_minor=order.pay_amount_minor,
        currency=order.currency,
        reason_code=body.reason_code,
        created_at=order.created_at,
        timed_out_at=body.timeout_at or timed_out_at,
    )
