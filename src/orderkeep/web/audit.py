"""Where operators read what operators did by hand, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass

from orderkeep.contracts.page import decode_cursor, encode_cursor
from orderkeep.database.audit import AuditFilter, RecordedAct, list_audit
from orderkeep.database.transaction import Database, ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """A page of the record; next_cursor is None at the end."""

    acts: Sequence[RecordedAct]
    next_cursor: str | None


class AuditDesk:
    """Where the record is read; it is written in the transactions of what it tells of."""

    def __init__(self, database: Database) -> None:
        """Read the record that is kept in the database."""
        self._database = database

    async def list(self, wanted: AuditFilter, *, cursor: str | None, limit: int) -> AuditPage:
        """Return what fits the filter, newest first.

        Raises:
            Refusal: `invalid_cursor`.
        """
        before_id = None if cursor is None else decode_cursor(cursor, int)[0]

        async def read(transaction: ReadTransaction) -> list[RecordedAct]:
            # One more than fits tells whether there is a next page.
            return await list_audit(transaction, wanted, before_id=before_id, limit_count=limit + 1)

        found = await self._database.read(read)
        shown = found[:limit]
        return AuditPage(
            acts=shown,
            next_cursor=encode_cursor(shown[-1].id) if len(found) > limit else None,
        )
