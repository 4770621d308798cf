"""All SQL of the cart service.

Lock order: rows of `carts` sorted by user, then their lines. A statement that takes the lock of one
line alone, as the change of a quantity over HTTP does, needs no cart: it waits for nobody while
holding anything.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from orderkeep.carts.cart import (
    LINES_PER_CART_MAX,
    Addition,
    CartItem,
    QuantityChange,
    Removal,
)
from orderkeep.carts.tables import CART_ITEMS, CARTS
from orderkeep.contracts.text import QUANTITY_MAX
from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant

_COLUMNS = (
    CART_ITEMS.c.cart_item_id,
    CART_ITEMS.c.user_id,
    CART_ITEMS.c.sku_id,
    CART_ITEMS.c.quantity,
)

_upsert_cart = insert(CARTS).values(
    user_id=row_value("user_id", CARTS.c.user_id.type),
    updated_at=row_value("updated_at", CARTS.c.updated_at.type),
)
_LOCK_CART = RowStatement(
    _upsert_cart.on_conflict_do_update(
        index_elements=["user_id"], set_={"updated_at": _upsert_cart.excluded.updated_at}
    )
)

# The count and the other line of the same id are read under the lock of the user's cart.
_other_lines = CART_ITEMS.alias("other_lines")
_line_count = (
    select(func.count())
    .where(_other_lines.c.user_id == bindparam("user_id"))
    .select_from(_other_lines)
    .scalar_subquery()
)
_has_line_of_sku = exists().where(
    _other_lines.c.user_id == bindparam("user_id"), _other_lines.c.sku_id == bindparam("sku_id")
)
_id_names_another_line = exists().where(_other_lines.c.cart_item_id == bindparam("cart_item_id"))
_next_position = (
    select(func.coalesce(func.max(_other_lines.c.position), 0) + 1)
    .where(_other_lines.c.user_id == bindparam("user_id"))
    .scalar_subquery()
)


def _given(name: str, column: Column[Any]) -> ColumnElement[Any]:
    """Return a parameter as a column; the cast tells an engine with typed ones what it is given."""
    return bindparam(name).cast(column.type)


_insert_line = insert(CART_ITEMS).from_select(
    ["cart_item_id", "user_id", "sku_id", "quantity", "position", "created_at", "updated_at"],
    select(
        _given("cart_item_id", CART_ITEMS.c.cart_item_id),
        _given("user_id", CART_ITEMS.c.user_id),
        _given("sku_id", CART_ITEMS.c.sku_id),
        _given("quantity", CART_ITEMS.c.quantity),
        _next_position,
        _given("now", CART_ITEMS.c.created_at),
        _given("now", CART_ITEMS.c.updated_at),
    ).where(
        or_(
            _has_line_of_sku,
            and_(_line_count < LINES_PER_CART_MAX, not_(_id_names_another_line)),
        )
    ),
)
_sum = CART_ITEMS.c.quantity + _insert_line.excluded.quantity
_ADD = Statement(
    _insert_line.on_conflict_do_update(
        index_elements=["user_id", "sku_id"],
        set_={"quantity": _sum, "updated_at": _insert_line.excluded.updated_at},
        where=_sum <= QUANTITY_MAX,
    ).returning(*_COLUMNS)
)

_FIND_LINE_OF_SKU = Statement(
    select(*_COLUMNS)
    .where(CART_ITEMS.c.user_id == bindparam("user_id"), CART_ITEMS.c.sku_id == bindparam("sku_id"))
    .limit(1)
)

_COUNT_LINES = Statement(
    select(func.count().label("line_count")).where(CART_ITEMS.c.user_id == bindparam("user_id"))
)

_LIST = Statement(
    select(*_COLUMNS)
    .where(CART_ITEMS.c.user_id == bindparam("user_id"))
    .order_by(CART_ITEMS.c.position)
    .limit(LINES_PER_CART_MAX)
)

_CHANGE_QUANTITY = RowStatement(
    update(CART_ITEMS)
    .where(
        CART_ITEMS.c.cart_item_id == row_value("the_item", CART_ITEMS.c.cart_item_id.type),
        CART_ITEMS.c.user_id == row_value("the_user", CART_ITEMS.c.user_id.type),
    )
    .values(
        quantity=row_value("new_quantity", CART_ITEMS.c.quantity.type),
        updated_at=row_value("changed_at", CART_ITEMS.c.updated_at.type),
    )
    .returning(*_COLUMNS)
)

_REMOVE = RowStatement(
    delete(CART_ITEMS)
    .where(
        CART_ITEMS.c.cart_item_id == row_value("the_item", CART_ITEMS.c.cart_item_id.type),
        CART_ITEMS.c.user_id == row_value("the_user", CART_ITEMS.c.user_id.type),
    )
    .returning(*_COLUMNS)
)

_CLEAR = Statement(delete(CART_ITEMS).where(is_any_of(CART_ITEMS.c.user_id, "user_ids")))


async def lock_carts(transaction: Transaction, user_ids: Iterable[str], *, now: Instant) -> None:
    """Take the carts of the users, made where they are missing, in the one order for all."""
    rows: list[dict[str, Value]] = [
        {"user_id": user_id, "updated_at": now} for user_id in sorted(set(user_ids))
    ]
    await transaction.execute_rows(_LOCK_CART, rows)


async def add(transaction: Transaction, addition: Addition, *, now: Instant) -> CartItem | None:
    """Add the pieces to the user's line of the SKU; None if a limit forbids it.

    The user's cart is locked by the caller.
    """
    row = await transaction.fetch_one(
        _ADD,
        cart_item_id=addition.cart_item_id,
        user_id=addition.user_id,
        sku_id=addition.sku_id,
        quantity=addition.quantity,
        now=now,
    )
    return None if row is None else _item(row)


async def find_line_of_sku(
    transaction: ReadTransaction, *, user_id: str, sku_id: str
) -> CartItem | None:
    """Return the user's line of the SKU."""
    row = await transaction.fetch_one(_FIND_LINE_OF_SKU, user_id=user_id, sku_id=sku_id)
    return None if row is None else _item(row)


