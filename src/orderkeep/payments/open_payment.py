"""Open payments: a use case over an open transaction that never commits.

Invariant: an order has at most one open payment on a channel, for what the order owes, and none is
opened once the order is known to have ended. The order's row is locked first: an order event that
comes at the same time is seen, or closes what was opened here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from orderkeep.contracts import payment_opened_notify
from orderkeep.contracts.order_status import Status
from orderkeep.contracts.payment_opened_notify import PaymentOpened
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.payments.announce import Announcement, announce
from orderkeep.payments.payment import Payment, PaymentStatus
from orderkeep.payments.store import known_orders
from orderkeep.payments.store import payments as payment_store
from orderkeep.payments.store.known_orders import KnownOrder
from orderkeep.refusal import Refusal

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A user's wish to pay an order.

    Attributes:
        payment_no: The number of the payment, if a new one is opened.
    """

    payment_no: str
    order_no: str
    user_id: str
    pay_channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPayment:
    """The open payment that answers a request: a new one, or the one there was."""

    payment: Payment
    is_new: bool


async def open_payments(
    transaction: Transaction, requests: Sequence[OpenRequest], *, outbox: Outbox, now: Instant
) -> list[OpenedPayment | Refusal]:
    """Open a payment for each request, or find the one that is open already.

    Returns:
        For each request, in order, its payment; or `order_not_ready`, `not_found` (the order is
        someone else's) or `order_not_pending`.
    """
    order_nos = {request.order_no for request in requests}
    orders = await known_orders.lock_orders(transaction, order_nos, now=now)
    open_payments_by_key = {
        (payment.order_no, payment.pay_channel): payment
        for payment in await payment_store.lock_open_payments(transaction, order_nos)
    }
    answers: list[OpenedPayment | Refusal] = []
    opened: list[Payment] = []
    for request in requests:
        key = (request.order_no, request.pay_channel)
        order = payable_order(
            orders.get(request.order_no), order_no=request.order_no, user_id=request.user_id
        )
        if isinstance(order, Refusal):
            answers.append(order)
        elif key in open_payments_by_key:
            answers.append(OpenedPayment(payment=open_payments_by_key[key], is_new=False))
        else:
            payment = _payment(request, order, now=now)
            open_payments_by_key[key] = payment
            opened.append(payment)
            answers.append(OpenedPayment(payment=payment, is_new=True))
    await payment_store.insert_payments(transaction, opened)
    announcements = [_announcement(payment) for payment in opened]
    await announce(transaction, announcements, outbox=outbox, now=now)
    transaction.after_commit(partial(_log, opened))
    return answers


def payable_order(order: KnownOrder | None, *, order_no: str, user_id: str) -> KnownOrder | Refusal:
    """Return the order, if the user can pay it now, or why not.

    Args:
        order: None before anything was heard of it.
        order_no: The number that was asked for.
        user_id: Who wants to pay.
    """
    if order is None:
        return Refusal(
            "order_not_ready",
            f"Order {order_no} is not known to payments yet; try again shortly.",
        )
    if order.user_id != user_id:
        return Refusal("not_found", f"There is no order {order_no}.")
    if order.status is not Status.PENDING_PAYMENT:
        return Refusal(
            "order_not_pending",
            f"Order {order_no} is {order.status} and takes no payment.",
            # Not `status`: that is the HTTP status in the document that tells of it.
            members={"order_status": order.status.value},
        )
    return order


def _payment(request: OpenRequest, order: KnownOrder, *, now: Instant) -> Payment:
    return Payment(
        payment_no=request.payment_no,
        order_no=order.order_no,
        user_id=order.user_id,
        pay_channel=request.pay_channel,
        amount_minor=order.amount_minor,
        currency=order.currency,
        status=PaymentStatus.OPEN,
        opened_at=now,
    )


def _announcement(payment: Payment) -> Announcement:
    body = PaymentOpened(
        payment_no=payment.payment_no,
        order_no=payment.order_no,
        pay_channel=payment.pay_channel,
        opened_at=payment.opened_at,
    )
    return Announcement(
        order_no=payment.order_no,
        type=payment_opened_notify.TYPE,
        route=payment_opened_notify.ROUTE,
        body=payment_opened_notify.encode(body),
    )


def _log(opened: Sequence[Payment]) -> None:
    for payment in opened:
        log.info(
            "payment_opened",
            order_no=payment.order_no,
            payment_no=payment.payment_no,
            pay_channel=payment.pay_channel,
        )
