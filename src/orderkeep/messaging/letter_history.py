"""The history of dead letters: why each was set aside, and what operators did about it.

Invariant: an entry is written in the transaction of what it tells of, once: a copy that sets the
same message aside again adds nothing, for a letter has one entry of a kind between two settlements.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.audit import Act
from orderkeep.database.statement import RowStatement, Statement, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import LetterEvent, LetterHistoryEntry
from orderkeep.messaging.tables import ServiceTables

# Nobody settles one letter so often.
_ENTRIES_COUNT_MAX = 1000

_WRITTEN = (
    "letter_id",
    "settled_count",
    "event",
    "at",
    "reason",
    "detail",
    "tries",
    "actor",
    "message_id",
)


class LetterHistory:
    """The history of one service's dead letters."""

    def __init__(self, tables: ServiceTables) -> None:
        """Keep it in the tables' own."""
        table = tables.dead_letter_history
        self._insert = RowStatement(
            insert(table)
            .values({name: row_value(name, table.c[name].type) for name in _WRITTEN})
            .on_conflict_do_nothing(index_elements=["letter_id", "settled_count", "event"])
        )
        self._of_letter = Statement(
            select(table)
            .where(table.c.letter_id == bindparam("letter_id"))
            .order_by(table.c.id)
            .limit(_ENTRIES_COUNT_MAX)
        )

    async def note_set_aside(
        self, transaction: Transaction, letters: Sequence[Row], *, now: Instant
    ) -> None:
        """Note why the letters were set aside.

        Args:
            transaction: The one that sets them aside.
            letters: Their ids, settled counts, reasons, details and tries.
            now: The database's clock in this transaction.
        """
        rows = [
            _row(
                letter,
                event=LetterEvent.SET_ASIDE,
                at=now,
                reason=letter["reason"],
                detail=letter["detail"],
                tries=letter["tries"],
            )
            for letter in letters
        ]
        await transaction.execute_rows(self._insert, rows)

    async def note_settled(
        self,
        transaction: Transaction,
        letters: Sequence[Row],
        *,
        event: LetterEvent,
        act: Act | None,
        now: Instant,
        message_id: str | None = None,
    ) -> None:
        """Note what an operator did about the letters.

        Args:
            transaction: The one that settles them.
            letters: Their ids, and their settled counts before.
            event: What was done.
            act: Who did it, and why, if that is known.
            now: The database's clock in this transaction.
            message_id: Under which id an edited body goes on.
        """
        rows = [
            _row(
                letter,
                event=event,
                at=now,
                reason=None if act is None else act.reason,
                actor=None if act is None else act.actor,
                message_id=message_id,
            )
            for letter in letters
        ]
        await transaction.execute_rows(self._insert, rows)

    async def of_letter(
        self, transaction: ReadTransaction, letter_id: int
    ) -> list[LetterHistoryEntry]:
        """Return what became of a letter, the oldest first."""
        rows = await transaction.fetch_all(self._of_letter, letter_id=letter_id)
        return [
            LetterHistoryEntry(
                event=LetterEvent(row["event"]),
                at=Instant(row["at"]),
                reason=row["reason"],
                detail=row["detail"],
                tries=row["tries"],
                actor=row["actor"],
                message_id=row["message_id"],
            )
            for row in rows
        ]


def _row(letter: Row, *, event: LetterEvent, at: Instant, **told: Value) -> Mapping[str, Value]:
    untold: dict[str, Value] = dict.fromkeys(_WRITTEN)
    return {
        **untold,
        "letter_id": letter["id"],
        "settled_count": letter["settled_count"],
        "event": event.value,
        "at": at,
        **told,
    }
