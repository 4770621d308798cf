"""`payment.opened.notify`: a buyer began to pay; note it in the order's story.

Invariant: a payment is noted once. Nothing else follows from it in this release: the order keeps
its deadline.
"""

from collections.abc import Sequence

from orderkeep.contracts import payment_opened_notify
from orderkeep.contracts.payment_opened_notify import PaymentOpened
from orderkeep.database.transaction import Transaction
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.store.payments import OpenedPayment, insert_opened_payments


def payment_opened_consumer() -> Consumer[PaymentOpened]:
    """Return the consumer that notes opened payments."""
    return Consumer(
        name=payment_opened_notify.QUEUE,
        queue=payment_opened_notify.QUEUE,
        decode=payment_opened_notify.decode,
        business_key=payment_opened_notify.business_key,
        handle=_handle,
    )


async def _handle(
    transaction: Transaction, messages: Sequence[Received[PaymentOpened]]
) -> Sequence[Outcome]:
    now = await transaction.now()
    await insert_opened_payments(
        transaction,
        [
            OpenedPayment(
                payment_no=message.body.payment_no,
                order_no=OrderNumber(message.body.order_no),
                pay_channel=message.body.pay_channel,
                opened_at=now if message.body.opened_at is None else message.body.opened_at,
                received_at=now,
            )
            for message in messages
        ],
    )
    return [HANDLED] * len(messages)
