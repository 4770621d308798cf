"""The inbox: which messages a consumer has taken effect for, so that a copy takes none.

Invariant: a message's row is written in the transaction of its effect, or not at all. A crash
before the commit leaves neither, and the message comes again; a crash after it, before the
acknowledgement, leaves both, and the copy that comes again meets its row.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.tables import ServiceTables


class Inbox:
    """The inbox of one service."""

    def __init__(self, tables: ServiceTables) -> None:
        """Keep the record in the tables' inbox."""
        table = tables.inbox
        columns = ("consumer", "message_id", "received_at")
        self._record = RowStatement(
            insert(table)
            .values({name: row_value(name, table.c[name].type) for name in columns})
            .on_conflict_do_nothing(index_elements=["consumer", "message_id"])
            .returning(table.c.message_id)
        )
        self._known = Statement(
            select(table.c.message_id).where(
                table.c.consumer == bindparam("consumer"),
                is_any_of(table.c.message_id, "message_ids"),
            )
        )
        self._forget = Statement(
            delete(table).where(
                table.c.consumer == bindparam("consumer"),
                is_any_of(table.c.message_id, "message_ids"),
            )
        )

    async def record(
        self, transaction: Transaction, *, consumer: str, message_ids: Sequence[str], now: Instant
    ) -> frozenset[str]:
        """Record the messages and return those that are new to the consumer.

        On an engine with row locks this waits for whoever else is recording one of them: two
        copies in two processes take one effect.
        """
        rows = await transaction.fetch_rows(
            self._record,
            [
                {"consumer": consumer, "message_id": message_id, "received_at": now}
                # Sorted: everyone takes the locks in one order.
                for message_id in sorted(set(message_ids))
            ],
        )
        return frozenset(row["message_id"] for row in rows)

    async def known(
        self, transaction: ReadTransaction, *, consumer: str, message_ids: Sequence[str]
    ) -> frozenset[str]:
        """Return those of the messages that the consumer has taken effect for."""
        rows = await transaction.fetch_all(
            self._known, consumer=consumer, message_ids=sorted(set(message_ids))
        )
        return frozenset(row["message_id"] for row in rows)

    async def forget(
        self, transaction: Transaction, *, consumer: str, message_ids: Sequence[str]
    ) -> None:
        """Take back the record of messages that took no effect, in the transaction that made it."""
        if message_ids:
            await transaction.execute(
                self._forget, consumer=consumer, message_ids=sorted(message_ids)
            )
