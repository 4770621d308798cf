"""`order.timeout.queue`: the payment deadline of an order has come; close it if it is unpaid.

Invariant: the message is only a hint. The order's row says whether it is due, by the database's
clock: a message that comes early starts a new wait, one for an ended order changes nothing. If the
process dies before the commit the message comes again; if every message is lost, the sweep closes
the order a little later.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

import structlog

from orderkeep.contracts import order_timeout_queue
from orderkeep.contracts.order_timeout_queue import TimeoutCheck
from orderkeep.database.transaction import Transaction
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received, SetAside
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.close_orders import close_orders
from orderkeep.orders.order import OrderNumber

log = structlog.get_logger()


def order_timeout_consumer(
    *, outbox: Outbox, observe_lag_s: Callable[[Sequence[float]], None] = lambda _lag_s: None
) -> Consumer[TimeoutCheck]:
    """Return the consumer that closes unpaid orders when their timeout check arrives.

    Args:
        outbox: Where what happened leaves.
        observe_lag_s: Told after each commit by how much the closings came after their deadlines.
    """

    async def handle(
        transaction: Transaction, messages: Sequence[Received[TimeoutCheck]]
    ) -> Sequence[Outcome]:
        closings = await close_orders(
            transaction,
            {message.body.order_no: message.message_id for message in messages},
            outbox=outbox,
        )
        transaction.after_commit(partial(observe_lag_s, closings.lag_s))
        transaction.after_commit(partial(_log_early, messages, waiting=closings.waiting))
        return [
            _unknown(message) if OrderNumber(message.body.order_no) in closings.unknown else HANDLED
            for message in messages
        ]

    return Consumer(
        name=order_timeout_queue.QUEUE,
        queue=order_timeout_queue.QUEUE,
        decode=order_timeout_queue.decode,
        business_key=order_timeout_queue.business_key,
        handle=handle,
    )


def _log_early(
    messages: Sequence[Received[TimeoutCheck]], *, waiting: AbstractSet[OrderNumber]
) -> None:
    for message in messages:
        if OrderNumber(message.body.order_no) in waiting:
            log.info(
                "order_timeout_early",
                order_no=message.body.order_no,
                message_id=message.message_id,
            )


def _unknown(message: Received[TimeoutCheck]) -> SetAside:
    # The order was committed before its timeout check could leave, so it will not appear later.
    return SetAside(reason="unknown_order", detail=f"there is no order {message.body.order_no}")
