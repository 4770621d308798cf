"""What a dispatcher asks of an outbox: what may go now, and how it went."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Text,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)

from orderkeep.database.statement import (
    DatabaseNow,
    RowStatement,
    Statement,
    is_any_of,
    row_value,
    written_out,
)
from orderkeep.database.transaction import ReadTransaction, Row, Session, Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.messaging.column_text import clean_start
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.message import Message
from orderkeep.messaging.tables import ServiceTables

_ERROR_LENGTH_MAX = 500

# Before every row.
BEGINNING = Instant(0)

# Written out in the statements: partial indexes serve no parameter.
_PENDING = written_out("pending")
_FAILED = written_out("failed")


class PendingRow(Struct, frozen=True, kw_only=True):
    """An outbox row that may go now.

    Attributes:
        attempts: How often it was refused so far.
        not_before: Since when it may go.
    """

    id: int
    aggregate_id: str
    attempts: int
    not_before: Instant
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What one reading found.

    Attributes:
        now: The database's clock at the reading.
        rows: What may go now, longest due first.
        next_due_s: Where that is nothing, in how many seconds something may; None is never, unless
            somebody appends.
    """

    now: Instant
    rows: Sequence[PendingRow]
    next_due_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A row that the broker refused by itself, and what follows from it."""

    id: int
    detail: str
    not_before: Instant
    is_parked: bool


class OutboxReading:
    """The statements of one outbox's dispatcher."""

    def __init__(self, tables: ServiceTables) -> None:
        """Read and settle the rows of the tables' outbox."""
        table = tables.outbox
        is_still_pending = _is_still_pending(table)
        self._ready = Statement(_ready(table))
        self._settle_sent = Statement(
            update(table)
            .where(is_any_of(table.c.id, "ids"), is_still_pending)
            .values(state="sent", sent_at=DatabaseNow(), last_error=None)
        )
        self._postpone = Statement(
            update(table)
            .where(is_any_of(table.c.id, "ids"), is_still_pending)
            .values(not_before=table.c.deliver_at)
        )
        self._note_down = Statement(
            update(table)
            .where(
                is_any_of(table.c.id, "ids"),
                is_still_pending,
                # A route stays down for long, and says the same each time.
                table.c.last_error.is_distinct_from(bindparam("error", type_=Text())),
            )
            .values(last_error=bindparam("error", type_=Text()))
        )
        self._settle_refused = RowStatement(
            update(table)
            .where(table.c.id == row_value("row_id", table.c.id.type), is_still_pending)
            .values(
                state=row_value("new_state", table.c.state.type),
                attempts=table.c.attempts + 1,
                not_before=row_value("next_not_before", table.c.not_before.type),
                last_error=row_value("error", table.c.last_error.type),
            )
        )

    async def ready(
        self,
        reader: ReadTransaction | Session,
        *,
        partitions: Collection[int],
        paused_routes: Sequence[str],
        on_their_way: Sequence[int] = (),
        since: Instant = BEGINNING,
        limit: int,
    ) -> Ready:
        """Return what may go now of the partitions, or else when something may.

        Args:
            reader: Reads it in one statement.
            partitions: Of which the rows may be.
            paused_routes: Of which no row may be.
            on_their_way: Ids of pending rows that are being published.
            since: Only rows that may go since then.
            limit: Return no more rows.

        Of the ordered rows of one aggregate and route only the earliest may go, and none while an
        earlier one is parked.
        """
        rows = await reader.fetch_all(
            self._ready,
            since=since,
            partitions=sorted(partitions),
            paused_routes=paused_routes,
            on_their_way=on_their_way,
            limit=limit,
        )
        first = rows[0]
        now = Instant(first["now"])
        if first["id"] is None:
            next_due_at = first["next_due_at"]
            next_due_s = (
                None if next_due_at is None else (next_due_at - now) / MICROSECONDS_PER_SECOND
            )
            return Ready(now=now, rows=[], next_due_s=next_due_s)
        # No join promises the order of what it joins.
        rows.sort(key=itemgetter("not_before", "id"))
        return Ready(now=now, rows=[_pending_row(row) for row in rows], next_due_s=0.0)

    async def settle_sent(self, writer: Transaction | Session, ids: Sequence[int]) -> None:
        """Settle rows that the broker confirmed; what was discarded meanwhile stays so."""
        if ids:
            await writer.execute(self._settle_sent, ids=sorted(ids))

    async def postpone(self, transaction: Transaction, ids: Sequence[int]) -> None:
        """Let rows wait here until the moment at which they shall be delivered."""
        if ids:
            await transaction.execute(self._postpone, ids=sorted(ids))

    async def note_down(self, transaction: Transaction, ids: Sequence[int], *, detail: str) -> None:
        """Say at rows that stay pending why they have not left: their route is down."""
        await transaction.execute(
            self._note_down,
            ids=sorted(ids),
            error=clean_start(detail, length_max=_ERROR_LENGTH_MAX),
        )

    async def settle_refused(self, transaction: Transaction, refused: Sequence[Refused]) -> None:
        """Let refused rows wait for their next try, or park them."""
        await transaction.execute_rows(
            self._settle_refused,
            [
                {
                    "row_id": row.id,
                    "new_state": "failed" if row.is_parked else "pending",
                    "next_not_before": row.not_before,
                    "error": clean_start(row.detail, length_max=_ERROR_LENGTH_MAX),
                }
                for row in sorted(refused, key=lambda row: row.id)
            ],
        )


