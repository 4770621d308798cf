"""A payment and a refund: their states, and what may lead from one to another.

    payment   open ──money──> succeeded          refund   requested ──> succeeded
               │ ├──no money──> failed                        └───────> failed
               │ └──order ended──> closed
               └ failed, closed ──money──> succeeded

What a channel says of money is true, whenever it comes: a payment that failed or was closed becomes
`succeeded` once its money is there, and nothing leaves `succeeded`. Whether money that came late,
twice or in another amount pays the order is not decided here: orders are told of all of it, and
they decide. A refund that ended stays as it is: giving money back a second time is a new refund.

Every function returns the payment as it becomes, or the very same object when nothing changes, so
that a caller sees by `is` whether there is anything to write.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from orderkeep.instant import Instant


class PaymentStatus(StrEnum):
    """The state of a payment."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CLOSED = "closed"


class RefundStatus(StrEnum):
    """The state of a refund."""

    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One attempt to pay an order on one channel.

    Attributes:
        amount_minor: What the order owed when the payment was opened.
        trade_no: The channel's number for the trade that brought the money.
        ended_at: When it left `open`; moves when money comes for a failed or closed one.
        reason: Why it failed, in the words of the channel.
    """

    payment_no: str
    order_no: str
    user_id: str
    pay_channel: str
    amount_minor: int
    currency: str
    status: PaymentStatus
    opened_at: Instant
    trade_no: str | None = None
    paid_at: Instant | None = None
    ended_at: Instant | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money that goes back through the channel it came by, once for each refund_no.

    Attributes:
        payment_no: None where no payment known here brought the money.
        reason: Why it was asked for.
        channel_refund_no: The channel's own number for it.
        failure_reason: Why it failed, in the words of the channel.
    """

    refund_no: str
    order_no: str
    trade_no: str
    amount_minor: int
    currency: str
    reason: str
    status: RefundStatus
    requested_at: Instant
    payment_no: str | None = None
    pay_channel: str | None = None
    channel_refund_no: str | None = None
    failure_reason: str | None = None
    finished_at: Instant | None = None


def with_money(payment: Payment, *, trade_no: str, paid_at: Instant, now: Instant) -> Payment:
    """Return the payment once the channel says that its money came.

    A second trade for a payment that succeeded already leaves the payment as it is: the caller
    tells orders of that money too, and they send it back.

    Args:
        paid_at: When the channel says the money came.
        now: When it said so.
    """
    if payment.status is PaymentStatus.SUCCEEDED:
        return payment
    return replace(
        payment,
        status=PaymentStatus.SUCCEEDED,
        trade_no=trade_no,
        paid_at=paid_at,
        ended_at=now,
        reason=None,
    )


def without_money(payment: Payment, *, reason: str | None, now: Instant) -> Payment:
    """Return the payment once the channel says that no money will come; only an open one fails."""
    if payment.status is not PaymentStatus.OPEN:
        return payment
    return replace(payment, status=PaymentStatus.FAILED, ended_at=now, reason=reason)


def after_order_end(payment: Payment, *, now: Instant) -> Payment:
    """Return the payment once its order has ended, paid or not; only an open one is closed."""
    if payment.status is not PaymentStatus.OPEN:
        return payment
    return replace(payment, status=PaymentStatus.CLOSED, ended_at=now)


def fits(payment: Payment, *, amount_minor: int, currency: str | None) -> bool:
    """Return whether what came is what the payment was opened for.

    Args:
        currency: None is the payment's.
    """
    return amount_minor == payment.amount_minor and currency in (None, payment.currency)


def refunded(refund: Refund, *, channel_refund_no: str | None, now: Instant) -> Refund:
    """Return the refund once the channel has given the money back."""
    if refund.status is not RefundStatus.REQUESTED:
        return refund
    return replace(
        refund,
        status=RefundStatus.SUCCEEDED,
        channel_refund_no=channel_refund_no,
        finished_at=now,
    )


def not_refunded(refund: Refund, *, reason: str, now: Instant) -> Refund:
    """Return the refund once the channel will not give the money back, or was asked too long."""
    if refund.status is not RefundStatus.REQUESTED:
        return refund
    return replace(refund, status=RefundStatus.FAILED, failure_reason=reason, finished_at=now)


def refundable_minor(*, received_minor: int, refunds: tuple[Refund, ...]) -> int:
    """Return how much of a trade's money may still go back, at least 0.

    Args:
        refunds: All of the same trade; those that failed gave nothing back.
    """
    given_minor = sum(
        refund.amount_minor for refund in refunds if refund.status is not RefundStatus.FAILED
    )
    return max(0, received_minor - given_minor)
