"""Receipts: of the events that one outbox has sent, which a consumer has; read only.

Invariant: nothing is changed. The database counts, so memory does not grow with the tables.

An event is missing if its consumer has neither taken effect for it nor set it aside, and no later
row brings it again. Events with a delay are left out, as in the reconciliation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, func, literal, select

from orderkeep.database.statement import DatabaseNow, Statement, written_out
from orderkeep.database.transaction import ReadTransaction
from orderkeep.instant import MICROSECONDS_PER_SECOND
from orderkeep.messaging.broker import Topology
from orderkeep.messaging.sent_events import Receiver, routes_to
from orderkeep.messaging.tables import ServiceTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipts:
    """What became of one outbox's events for one queue, as long as the outbox remembers them.

    Attributes:
        outbox: The service that sent.
        queue: Where it sent to; its consumer has the same name.
        sent_count: Events sent longer ago than the patience.
        missing_count: Those of them that the consumer does not have.
        missing: The message ids of some of these, the oldest first.
    """

    outbox: str
    queue: str
    sent_count: int
    missing_count: int
    missing: tuple[str, ...]


async def count_receipts(
    transaction: ReadTransaction,
    *,
    senders: Sequence[ServiceTables],
    receivers: Sequence[Receiver],
    topology: Topology,
    patience_s: float,
    shown_count_max: int,
) -> list[Receipts]:
    """Return the receipts of every outbox and consumer between which anything was sent.

    Args:
        senders: Whose outboxes are looked at.
        receivers: The consumers that keep their inboxes in this database.
        topology: By which events reach queues.
        patience_s: What was sent less long ago may still be under way.
        shown_count_max: How many missing message ids are returned.
    """
    late_us = round(patience_s * MICROSECONDS_PER_SECOND)
    receipts: list[Receipts] = []
    for sender in senders:
        for receiver in receivers:
            question = _Question(sender, receiver, topology)
            sent = await transaction.fetch_one(question.sent_count, late_us=late_us)
            if sent is None or not sent["event_count"]:
                continue
            missing = await transaction.fetch_one(question.missing_count, late_us=late_us)
            missing_count = 0 if missing is None else missing["event_count"]
            shown = (
                await transaction.fetch_all(
                    question.missing, late_us=late_us, count_max=shown_count_max
                )
                if missing_count
                else []
            )
            receipts.append(
                Receipts(
                    outbox=sender.service,
                    queue=receiver.queue,
                    sent_count=sent["event_count"],
                    missing_count=missing_count,
                    missing=tuple(row["message_id"] for row in shown),
                )
            )
    return receipts


class _Question:
    """The statements for one outbox and one consumer."""

    def __init__(self, sender: ServiceTables, receiver: Receiver, topology: Topology) -> None:
        outbox = sender.outbox
        later = outbox.alias("later")
        is_sent: list[ColumnElement[bool]] = [
            outbox.c.state == written_out("sent"),
            outbox.c.deliver_at.is_(None),
            outbox.c.route.in_([literal(route) for route in routes_to(receiver.queue, topology)]),
            outbox.c.sent_at <= DatabaseNow() - bindparam("late_us"),
        ]
        is_missing = [
            ~select(table.c.message_id)
            .where(table.c.consumer == receiver.consumer, table.c.message_id == outbox.c.message_id)
            .exists()
            for table in (receiver.tables.inbox, receiver.tables.dead_letters)
        ]
        is_missing.append(
            ~select(later.c.id)
            .where(
                later.c.aggregate_id == outbox.c.aggregate_id,
                later.c.message_id == outbox.c.message_id,
                later.c.route == receiver.queue,
                later.c.id > outbox.c.id,
            )
            .exists()
        )
        count = select(func.count().label("event_count")).select_from(outbox)
        self.sent_count = Statement(count.where(*is_sent))
        self.missing_count = Statement(count.where(*is_sent, *is_missing))
        self.missing = Statement(
            select(outbox.c.message_id)
            .where(*is_sent, *is_missing)
            .order_by(outbox.c.id)
            .limit(bindparam("count_max"))
        )
