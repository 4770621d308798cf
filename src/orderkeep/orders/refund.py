"""A refund that the order service asks the payment service for. Pure."""

from msgspec import Struct

from orderkeep.instant import Instant
from orderkeep.orders.order import OrderNumber
from orderkeep.orders.payment import PaymentIdentity


class OrderRefund(Struct, frozen=True, kw_only=True):
    """One refund; a payment is refunded at most once.

    Attributes:
        status: "requested", then "succeeded" or "failed".
        reason: "late_payment", "double_payment" or "operator".
    """

    refund_no: str
    order_no: OrderNumber
    identity: PaymentIdentity
    payment_no: str | None
    amount_minor: int
    currency: str
    reason: str
    status: str
    requested_at: Instant
    finished_at: Instant | None = None
    channel_refund_no: str | None = None
    failure_reason: str | None = None
