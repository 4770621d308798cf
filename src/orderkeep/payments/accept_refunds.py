"""Accept requests for refunds: a use case over an open transaction that never commits.

Invariant: a `refund_no` is one refund for ever, and of a trade no more goes back than came in. Each
request ends in an answer on `payment.refund.result`: at once where there is nothing to give back,
else when `carry_out_refunds` is done with it.

A request that comes again is acknowledged; if its refund has ended, the answer is sent again, for
whoever asks twice may have lost it. The same number with other content is no repeat: it is refused,
and the message is set aside for an operator.
"""

from collections.abc import Sequence
from functools import partial

import structlog

from orderkeep.contracts.payment_refund_request import RefundRequest
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.payments.announce import announce
from orderkeep.payments.payment import Refund, RefundStatus, not_refunded, refundable_minor
from orderkeep.payments.refund_answers import refund_announcement
from orderkeep.payments.store import known_orders
from orderkeep.payments.store import payments as payment_store
from orderkeep.payments.store import refunds as refund_store
from orderkeep.payments.store.payments import Receipt
from orderkeep.refusal import Refusal

log = structlog.get_logger()


async def accept_refunds(
    transaction: Transaction, requests: Sequence[RefundRequest], *, outbox: Outbox, now: Instant
) -> list[Refund | Refusal]:
    """Take the requests on.

    Returns:
        For each request, in order, its refund as it now is, or `refund_no_reused`.
    """
    trade_nos = {request.trade_no for request in requests}
    order_nos = {request.order_no for request in requests}
    await known_orders.lock_orders(transaction, order_nos, now=now)
    receipts = await payment_store.receipts_of_trades(transaction, trade_nos)
    # Whoever asks for money of the same trade waits here, whatever order they ask for.
    await payment_store.lock_payments(transaction, {receipt.payment_no for receipt in receipts})
    live = await refund_store.live_refunds_of_trades(transaction, trade_nos)
    known = await refund_store.find_refunds(
        transaction, {request.refund_no for request in requests}
    )
    new: dict[str, Refund] = {}
    answers: list[Refund | Refusal] = []
    repeated: list[Refund] = []
    for request in requests:
        earlier = known.get(request.refund_no) or new.get(request.refund_no)
        if earlier is None:
            refund = _decide(request, receipts=receipts, live=live, now=now)
            new[refund.refund_no] = refund
            live.append(refund)
            answers.append(refund)
        elif _is_repeat(request, earlier):
            repeated.append(earlier)
            answers.append(earlier)
        else:
            answers.append(_reused(request))
    await _insert(transaction, list(new.values()), now=now)
    ended = [
        refund
        for refund in (*new.values(), *repeated)
        if refund.status is not RefundStatus.REQUESTED
    ]
    announcements = [refund_announcement(refund) for refund in ended]
    await announce(transaction, announcements, outbox=outbox, now=now)
    transaction.after_commit(partial(_log, list(new.values())))
    return answers


async def _insert(transaction: Transaction, refunds: Sequence[Refund], *, now: Instant) -> None:
    inserted = await refund_store.insert_refunds(transaction, refunds, now=now)
    if len(inserted) != len(refunds):
        # Another transaction took the number meanwhile, for another order. This one is rolled back
        # and its messages are tried again one by one: then the number is known, and decided on.
        message = "a refund number was taken by another request at the same time"
        raise RuntimeError(message)


def _decide(
    request: RefundRequest, *, receipts: Sequence[Receipt], live: Sequence[Refund], now: Instant
) -> Refund:
    matching = [receipt for receipt in receipts if _may_mean(request, receipt)]
    channels = {receipt.pay_channel for receipt in matching}
    is_found = len(channels) == 1
    refund = Refund(
        refund_no=request.refund_no,
        order_no=request.order_no,
        trade_no=request.trade_no,
        amount_minor=request.amount_minor,
        currency=request.currency,
        reason=request.reason,
        status=RefundStatus.REQUESTED,
        requested_at=now if request.requested_at is None else request.requested_at,
        payment_no=matching[0].payment_no if is_found else request.payment_no,
        pay_channel=matching[0].pay_channel if is_found else request.pay_channel,
    )
    if not matching:
        why = f"no payment here received trade {request.trade_no} in {request.currency}"
        return not_refunded(refund, reason=why, now=now)
    if not is_found:
        why = f"trade {request.trade_no} is known on {len(channels)} channels: name one"
        return not_refunded(refund, reason=why, now=now)
    # The same trade reported with two amounts brought its money once: the larger is the bound.
    left_minor = refundable_minor(
        received_minor=max(receipt.amount_minor for receipt in matching),
        refunds=tuple(it for it in live if _is_of_same_trade(it, refund)),
    )
    if request.amount_minor > left_minor:
        why = f"more than what is left of trade {request.trade_no} to give back"
        return not_refunded(refund, reason=why, now=now)
    return refund


def _may_mean(request: RefundRequest, receipt: Receipt) -> bool:
    return (
        receipt.trade_no == request.trade_no
        and receipt.currency == request.currency
        and request.pay_channel in (None, receipt.pay_channel)
        and request.payment_no in (None, receipt.payment_no)
    )


def _is_of_same_trade(one: Refund, other: Refund) -> bool:
    return (one.pay_channel, one.trade_no) == (other.pay_channel, other.trade_no)


def _is_repeat(request: RefundRequest, refund: Refund) -> bool:
    # What the request leaves open was filled in here; what it says must be what it said before.
    return (
        (request.order_no, request.trade_no, request.amount_minor, request.currency)
        == (refund.order_no, refund.trade_no, refund.amount_minor, refund.currency)
        and request.pay_channel in (None, refund.pay_channel)
        and request.payment_no in (None, refund.payment_no)
    )


def _reused(request: RefundRequest) -> Refusal:
    return Refusal(
        "refund_no_reused", f"Refund {request.refund_no} was asked for before, with other content."
    )


def _log(refunds: Sequence[Refund]) -> None:
    for refund in refunds:
        log.info(
            "refund_accepted" if refund.status is RefundStatus.REQUESTED else "refund_declined",
            order_no=refund.order_no,
            refund_no=refund.refund_no,
            payment_no=refund.payment_no,
            reason=refund.failure_reason or refund.reason,
        )
