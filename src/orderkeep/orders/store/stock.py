"""The catalogue and its stock: what is for sale, how much, and every movement of it."""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import DatabaseNow, RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import Instant
from orderkeep.orders.stock import MovementKind, Sku, StockCounts
from orderkeep.orders.tables import SKUS, STOCK, STOCK_MOVEMENTS


class Movement(Struct, frozen=True, kw_only=True):
    """One movement of stock; unique by cause, SKU and kind."""

    sku_id: str
    kind: MovementKind
    cause: str
    quantity: int
    reason: str | None = None


class SkuChangedError(Exception):
    """Others have changed a SKU since it was seen without a lock; nothing of it may be committed.

    For `OrderDesk`, which decides anew on locked stock.
    """


_SKU_COLUMNS = (*SKUS.c, STOCK.c.available, STOCK.c.reserved, STOCK.c.sold)
_SKUS_WITH_STOCK = SKUS.join(STOCK, STOCK.c.sku_id == SKUS.c.sku_id)

# SKUs one batch may touch: as many lines as one order may have, for a full batch of orders.
_LOCKED_SKUS_MAX = 1024 * 100

_FIND_ANY = (
    select(*_SKU_COLUMNS)
    .select_from(_SKUS_WITH_STOCK)
    .where(is_any_of(STOCK.c.sku_id, "sku_ids"))
    .order_by(STOCK.c.sku_id)
    .limit(_LOCKED_SKUS_MAX)
)
# With the clock, which whoever looks needs as well.
_LOOK = Statement(_FIND_ANY.add_columns(DatabaseNow().label("now")))
_LOCK = Statement(_FIND_ANY.with_for_update(key_share=True, of=STOCK))
_LOCK_STOCK = Statement(
    select(STOCK.c.sku_id)
    .where(is_any_of(STOCK.c.sku_id, "sku_ids"))
    .order_by(STOCK.c.sku_id)
    .limit(_LOCKED_SKUS_MAX)
    .with_for_update(key_share=True)
)
_FREE = Statement(
    select(STOCK.c.sku_id)
    .where(is_any_of(STOCK.c.sku_id, "sku_ids"))
    .order_by(STOCK.c.sku_id)
    .limit(_LOCKED_SKUS_MAX)
    .with_for_update(key_share=True, skip_locked=True)
)
_EXISTING = Statement(
    select(STOCK.c.sku_id).where(is_any_of(STOCK.c.sku_id, "sku_ids")).limit(_LOCKED_SKUS_MAX)
)
_FIND = Statement(
    select(*_SKU_COLUMNS).select_from(_SKUS_WITH_STOCK).where(SKUS.c.sku_id == bindparam("sku_id"))
)
_LIST = Statement(
    select(*_SKU_COLUMNS)
    .select_from(_SKUS_WITH_STOCK)
    .where(SKUS.c.sku_id > bindparam("after"), SKUS.c.is_active)
    .order_by(SKUS.c.sku_id)
    .limit(bindparam("limit_count"))
)
_CHANGE = RowStatement(
    update(STOCK)
    .where(STOCK.c.sku_id == row_value("the_sku_id", STOCK.c.sku_id.type))
    .values(
        available=STOCK.c.available + row_value("available_added", STOCK.c.available.type),
        reserved=STOCK.c.reserved + row_value("reserved_added", STOCK.c.reserved.type),
        sold=STOCK.c.sold + row_value("sold_added", STOCK.c.sold.type),
    )
)
_MOVEMENT_COLUMNS = ("sku_id", "kind", "cause", "quantity", "reason", "moved_at")
_INSERT_MOVEMENT = RowStatement(
    insert(STOCK_MOVEMENTS).values(
        {name: row_value(name, STOCK_MOVEMENTS.c[name].type) for name in _MOVEMENT_COLUMNS}
    )
)
_FIND_MOVEMENT = Statement(
    select(STOCK_MOVEMENTS).where(
        STOCK_MOVEMENTS.c.cause == bindparam("cause"),
        STOCK_MOVEMENTS.c.sku_id == bindparam("sku_id"),
        STOCK_MOVEMENTS.c.kind == bindparam("kind"),
    )
)
_SKU_VALUES = ("product_id", "title", "unit_price_minor", "currency", "is_active", "updated_at")
_INSERT_SKU = RowStatement(
    insert(SKUS)
    .values({name: row_value(name, SKUS.c[name].type) for name in ("sku_id", *_SKU_VALUES)})
    .on_conflict_do_nothing(index_elements=["sku_id"])
    .returning(SKUS.c.sku_id)
)
_INSERT_STOCK = RowStatement(
    insert(STOCK).values({name: row_value(name, STOCK.c[name].type) for name in STOCK.c.keys()})  # noqa: SIM118 (a column collection iterates over columns, not names)
)
_UPDATE_SKU = Statement(
    update(SKUS)
    .where(SKUS.c.sku_id == bindparam("the_sku_id"))
    .values({name: bindparam(f"new_{name}", type_=SKUS.c[name].type) for name in _SKU_VALUES})
)


