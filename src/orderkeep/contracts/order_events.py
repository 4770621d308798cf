"""Messages of the exchange `order.events`: everything that happens to an order, for everyone.

Two queues of ours are bound to it: `order.outbox`, read by orders to make webhook deliveries, and
`payment.order.events`, read by the payment service. Anyone binds a queue of their own.
"""

from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from orderkeep.contracts.amount import raw_of_minor, read_amount_minor
from orderkeep.contracts.message_body import (
    UNKNOWN_EVENT_TYPE,
    Members,
    read_body,
    write_body,
)
from orderkeep.contracts.order_status import Status
from orderkeep.contracts.strict_json import shown
from orderkeep.contracts.text import (
    read_currency_code,
    read_foreign_number,
    read_free_text,
    read_identifier,
    read_quantity,
    read_version,
)
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339
from orderkeep.messaging.consumer import BadMessageError

EXCHANGE = "order.events"
ROUTE = EXCHANGE
QUEUE_OUTBOX = "order.outbox"
QUEUE_PAYMENT = "payment.order.events"

# Each event comes to both queues, mostly of one process, where its body need be read only once.
# Bodies of up to 2 KiB have up to some fifteen lines; all that are remembered take some 10 MB.
_REMEMBERED_COUNT_MAX = 2048
_REMEMBERED_BYTES_MAX = 2048


class OrderEventType(StrEnum):
    """What happened to an order; the message's `type` and its routing key."""

    CREATED = "order.created"
    PAID = "order.paid"
    CANCELLED = "order.cancelled"
    CLOSED = "order.closed"
    DEADLINE_EXTENDED = "order.deadline_extended"


class OrderEventItem(Struct, frozen=True, kw_only=True):
    """One line of the order."""

    sku_id: str
    title: str
    unit_price_minor: int
    quantity: int
    subtotal_minor: int


class OrderEvent(Struct, frozen=True, kw_only=True):
    """An order as it was when the event happened.

    Attributes:
        version: Rises with each change of state; a reader ignores what is not newer than it has.
        reason_code: Why it ended unpaid, where it did.
        paid_at: Where it is paid, as is trade_no.
    """

    event_type: OrderEventType
    order_no: str
    user_id: str
    status: Status
    version: int
    pay_amount_minor: int
    currency: str
    items: tuple[OrderEventItem, ...]
    created_at: Instant
    expires_at: Instant
    occurred_at: Instant
    reason_code: str | None = None
    paid_at: Instant | None = None
    trade_no: str | None = None


def encode(body: OrderEvent) -> bytes:
    """Return the body as the contract has it."""
    return write_body(
        {
            "event_type": body.event_type,
            "order_no": body.order_no,
            "user_id": body.user_id,
            "status": body.status,
            "version": body.version,
            "pay_amount": raw_of_minor(body.pay_amount_minor),
            "currency": body.currency,
            "items": [
                {
                    "sku_id": item.sku_id,
                    "title": item.title,
                    "unit_price": raw_of_minor(item.unit_price_minor),
                    "quantity": item.quantity,
                    "subtotal": raw_of_minor(item.subtotal_minor),
                }
                for item in body.items
            ],
            "created_at": rfc3339(body.created_at),
            "expires_at": rfc3339(body.expires_at),
            "occurred_at": rfc3339(body.occurred_at),
            "reason_code": body.reason_code,
            "paid_at": None if body.paid_at is None else rfc3339(body.paid_at),
            "trade_no": body.trade_no,
        }
    )


def decode(raw: bytes) -> OrderEvent:
    """Return the event; needed: everything but `reason_code`, `paid_at` and `trade_no`.

    Raises:
        BadMessageError: it cannot be read, or is of a type that is not known.
    """
    return _read_remembered(raw) if len(raw) <= _REMEMBERED_BYTES_MAX else _read(raw)


def _read(raw: bytes) -> OrderEvent:
    body = read_body(raw)
    named_type = body.get("event_type", read_free_text)
    try:
        event_type = OrderEventType(named_type)
    except ValueError:
        message = f"/event_type: {shown(named_type)!r} is no event of an order"
        raise BadMessageError(UNKNOWN_EVENT_TYPE, message) from None
    return OrderEvent(
        event_type=event_type,
        order_no=body.get("order_no", read_identifier),
        user_id=body.get("user_id", read_foreign_number),
        status=body.get("status", _read_status),
        version=body.get("version", read_version),
        pay_amount_minor=body.get("pay_amount", read_amount_minor),
        currency=body.get("currency", read_currency_code),
        items=tuple(_item(item) for item in body.get_list("items")),
        created_at=body.get("created_at", read_instant),
        expires_at=body.get("expires_at", read_instant),
        occurred_at=body.get("occurred_at", read_instant),
        reason_code=body.find("reason_code", read_free_text),
        paid_at=body.find("paid_at", read_instant),
        trade_no=body.find("trade_no", read_foreign_number),
    )


_read_remembered = lru_cache(_REMEMBERED_COUNT_MAX)(_read)


def business_key(body: OrderEvent) -> str | None:  # noqa: ARG001 (the same for every queue)
    """Return None: order events come from us, with a message id."""
    return None


def _item(members: Members) -> OrderEventItem:
    return OrderEventItem(
        sku_id=members.get("sku_id", read_identifier),
        title=members.get("title", read_free_text),
        unit_price_minor=members.get("unit_price", read_amount_minor),
        quantity=members.get("quantity", read_quantity),
        subtotal_minor=members.get("subtotal", read_amount_minor),
    )


def _read_status(value: object) -> Status:
    try:
        return Status(value)  # type: ignore[arg-type]  # an enum refuses anything else by itself
    except ValueError:
        message = f"expected one of {', '.join(Status)}"
        raise ValueError(message) from None
