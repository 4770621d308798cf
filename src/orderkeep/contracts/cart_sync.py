"""Messages of `cart-sync`: what the cart shall add, change or remove.

Orders send one `cart.item.removed` for each cart item they took over; the other three come from
foreign programs that keep a cart of their own in step.
"""

from typing import TypeAlias, assert_never

from msgspec import Struct

from orderkeep.contracts.message_body import (
    UNKNOWN_EVENT_TYPE,
    Members,
    read_body,
    write_body,
)
from orderkeep.contracts.strict_json import shown
from orderkeep.contracts.text import (
    read_foreign_number,
    read_free_text,
    read_identifier,
    read_quantity,
)
from orderkeep.contracts.time_text import read_instant
from orderkeep.instant import Instant, rfc3339
from orderkeep.messaging.consumer import BadMessageError

QUEUE = "cart-sync"
ROUTE = QUEUE
TYPE_REMOVED = "cart.item.removed"
TYPE_ADDED = "cart.item.added"
TYPE_UPDATED = "cart.item.updated"
TYPE_CLEARED = "cart.cleared"

# What orders send; the rest is received only.
TYPE = TYPE_REMOVED


class CartItemRemoved(Struct, frozen=True, kw_only=True):
    """An item leaves the cart: bought with the given order, or taken out elsewhere (None)."""

    user_id: str
    item_id: str
    order_no: str | None = None
    occurred_at: Instant | None = None


class CartItemAdded(Struct, frozen=True, kw_only=True):
    """A SKU comes into the cart; the cart names the item itself where item_id is None."""

    user_id: str
    sku_id: str
    quantity: int
    item_id: str | None = None
    occurred_at: Instant | None = None


class CartItemUpdated(Struct, frozen=True, kw_only=True):
    """An item has a new quantity (not a difference)."""

    user_id: str
    item_id: str
    quantity: int
    occurred_at: Instant | None = None


class CartCleared(Struct, frozen=True, kw_only=True):
    """Every item leaves the cart."""

    user_id: str
    occurred_at: Instant | None = None


CartEvent: TypeAlias = CartItemRemoved | CartItemAdded | CartItemUpdated | CartCleared


def encode(body: CartEvent) -> bytes:
    """Return the body as the contract has it."""
    match body:
        case CartItemRemoved():
            return _write(TYPE_REMOVED, body, item_id=body.item_id, order_no=body.order_no)
        case CartItemAdded():
            return _write(
                TYPE_ADDED,
                body,
                item_id=body.item_id,
                sku_id=body.sku_id,
                quantity=body.quantity,
            )
        case CartItemUpdated():
            return _write(TYPE_UPDATED, body, item_id=body.item_id, quantity=body.quantity)
        case CartCleared():
            return _write(TYPE_CLEARED, body, item_id=None)
        case _ as never:
            assert_never(never)


def decode(raw: bytes) -> CartEvent:
    """Return the event; needed: `event_type`, `user_id`, and what the type cannot do without.

    Raises:
        BadMessageError: it cannot be read, or is of a type that is not known.
    """
    body = read_body(raw)
    event_type = body.get("event_type", read_free_text)
    data = body.find_members("data")
    match event_type:
        case "cart.item.removed":
            return CartItemRemoved(
                user_id=_user_id(body),
                item_id=body.get("item_id", read_foreign_number),
                order_no=data.find("order_no", read_identifier),
                occurred_at=_occurred_at(body),
            )
        case "cart.item.added":
            return CartItemAdded(
                user_id=_user_id(body),
                sku_id=data.get("sku_id", read_identifier),
                quantity=data.get("quantity", read_quantity),
                item_id=body.find("item_id", read_identifier),
                occurred_at=_occurred_at(body),
            )
        case "cart.item.updated":
            return CartItemUpdated(
                user_id=_user_id(body),
                item_id=body.get("item_id", read_foreign_number),
                quantity=data.get("quantity", read_quantity),
                occurred_at=_occurred_at(body),
            )
        case "cart.cleared":
            return CartCleared(user_id=_user_id(body), occurred_at=_occurred_at(body))
        case _:
            message = f"/event_type: {shown(event_type)!r} is no event of a cart"
            raise BadMessageError(UNKNOWN_EVENT_TYPE, message)


def business_key(body: CartEvent) -> str | None:  # noqa: ARG001 (the same for every queue)
    """Return None: a cart event has no identity but its message's."""
    return None


def _write(
    event_type: str, body: CartEvent, *, item_id: str | None, **data: str | int | None
) -> bytes:
    return write_body(
        {
            "event_type": event_type,
            "user_id": body.user_id,
            "item_id": item_id,
            "data": {name: value for name, value in data.items() if value is not None},
            "timestamp": None if body.occurred_at is None else rfc3339(body.occurred_at),
        }
    )


def _user_id(body: Members) -> str:
    return body.get("user_id", read_foreign_number)


def _occurred_at(body: Members) -> Instant | None:
    return body.find("timestamp", read_instant)
