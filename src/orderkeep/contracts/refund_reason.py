"""Why money goes back: a word that orders, messages and the payment service share."""

from enum import StrEnum


class RefundReason(StrEnum):
    """Why money goes back; there may be more one day."""

    LATE_PAYMENT = "late_payment"
    DOUBLE_PAYMENT = "double_payment"
    OPERATOR = "operator"
