"""What an operator's verdict does with money that waits in a case. Pure.

- accept: pays the order with what was received, whatever the amount; a closed one is revived. For
  money that is on record for this case alone, while its order waits for payment or is closed.
- refund: asks for the refund of what was received, once. For the same money, if its amount is
  known.
- dismiss: closes the case, and nothing else. For every case.

A case `trade_no_conflict` tells of one trade in two ways. Where the trade is on record by another
report, that report decided what became of its money: it cannot pay or go back a second time here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, assert_never

from msgspec import Struct

from orderkeep.instant import Instant
from orderkeep.orders.order import Order, OrderNumber, Status, Transition, accept, revive
from orderkeep.orders.payment import CaseKind, PaymentIdentity, PaymentOutcome, RecordedPayment
from orderkeep.refusal import Refusal


class CaseAction(StrEnum):
    """What an operator does with a case."""

    ACCEPT = "accept"
    REFUND = "refund"
    DISMISS = "dismiss"


class CaseState(StrEnum):
    """Whether a case still waits."""

    OPEN = "open"
    RESOLVED = "resolved"


class Resolution(Struct, frozen=True, kw_only=True):
    """How a case ended, when, by whom and why."""

    action: CaseAction
    resolved_by: str
    reason: str
    resolved_at: Instant


class PaymentCase(Struct, frozen=True, kw_only=True):
    """Money that waits for an operator, or has waited.

    Attributes:
        case_id: 0 for one that is not written yet.
        message_id: The message that brought what the case is about.
        resolution: None while it is open.
    """

    kind: CaseKind
    order_no: OrderNumber
    identity: PaymentIdentity
    payment_no: str | None
    amount_minor: int | None
    currency: str | None
    message_id: str
    detail: str
    opened_at: Instant
    case_id: int = 0
    resolution: Resolution | None = None

    @property
    def state(self) -> CaseState:
        """Open until it has a resolution."""
        return CaseState.OPEN if self.resolution is None else CaseState.RESOLVED


@dataclass(frozen=True, slots=True, kw_only=True)
class PayOrder:
    """The money pays the order; one that was closed takes its stock again."""

    transition: Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """The money goes back; amount_minor is at least 1."""

    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveAsIs:
    """Nothing follows."""


Verdict: TypeAlias = PayOrder | GiveBack | LeaveAsIs


def judge(
    case: PaymentCase,
    *,
    action: CaseAction,
    order: Order | None,
    payment: RecordedPayment | None,
    now: Instant,
) -> Verdict:
    """Return what the action does.

    Args:
        order: The order that the case names, locked; None where there is none.
        payment: What is on record under the case's identity.
        now: By the database's clock.

    Raises:
        Refusal: `case_resolved`; `invalid_request`: the action does not fit such a case;
            `order_not_ready`: there is no such order; `order_not_pending`: it is paid or cancelled.
    """
    if case.resolution is not None:
        raise _resolved(case)
    match action:
        case CaseAction.DISMISS:
            return LeaveAsIs()
        case CaseAction.ACCEPT:
            return _judge_accept(case, order=order, payment=payment, now=now)
        case CaseAction.REFUND:
            return _judge_refund(case, order=order, payment=payment)
        case _ as never:
            assert_never(never)


def _judge_accept(
    case: PaymentCase, *, order: Order | None, payment: RecordedPayment | None, now: Instant
) -> PayOrder:
    own = _own_payment(case, payment, action=CaseAction.ACCEPT)
    if case.kind is CaseKind.TRADE_NO_CONFLICT:
        detail = "look at the channel whether it was paid once or twice; then refund, or dismiss"
        raise _misfit(detail)
    if order is None:
        detail = f"there is no order {case.order_no}; accept the payment once there is, or refund"
        raise Refusal("order_not_ready", detail)
    if order.status not in {Status.PENDING_PAYMENT, Status.CLOSED}:
        detail = f"order {order.order_no} is {order.status}, takes no payment; refund, or dismiss"
        raise Refusal("order_not_pending", detail, members={"order_status": order.status.value})
    lead = revive if order.status is Status.CLOSED else accept
    transition = lead(
        order,
        pay_channel=own.identity.pay_channel or None,
        trade_no=own.identity.trade_no,
        paid_at=own.paid_at,
        now=now,
    )
    return PayOrder(transition=transition)


def _judge_refund(
    case: PaymentCase, *, order: Order | None, payment: RecordedPayment | None
) -> GiveBack:
    own = _own_payment(case, payment, action=CaseAction.REFUND)
    currency = own.currency or (None if order is None else order.currency)
    if not own.amount_minor or currency is None:
        missing = "currency" if own.amount_minor else "amount"
        detail = f"the payment names no {missing}: give it back at the channel, and dismiss"
        raise _misfit(detail)
    return GiveBack(amount_minor=own.amount_minor, currency=currency)


def _own_payment(
    case: PaymentCase, payment: RecordedPayment | None, *, action: CaseAction
) -> RecordedPayment:
    """Return the payment that waits for this case, and not for another report's fate."""
    if (
        payment is None
        or payment.outcome is not PaymentOutcome.CASE
        or (payment.order_no, payment.message_id) != (case.order_no, case.message_id)
    ):
        detail = (
            f"trade {case.identity.trade_no} is on record by another report, which decides about"
            f" its money; {action} is not for this one: settle it at the channel, and dismiss"
        )
        raise _misfit(detail)
    return payment


def _misfit(detail: str) -> Refusal:
    errors = [{"pointer": "/action", "detail": detail}]
    return Refusal("invalid_request", detail, members={"errors": errors})


def _resolved(case: PaymentCase) -> Refusal:
    assert case.resolution is not None
    by, action = case.resolution.resolved_by, case.resolution.action
    detail = f"case {case.case_id} was resolved by {by}: {action}"
    return Refusal("case_resolved", detail, members={"action": action.value, "resolved_by": by})
