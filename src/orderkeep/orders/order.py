"""An order, its four states, and what may lead from one to another.

An order begins as `pending_payment` and ends once: `paid`, `cancelled` or `closed`. Nothing leaves
`paid` or `cancelled`. One exception leaves `closed`: a late payment that revives the order.

Everything here decides and touches nothing. A decision is a `Transition`: the order as it was, the
order as it becomes, and why. It is written by a statement guarded on the state and version that it
started from; whoever comes second waits for the row, reads the order as it has become, and decides
on that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from orderkeep.contracts.order_status import CloseReason, Status
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.orders.order_number import OrderNumber
from orderkeep.refusal import Refusal

__all__ = [
    "ALLOWED_CAUSES",
    "NOTHING_TO_DO",
    "Cause",
    "CloseDecision",
    "CloseReason",
    "NothingToDo",
    "Order",
    "OrderLine",
    "OrderNumber",
    "Receiver",
    "Status",
    "Transition",
    "WaitUntil",
    "accept",
    "cancel",
    "close_when_due",
    "find_extended",
    "pay",
    "revive",
]


class Cause(StrEnum):
    """What made an order change its state; kept in its history."""

    PAYMENT = "payment"
    BUYER = "buyer"
    OPERATOR = "operator"
    PAYMENT_TIMEOUT = "payment_timeout"
    REVIVAL = "revival"


# Every change of state there is, and what may cause it.
ALLOWED_CAUSES: Mapping[tuple[Status, Status], frozenset[Cause]] = {
    (Status.PENDING_PAYMENT, Status.PAID): frozenset({Cause.PAYMENT, Cause.OPERATOR}),
    (Status.PENDING_PAYMENT, Status.CANCELLED): frozenset({Cause.BUYER, Cause.OPERATOR}),
    (Status.PENDING_PAYMENT, Status.CLOSED): frozenset({Cause.PAYMENT_TIMEOUT}),
    (Status.CLOSED, Status.PAID): frozenset({Cause.REVIVAL}),
}


class Receiver(Struct, frozen=True, kw_only=True):
    """Who receives the goods, and where."""

    name: str
    phone: str
    address: str


class OrderLine(Struct, frozen=True, kw_only=True):
    """A SKU in an order, with its title and price as they were when the order was made.

    Attributes:
        line_no: 1 for the first.
        cart_item_id: The cart item it came from, which leaves the cart; None if there was none.
    """

    line_no: int
    sku_id: str
    title: str
    unit_price_minor: int
    quantity: int
    subtotal_minor: int
    cart_item_id: str | None = None


class Order(Struct, frozen=True, kw_only=True):
    """An order as it stands in its row.

    Attributes:
        version: 1 for a new order; rises with each change of state, and only then.
        event_seq: How many events of the order have been sent; rises under the row's lock.
        pay_amount_minor: What is owed. Not always the total: never compute one from the other.
        expires_at: The payment deadline. It may move later, never earlier.
        close_reason: Why it was cancelled or closed. A revived order no longer has one.
        closed_at: Stays when the order is revived: its history has both.
        pay_channel: The channel of the payment that paid it; None where the payment named none.
        deadline_extended_at: When a payment under way moved the deadline; it moves once at most.
    """

    order_no: OrderNumber
    user_id: str
    status: Status
    version: int
    event_seq: int
    lines: tuple[OrderLine, ...]
    total_amount_minor: int
    pay_amount_minor: int
    currency: str
    created_at: Instant
    expires_at: Instant
    receiver: Receiver | None = None
    buyer_remark: str | None = None
    paid_at: Instant | None = None
    closed_at: Instant | None = None
    cancelled_at: Instant | None = None
    close_reason: CloseReason | None = None
    pay_channel: str | None = None
    trade_no: str | None = None
    deadline_extended_at: Instant | None = None

    @property
    def is_pending(self) -> bool:
        """Waits for its payment: the only state that a buyer can change."""
        return self.status is Status.PENDING_PAYMENT


class Transition(Struct, frozen=True, kw_only=True):
    """An order that changes its state.

    Attributes:
        after: The order as it becomes, its version one higher; `event_seq` is as before, the use
            case raises it by the events it sends.
        cause: Why.
        changed_at: When.
    """

    before: Order
    after: Order
    cause: Cause
    changed_at: Instant

    def __post_init__(self) -> None:
        """Refuse a change of state that no rule allows: a bug of the caller.

        Raises:
            ValueError: there is no such change, or not for this cause.
        """
        edge = (self.before.status, self.after.status)
        if self.cause not in ALLOWED_CAUSES.get(edge, ()):
            message = f"order {self.before.order_no}: {edge[0]} to {edge[1]} by {self.cause}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitUntil:
    """The order is not due yet; look again then."""

    due_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToDo:
    """The order has ended already."""


NOTHING_TO_DO = NothingToDo()

CloseDecision: TypeAlias = Transition | WaitUntil | NothingToDo

_CANCEL_REASONS = {Cause.BUYER: CloseReason.BUYER, Cause.OPERATOR: CloseReason.OPERATOR}


def cancel(
    order: Order, *, by: Cause, now: Instant, expected_version: int | None = None
) -> Transition | NothingToDo:
    """Cancel an order, or find that it is cancelled already.

    An order that is cancelled already is what the caller wants, so it is no refusal even where the
    expected version has passed: a repeated request gets the answer of the first (RFC 9110, 13.1.1).

    Args:
        by: `Cause.BUYER` or `Cause.OPERATOR`.
        expected_version: The version the caller has seen; None is any.

    Raises:
        Refusal: `version_mismatch`, or `order_not_pending` when it is paid or closed.
        ValueError: by is another cause.
    """
    if order.status is Status.CANCELLED:
        return NOTHING_TO_DO
    if expected_version is not None and expected_version != order.version:
        detail = f"order {order.order_no} has version {order.version} now; read it again"
        raise Refusal("version_mismatch", detail, members={"version": order.version})
    if not order.is_pending:
        detail = f"order {order.order_no} is {order.status}; only an unpaid order can be cancelled"
        raise Refusal("order_not_pending", detail, members={"order_status": order.status.value})
    if by not in _CANCEL_REASONS:
        message = f"{by} cannot cancel order {order.order_no}"
        raise ValueError(message)
    after = replace(
        order,
        status=Status.CANCELLED,
        version=order.version + 1,
        cancelled_at=now,
        close_reason=_CANCEL_REASONS[by],
    )
    return Transition(before=order, after=after, cause=by, changed_at=now)


def close_when_due(order: Order, *, now: Instant) -> CloseDecision:
    """Close an unpaid order whose deadline has come; one that is early waits.

    Args:
        now: By the database's clock: no order closes early because a process's clock is ahead.
    """
    if not order.is_pending:
        return NOTHING_TO_DO
    if now < order.expires_at:
        return WaitUntil(due_at=order.expires_at)
    after = replace(
        order,
        status=Status.CLOSED,
        version=order.version + 1,
        closed_at=now,
        close_reason=CloseReason.PAYMENT_TIMEOUT,
    )
    return Transition(before=order, after=after, cause=Cause.PAYMENT_TIMEOUT, changed_at=now)


def find_extended(
    order: Order, *, opened_at: Instant, extension_s: float, now: Instant
) -> Order | None:
    """Return the order with the later deadline that a payment under way gives it, if it gives one.

    The deadline moves once, and only while the order waits for its payment: whoever opens payments
    again and again holds the stock for one extension longer, and no more.

    Args:
        opened_at: When the payment was opened, by a clock that may be ahead: later than now is now.
        extension_s: How far behind that moment the deadline may move; 0 leaves it where it is.
        now: By the database's clock.
    """
    if not order.is_pending or order.deadline_extended_at is not None or now >= order.expires_at:
        return None
    extension_us = round(extension_s * MICROSECONDS_PER_SECOND)
    expires_at = Instant(min(opened_at, now) + extension_us)
    if expires_at <= order.expires_at:
        return None
    return replace(order, expires_at=expires_at, deadline_extended_at=now)


def pay(
    order: Order, *, pay_channel: str | None, trade_no: str, paid_at: Instant, now: Instant
) -> Transition:
    """Mark a pending order paid, past its deadline too: only closing it makes a payment late.

    Raises:
        ValueError: it is not pending. Whether a payment fits is decided in `orders.payment`.
    """
    after = _as_paid(order, pay_channel=pay_channel, trade_no=trade_no, paid_at=paid_at)
    return Transition(before=order, after=after, cause=Cause.PAYMENT, changed_at=now)


def accept(
    order: Order, *, pay_channel: str | None, trade_no: str, paid_at: Instant, now: Instant
) -> Transition:
    """Mark a pending order paid because an operator says so, whatever the amount that came.

    Raises:
        ValueError: it is not pending.
    """
    after = _as_paid(order, pay_channel=pay_channel, trade_no=trade_no, paid_at=paid_at)
    return Transition(before=order, after=after, cause=Cause.OPERATOR, changed_at=now)


def revive(
    order: Order, *, pay_channel: str | None, trade_no: str, paid_at: Instant, now: Instant
) -> Transition:
    """Mark a closed order paid; the caller takes its stock again in the same transaction.

    Raises:
        ValueError: it is not closed.
    """
    after = _as_paid(order, pay_channel=pay_channel, trade_no=trade_no, paid_at=paid_at)
    after = replace(after, close_reason=None)
    return Transition(before=order, after=after, cause=Cause.REVIVAL, changed_at=now)


def _as_paid(order: Order, *, pay_channel: str | None, trade_no: str, paid_at: Instant) -> Order:
    return replace(
        order,
        status=Status.PAID,
        version=order.version + 1,
        paid_at=paid_at,
        pay_channel=pay_channel,
        trade_no=trade_no,
    )
