"""How often a message was handed out and never settled: it may kill its consumer.

Invariant: the count of a redelivered message is committed before the message is tried again, so a
message that ends the process is counted each time, and in the end no longer tried.
"""

from collections.abc import Iterable

from sqlalchemy import bindparam, delete, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import Statement, is_any_of
from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.tables import ServiceTables


class DeliveryAttempts:
    """The counts of one service."""

    def __init__(self, tables: ServiceTables) -> None:
        """Keep the counts in the tables' delivery attempts."""
        table = tables.delivery_attempts
        self._count = Statement(
            insert(table)
            .values(
                consumer=bindparam("consumer"),
                message_id=bindparam("message_id"),
                attempts=1,
                last_at=bindparam("now"),
            )
            .on_conflict_do_update(
                index_elements=["consumer", "message_id"],
                set_={"attempts": table.c.attempts + 1, "last_at": bindparam("now")},
            )
            .returning(table.c.attempts)
        )
        of_consumer = table.c.consumer == bindparam("the_consumer")
        self._take_back = Statement(
            update(table)
            .where(of_consumer, is_any_of(table.c.message_id, "message_ids"), table.c.attempts > 0)
            .values(attempts=table.c.attempts - 1)
        )
        self._forget = Statement(
            delete(table).where(of_consumer, is_any_of(table.c.message_id, "message_ids"))
        )

    async def count(
        self, transaction: Transaction, *, consumer: str, message_id: str, now: Instant
    ) -> int:
        """Count one more try that nobody may survive; return how many there are now."""
        row = await transaction.fetch_one(
            self._count, consumer=consumer, message_id=message_id, now=now
        )
        assert row is not None
        attempts: int = row["attempts"]
        return attempts

    async def take_back(
        self, transaction: Transaction, *, consumer: str, message_ids: Iterable[str]
    ) -> None:
        """Count one try less for each message: the database was away, and none was to blame."""
        await transaction.execute(
            self._take_back, the_consumer=consumer, message_ids=sorted(message_ids)
        )

    async def forget(
        self, transaction: Transaction, *, consumer: str, message_ids: Iterable[str]
    ) -> None:
        """Drop the counts of messages that are settled, in the transaction that settles them."""
        await transaction.execute(
            self._forget, the_consumer=consumer, message_ids=sorted(message_ids)
        )
