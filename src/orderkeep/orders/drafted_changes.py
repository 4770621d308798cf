"""What a batch makes of orders, step by step, before any of it is written.

Several things may befall one order in a batch: money pays it, more money goes back. Each step finds
the order as the step before has left it, and in the end there is one change for each order, whose
events are numbered on from where its row stood.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from orderkeep.messaging.message import Event
from orderkeep.orders.order import Order, OrderNumber, Status, Transition
from orderkeep.orders.stock import MovementKind
from orderkeep.orders.store.orders import HistoryEntry
from orderkeep.orders.write_changes import OrderChange

# What happens to the stock of an order that is paid, by the status that it leaves.
_MOVEMENTS = {Status.PENDING_PAYMENT: MovementKind.SELL, Status.CLOSED: MovementKind.REVIVE}


@dataclass(slots=True, kw_only=True)
class DraftedChanges:
    """The orders of a batch, as they were locked and as they have become.

    Attributes:
        locked: As they were locked.
        orders: As they have become.
        history: Of those that are paid in this batch, in the order in which they were.
    """

    locked: Mapping[OrderNumber, Order]
    orders: dict[OrderNumber, Order] = field(init=False)
    history: dict[OrderNumber, HistoryEntry] = field(default_factory=dict)
    _events: dict[OrderNumber, list[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with the orders as they were locked."""
        self.orders = dict(self.locked)

    def tell(self, order: Order, events: Sequence[Event]) -> None:
        """Let the order be as given, and tell others; events are numbered on from its count."""
        self.orders[order.order_no] = replace(order, event_seq=order.event_seq + len(events))
        self._events.setdefault(order.order_no, []).extend(events)

    def pay(self, transition: Transition, *, actor: str, events: Sequence[Event]) -> None:
        """Let the order be paid, out of `pending_payment` or `closed`.

        Args:
            actor: Who or which: a message id, or an operator's user id.
        """
        before, paid = transition.before, transition.after
        self.tell(paid, events)
        self.history[before.order_no] = HistoryEntry(
            order_no=before.order_no,
            version=paid.version,
            from_status=before.status,
            to_status=paid.status,
            cause=transition.cause,
            actor=actor,
            changed_at=transition.changed_at,
        )

    @property
    def revived(self) -> list[OrderNumber]:
        """The orders that leave `closed`, in the order in which they do."""
        return [it.order_no for it in self.history.values() if it.from_status is Status.CLOSED]

    def changes(self) -> list[OrderChange]:
        """Return one change for each order that anything befell."""
        return [
            OrderChange(
                before=self.locked[order_no],
                after=self.orders[order_no],
                events=events,
                history=self.history.get(order_no),
                movement=self._movement(order_no),
            )
            for order_no, events in sorted(self._events.items())
        ]

    def _movement(self, order_no: OrderNumber) -> MovementKind | None:
        entry = self.history.get(order_no)
        if entry is None or entry.from_status is None:
            return None
        return _MOVEMENTS[entry.from_status]


def skus_of(orders: Iterable[Order]) -> set[str]:
    """Return the SKUs of all lines of the orders."""
    return {line.sku_id for order in orders for line in order.lines}
