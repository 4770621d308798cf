"""Consumes `payment.order.events`: what an order owes, whose it is, and how it ended.

Invariant: of two copies or a late one only what is newer by version counts, so the order here is
never older than what was heard of it; and an order that is known to have ended has no open payment.
Both are written in one transaction, under the order's row, which whoever opens a payment locks too.

A crash before the commit changes nothing and the messages come again; after it, the copies that
come again are no news.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import structlog

from orderkeep.contracts import order_events
from orderkeep.contracts.order_events import OrderEvent
from orderkeep.contracts.order_status import Status
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received
from orderkeep.messaging.signal import Signal
from orderkeep.payments.payment import after_order_end
from orderkeep.payments.store import known_orders
from orderkeep.payments.store import payments as payment_store
from orderkeep.payments.store.known_orders import KnownOrder
from orderkeep.payments.store.payments import PaymentChange

log = structlog.get_logger()


def payment_order_events_consumer(*, order_heard: Signal) -> Consumer[OrderEvent]:
    """Return the consumer of `payment.order.events`.

    Args:
        order_heard: Set after each batch: whoever waits to pay an order looks again.
    """

    async def handle(
        transaction: Transaction, batch: Sequence[Received[OrderEvent]]
    ) -> Sequence[Outcome]:
        now = await transaction.now()
        newest = _newest(message.body for message in batch)
        news = await known_orders.note_orders(transaction, list(newest.values()), now=now)
        ended = {
            order_no for order_no in news if newest[order_no].status is not Status.PENDING_PAYMENT
        }
        await _close_payments(transaction, ended, now=now)
        transaction.after_commit(order_heard.set)
        transaction.after_commit(partial(_log, batch, news))
        return [HANDLED] * len(batch)

    return Consumer(
        name=order_events.QUEUE_PAYMENT,
        queue=order_events.QUEUE_PAYMENT,
        decode=order_events.decode,
        business_key=order_events.business_key,
        handle=handle,
    )


def _newest(events: Iterable[OrderEvent]) -> dict[str, KnownOrder]:
    """Return each order as its newest event has it; a later deadline is newer than an earlier."""
    newest: dict[str, OrderEvent] = {}
    for event in events:
        known = newest.get(event.order_no)
        if known is None or _age(known) < _age(event):
            newest[event.order_no] = event
    return {order_no: _order(event) for order_no, event in newest.items()}


def _age(event: OrderEvent) -> tuple[int, Instant]:
    return (event.version, event.expires_at)


def _order(event: OrderEvent) -> KnownOrder:
    return KnownOrder(
        order_no=event.order_no,
        user_id=event.user_id,
        status=event.status,
        version=event.version,
        amount_minor=event.pay_amount_minor,
        currency=event.currency,
        expires_at=event.expires_at,
    )


async def _close_payments(
    transaction: Transaction, order_nos: Iterable[str], *, now: Instant
) -> None:
    open_payments = await payment_store.lock_open_payments(transaction, order_nos)
    changes = [
        PaymentChange(before=payment, after=after_order_end(payment, now=now))
        for payment in open_payments
    ]
    await payment_store.change_payments(transaction, changes)
    transaction.after_commit(partial(_log_closed, changes))


def _log(batch: Sequence[Received[OrderEvent]], news: set[str]) -> None:
    for message in batch:
        log.debug(
            "payment_heard_of_order",
            order_no=message.body.order_no,
            message_id=message.message_id,
            status=message.body.status.value,
            version=message.body.version,
            is_news=message.body.order_no in news,
        )


def _log_closed(changes: Sequence[PaymentChange]) -> None:
    for change in changes:
        log.info(
            "payment_closed", order_no=change.after.order_no, payment_no=change.after.payment_no
        )
