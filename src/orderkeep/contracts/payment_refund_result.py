"""Messages of `payment.refund.result`: how a refund ended."""

from enum import StrEnum

from msgspec import Struct

from orderkeep.contracts.amount import raw_of_minor, read_amount_minor
from orderkeep.contracts.message_body import read_body, write_body
from orderkeep.contracts.text import (
    read_currency_code,
    read_foreign_number,
    read_free_text,
    read_identifier,
)
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339

QUEUE = "payment.refund.result"
ROUTE = QUEUE
TYPE = "refund.finished"


class RefundOutcome(StrEnum):
    """How a refund ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RefundResult(Struct, frozen=True, kw_only=True):
    """A refund that ended.

    Attributes:
        amount_minor: None is what was asked for, as is currency.
        channel_refund_no: The channel's own number for it.
        reason: Why it failed, in the words of the channel.
        finished_at: None is the time of receipt.
    """

    refund_no: str
    order_no: str
    status: RefundOutcome
    amount_minor: int | None = None
    currency: str | None = None
    channel_refund_no: str | None = None
    reason: str | None = None
    finished_at: Instant | None = None


def encode(body: RefundResult) -> bytes:
    """Return the body as the contract has it."""
    return write_body(
        {
            "refund_no": body.refund_no,
            "order_no": body.order_no,
            "amount": None if body.amount_minor is None else raw_of_minor(body.amount_minor),
            "currency": body.currency,
            "status": body.status,
            "channel_refund_no": body.channel_refund_no,
            "reason": body.reason,
            "finished_at": None if body.finished_at is None else rfc3339(body.finished_at),
        }
    )


def decode(raw: bytes) -> RefundResult:
    """Return the result; needed: `refund_no`, `order_no` and `status`.

    Raises:
        BadMessageError: it cannot be read.
    """
    body = read_body(raw)
    return RefundResult(
        refund_no=body.get("refund_no", read_foreign_number),
        order_no=body.get("order_no", read_identifier),
        status=body.get("status", _read_status),
        amount_minor=body.find("amount", read_amount_minor),
        currency=body.find("currency", read_currency_code),
        channel_refund_no=body.find("channel_refund_no", read_foreign_number),
        reason=body.find("reason", read_free_text),
        finished_at=body.find("finished_at", read_instant),
    )


def business_key(body: RefundResult) -> str | None:
    """Return the refund number."""
    return body.refund_no


def _read_status(value: object) -> RefundOutcome:
    try:
        return RefundOutcome(value)  # type: ignore[arg-type]  # an enum refuses anything else itself
    except ValueError:
        message = f"expected one of {', '.join(RefundOutcome)}"
        raise ValueError(message) from None
