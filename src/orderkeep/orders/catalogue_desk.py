"""The catalogue's edge: opens one transaction for each change of a SKU or its stock.

Invariant: stock changes only together with its movement, in one transaction, and a movement is
unique by its cause: a repeated request moves nothing again. Who changed what is put on record there
too.
"""

from dataclasses import dataclass

from msgspec.structs import replace

from orderkeep.contracts.amount import text_of_minor
from orderkeep.contracts.currency import check_currency
from orderkeep.database.audit import Act, AuditEntry, append_audit
from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.orders.stock import MovementKind, Sku, change_of
from orderkeep.orders.store.stock import (
    Movement,
    change_stock,
    find_movement,
    find_sku,
    insert_movements,
    insert_sku,
    list_active_skus,
    lock_skus,
    update_sku,
)
from orderkeep.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuEntry:
    """What an operator writes of a SKU.

    Attributes:
        stock: Units to begin with; None is none for a new SKU, and the only choice for an old one.
    """

    sku_id: str
    product_id: str | None
    title: str
    unit_price_minor: int
    currency: str
    is_active: bool
    stock: int | None


class CatalogueDesk:
    """Where the catalogue is read and changed."""

    def __init__(self, *, database: Database) -> None:
        """Keep the catalogue in the database."""
        self._database = database

    async def get(self, sku_id: str) -> Sku:
        """Return the SKU.

        Raises:
            Refusal: `not_found`.
        """

        async def read(transaction: ReadTransaction) -> Sku | None:
            return await find_sku(transaction, sku_id)

        sku = await self._database.read(read)
        if sku is None:
            raise _unknown(sku_id)
        return sku

    async def get_active(self, sku_id: str) -> Sku:
        """Return the SKU if it is for sale.

        Raises:
            Refusal: `not_found`.
        """
        sku = await self.get(sku_id)
        if not sku.is_active:
            raise _unknown(sku_id)
        return sku

    async def list_active(self, *, after: str, limit_count: int) -> list[Sku]:
        """Return SKUs that are for sale, by id, from the one behind `after`."""

        async def read(transaction: ReadTransaction) -> list[Sku]:
            return await list_active_skus(transaction, after=after, limit_count=limit_count)

        return await self._database.read(read)

    async def put(self, entry: SkuEntry, *, act: Act) -> tuple[Sku, bool]:
        """Write the SKU; return it, and whether it is new.

        Raises:
            Refusal: `stock_exists`, when stock is given for a SKU that has some already;
                `unsupported_currency`.
        """
        check_currency(entry.currency)

        async def write(transaction: Transaction) -> tuple[Sku, bool]:
            return await put_sku(transaction, entry, act=act)

        return await self._database.transact(write)

    async def move_stock(
        self, *, sku_id: str, quantity: int, reason: str, cause: str, actor: str
    ) -> Sku:
        """Add to (or take from) what is available, once for each cause.

        Raises:
            Refusal: `not_found`; `out_of_stock`, when less is available than shall be taken;
                `idempotency_key_reused`, when the cause moved another quantity before, or for
                another reason.
        """

        async def write(transaction: Transaction) -> Sku:
            return await adjust_stock(
                transaction,
                sku_id=sku_id,
                quantity=quantity,
                cause=cause,
                act=Act(actor=actor, reason=reason),
            )

        return await self._database.transact(write)


async def put_sku(transaction: Transaction, entry: SkuEntry, *, act: Act) -> tuple[Sku, bool]:
    """Write the SKU inside the transaction; return it, and whether it is new.

    Raises:
        Refusal: `stock_exists`.
    """
    now = await transaction.now()
    fresh = Sku(
        sku_id=entry.sku_id,
        product_id=entry.product_id,
        title=entry.title,
        unit_price_minor=entry.unit_price_minor,
        currency=entry.currency,
        is_active=entry.is_active,
        available=entry.stock or 0,
        reserved=0,
        sold=0,
    )
    if await insert_sku(transaction, fresh, now=now):
        if entry.stock:
            # The key of an operator's movement holds a user id, so "initial" can be no such key.
            movement = Movement(
                sku_id=entry.sku_id,
                kind=MovementKind.ADJUST,
                cause="initial",
                quantity=entry.stock,
                reason="initial stock",
            )
            await insert_movements(transaction, [movement], now=now)
        created = _put_entry(act, after=fresh, before=None)
        await append_audit(transaction, [created], now=now)
        return fresh, True
    if entry.stock is not None:
        raise Refusal(
            "stock_exists",
            f"SKU {entry.sku_id} has stock already: leave `stock` out, and move it with"
            f" POST /api/v1/admin/skus/{entry.sku_id}/stock-movements.",
        )
    old = (await lock_skus(transaction, [entry.sku_id]))[entry.sku_id]
    await update_sku(transaction, fresh, now=now)
    await append_audit(transaction, [_put_entry(act, after=fresh, before=old)], now=now)
    return (
        replace(fresh, available=old.available, reserved=old.reserved, sold=old.sold),
        False,
    )


async def adjust_stock(
    transaction: Transaction, *, sku_id: str, quantity: int, cause: str, act: Act
) -> Sku:
    """Move stock inside the transaction, once for each cause, and return the SKU as it is then.

    Args:
        transaction: Takes the movement and its record.
        sku_id: Whose stock.
        quantity: What is added; negative is taken.
        cause: A repeated one moves nothing again.
        act: Its reason is the movement's.

    Raises:
        Refusal: `not_found`, `out_of_stock`, `idempotency_key_reused`.
    """
    sku = (await lock_skus(transaction, [sku_id])).get(sku_id)
    if sku is None:
        raise _unknown(sku_id)
    earlier = await find_movement(transaction, cause=cause, sku_id=sku_id, kind=MovementKind.ADJUST)
    if earlier is not None:
        if (earlier.quantity, earlier.reason) != (quantity, act.reason):
            raise Refusal(
                "idempotency_key_reused", "This key moved stock before, by another request."
            )
        return sku
    if sku.available + quantity < 0:
        raise Refusal(
            "out_of_stock",
            f"Only {sku.available} of SKU {sku_id} are available.",
            members={"items": [{"sku_id": sku_id, "available": sku.available}]},
        )
    movement = Movement(
        sku_id=sku_id, kind=MovementKind.ADJUST, cause=cause, quantity=quantity, reason=act.reason
    )
    now = await transaction.now()
    await insert_movements(transaction, [movement], now=now)
    await change_stock(transaction, {sku_id: change_of(MovementKind.ADJUST, quantity=quantity)})
    moved = AuditEntry(
        act=act,
        action="stock.move",
        subject=sku_id,
        detail={"quantity": quantity, "available_before": sku.available},
    )
    await append_audit(transaction, [moved], now=now)
    return replace(sku, available=sku.available + quantity)


def _put_entry(act: Act, *, after: Sku, before: Sku | None) -> AuditEntry:
    detail: dict[str, object] = {"after": _told_of(after)}
    if before is None:
        detail["stock"] = after.available
    else:
        detail["before"] = _told_of(before)
    return AuditEntry(act=act, action="skus.put", subject=after.sku_id, detail=detail)


def _told_of(sku: Sku) -> dict[str, object]:
    return {
        "product_id": sku.product_id,
        "title": sku.title,
        "price": text_of_minor(sku.unit_price_minor),
        "currency": sku.currency,
        "is_active": sku.is_active,
    }


def _unknown(sku_id: str) -> Refusal:
    return Refusal("not_found", f"There is no SKU {sku_id}.")
