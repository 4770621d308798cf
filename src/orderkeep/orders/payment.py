"""What a payment does to its order: the whole table of cases in one function.

A payment is identified by its channel, or nothing, and its trade number. Every payment is recorded
once, whatever becomes of it, so that no money is ever unaccounted for: it pays the order, goes
back, or waits in a case for an operator. Only what is on record already, and an order that may not
be visible yet, leave no record.

Where the table leaves something open, money is never moved on a guess:

- A repeat that leaves out the amount or the currency says nothing else than before: no conflict.
- A refund needs an amount. A payment that ought to go back and names none, or names 0, becomes the
  case `amount_missing`, on a paid, cancelled or closed order as on a pending one.
- A missing currency is the order's, for refunds too.
- A paid order's own trade number, told once with a channel and once without, is most likely one
  payment told twice. Paying it back would give away what paid the order: case `trade_no_conflict`.
- Of a payment wrong in both, the currency is named: amounts of two currencies do not compare.
"""

from enum import StrEnum
from typing import TypeAlias, assert_never

from msgspec import Struct

from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.refund_reason import RefundReason
from orderkeep.instant import Instant
from orderkeep.orders.order import Order, OrderNumber, Status, Transition, pay, revive


class CaseKind(StrEnum):
    """Why money waits for an operator."""

    LATE_PAYMENT = "late_payment"
    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    AMOUNT_MISSING = "amount_missing"
    UNKNOWN_ORDER = "unknown_order"
    TRADE_NO_CONFLICT = "trade_no_conflict"


class LatePaymentPolicy(StrEnum):
    """What becomes of a payment for a closed order."""

    REFUND = "refund"
    REVIVE = "revive"
    MANUAL = "manual"


class PaymentOutcome(StrEnum):
    """What became of a payment, as it is recorded."""

    ACCEPTED = "accepted"
    REFUND = "refund"
    CASE = "case"


class PaymentIdentity(Struct, frozen=True, kw_only=True, order=True):
    """What makes two reports the same payment.

    Attributes:
        pay_channel: "" where the report names none.
    """

    pay_channel: str
    trade_no: str


class Payment(Struct, frozen=True, kw_only=True):
    """A payment as it was reported.

    Attributes:
        amount_minor: None where the report names none.
        currency: None is the order's.
        paid_at: None is the time of receipt.
    """

    identity: PaymentIdentity
    order_no: OrderNumber
    payment_no: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    paid_at: Instant | None = None


class RecordedPayment(Struct, frozen=True, kw_only=True):
    """A payment as it stands on record, never to change but for its outcome.

    Attributes:
        message_id: The message that brought it first.
    """

    identity: PaymentIdentity
    order_no: OrderNumber
    payment_no: str | None
    amount_minor: int | None
    currency: str | None
    paid_at: Instant
    received_at: Instant
    outcome: PaymentOutcome
    message_id: str


class AlreadyRecorded(Struct, frozen=True, kw_only=True):
    """The same payment again: no effect, no record."""


class AwaitOrder(Struct, frozen=True, kw_only=True):
    """The order may not be visible yet: no record, try again later."""


class OpenCase(Struct, frozen=True, kw_only=True):
    """Record the payment, unless its identity is taken already, and ask an operator.

    Attributes:
        detail: What is wrong, for the operator.
    """

    kind: CaseKind
    detail: str


class RequestRefund(Struct, frozen=True, kw_only=True):
    """Record the payment and give back what was received.

    Attributes:
        amount_minor: At least 1.
    """

    reason: RefundReason
    amount_minor: int
    currency: str


class Revive(Struct, frozen=True, kw_only=True):
    """Record the payment, take the stock again and pay the order; else refund.

    Attributes:
        otherwise: What to do when the stock is no longer there.
    """

    transition: Transition
    otherwise: RequestRefund | OpenCase


class Accept(Struct, frozen=True, kw_only=True):
    """Record the payment and pay the order."""

    transition: Transition


Decision: TypeAlias = AlreadyRecorded | AwaitOrder | OpenCase | RequestRefund | Revive | Accept


def decide(
    payment: Payment,
    *,
    order: Order | None,
    earlier: RecordedPayment | None,
    policy: LatePaymentPolicy,
    now: Instant,
    give_up_unknown_order: bool,
) -> Decision:
    """Decide what a reported payment does.

    Args:
        order: The order that the payment names, locked; None where there is none.
        earlier: The payment of the same identity that is on record.
        policy: For a payment of a closed order.
        now: By the database's clock; stands in for a missing time of payment.
        give_up_unknown_order: The order has been waited for long enough.
    """
    if earlier is not None:
        if _says_the_same(payment, earlier=earlier, order=order):
            return AlreadyRecorded()
        return OpenCase(
            kind=CaseKind.TRADE_NO_CONFLICT, detail=_conflict_detail(payment, earlier=earlier)
        )
    if order is None:
        if give_up_unknown_order:
            detail = f"no order {payment.order_no} has become known"
            return OpenCase(kind=CaseKind.UNKNOWN_ORDER, detail=detail)
        return AwaitOrder()
    match order.status:
        case Status.PAID:
            return _decide_paid(payment, order=order)
        case Status.CANCELLED:
            return _refund(payment, order=order, reason=RefundReason.LATE_PAYMENT)
        case Status.CLOSED:
            return _decide_closed(payment, order=order, policy=policy, now=now)
        case Status.PENDING_PAYMENT:
            return _decide_pending(payment, order=order, now=now)
        case _ as never:
            assert_never(never)


