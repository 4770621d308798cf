"""Retention: what is done with is deleted after a time, a few hundred rows per transaction.

Invariant: nothing that is pending, parked, open or still needed to recognise a copy is deleted. An
inbox row outlives the longest replay anyone makes. A crash between two batches leaves the rest for
the next round.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, Table, bindparam, delete, select, tuple_

from orderkeep.database.statement import Statement, written_out
from orderkeep.database.transaction import Database, StoreUnavailableError, Transaction
from orderkeep.instant import after
from orderkeep.messaging.signal import is_set_within
from orderkeep.messaging.tables import ServiceTables

log = structlog.get_logger()

# Small enough that a purge holds up no writer for more than a few milliseconds.
PURGED_BATCH_COUNT = 500

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long what is done with stays.

    Attributes:
        outbox_s: Sent and discarded rows, from when they became so.
        inbox_s: Longer than the longest replay: a copy that comes later would take effect again.
        attempts_s: Counts of messages that never came again, so that nothing else deletes them.
        interval_s: How often a purge looks.
    """

    outbox_s: float = 7 * _DAY_S
    inbox_s: float = 90 * _DAY_S
    attempts_s: float = 90 * _DAY_S
    interval_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many rows one purge deleted."""

    outbox_count: int
    inbox_count: int
    attempts_count: int


class Retention:
    """Deletes what one service is done with."""

    def __init__(
        self,
        tables: ServiceTables,
        *,
        database: Database,
        policy: RetentionPolicy | None = None,
    ) -> None:
        """Purge the service's tables.

        Args:
            tables: The service's tables.
            database: Holds them.
            policy: None takes the defaults.
        """
        self._tables = tables
        self._database = database
        self._policy = policy or RetentionPolicy()
        outbox, inbox, attempts = tables.outbox, tables.inbox, tables.delivery_attempts
        # Written out: partial indexes serve no parameter.
        is_sent = outbox.c.state == written_out("sent")
        is_discarded = outbox.c.state == written_out("discarded")
        self._sent = _purge(outbox, keys=[outbox.c.id], at=outbox.c.sent_at, only=is_sent)
        self._discarded = _purge(
            outbox, keys=[outbox.c.id], at=outbox.c.discarded_at, only=is_discarded
        )
        self._inbox = _purge(
            inbox, keys=[inbox.c.consumer, inbox.c.message_id], at=inbox.c.received_at
        )
        self._attempts = _purge(
            attempts, keys=[attempts.c.consumer, attempts.c.message_id], at=attempts.c.last_at
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Purge now and then until the stop event is set."""
        while not stop.is_set():
            try:
                purged = await self.purge_once(stop)
            except StoreUnavailableError as error:
                log.warning("purge_put_off", service=self._tables.service, error=str(error))
            else:
                if purged.outbox_count or purged.inbox_count or purged.attempts_count:
                    log.info(
                        "purged",
                        service=self._tables.service,
                        outbox_count=purged.outbox_count,
                        inbox_count=purged.inbox_count,
                        attempts_count=purged.attempts_count,
                    )
            await is_set_within(stop, timeout_s=self._policy.interval_s)

    async def purge_once(self, stop: asyncio.Event) -> Purged:
        """Delete all that is past its time, batch by batch, or until the stop event is set.

        Raises:
            StoreUnavailableError: the database is away; the batches before are committed.
        """
        policy = self._policy
        sent_count = await self._purge(self._sent, keep_s=policy.outbox_s, stop=stop)
        discarded_count = await self._purge(self._discarded, keep_s=policy.outbox_s, stop=stop)
        return Purged(
            outbox_count=sent_count + discarded_count,
            inbox_count=await self._purge(self._inbox, keep_s=policy.inbox_s, stop=stop),
            attempts_count=await self._purge(self._attempts, keep_s=policy.attempts_s, stop=stop),
        )

    async def _purge(self, statement: Statement, *, keep_s: float, stop: asyncio.Event) -> int:
        async def purge_batch(transaction: Transaction) -> int:
            now = await transaction.now()
            return await transaction.execute(statement, before=after(now, seconds=-keep_s))

        purged_count = 0
        while not stop.is_set():
            batch_count = await self._database.transact(purge_batch)
            purged_count += batch_count
            if batch_count < PURGED_BATCH_COUNT:
                break
        return purged_count


def _purge(
    table: Table,
    *,
    keys: Sequence[ColumnElement[str] | ColumnElement[int]],
    at: ColumnElement[int],
    only: ColumnElement[bool] | None = None,
) -> Statement:
    oldest = select(*keys).where(at < bindparam("before")).order_by(at).limit(PURGED_BATCH_COUNT)
    if only is not None:
        oldest = oldest.where(only)
    # Where several processes purge, each passes over what another is deleting.
    oldest = oldest.with_for_update(skip_locked=True)
    return Statement(delete(table).where(tuple_(*keys).in_(oldest)))
