"""`payment.refund.result`: a refund came to its end; write it beside the order.

Invariant: a refund ends once. A repeated result changes nothing; a result that contradicts the one
on record, or tells of other money than was asked for, is set aside: it means that money moved
twice, not at all, or elsewhere.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import structlog
from msgspec.structs import replace

from orderkeep.contracts import payment_refund_result
from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.payment_refund_result import RefundResult
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received, SetAside
from orderkeep.orders.refund import OrderRefund
from orderkeep.orders.store.payments import finish_refunds, lock_refunds

log = structlog.get_logger()

_REQUESTED = "requested"


def payment_refund_result_consumer() -> Consumer[RefundResult]:
    """Return the consumer that ends refunds."""
    return Consumer(
        name=payment_refund_result.QUEUE,
        queue=payment_refund_result.QUEUE,
        decode=payment_refund_result.decode,
        business_key=payment_refund_result.business_key,
        handle=_handle,
    )


async def _handle(
    transaction: Transaction, messages: Sequence[Received[RefundResult]]
) -> Sequence[Outcome]:
    refunds = await lock_refunds(transaction, {message.body.refund_no for message in messages})
    now = await transaction.now()
    finished: dict[str, OrderRefund] = {}
    outcomes: list[Outcome] = []
    for message in messages:
        refund = refunds.get(message.body.refund_no)
        if refund is None:
            detail = f"no refund {message.body.refund_no} was asked for"
            outcomes.append(SetAside(reason="unknown_refund", detail=detail))
        elif mismatch := _mismatch(refund, message.body):
            outcomes.append(SetAside(reason="refund_mismatch", detail=mismatch))
        elif refund.status == _REQUESTED:
            ended = _ended(refund, message.body, now=now)
            finished[refund.refund_no] = refunds[refund.refund_no] = ended
            outcomes.append(HANDLED)
        elif refund.status == message.body.status:
            outcomes.append(HANDLED)
        else:
            detail = f"refund {refund.refund_no} has {refund.status} already"
            outcomes.append(SetAside(reason="refund_already_finished", detail=detail))
    await finish_refunds(transaction, list(finished.values()))
    transaction.after_commit(partial(_log, messages, finished))
    return outcomes


def _mismatch(refund: OrderRefund, result: RefundResult) -> str:
    """Return in what the result tells of other money than was asked for; "" is in nothing."""
    if result.order_no != refund.order_no:
        return f"refund {refund.refund_no} is not of order {result.order_no}"
    amount_minor = refund.amount_minor if result.amount_minor is None else result.amount_minor
    currency = result.currency or refund.currency
    if (amount_minor, currency) == (refund.amount_minor, refund.currency):
        return ""
    asked = f"{text_of_minor(refund.amount_minor)} {refund.currency}"
    told = f"{text_of_minor(amount_minor)} {currency}"
    return f"refund {refund.refund_no} is of {asked}, the result tells of {told}"


def _log(messages: Sequence[Received[RefundResult]], finished: Mapping[str, OrderRefund]) -> None:
    for message in messages:
        refund = finished.get(message.body.refund_no)
        if refund is None:
            continue
        level = log.info if refund.status == "succeeded" else log.warning
        level(
            f"refund_{refund.status}",
            order_no=refund.order_no,
            message_id=message.message_id,
            refund_no=refund.refund_no,
            trade_no=refund.identity.trade_no,
            reason=refund.failure_reason,
        )


def _ended(refund: OrderRefund, result: RefundResult, *, now: Instant) -> OrderRefund:
    return replace(
        refund,
        status=result.status.value,
        channel_refund_no=result.channel_refund_no,
        failure_reason=result.reason,
        finished_at=now if result.finished_at is None else result.finished_at,
    )
