"""Consumes `payment.refund.request`: each request becomes one refund, for ever.

Invariant: a `refund_no` is refunded once, whatever its messages' ids and however often it is asked
for. What is accepted here is carried out by `carry_out_refunds`; no channel is asked in here.

A crash before the commit changes nothing and the messages come again; after it, the inbox meets the
copies, and the refund's number whatever else asks for the same.
"""

from collections.abc import Sequence
from functools import partial

import structlog

from orderkeep.contracts import payment_refund_request
from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.transaction import Transaction
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received, SetAside
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.signal import Signal
from orderkeep.payments.accept_refunds import accept_refunds
from orderkeep.payments.payment import Refund
from orderkeep.refusal import Refusal

log = structlog.get_logger()


def payment_refund_request_consumer(
    *, outbox: Outbox, refund_requested: Signal
) -> Consumer[RefundRequest]:
    """Return the consumer of `payment.refund.request`.

    Args:
        outbox: Where answers leave that can be given at once.
        refund_requested: Set after each batch; wakes the worker.
    """

    async def handle(
        transaction: Transaction, batch: Sequence[Received[RefundRequest]]
    ) -> Sequence[Outcome]:
        now = await transaction.now()
        requests = [message.body for message in batch]
        answers = await accept_refunds(transaction, requests, outbox=outbox, now=now)
        transaction.after_commit(refund_requested.set)
        transaction.after_commit(partial(_log, batch))
        return [_outcome(answer) for answer in answers]

    return Consumer(
        name=payment_refund_request.QUEUE,
        queue=payment_refund_request.QUEUE,
        decode=payment_refund_request.decode,
        business_key=payment_refund_request.business_key,
        handle=handle,
    )


def _outcome(answer: Refund | Refusal) -> Outcome:
    if isinstance(answer, Refusal):
        return SetAside(reason=answer.code, detail=answer.detail)
    return HANDLED


def _log(batch: Sequence[Received[RefundRequest]]) -> None:
    for message in batch:
        log.info(
            "refund_request_received",
            order_no=message.body.order_no,
            message_id=message.message_id,
            refund_no=message.body.refund_no,
        )
