"""What is going on, in one snapshot: for `orderkeep status`, `/admin/status` and the metrics."""

from collections.abc import Mapping

import msgspec

from orderkeep.database.transaction import ReadTransaction
from orderkeep.instant import after, rfc3339
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxRows
from orderkeep.messaging.queue_messages import queue_depths
from orderkeep.orders.store.reports import count_by_status, count_open_money, count_overdue


class OutboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one service's outbox does."""

    outbox: str
    pending: int
    failed: int
    oldest_pending_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is going on.

    Attributes:
        orders: How many stand in each status; empty where they were not counted.
        overdue_orders: Unpaid past deadline, grace and sweep interval: nobody closes them.
        refunds_failed: Refunds that the payment service could not carry out: money that a person
            must give back.
        dead_letters: Open ones by queue.
        queues: Messages that wait in each queue of the database, delayed ones among them; a queue
            that is empty is left out.
    """

    at: str
    orders: dict[str, int]
    overdue_orders: int
    payment_cases_open: int
    refunds_open: int
    refunds_failed: int
    outboxes: tuple[OutboxStatus, ...]
    dead_letters: dict[str, int]
    queues: dict[str, int]


class StatusReader:
    """Reads the status of the services that share a database."""

    def __init__(self, outboxes: Mapping[str, Outbox], *, overdue_s: float) -> None:
        """Read of the services by name.

        Args:
            overdue_s: How long past its deadline an order may stay unpaid: grace and interval.
        """
        self._overdue_s = overdue_s
        self._rows = {name: OutboxRows(outbox) for name, outbox in outboxes.items()}
        self._letters = [DeadLetters(outbox) for outbox in outboxes.values()]

    async def read(self, transaction: ReadTransaction) -> Status:
        """Return the status, with every order counted: the cost grows with the table."""
        return await self._read(transaction, orders=await count_by_status(transaction))

    async def read_gauges(self, transaction: ReadTransaction) -> Status:
        """Return the status without the count of orders: cheap enough for every scrape."""
        return await self._read(transaction, orders={})

    async def _read(self, transaction: ReadTransaction, *, orders: dict[str, int]) -> Status:
        now = await transaction.now()
        overdue, _oldest = await count_overdue(
            transaction, due_at=after(now, seconds=-self._overdue_s)
        )
        money = await count_open_money(transaction)
        outboxes = []
        for name, rows in self._rows.items():
            counts = await rows.counts(transaction)
            outboxes.append(
                OutboxStatus(
                    outbox=name,
                    pending=counts.pending_count,
                    failed=counts.failed_count,
                    oldest_pending_s=counts.oldest_pending_s,
                )
            )
        dead_letters: dict[str, int] = {}
        for letters in self._letters:
            dead_letters.update(await letters.open_counts(transaction))
        return Status(
            at=rfc3339(now),
            orders=orders,
            overdue_orders=overdue,
            payment_cases_open=money.cases_open,
            refunds_open=money.refunds_open,
            refunds_failed=money.refunds_failed,
            outboxes=tuple(outboxes),
            dead_letters=dead_letters,
            queues=await queue_depths(transaction),
        )
