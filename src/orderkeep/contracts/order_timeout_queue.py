"""Messages of `order.timeout.queue`: look whether this order is still unpaid at its deadline.

The check names the order; everything else in it is for people who look at the queue. Whether the
order is due is decided by its row, never by the message.
"""

from msgspec import Struct

from orderkeep.contracts.amount import raw_of_minor, read_amount_minor
from orderkeep.contracts.message_body import read_body, write_body
from orderkeep.contracts.text import read_foreign_number, read_identifier
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339

QUEUE = "order.timeout.queue"
ROUTE = QUEUE
TYPE = "order.timeout.check"


class TimeoutCheck(Struct, frozen=True, kw_only=True):
    """A check of one order's deadline; foreign senders may leave out all but the order."""

    order_no: str
    user_id: str | None = None
    pay_amount_minor: int | None = None
    created_at: Instant | None = None
    expires_at: Instant | None = None


def encode(body: TimeoutCheck) -> bytes:
    """Return the body as the contract has it."""
    amount = body.pay_amount_minor
    return write_body(
        {
            "order_no": body.order_no,
            "user_id": body.user_id,
            "pay_amount": None if amount is None else raw_of_minor(amount),
            "created_at": None if body.created_at is None else rfc3339(body.created_at),
            "expires_at": None if body.expires_at is None else rfc3339(body.expires_at),
        }
    )


def decode(raw: bytes) -> TimeoutCheck:
    """Return the check; needed: `order_no`.

    Raises:
        BadMessageError: it cannot be read.
    """
    body = read_body(raw)
    return TimeoutCheck(
        order_no=body.get("order_no", read_identifier),
        user_id=body.find("user_id", read_foreign_number),
        pay_amount_minor=body.find("pay_amount", read_amount_minor),
        created_at=body.find("created_at", read_instant),
        expires_at=body.find("expires_at", read_instant),
    )


def business_key(body: TimeoutCheck) -> str | None:  # noqa: ARG001 (the same for every queue)
    """Return None: checking twice does no harm, and a check may be sent again with a purpose."""
    return None
