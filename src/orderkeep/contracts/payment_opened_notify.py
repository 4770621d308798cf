"""Messages of `payment.opened.notify`: a buyer has begun to pay an order."""

from msgspec import Struct

from orderkeep.contracts.message_body import read_body, write_body
from orderkeep.contracts.text import read_foreign_number, read_identifier
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339

QUEUE = "payment.opened.notify"
ROUTE = QUEUE
TYPE = "payment.opened"


class PaymentOpened(Struct, frozen=True, kw_only=True):
    """A payment that was opened; opened_at None is the time of receipt."""

    payment_no: str
    order_no: str
    pay_channel: str | None = None
    opened_at: Instant | None = None


def encode(body: PaymentOpened) -> bytes:
    """Return the body as the contract has it."""
    return write_body(
        {
            "payment_no": body.payment_no,
            "order_no": body.order_no,
            "pay_channel": body.pay_channel,
            "opened_at": None if body.opened_at is None else rfc3339(body.opened_at),
        }
    )


def decode(raw: bytes) -> PaymentOpened:
    """Return the payment; needed: `payment_no` and `order_no`.

    Raises:
        BadMessageError: it cannot be read.
    """
    body = read_body(raw)
    pay_channel = body.find("pay_channel", read_foreign_number)
    if pay_channel is None:
        pay_channel = body.find("channel", read_foreign_number)
    return PaymentOpened(
        payment_no=body.get("payment_no", read_foreign_number),
        order_no=body.get("order_no", read_identifier),
        pay_channel=pay_channel,
        opened_at=body.find("opened_at", read_instant),
    )


def business_key(body: PaymentOpened) -> str | None:
    """Return the payment number."""
    return body.payment_no
