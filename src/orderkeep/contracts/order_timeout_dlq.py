"""Messages of `order.timeout.dlq`: an order that was closed because nobody paid it in time."""

from msgspec import Struct

from orderkeep.contracts.amount import raw_of_minor, read_amount_minor
from orderkeep.contracts.message_body import read_body, write_body
from orderkeep.contracts.text import read_foreign_number, read_free_text, read_identifier
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339

QUEUE = "order.timeout.dlq"
ROUTE = QUEUE
TYPE = "order.timeout"

# "The order was not paid in time." Foreign readers of this queue show the text as it stands; it is
# part of the contract.
REASON = "订单超时未支付"  # noqa: RUF001, RUF100 (Chinese on purpose)
REASON_CODE = "payment_timeout"


class TimedOutOrder(Struct, frozen=True, kw_only=True):
    """An order that timed out; foreign senders may leave out all but the order."""

    order_no: str
    user_id: str | None = None
    pay_amount_minor: int | None = None
    created_at: Instant | None = None
    timeout_at: Instant | None = None
    reason: str = REASON
    reason_code: str = REASON_CODE


def encode(body: TimedOutOrder) -> bytes:
    """Return the body as the contract has it."""
    amount = body.pay_amount_minor
    return write_body(
        {
            "order_no": body.order_no,
            "user_id": body.user_id,
            "pay_amount": None if amount is None else raw_of_minor(amount),
            "created_at": None if body.created_at is None else rfc3339(body.created_at),
            "timeout_at": None if body.timeout_at is None else rfc3339(body.timeout_at),
            "reason": body.reason,
            "reason_code": body.reason_code,
        }
    )


def decode(raw: bytes) -> TimedOutOrder:
    """Return the order; needed: `order_no`.

    Raises:
        BadMessageError: it cannot be read.
    """
    body = read_body(raw)
    return TimedOutOrder(
        order_no=body.get("order_no", read_identifier),
        user_id=body.find("user_id", read_foreign_number),
        pay_amount_minor=body.find("pay_amount", read_amount_minor),
        created_at=body.find("created_at", read_instant),
        timeout_at=body.find("timeout_at", read_instant),
        reason=body.find("reason", read_free_text) or REASON,
        reason_code=body.find("reason_code", read_free_text) or REASON_CODE,
    )


def business_key(body: TimedOutOrder) -> str | None:  # noqa: ARG001 (the same for every queue)
    """Return None: the report keeps one row for each order, whatever the message."""
    return None