def _ready(table: Table) -> Select[Any]:
    """Return what reads all that a round begins with, in one round trip and at one moment.

    That is the clock, and what may go by it; or where that is nothing, one row without an id that
    says when something may.
    """
    earlier = table.alias("earlier")
    is_first_in_line = ~(
        select(earlier.c.id)
        .where(
            earlier.c.aggregate_id == table.c.aggregate_id,
            earlier.c.route == table.c.route,
            earlier.c.ordered,
            earlier.c.state.in_([_PENDING, _FAILED]),
            earlier.c.sequence <= table.c.sequence,
            # Among equals, which no careful service makes, the first that was appended.
            or_(earlier.c.sequence < table.c.sequence, earlier.c.id < table.c.id),
        )
        .exists()
    )
    clock = select(DatabaseNow().label("now")).cte("clock")
    now = select(clock.c.now).scalar_subquery()
    ready = (
        select(table)
        .where(
            table.c.state == _PENDING,
            table.c.not_before >= bindparam("since"),
            table.c.not_before <= now,
            is_any_of(table.c.partition, "partitions"),
            ~is_any_of(table.c.route, "paused_routes"),
            ~is_any_of(table.c.id, "on_their_way"),
            or_(~table.c.ordered, is_first_in_line),
        )
        .order_by(table.c.not_before, table.c.id)
        .limit(bindparam("limit"))
        .subquery("ready")
    )
    next_due = (
        select(func.min(table.c.not_before))
        .where(
            table.c.state == _PENDING,
            table.c.not_before > now,
            is_any_of(table.c.partition, "partitions"),
        )
        .scalar_subquery()
    )
    return select(
        clock.c.now, ready, case((ready.c.id.is_(None), next_due)).label("next_due_at")
    ).select_from(clock.outerjoin(ready, true()))


def _pending_row(row: Row) -> PendingRow:
    return PendingRow(
        id=row["id"],
        aggregate_id=row["aggregate_id"],
        attempts=row["attempts"],
        not_before=Instant(row["not_before"]),
        message=Message(
            route=row["route"],
            message_id=row["message_id"],
            type=row["type"],
            body=row["body"],
            headers=decode_headers(row["headers"]),
            published_at=row["created_at"],
            deliver_at=row["deliver_at"],
            order_key=row["aggregate_id"] if row["ordered"] else None,
        ),
    )


def _is_still_pending(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row, found by its id, is pending.

    It is no condition on the column itself: for that there is an index of what is pending. A server
    that has counted little in it, of millions that were sent, would look for the ids there, and
    read all of a crowd that came since.
    """
    return table.c.state + literal_column("''") == _PENDING
