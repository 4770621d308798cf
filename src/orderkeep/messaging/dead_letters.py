"""Dead letters: what could not be handled, kept as it came, until an operator decides.

Invariant: a message is acknowledged without effect only in the transaction that writes its dead
letter (or its next try). There is one letter for each message of a consumer; a message that fails
again after a replay opens its letter again. Two messages that differ in their bodies but claim one
id are two letters: none of them is lost. A crash before the commit leaves the message in its queue;
a crash after it, before the acknowledgement, brings a copy that writes the same letter again.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    DeadLetterSummary,
    Failure,
    LetterHistoryEntry,
    letter_of,
    own_id,
    row_of,
    summary_of,
)
from orderkeep.messaging.letter_filter import filter_parameters, fits
from orderkeep.messaging.letter_history import LetterHistory
from orderkeep.messaging.outbox import Outbox

# More queues than any service has, should senders of old ones have left letters behind.
_QUEUES_COUNT_MAX = 1000


_WRITTEN = (
    "consumer",
    "queue",
    "message_id",
    "sender_message_id",
    "type",
    "body",
    "headers",
    "reason",
    "detail",
    "traceback",
    "tries",
    "state",
    "first_received_at",
    "set_aside_at",
    "settled_count",
    "aggregate_id",
    "sequence",
)

# What a second failure of the same message changes; the message itself stays as it is.
_REWRITTEN = ("headers", "reason", "detail", "traceback", "tries", "state", "set_aside_at")

# What tells whether a letter was written, and goes into its history.
_RETURNED = ("id", "consumer", "message_id", "body", "settled_count", "reason", "detail", "tries")

# What lists are made of: everything but the contents.
_SUMMARISED = (
    "id",
    "consumer",
    "queue",
    "message_id",
    "type",
    "reason",
    "detail",
    "tries",
    "state",
    "first_received_at",
    "set_aside_at",
    "settled_at",
    "settled_count",
    "aggregate_id",
)


class DeadLetters:
    """The dead letters of one service."""

    def __init__(self, outbox: Outbox) -> None:
        """Keep the letters beside the service's outbox."""
        self._history = LetterHistory(outbox.tables)
        table = outbox.tables.dead_letters
        self._table = table
        written = insert(table).values(
            {name: row_value(name, table.c[name].type) for name in _WRITTEN}
        )
        self._write = RowStatement(
            written.on_conflict_do_update(
                index_elements=["consumer", "message_id"],
                set_={name: written.excluded[name] for name in _REWRITTEN} | {"settled_at": None},
                where=table.c.body == written.excluded.body,
            ).returning(*(table.c[name] for name in _RETURNED))
        )
        summary = select(*(table.c[name] for name in _SUMMARISED))
        self._list = Statement(
            summary.where(
                table.c.state == bindparam("state"),
                *fits(table),
                table.c.id < bindparam("before_id"),
            )
            .order_by(table.c.id.desc())
            .limit(bindparam("limit"))
        )
        self._find = Statement(select(table).where(table.c.id == bindparam("id")))
        self._settled_counts = Statement(
            select(table.c.message_id, table.c.settled_count).where(
                table.c.consumer == bindparam("consumer"),
                is_any_of(table.c.message_id, "message_ids"),
            )
        )
        self._open_counts = Statement(
            select(table.c.queue, func.count().label("open_count"))
            .where(table.c.state == DeadLetterState.OPEN)
            .group_by(table.c.queue)
            .limit(_QUEUES_COUNT_MAX)
        )

    async def write(
        self, transaction: Transaction, failures: Sequence[Failure], *, now: Instant
    ) -> None:
        """Set the messages aside, in the transaction that acknowledges them."""
        if not failures:
            return
        # Of copies in one batch the first is written: an engine may refuse to meet a row twice.
        first = {(failure.consumer, failure.message_id): failure for failure in reversed(failures)}
        rows = [row_of(first[key], message_id=key[1], now=now) for key in sorted(first)]
        written = await transaction.fetch_rows(self._write, rows)
        bodies = {(row["consumer"], row["message_id"]): row["body"] for row in written}
        # Where another message, with the same id but other contents, has the letter already.
        namesakes = {
            own_id(failure): failure
            for failure in failures
            if bodies.get((failure.consumer, failure.message_id)) != failure.delivery.body
        }
        written_namesakes = await transaction.fetch_rows(
            self._write,
            [row_of(namesakes[id_], message_id=id_, now=now) for id_ in sorted(namesakes)],
        )
        await self._history.note_set_aside(transaction, [*written, *written_namesakes], now=now)

    async def settled_counts(
        self, transaction: ReadTransaction, *, consumer: str, message_ids: Sequence[str]
    ) -> dict[str, int]:
        """Return how often the messages' letters were settled; those without one are left out."""
        rows = await transaction.fetch_all(
            self._settled_counts, consumer=consumer, message_ids=list(message_ids)
        )
        return {row["message_id"]: row["settled_count"] for row in rows}

    async def list_page(
        self,
        transaction: ReadTransaction,
        *,
        state: DeadLetterState = DeadLetterState.OPEN,
        which: DeadLetterFilter | None = None,
        before_id: int | None = None,
        limit: int,
    ) -> list[DeadLetterSummary]:
        """Return letters in the given state, newest first, at most `limit`.

        Args:
            transaction: A snapshot.
            state: The state they are in.
            which: None is all of them.
            before_id: The id of the last letter of the page before; None is the first page.
            limit: At least 1.
        """
        which = which or DeadLetterFilter()
        rows = await transaction.fetch_all(
            self._list,
            state=state,
            **filter_parameters(which),
            before_id=_BEYOND if before_id is None else before_id,
            limit=limit,
        )
        return [summary_of(row) for row in rows]

    async def find(self, transaction: ReadTransaction, letter_id: int) -> DeadLetter | None:
        """Return the letter whole, or None if there is none with this id."""
        row = await transaction.fetch_one(self._find, id=letter_id)
        return None if row is None else letter_of(row)

    async def history(
        self, transaction: ReadTransaction, letter_id: int
    ) -> list[LetterHistoryEntry]:
        """Return what became of the letter, the oldest first; nothing if there is none."""
        return await self._history.of_letter(transaction, letter_id)

    async def open_counts(self, transaction: ReadTransaction) -> dict[str, int]:
        """Return how many letters are open, by queue; queues without any are left out."""
        rows = await transaction.fetch_all(self._open_counts)
        return {row["queue"]: row["open_count"] for row in rows}


# Row numbers are positive 64-bit integers.
_BEYOND = 2**63 - 1
