"""The four states of an order, for ever, and the reasons for which one ends unpaid."""

from enum import StrEnum


class Status(StrEnum):
    """The state of an order. There will never be more; clients rely on it."""

    PENDING_PAYMENT = "pending_payment"
    PAID = "paid"
    CANCELLED = "cancelled"
    CLOSED = "closed"


class CloseReason(StrEnum):
    """Why an order was cancelled or closed."""

    PAYMENT_TIMEOUT = "payment_timeout"
    BUYER = "buyer"
    OPERATOR = "operator"
