"""How a set of changed orders is written: the one place that knows the order of the writes.

Invariant: an order's row, its history, the movements of its stock and its events change together,
in the caller's transaction, or not at all. The orders are locked by the caller; the stock is locked
here, all of it, by SKU: orders first, stock after, so two transactions never wait for each other.
It is locked and changed last, for everyone may want it.
"""

from collections.abc import Sequence

from msgspec import Struct

from orderkeep.database.transaction import Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.messaging.message import Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.order import Order
from orderkeep.orders.stock import MovementKind, StockCounts, change_of, demand_of
from orderkeep.orders.store.orders import HistoryEntry, insert_history, save_orders
from orderkeep.orders.store.stock import Movement, change_stock, insert_movements, lock_stock


class OrderChange(Struct, frozen=True, kw_only=True):
    """One order's change, in full.

    Attributes:
        before: As it was when this transaction locked it.
        after: As it becomes, its `event_seq` raised by the events.
        events: What others are told, numbered on from `before.event_seq`.
        history: None where the status stays.
        movement: What happens to the stock of all lines; None is nothing.
    """

    before: Order
    after: Order
    events: Sequence[Event]
    history: HistoryEntry | None = None
    movement: MovementKind | None = None


async def write_changes(
    transaction: Transaction, changes: Sequence[OrderChange], *, outbox: Outbox, now: Instant
) -> None:
    """Write the changes of locked orders; at most one change for each order."""
    if not changes:
        return
    movements = [movement for change in changes for movement in _movements(change)]
    await save_orders(transaction, [(change.before, change.after) for change in changes])
    reach("write_changes.after_orders")
    await insert_history(
        transaction, [change.history for change in changes if change.history is not None]
    )
    await insert_movements(transaction, movements, now=now)
    await outbox.append(
        transaction, [event for change in changes for event in change.events], now=now
    )
    if movements:
        await lock_stock(transaction, {movement.sku_id for movement in movements})
        await change_stock(transaction, _summed(movements))
    reach("write_changes.after_stock")


def _movements(change: OrderChange) -> list[Movement]:
    if change.movement is None:
        return []
    demand = demand_of(change.before)
    return [
        Movement(
            sku_id=sku_id, kind=change.movement, cause=change.before.order_no, quantity=quantity
        )
        for sku_id, quantity in sorted(demand.items())
    ]


def _summed(movements: Sequence[Movement]) -> dict[str, StockCounts]:
    changes: dict[str, StockCounts] = {}
    for movement in movements:
        change = change_of(movement.kind, quantity=movement.quantity)
        changes[movement.sku_id] = changes.get(movement.sku_id, StockCounts()).plus(change)
    return changes
