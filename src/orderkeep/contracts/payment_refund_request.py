"""Messages of `payment.refund.request`: give this money back, once for each refund number."""

from msgspec import Struct

from orderkeep.contracts.amount import raw_of_minor, read_amount_minor
from orderkeep.contracts.message_body import read_body, write_body
from orderkeep.contracts.refund_reason import RefundReason
from orderkeep.contracts.text import (
    read_currency_code,
    read_foreign_number,
    read_free_text,
    read_identifier,
)
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339

QUEUE = "payment.refund.request"
ROUTE = QUEUE
TYPE = "refund.requested"


class RefundRequest(Struct, frozen=True, kw_only=True):
    """A refund of what one payment brought.

    Attributes:
        refund_no: Its identity: the payment service refunds once for each.
        reason: One of `RefundReason`, or a newer one.
    """

    refund_no: str
    order_no: str
    trade_no: str
    amount_minor: int
    currency: str
    user_id: str | None = None
    payment_no: str | None = None
    pay_channel: str | None = None
    reason: str = RefundReason.OPERATOR.value
    requested_at: Instant | None = None


def encode(body: RefundRequest) -> bytes:
    """Return the body as the contract has it."""
    return write_body(
        {
            "refund_no": body.refund_no,
            "order_no": body.order_no,
            "user_id": body.user_id,
            "payment_no": body.payment_no,
            "trade_no": body.trade_no,
            "pay_channel": body.pay_channel,
            "amount": raw_of_minor(body.amount_minor),
            "currency": body.currency,
            "reason": body.reason,
            "requested_at": None if body.requested_at is None else rfc3339(body.requested_at),
        }
    )


def decode(raw: bytes) -> RefundRequest:
    """Return the request; needed: `refund_no`, `order_no`, `trade_no`, `amount`, `currency`.

    Raises:
        BadMessageError: it cannot be read.
    """
    body = read_body(raw)
    pay_channel = body.find("pay_channel", read_foreign_number)
    if pay_channel is None:
        pay_channel = body.find("channel", read_foreign_number)
    return RefundRequest(
        refund_no=body.get("refund_no", read_foreign_number),
        order_no=body.get("order_no", read_identifier),
        trade_no=body.get("trade_no", read_foreign_number),
        amount_minor=body.get("amount", read_amount_minor),
        currency=body.get("currency", read_currency_code),
        user_id=body.find("user_id", read_foreign_number),
        payment_no=body.find("payment_no", read_foreign_number),
        pay_channel=pay_channel,
        reason=body.find("reason", read_free_text) or RefundReason.OPERATOR.value,
        requested_at=body.find("requested_at", read_instant),
    )


def business_key(body: RefundRequest) -> str | None:
    """Return the refund number."""
    return body.refund_no
