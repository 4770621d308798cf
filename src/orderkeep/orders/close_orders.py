"""Close orders whose payment deadline has passed, by message or by sweep.

Invariant: an order closes only by the database's clock, read after its row was locked, and never
before `expires_at`. Whichever trigger comes second finds the order closed and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from orderkeep.database.transaction import Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.messaging.message import Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.events import closed_events, timeout_check
from orderkeep.orders.order import Order, OrderNumber, Transition, WaitUntil, close_when_due
from orderkeep.orders.stock import MovementKind
from orderkeep.orders.store.orders import HistoryEntry, lock_orders
from orderkeep.orders.write_changes import OrderChange, write_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Closings:
    """What became of the orders that were to be closed.

    Attributes:
        closed: Orders closed just now.
        waiting: Orders that are not due yet; a new timeout check is on its way for each.
        unknown: Numbers of no order.
    """

    closed: tuple[Order, ...]
    waiting: frozenset[OrderNumber]
    unknown: frozenset[OrderNumber]

    @property
    def lag_s(self) -> list[float]:
        """By how much each closing came after its deadline."""
        return [
            (order.closed_at - order.expires_at) / MICROSECONDS_PER_SECOND
            for order in self.closed
            if order.closed_at is not None
        ]


async def close_orders(
    transaction: Transaction,
    actors: Mapping[str, str],
    *,
    outbox: Outbox,
) -> Closings:
    """Close each of the orders that is unpaid and due.

    Args:
        actors: By order number what found it due: a message id, or "sweep".
    """
    orders = await lock_orders(transaction, actors.keys())
    now = await transaction.now()
    changes: list[OrderChange] = []
    waiting: set[OrderNumber] = set()
    for order in orders.values():
        decision = close_when_due(order, now=now)
        if isinstance(decision, Transition):
            changes.append(_closing(decision, actor=actors[order.order_no]))
        elif isinstance(decision, WaitUntil):
            changes.append(_new_wait(order))
            waiting.add(order.order_no)
    await write_changes(transaction, changes, outbox=outbox, now=now)
    return Closings(
        closed=tuple(change.after for change in changes if change.after.order_no not in waiting),
        waiting=frozenset(waiting),
        unknown=frozenset(OrderNumber(order_no) for order_no in actors) - orders.keys(),
    )


def _closing(transition: Transition, *, actor: str) -> OrderChange:
    before = transition.before
    events = closed_events(
        transition.after, sequence=before.event_seq + 1, now=transition.changed_at
    )
    return OrderChange(
        before=before,
        after=replace(transition.after, event_seq=before.event_seq + len(events)),
        events=events,
        history=HistoryEntry(
            order_no=before.order_no,
            version=transition.after.version,
            from_status=before.status,
            to_status=transition.after.status,
            cause=transition.cause,
            actor=actor,
            changed_at=transition.changed_at,
        ),
        movement=MovementKind.RELEASE,
    )


def _new_wait(order: Order) -> OrderChange:
    again: Event = timeout_check(order, sequence=order.event_seq + 1)
    return OrderChange(
        before=order, after=replace(order, event_seq=order.event_seq + 1), events=[again]
    )
