"""The outbox: events that leave if and only if the transaction that appended them commits.

Invariant: a row is written in the transaction that changes the state it tells of, and never
changes but for its state, its tries and its times. A crash before the commit leaves no row; a crash
after it leaves the row `pending`, and the dispatcher finds it: the wake-up only saves the wait.
"""

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, row_value
from orderkeep.database.transaction import Transaction, Value
from orderkeep.instant import Instant
from orderkeep.messaging.headers import encode_headers
from orderkeep.messaging.message import (
    AGGREGATE_ID_HEADER,
    SCHEMA_VERSION_HEADER,
    SEQUENCE_HEADER,
    Event,
    Headers,
)
from orderkeep.messaging.signal import Signal
from orderkeep.messaging.tables import ServiceTables

# Enough for sixteen dispatchers to share one table; a row keeps the number it was given.
PARTITION_COUNT = 16

_COLUMNS = (
    "message_id",
    "partition",
    "aggregate_id",
    "sequence",
    "type",
    "route",
    "body",
    "headers",
    "state",
    "ordered",
    "not_before",
    "deliver_at",
    "retry_key",
    "attempts",
    "created_at",
    "sent_at",
)


def partition_of(aggregate_id: str) -> int:
    """Return 0..15, the same in every process and release."""
    return crc32(aggregate_id.encode()) % PARTITION_COUNT


class Outbox:
    """Where one service appends its events."""

    def __init__(
        self,
        tables: ServiceTables,
        *,
        new_message_id: Callable[[], str],
        unused_routes: frozenset[str] = frozenset(),
    ) -> None:
        """Append to the tables' outbox.

        Args:
            tables: The service's tables.
            new_message_id: Draws a UUID.
            unused_routes: Routes nobody reads: their events are recorded as sent, not published.
        """
        self.tables = tables
        self.appended = Signal()
        self._new_message_id = new_message_id
        self._unused_routes = unused_routes
        table = tables.outbox
        self._insert = RowStatement(
            insert(table)
            .values({name: row_value(name, table.c[name].type) for name in _COLUMNS})
            .on_conflict_do_nothing(index_elements=["retry_key"])
        )

    async def append(
        self, transaction: Transaction, events: Sequence[Event], *, now: Instant
    ) -> None:
        """Append the events; the dispatcher is woken when the transaction has committed.

        Args:
            transaction: The one that changes the state the events tell of.
            events: In the order in which those of one aggregate shall leave.
            now: The database's clock in this transaction.
        """
        await self._append(
            transaction,
            [
                self._row(
                    event,
                    headers={**_contract_headers(event), **event.headers},
                    now=now,
                    is_unused=event.route in self._unused_routes,
                )
                for event in events
            ],
        )

    async def pass_on(
        self, transaction: Transaction, events: Sequence[Event], *, now: Instant
    ) -> None:
        """Append messages that came from elsewhere: their headers travel as they are.

        This is the way of a retry, a replay, and a message that a foreign service hands in. They
        are published even where the route is unused: somebody asked for each of them.
        """
        await self._append(
            transaction, [self._row(event, headers=event.headers, now=now) for event in events]
        )

    async def _append(self, transaction: Transaction, rows: Sequence[Mapping[str, Value]]) -> None:
        if not rows:
            return
        await transaction.execute_rows(self._insert, rows)
        transaction.after_commit(self.appended.set)

    def _row(
        self, event: Event, *, headers: Headers, now: Instant, is_unused: bool = False
    ) -> dict[str, Value]:
        return {
            "message_id": event.message_id or self._new_message_id(),
            "partition": partition_of(event.aggregate_id),
            "aggregate_id": event.aggregate_id,
            "sequence": event.sequence,
            "type": event.type,
            "route": event.route,
            "body": event.body,
            "headers": encode_headers(headers),
            "state": "sent" if is_unused else "pending",
            "ordered": event.ordered,
            "not_before": event.not_before or now,
            "deliver_at": event.deliver_at,
            "retry_key": event.retry_key,
            "attempts": 0,
            "created_at": now,
            "sent_at": now if is_unused else None,
        }


def _contract_headers(event: Event) -> Headers:
    return {
        SCHEMA_VERSION_HEADER: 1,
        AGGREGATE_ID_HEADER: event.aggregate_id,
        SEQUENCE_HEADER: event.sequence,
    }
