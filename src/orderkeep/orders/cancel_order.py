"""Cancel unpaid orders, for their buyers or for an operator, whose act is put on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msgspec.structs import replace

from orderkeep.database.audit import Act, AuditEntry, append_audit
from orderkeep.database.transaction import Transaction
from orderkeep.messaging.outbox import Outbox
from orderkeep.orders.events import cancelled_events
from orderkeep.orders.order import Cause, NothingToDo, Order, OrderNumber, cancel
from orderkeep.orders.stock import MovementKind
from orderkeep.orders.store.orders import HistoryEntry, lock_orders
from orderkeep.orders.write_changes import OrderChange, write_changes
from orderkeep.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder:
    """A wish to cancel an order.

    Attributes:
        user_id: Only an order of this user; None is anyone's.
        by: `Cause.BUYER` or `Cause.OPERATOR`.
        actor: Who, by user id.
        note: What they said of it.
        expected_version: The version they have seen; None is any.
    """

    order_no: str
    user_id: str | None
    by: Cause
    actor: str
    note: str | None = None
    expected_version: int | None = None


Answer: TypeAlias = Order | Refusal


async def cancel_orders(
    transaction: Transaction, wishes: Sequence[CancelOrder], *, outbox: Outbox
) -> list[Answer]:
    """Cancel each order that can be; return for each wish the order as it is then, or a refusal.

    Refusals: `not_found` (also for another user's order), `order_not_pending`, `version_mismatch`.
    """
    orders = await lock_orders(transaction, {wish.order_no for wish in wishes})
    now = await transaction.now()
    changes: list[OrderChange] = []
    acts: list[AuditEntry] = []
    answers: list[Answer] = []
    for wish in wishes:
        order = orders.get(OrderNumber(wish.order_no))
        if order is None or wish.user_id not in {None, order.user_id}:
            answers.append(Refusal("not_found", f"There is no order {wish.order_no}."))
            continue
        try:
            decision = cancel(order, by=wish.by, now=now, expected_version=wish.expected_version)
        except Refusal as refusal:
            answers.append(refusal)
            continue
        if isinstance(decision, NothingToDo):
            answers.append(order)
            continue
        events = cancelled_events(decision.after, sequence=order.event_seq + 1, now=now)
        after = replace(decision.after, event_seq=order.event_seq + len(events))
        changes.append(
            OrderChange(
                before=order,
                after=after,
                events=events,
                history=HistoryEntry(
                    order_no=order.order_no,
                    version=after.version,
                    from_status=order.status,
                    to_status=after.status,
                    cause=decision.cause,
                    actor=wish.actor,
                    changed_at=now,
                    note=wish.note,
                ),
                movement=MovementKind.RELEASE,
            )
        )
        if wish.by is Cause.OPERATOR:
            acts.append(_audit_entry(wish, order=order))
        # A second wish for the same order in this batch finds it cancelled already.
        orders[order.order_no] = after
        answers.append(after)
    await write_changes(transaction, changes, outbox=outbox, now=now)
    await append_audit(transaction, acts, now=now)
    return answers


def _audit_entry(wish: CancelOrder, *, order: Order) -> AuditEntry:
    return AuditEntry(
        act=Act(actor=wish.actor, reason=wish.note),
        action="orders.cancel",
        subject=order.order_no,
        detail={"user_id": order.user_id, "version": order.version},
    )