async def lock_skus(transaction: Transaction, sku_ids: Collection[str]) -> dict[str, Sku]:
    """Lock the stock of the SKUs, in the order of their ids, and return those that exist."""
    rows = await transaction.fetch_all(_LOCK, sku_ids=sorted(sku_ids))
    return {row["sku_id"]: _sku(row) for row in rows}


async def lock_stock(transaction: Transaction, sku_ids: Collection[str]) -> None:
    """Lock the stock of the SKUs, in the order of their ids."""
    await transaction.fetch_all(_LOCK_STOCK, sku_ids=sorted(sku_ids))


async def look_at_skus(
    transaction: ReadTransaction, sku_ids: Collection[str]
) -> tuple[dict[str, Sku], Instant]:
    """Return those of the SKUs that exist, by id, and the database's clock.

    They are not locked: others may change them at once.
    """
    rows = await transaction.fetch_all(_LOOK, sku_ids=sorted(sku_ids))
    now = Instant(rows[0]["now"]) if rows else await transaction.now()
    return {row["sku_id"]: _sku(row) for row in rows}, now


async def find_held_skus(transaction: Transaction, sku_ids: Collection[str]) -> set[str]:
    """Return those of the SKUs whose stock another transaction holds; lock the others."""
    wanted = sorted(sku_ids)
    existing = await transaction.fetch_all(_EXISTING, sku_ids=wanted)
    free = await transaction.fetch_all(_FREE, sku_ids=wanted)
    return {row["sku_id"] for row in existing} - {row["sku_id"] for row in free}


async def find_sku(transaction: ReadTransaction, sku_id: str) -> Sku | None:
    """Return the SKU with its stock, or None."""
    row = await transaction.fetch_one(_FIND, sku_id=sku_id)
    return None if row is None else _sku(row)


async def list_active_skus(
    transaction: ReadTransaction, *, after: str, limit_count: int
) -> list[Sku]:
    """Return SKUs that are for sale, by id, from the one behind `after`."""
    rows = await transaction.fetch_all(_LIST, after=after, limit_count=limit_count)
    return [_sku(row) for row in rows]


async def insert_sku(transaction: Transaction, sku: Sku, *, now: Instant) -> bool:
    """Add a SKU with its stock; return False, changing nothing, if there is one already."""
    fresh = await transaction.fetch_rows(
        _INSERT_SKU, [{"sku_id": sku.sku_id, **_sku_values(sku, now=now)}]
    )
    if not fresh:
        return False
    await transaction.execute_rows(
        _INSERT_STOCK,
        [
            {
                "sku_id": sku.sku_id,
                "available": sku.available,
                "reserved": sku.reserved,
                "sold": sku.sold,
            }
        ],
    )
    return True