def paid_at_of(payment: Payment, *, now: Instant) -> Instant:
    """Return when it was paid: the time of receipt, where the report does not say."""
    return now if payment.paid_at is None else payment.paid_at


def currency_of(payment: Payment, *, order: Order | None) -> str | None:
    """Return its currency: the order's, where the report does not say; None if neither does."""
    if payment.currency is None and order is not None:
        return order.currency
    return payment.currency


def _says_the_same(payment: Payment, *, earlier: RecordedPayment, order: Order | None) -> bool:
    currency = currency_of(payment, order=order)
    return (
        payment.order_no == earlier.order_no
        and payment.amount_minor in (None, earlier.amount_minor)
        and (None in (currency, earlier.currency) or currency == earlier.currency)
    )


def _conflict_detail(payment: Payment, *, earlier: RecordedPayment) -> str:
    first = _told(earlier.order_no, amount_minor=earlier.amount_minor, currency=earlier.currency)
    then = _told(payment.order_no, amount_minor=payment.amount_minor, currency=payment.currency)
    return f"trade {payment.identity.trade_no} was reported first as {first}, then as {then}"


def _told(order_no: OrderNumber, *, amount_minor: int | None, currency: str | None) -> str:
    amount = "an amount not named" if amount_minor is None else text_of_minor(amount_minor)
    return f"{amount} {currency or ''}".rstrip() + f" for order {order_no}"


def _decide_paid(payment: Payment, *, order: Order) -> Decision:
    channels = {payment.identity.pay_channel, order.pay_channel or ""}
    if payment.identity.trade_no == order.trade_no and "" in channels:
        detail = (
            f"order {order.order_no} is paid by trade {order.trade_no} already, reported once with"
            " a channel and once without; look whether the channel has it once or twice"
        )
        return OpenCase(kind=CaseKind.TRADE_NO_CONFLICT, detail=detail)
    return _refund(payment, order=order, reason=RefundReason.DOUBLE_PAYMENT)


def _decide_closed(
    payment: Payment, *, order: Order, policy: LatePaymentPolicy, now: Instant
) -> Decision:
    match policy:
        case LatePaymentPolicy.REFUND:
            return _refund(payment, order=order, reason=RefundReason.LATE_PAYMENT)
        case LatePaymentPolicy.MANUAL:
            detail = f"order {order.order_no} was closed before the payment came"
            return OpenCase(kind=CaseKind.LATE_PAYMENT, detail=detail)
        case LatePaymentPolicy.REVIVE:
            refund = _refund(payment, order=order, reason=RefundReason.LATE_PAYMENT)
            if _find_misfit(payment, order=order) is not None:
                return refund
            transition = revive(
                order,
                pay_channel=payment.identity.pay_channel or None,
                trade_no=payment.identity.trade_no,
                paid_at=paid_at_of(payment, now=now),
                now=now,
            )
            return Revive(transition=transition, otherwise=refund)
        case _ as never:
            assert_never(never)


def _decide_pending(payment: Payment, *, order: Order, now: Instant) -> Decision:
    misfit = _find_misfit(payment, order=order)
    if misfit is not None:
        return misfit
    transition = pay(
        order,
        pay_channel=payment.identity.pay_channel or None,
        trade_no=payment.identity.trade_no,
        paid_at=paid_at_of(payment, now=now),
        now=now,
    )
    return Accept(transition=transition)


def _find_misfit(payment: Payment, *, order: Order) -> OpenCase | None:
    if payment.amount_minor is None:
        return _amount_missing(payment, order=order)
    if payment.currency not in (None, order.currency):
        detail = f"order {order.order_no} is in {order.currency}, paid in {payment.currency}"
        return OpenCase(kind=CaseKind.CURRENCY_MISMATCH, detail=detail)
    if payment.amount_minor != order.pay_amount_minor:
        owed, received = order.pay_amount_minor, payment.amount_minor
        detail = (
            f"order {order.order_no} owes {text_of_minor(owed)} {order.currency},"
            f" {text_of_minor(received)} was received"
        )
        return OpenCase(kind=CaseKind.AMOUNT_MISMATCH, detail=detail)
    return None


def _refund(payment: Payment, *, order: Order, reason: RefundReason) -> RequestRefund | OpenCase:
    if not payment.amount_minor:
        return _amount_missing(payment, order=order)
    return RequestRefund(
        reason=reason,
        amount_minor=payment.amount_minor,
        currency=payment.currency or order.currency,
    )


def _amount_missing(payment: Payment, *, order: Order) -> OpenCase:
    detail = (
        f"trade {payment.identity.trade_no} for order {order.order_no}, which is {order.status},"
        " names no amount"
    )
    return OpenCase(kind=CaseKind.AMOUNT_MISSING, detail=detail)
