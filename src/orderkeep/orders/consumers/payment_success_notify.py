"""`payment.success.notify`: a payment was made; record it and pay its order, if it fits.

Invariant: every payment that reaches this queue ends on record, as a case, or, if it cannot be
read, among the dead letters: no money is forgotten. Reports of one payment may come any number of
times, in any order, before their order is visible and long after it ended.
"""

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from orderkeep.contracts import payment_success_notify
from orderkeep.contracts.payment_success_notify import PaymentSucceeded
from orderkeep.database.transaction import Transaction
from orderkeep.instant import after
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received, TryLater
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.payment import (
    AwaitOrder,
    Decision,
    LatePaymentPolicy,
    OpenCase,
    Payment,
    PaymentIdentity,
    RequestRefund,
    Revive,
)
from orderkeep.orders.record_payments import PaymentReport, record_payments

log = structlog.get_logger()


def payment_success_consumer(
    *,
    outbox: Outbox,
    policy: LatePaymentPolicy,
    unknown_order_retry_for_s: float,
    draw_refund_no: Callable[[], str],
) -> Consumer[PaymentSucceeded]:
    """Return the consumer that records payments.

    Args:
        policy: For payments of closed orders.
        unknown_order_retry_for_s: How long a payment waits for its order to become visible.
        draw_refund_no: Draws a number that no refund has.
    """

    async def handle(
        transaction: Transaction, messages: Sequence[Received[PaymentSucceeded]]
    ) -> Sequence[Outcome]:
        now = await transaction.now()
        decisions = await record_payments(
            transaction,
            [
                PaymentReport(
                    payment=_payment(message.body),
                    message_id=message.message_id,
                    may_wait=now
                    < after(message.first_received_at, seconds=unknown_order_retry_for_s),
                )
                for message in messages
            ],
            policy=policy,
            outbox=outbox,
            draw_refund_no=draw_refund_no,
        )
        transaction.after_commit(partial(_log, messages, decisions))
        return [
            _wait(message) if isinstance(decision, AwaitOrder) else HANDLED
            for message, decision in zip(messages, decisions, strict=True)
        ]

    return Consumer(
        name=payment_success_notify.QUEUE,
        queue=payment_success_notify.QUEUE,
        decode=payment_success_notify.decode,
        business_key=payment_success_notify.business_key,
        handle=handle,
    )


def _log(messages: Sequence[Received[PaymentSucceeded]], decisions: Sequence[Decision]) -> None:
    # A payment that pays its order shows as `order_paid`; here is the money that does not.
    for message, decision in zip(messages, decisions, strict=True):
        body = message.body
        names = {
            "order_no": body.order_no,
            "message_id": message.message_id,
            "trade_no": body.trade_no,
        }
        if isinstance(decision, OpenCase):
            log.warning(
                "payment_case_opened", **names, kind=decision.kind.value, detail=decision.detail
            )
        elif isinstance(decision, RequestRefund):
            log.warning("refund_requested", **names, reason=decision.reason.value)
        elif isinstance(decision, Revive):
            log.info("order_revived", **names)


def _payment(body: PaymentSucceeded) -> Payment:
    return Payment(
        identity=PaymentIdentity(pay_channel=body.pay_channel or "", trade_no=body.trade_no),
        order_no=OrderNumber(body.order_no),
        payment_no=body.payment_no,
        amount_minor=body.amount_minor,
        currency=body.currency,
        paid_at=body.paid_at,
    )


def _wait(message: Received[PaymentSucceeded]) -> TryLater:
    return TryLater(
        reason="unknown_order", detail=f"order {message.body.order_no} is not visible yet"
    )