async def update_sku(transaction: Transaction, sku: Sku, *, now: Instant) -> None:
    """Write what the catalogue says of a SKU; its stock is moved by movements alone."""
    values = {f"new_{name}": value for name, value in _sku_values(sku, now=now).items()}
    await transaction.execute(_UPDATE_SKU, the_sku_id=sku.sku_id, **values)


async def change_stock(transaction: Transaction, changes: Mapping[str, StockCounts]) -> None:
    """Add to the counts of SKUs, by id, that this transaction has locked.

    Raises:
        ConstraintViolatedError: a count would fall below zero.
    """
    await transaction.execute_rows(
        _CHANGE,
        [
            {
                "the_sku_id": sku_id,
                "available_added": change.available,
                "reserved_added": change.reserved,
                "sold_added": change.sold,
            }
            for sku_id, change in sorted(changes.items())
        ],
    )


async def reserve_seen_stock(
    transaction: Transaction, taken: Mapping[str, int], *, seen: Mapping[str, Sku]
) -> None:
    """Lock the stock, and move so much of each SKU, by id, from available to reserved.

    Args:
        seen: The SKUs as this transaction has found them; a SKU is never deleted.

    Raises:
        SkuChangedError: there is no longer so much of one, or it is not what was seen.
    """
    if not taken:
        return
    for row in await transaction.fetch_all(_LOCK, sku_ids=sorted(taken)):
        sku_id = row["sku_id"]
        if row["available"] < taken[sku_id] or not _is_offered_as(seen[sku_id], row):
            raise SkuChangedError(sku_id)
    await reserve_locked_stock(transaction, taken)


async def reserve_locked_stock(transaction: Transaction, taken: Mapping[str, int]) -> None:
    """Move so much of each SKU, by id, which this transaction has locked, to reserved.

    Raises:
        ConstraintViolatedError: there is not so much of one.
    """
    await change_stock(
        transaction,
        {
            sku_id: StockCounts(available=-quantity, reserved=quantity)
            for sku_id, quantity in taken.items()
        },
    )


async def insert_movements(
    transaction: Transaction, movements: Sequence[Movement], *, now: Instant
) -> None:
    """Record movements.

    Raises:
        ConstraintViolatedError: one of them has happened before.
    """
    await transaction.execute_rows(
        _INSERT_MOVEMENT,
        [{**asdict(movement), "moved_at": now} for movement in movements],
    )


async def find_movement(
    transaction: ReadTransaction, *, cause: str, sku_id: str, kind: MovementKind
) -> Movement | None:
    """Return the movement of that identity, or None if it has not happened."""
    row = await transaction.fetch_one(_FIND_MOVEMENT, cause=cause, sku_id=sku_id, kind=kind)
    if row is None:
        return None
    return Movement(
        sku_id=row["sku_id"],
        kind=MovementKind(row["kind"]),
        cause=row["cause"],
        quantity=row["quantity"],
        reason=row["reason"],
    )


def _is_offered_as(sku: Sku, row: Row) -> bool:
    # What an order takes from the catalogue.
    return bool(
        sku.unit_price_minor == row["unit_price_minor"]
        and sku.is_active == bool(row["is_active"])
        and sku.currency == row["currency"]
        and sku.title == row["title"]
    )


def _sku(row: Row) -> Sku:
    return Sku(
        sku_id=row["sku_id"],
        product_id=row["product_id"],
        title=row["title"],
        unit_price_minor=row["unit_price_minor"],
        currency=row["currency"],
        is_active=bool(row["is_active"]),
        available=row["available"],
        reserved=row["reserved"],
        sold=row["sold"],
    )


def _sku_values(sku: Sku, *, now: Instant) -> Mapping[str, str | int | bool | None]:
    return {
        "product_id": sku.product_id,
        "title": sku.title,
        "unit_price_minor": sku.unit_price_minor,
        "currency": sku.currency,
        "is_active": sku.is_active,
        "updated_at": now,
    }
