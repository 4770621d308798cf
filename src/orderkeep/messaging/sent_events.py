"""Sent events and who has them: the statements behind reconciliation.

Invariant: what is read is what one snapshot shows; the only thing written is up to where everything
is accounted for, and that only moves on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BindParameter, Table, bindparam, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.schema import INSTANT, ROW_NUMBER
from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value, written_out
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.broker import Topology
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.message import Event
from orderkeep.messaging.tables import ServiceTables

# Read at once; each costs three look-ups by key.
PAGE_COUNT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A consumer for which events may be.

    Attributes:
        consumer: Its name in the inbox.
        queue: Where it reads.
        tables: Those of the service that it belongs to.
    """

    consumer: str
    queue: str
    tables: ServiceTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Everything sent up to here is accounted for."""

    sent_at: Instant
    row_id: int


class SentEvents:
    """What one outbox has sent to one consumer."""

    def __init__(self, sender: ServiceTables, receiver: Receiver, *, routes: Sequence[str]) -> None:
        self.queue = receiver.queue
        self._consumer = receiver.consumer
        self._routes = list(routes)
        outbox, inbox, letters = sender.outbox, receiver.tables.inbox, receiver.tables.dead_letters
        reconciled = sender.reconciled
        columns = [column.name for column in reconciled.columns]
        self._begin = RowStatement(
            insert(reconciled)
            .values({name: row_value(name, reconciled.c[name].type) for name in columns})
            .on_conflict_do_nothing(index_elements=["consumer"])
        )
        self._place = Statement(
            select(reconciled.c.sent_at, reconciled.c.row_id).where(
                reconciled.c.consumer == bindparam("consumer")
            )
        )
        self._move = Statement(
            update(reconciled)
            .where(
                reconciled.c.consumer == bindparam("of_consumer"),
                tuple_(reconciled.c.sent_at, reconciled.c.row_id)
                <= tuple_(_instant("from_at"), _row_number("from_id")),
            )
            .values(
                sent_at=_instant("to_at"),
                row_id=_row_number("to_id"),
            )
        )
        self._sent = _sent_after(outbox)
        self._received = [
            Statement(
                select(table.c.message_id).where(
                    table.c.consumer == bindparam("consumer"),
                    is_any_of(table.c.message_id, "message_ids"),
                )
            )
            for table in (inbox, letters)
        ]
        # The index is on the aggregate.
        self._later = Statement(
            select(outbox.c.id, outbox.c.message_id).where(
                is_any_of(outbox.c.aggregate_id, "aggregate_ids"),
                is_any_of(outbox.c.message_id, "message_ids"),
                outbox.c.route == bindparam("queue"),
            )
        )
        self._events = Statement(
            select(
                outbox.c.id,
                outbox.c.message_id,
                outbox.c.aggregate_id,
                outbox.c.sequence,
                outbox.c.type,
                outbox.c.body,
                outbox.c.headers,
            )
            .where(is_any_of(outbox.c.id, "ids"))
            .order_by(outbox.c.id)
        )

    async def begin(self, transaction: Transaction, *, place: Place) -> None:
        """Begin here, unless somebody has begun already."""
        await transaction.execute_rows(
            self._begin,
            [{"consumer": self._consumer, "sent_at": place.sent_at, "row_id": place.row_id}],
        )

    async def find_place(self, transaction: ReadTransaction) -> Place | None:
        """Return up to where everything is accounted for, or None before the first time."""
        row = await transaction.fetch_one(self._place, consumer=self._consumer)
        if row is None:
            return None
        return Place(sent_at=row["sent_at"], row_id=row["row_id"])

    async def move(self, transaction: Transaction, *, from_place: Place, to_place: Place) -> bool:
        """Return whether this moved the place on; whoever was further already wins."""
        return bool(
            await transaction.execute(
                self._move,
                of_consumer=self._consumer,
                from_at=from_place.sent_at,
                from_id=from_place.row_id,
                to_at=to_place.sent_at,
                to_id=to_place.row_id,
            )
        )

    async def read_sent(
        self, transaction: ReadTransaction, *, place: Place, before: Instant
    ) -> Sequence[Row]:
        """Return what was sent after the place, oldest first, `PAGE_COUNT` at most."""
        return await transaction.fetch_all(
            self._sent,
            routes=self._routes,
            from_at=place.sent_at,
            after_at=place.sent_at,
            after_id=place.row_id,
            before=before,
        )

    async def read_missing(
        self, transaction: ReadTransaction, rows: Sequence[Row]
    ) -> Sequence[Row]:
        """Return the rows whose messages the consumer never saw, and that nothing brings back."""
        missing = list(rows)
        if not missing:
            return []
        for statement in self._received:
            found = await transaction.fetch_all(
                statement,
                consumer=self._consumer,
                message_ids=[row["message_id"] for row in missing],
            )
            received = {row["message_id"] for row in found}
            missing = [row for row in missing if row["message_id"] not in received]
            if not missing:
                return []
        found = await transaction.fetch_all(
            self._later,
            aggregate_ids=[row["aggregate_id"] for row in missing],
            message_ids=[row["message_id"] for row in missing],
            queue=self.queue,
        )
        latest: dict[str, int] = {}
        for row in found:
            latest[row["message_id"]] = max(latest.get(row["message_id"], 0), row["id"])
        return [row for row in missing if latest.get(row["message_id"], 0) <= row["id"]]

    async def read_events(self, transaction: ReadTransaction, rows: Sequence[Row]) -> list[Event]:
        """Return the events as they go to this queue, once for each row."""
        found = await transaction.fetch_all(self._events, ids=[row["id"] for row in rows])
        return [
            Event(
                aggregate_id=row["aggregate_id"],
                sequence=row["sequence"],
                type=row["type"],
                route=self.queue,
                body=row["body"],
                # Its neighbours have gone on without it.
                ordered=False,
                message_id=row["message_id"],
                retry_key=f"missed {self._consumer} {row['id']}",
                headers=decode_headers(row["headers"]),
            )
            for row in found
        ]


def routes_to(queue: str, topology: Topology) -> list[str]:
    """Return the routes by which events reach the queue: itself, and what it is bound to."""
    exchanges = {binding.exchange for binding in topology.bindings if binding.queue == queue}
    return [queue, *sorted(exchanges)]


def _sent_after(outbox: Table) -> Statement:
    """Return the statement that reads a page of what was sent by some routes after a place."""
    return Statement(
        select(
            outbox.c.id,
            outbox.c.message_id,
            outbox.c.aggregate_id,
            outbox.c.type,
            outbox.c.route,
            outbox.c.sent_at,
        )
        .where(
            # Written out: partial indexes serve no parameter.
            outbox.c.state == written_out("sent"),
            outbox.c.deliver_at.is_(None),
            is_any_of(outbox.c.route, "routes"),
            outbox.c.sent_at >= _instant("from_at"),
            tuple_(outbox.c.sent_at, outbox.c.id)
            > tuple_(_instant("after_at"), _row_number("after_id")),
            outbox.c.sent_at < _instant("before"),
        )
        .order_by(outbox.c.sent_at, outbox.c.id)
        .limit(PAGE_COUNT)
    )


def _instant(name: str) -> BindParameter[int]:
    return bindparam(name, type_=INSTANT)


def _row_number(name: str) -> BindParameter[int]:
    return bindparam(name, type_=ROW_NUMBER)
