"""Messages of `payment.success.notify`: money came for an order.

A payment is identified by its channel, or nothing, and its trade number, whatever its message id.
"""

from msgspec import Struct

from orderkeep.contracts.amount import raw_of_minor, read_amount_minor
from orderkeep.contracts.message_body import read_body, write_body
from orderkeep.contracts.text import read_currency_code, read_foreign_number, read_identifier
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339

QUEUE = "payment.success.notify"
ROUTE = QUEUE
TYPE = "payment.succeeded"


class PaymentSucceeded(Struct, frozen=True, kw_only=True):
    """A payment that succeeded.

    Attributes:
        currency: None is the order's.
        paid_at: None is the time of receipt.
        pay_channel: None is an unnamed channel; a part of the payment's identity all the same.
    """

    order_no: str
    trade_no: str
    payment_no: str | None = None
    user_id: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    paid_at: Instant | None = None
    pay_channel: str | None = None


def encode(body: PaymentSucceeded) -> bytes:
    """Return the body as the contract has it."""
    return write_body(
        {
            "payment_no": body.payment_no,
            "order_no": body.order_no,
            "user_id": body.user_id,
            "amount": None if body.amount_minor is None else raw_of_minor(body.amount_minor),
            "currency": body.currency,
            "trade_no": body.trade_no,
            "paid_at": None if body.paid_at is None else rfc3339(body.paid_at),
            "pay_channel": body.pay_channel,
        }
    )


def decode(raw: bytes) -> PaymentSucceeded:
    """Return the payment; needed: `order_no` and `trade_no`. `channel` is read as `pay_channel`.

    Raises:
        BadMessageError: it cannot be read.
    """
    body = read_body(raw)
    pay_channel = body.find("pay_channel", read_foreign_number)
    if pay_channel is None:
        pay_channel = body.find("channel", read_foreign_number)
    return PaymentSucceeded(
        order_no=body.get("order_no", read_identifier),
        trade_no=body.get("trade_no", read_foreign_number),
        payment_no=body.find("payment_no", read_foreign_number),
        user_id=body.find("user_id", read_foreign_number),
        amount_minor=body.find("amount", read_amount_minor),
        currency=body.find("currency", read_currency_code),
        paid_at=body.find("paid_at", read_instant),
        pay_channel=pay_channel,
    )


def business_key(body: PaymentSucceeded) -> str | None:
    """Return the payment's identity; neither part holds a space, so no two payments share one."""
    return f"{body.pay_channel or ''} {body.trade_no}"
