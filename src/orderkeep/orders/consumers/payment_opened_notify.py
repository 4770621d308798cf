"""`payment.opened.notify`: a buyer began to pay; note it, and give the order time to be paid.

Invariant: a payment is noted once, and the deadline of an order moves once at most, by a bounded
time: a foreign payment service that says the same again and again, or opens payment after payment,
cannot hold an order open. What follows from it is written with it.
"""

from collections.abc import Sequence
from functools import partial

import structlog

from orderkeep.contracts import payment_opened_notify
from orderkeep.contracts.payment_opened_notify import PaymentOpened
from orderkeep.database.transaction import Transaction
from orderkeep.instant import rfc3339
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.extend_deadlines import Extension, extend_deadlines
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.store.payments import OpenedPayment

log = structlog.get_logger()


def payment_opened_consumer(*, outbox: Outbox, extension_s: float) -> Consumer[PaymentOpened]:
    """Return the consumer that notes opened payments.

    Args:
        outbox: Where what happened leaves.
        extension_s: How far behind the opening of a payment a deadline may move; 0 moves none.
    """

    async def handle(
        transaction: Transaction, messages: Sequence[Received[PaymentOpened]]
    ) -> Sequence[Outcome]:
        now = await transaction.now()
        opened = [
            OpenedPayment(
                payment_no=message.body.payment_no,
                order_no=OrderNumber(message.body.order_no),
                pay_channel=message.body.pay_channel,
                opened_at=now if message.body.opened_at is None else message.body.opened_at,
                received_at=now,
            )
            for message in messages
        ]
        extensions = await extend_deadlines(
            transaction, opened, extension_s=extension_s, outbox=outbox
        )
        transaction.after_commit(partial(_log, extensions))
        return [HANDLED] * len(messages)

    return Consumer(
        name=payment_opened_notify.QUEUE,
        queue=payment_opened_notify.QUEUE,
        decode=payment_opened_notify.decode,
        business_key=payment_opened_notify.business_key,
        handle=handle,
    )


def _log(extensions: Sequence[Extension]) -> None:
    for extension in extensions:
        log.info(
            "deadline_extended",
            order_no=extension.order.order_no,
            payment_no=extension.payment_no,
            expires_at=rfc3339(extension.order.expires_at),
        )
