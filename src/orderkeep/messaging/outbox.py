"""The outbox: events that leave if and only if the transaction that appended them commits.

Invariant: a row is written in the transaction that changes the state it tells of, and never
changes but for its state, its tries and its times. A crash before the commit leaves no row; a crash
after it leaves the row `pending`, and the dispatcher finds it: the wake-up only saves the wait.

Invariant: of a message that is to come again, the transaction that says so has written a row, or
holds the lock of one that brings it: waiting, or parked where operators see it.
"""

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import (
    RowStatement,
    Statement,
    is_any_of,
    is_one_of,
    row_value,
)
from orderkeep.database.transaction import Transaction, Value
from orderkeep.instant import Instant
from orderkeep.messaging.column_text import clean_start
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


# Of one message few rows wait at a time; this many mean copies without end, and the rest come back
# more often than they need to.
_WAITING_COUNT_MAX = 1000

_WHY_LENGTH_MAX = 500


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
        self._insert_try = RowStatement(
            insert(table)
            .values(
                {name: row_value(name, table.c[name].type) for name in (*_COLUMNS, "last_error")}
            )
            .on_conflict_do_nothing(index_elements=["retry_key"])
            .returning(table.c.retry_key)
        )
        self._waiting_locked = Statement(
            select(table.c.message_id, table.c.route)
            .where(
                # Few rows are about one thing, and an index finds them.
                is_any_of(table.c.aggregate_id, "aggregate_ids"),
                is_any_of(table.c.message_id, "message_ids"),
                is_one_of(table.c.state, "pending", "failed"),
            )
            .order_by(table.c.id)
            .limit(_WAITING_COUNT_MAX)
            .with_for_update(key_share=True)
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

    async def bring_again(
        self, transaction: Transaction, events: Sequence[Event], *, now: Instant
    ) -> None:
        """Append tries of messages, each with its key, but for those that are on their way anyway.

        A key that is there already means only that this try was written once. Where it was sent,
        or an operator gave up the one after it, nothing may bring the message any more: then it is
        written under another key. Two tries of one message become one again where they meet.
        """
        if not events:
            return
        written = await transaction.fetch_rows(
            self._insert_try, [self._try_row(event, now=now) for event in events]
        )
        written_keys = {row["retry_key"] for row in written}
        known = [event for event in events if event.retry_key not in written_keys]
        if known:
            waiting = await transaction.fetch_all(
                self._waiting_locked,
                aggregate_ids=sorted({event.aggregate_id for event in known}),
                message_ids=sorted({event.message_id or "" for event in known}),
            )
            on_their_way = {(row["message_id"], row["route"]) for row in waiting}
            anew = [
                replace(event, retry_key=f"{event.retry_key}:{self._new_message_id()}")
                for event in known
                if (event.message_id, event.route) not in on_their_way
            ]
            await transaction.fetch_rows(
                self._insert_try, [self._try_row(event, now=now) for event in anew]
            )
        transaction.after_commit(self.appended.set)

    async def _append(self, transaction: Transaction, rows: Sequence[Mapping[str, Value]]) -> None:
        if not rows:
            return
        await transaction.execute_rows(self._insert, rows)
        transaction.after_commit(self.appended.set)

    def _try_row(self, event: Event, *, now: Instant) -> dict[str, Value]:
        why = event.why and clean_start(event.why, length_max=_WHY_LENGTH_MAX)
        return {**self._row(event, headers=event.headers, now=now), "last_error": why}

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
            # Nothing is appended to the past: who reads what is young would pass over it.
            "not_before": max(event.not_before or now, now),
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
