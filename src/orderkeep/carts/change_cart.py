"""Change carts: functions over an open transaction that never commit.

Each takes a list and decides every member alone: what is refused costs the others nothing.
"""

from collections.abc import Sequence

from orderkeep.carts import store
from orderkeep.carts.cart import (
    LINES_PER_CART_MAX,
    Addition,
    CartItem,
    QuantityChange,
)
from orderkeep.contracts.text import QUANTITY_MAX
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.refusal import Refusal


async def add_items(
    transaction: Transaction, additions: Sequence[Addition], *, now: Instant
) -> list[CartItem | Refusal]:
    """Add each to its user's cart, summed with the line of the same SKU.

    Returns:
        For each addition, in order, the line as it now is, or why nothing was added.
    """
    await store.lock_carts(transaction, [addition.user_id for addition in additions], now=now)
    answers: list[CartItem | Refusal] = []
    for addition in additions:
        item = await store.add(transaction, addition, now=now)
        answers.append(item or await _why_not_added(transaction, addition))
    return answers


async def change_quantities(
    transaction: Transaction, changes: Sequence[QuantityChange], *, now: Instant
) -> list[CartItem | Refusal]:
    """Set each line's quantity; of two changes of one line the later one stays.

    Returns:
        For each change, in order, the line as it now is, or `not_found`.
    """
    last_changes = {(change.cart_item_id, change.user_id): change for change in changes}
    changed = await store.change_quantities(transaction, list(last_changes.values()), now=now)
    by_id = {item.cart_item_id: item for item in changed}
    return [_own(by_id.get(change.cart_item_id), change) for change in changes]


def unknown_item(cart_item_id: str) -> Refusal:
    """Return the refusal for an item that is not in the asking user's cart."""
    return Refusal("not_found", f"There is no item {cart_item_id} in this cart.")


def _own(item: CartItem | None, change: QuantityChange) -> CartItem | Refusal:
    if item is None or item.user_id != change.user_id:
        return unknown_item(change.cart_item_id)
    return item


async def _why_not_added(transaction: Transaction, addition: Addition) -> Refusal:
    user_id = addition.user_id
    line = await store.find_line_of_sku(transaction, user_id=user_id, sku_id=addition.sku_id)
    if line is not None:
        return _invalid(
            "/quantity",
            f"The cart holds {line.quantity} of {addition.sku_id} already; with"
            f" {addition.quantity} more it would hold over {QUANTITY_MAX}.",
        )
    if await store.count_lines(transaction, user_id=user_id) >= LINES_PER_CART_MAX:
        return _invalid(
            "/sku_id",
            f"The cart holds {LINES_PER_CART_MAX} different items already; remove one first.",
        )
    return _invalid("/cart_item_id", f"The id {addition.cart_item_id} names another item.")


def _invalid(pointer: str, detail: str) -> Refusal:
    return Refusal(
        "invalid_request", detail, members={"errors": [{"pointer": pointer, "detail": detail}]}
    )