async def count_lines(transaction: ReadTransaction, *, user_id: str) -> int:
    """Return how many lines the user's cart has."""
    row = await transaction.fetch_one(_COUNT_LINES, user_id=user_id)
    assert row is not None
    return int(row["line_count"])


async def list_lines(transaction: ReadTransaction, *, user_id: str) -> list[CartItem]:
    """Return every line of the user's cart, oldest first."""
    return [_item(row) for row in await transaction.fetch_all(_LIST, user_id=user_id)]


async def change_quantities(
    transaction: Transaction, changes: Sequence[QuantityChange], *, now: Instant
) -> list[CartItem]:
    """Set the quantities and return the lines that were there, in no set order.

    No two changes name the same line.
    """
    rows: list[dict[str, Value]] = [
        {
            "the_item": change.cart_item_id,
            "the_user": change.user_id,
            "new_quantity": change.quantity,
            "changed_at": now,
        }
        for change in sorted(changes, key=lambda change: change.cart_item_id)
    ]
    return [_item(row) for row in await transaction.fetch_rows(_CHANGE_QUANTITY, rows)]


async def remove_lines(transaction: Transaction, removals: Iterable[Removal]) -> list[CartItem]:
    """Remove the lines and return those that were there, in no set order."""
    keys = sorted({(removal.cart_item_id, removal.user_id) for removal in removals})
    rows = [{"the_item": item, "the_user": user} for item, user in keys]
    return [_item(row) for row in await transaction.fetch_rows(_REMOVE, rows)]


async def clear_carts(transaction: Transaction, user_ids: Iterable[str]) -> int:
    """Remove every line of the users and return how many there were."""
    return await transaction.execute(_CLEAR, user_ids=sorted(set(user_ids)))


def _item(row: Row) -> CartItem:
    return CartItem(
        cart_item_id=row["cart_item_id"],
        user_id=row["user_id"],
        sku_id=row["sku_id"],
        quantity=row["quantity"],
    )
