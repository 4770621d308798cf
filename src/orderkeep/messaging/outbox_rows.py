"""The operators' view of an outbox: what waits, what is parked, and what to do about it.

Invariant: an operator changes a row only from a state that allows it, in a guarded statement; a row
that was sent meanwhile is left alone and the answer says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from sqlalchemy import ColumnElement, bindparam, func, select, update
from sqlalchemy.types import Text

from orderkeep.database.statement import (
    Statement,
    is_any_of,
    is_none_or,
    is_one_of,
    written_out,
)
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.selection import SELECTED_COUNT_MAX, named_ids

# A timeline shows so many messages of one order; an order has a few dozen in its life.
_MESSAGES_OF_AGGREGATE_MAX = 1000

# Row numbers are positive 64-bit integers.
_BEYOND = 2**63 - 1


class OutboxState(StrEnum):
    """Where an outbox row stands; the package says how it moves."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"
    DISCARDED = "discarded"


class ChangeResult(StrEnum):
    """What became of one row that was named in a retry or a discard."""

    RETRIED = "retried"
    DISCARDED = "discarded"
    # It was sent or discarded before, or (for a retry) it is not parked.
    NOT_CHANGEABLE = "not_changeable"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRow:
    """One row of a retry or a discard, and what became of it, or would.

    Attributes:
        told: What the row was, for the record of the change; nothing where there is none.
    """

    id: int
    result: ChangeResult
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFilter:
    """Which rows; None is any.

    Attributes:
        state: For a discard: `pending` takes rows that wait; None takes parked ones, as for a
            retry.
    """

    route: str | None = None
    aggregate_id: str | None = None
    state: OutboxState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """An outbox row in a list or a timeline; the body stays where it is."""

    id: int
    message_id: str
    aggregate_id: str
    sequence: int
    type: str
    route: str
    state: OutboxState
    ordered: bool
    attempts: int
    last_error: str | None
    not_before: Instant
    deliver_at: Instant | None
    created_at: Instant
    sent_at: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeOutboxRow:
    """An outbox row with its contents; the headers are JSON, see `orderkeep.messaging.headers`."""

    row: OutboxRow
    body: bytes
    headers_json: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxCounts:
    """How an outbox does.

    Attributes:
        oldest_pending_s: For how long the oldest row that may go has been waiting; 0 if none may.
    """

    pending_count: int
    failed_count: int
    oldest_pending_s: float


_SHOWN = (
    "id",
    "message_id",
    "aggregate_id",
    "sequence",
    "type",
    "route",
    "state",
    "ordered",
    "attempts",
    "last_error",
    "not_before",
    "deliver_at",
    "created_at",
    "sent_at",
)

# What the record of a change tells of a row: what it was about, and where it was on its way to.
_TOLD = ("message_id", "aggregate_id", "type", "route", "state")


class OutboxRows:
    """The rows of one service's outbox, as operators see them."""

    def __init__(self, outbox: Outbox) -> None:
        """Show the outbox; its dispatcher is woken after a change."""
        self._appended = outbox.appended
        table = outbox.tables.outbox
        self._table = table
        shown = select(*(table.c[name] for name in _SHOWN))
        # One statement for each state: partial indexes serve only what is written out.
        self._lists = {
            state: Statement(
                shown.where(
                    table.c.state == written_out(state),
                    self._row_number(state) < bindparam("before_id"),
                )
                .order_by(self._row_number(state).desc())
                .limit(bindparam("limit"))
            )
            for state in OutboxState
        }
        self._of_aggregate = Statement(
            shown.where(table.c.aggregate_id == bindparam("aggregate_id"))
            .order_by(table.c.id)
            .limit(_MESSAGES_OF_AGGREGATE_MAX)
        )
        self._find = Statement(
            shown.add_columns(table.c.body, table.c.headers).where(table.c.id == bindparam("id"))
        )
        told = (
            select(table.c.id, *(table.c[name] for name in _TOLD))
            .where(is_any_of(table.c.id, "ids"))
            .order_by(table.c.id)
            .limit(SELECTED_COUNT_MAX)
        )
        self._told = Statement(told)
        self._told_locked = Statement(told.with_for_update(key_share=True))
        self._failed_ids = self._ids_statement(OutboxState.FAILED)
        self._pending_ids = self._ids_statement(OutboxState.PENDING)
        self._retry = Statement(
            update(table)
            .where(is_any_of(table.c.id, "ids"), table.c.state == OutboxState.FAILED)
            .values(state=OutboxState.PENDING, attempts=0, not_before=bindparam("now"))
        )
        self._discard = Statement(
            update(table)
            .where(
                is_any_of(table.c.id, "ids"),
                is_one_of(table.c.state, OutboxState.PENDING, OutboxState.FAILED),
            )
            # Without its key, a message that is sent anew is not taken for the discarded retry.
            .values(state=OutboxState.DISCARDED, discarded_at=bindparam("now"), retry_key=None)
        )
        self._count_pending = self._count_statement(OutboxState.PENDING)
        self._count_failed = self._count_statement(OutboxState.FAILED)
        self._oldest_pending = Statement(
            select(func.min(table.c.not_before).label("not_before")).where(
                table.c.state == written_out(OutboxState.PENDING)
            )
        )

    async def list_page(
        self,
        transaction: ReadTransaction,
        *,
        state: OutboxState,
        before_id: int | None = None,
        limit: int,
    ) -> list[OutboxRow]:
        """Return rows in the given state, newest first, at most `limit`.

        Args:
            transaction: A snapshot.
            state: The state they are in.
            before_id: The id of the last row of the page before; None is the first page.
            limit: At least 1.
        """
        rows = await transaction.fetch_all(
            self._lists[state],
            before_id=_BEYOND if before_id is None else before_id,
            limit=limit,
        )
        return [_shown_row(row) for row in rows]

    async def find(self, transaction: ReadTransaction, row_id: int) -> WholeOutboxRow | None:
        """Return the row whole, or None if there is none with this id."""
        row = await transaction.fetch_one(self._find, id=row_id)
        if row is None:
            return None
        return WholeOutboxRow(row=_shown_row(row), body=row["body"], headers_json=row["headers"])

    async def of_aggregate(
        self, transaction: ReadTransaction, aggregate_id: str
    ) -> list[OutboxRow]:
        """Return the messages about one aggregate, oldest first, for its timeline."""
        rows = await transaction.fetch_all(self._of_aggregate, aggregate_id=aggregate_id)
        return [_shown_row(row) for row in rows]

    async def counts(self, transaction: ReadTransaction) -> OutboxCounts:
        """Return how many rows wait and are parked, and for how long the oldest has waited."""
        pending = await transaction.fetch_one(self._count_pending)
        failed = await transaction.fetch_one(self._count_failed)
        oldest = await transaction.fetch_one(self._oldest_pending)
        assert pending is not None
        assert failed is not None
        assert oldest is not None
        now = await transaction.now()
        waited = 0 if oldest["not_before"] is None else max(0, now - oldest["not_before"])
        return OutboxCounts(
            pending_count=pending["row_count"],
            failed_count=failed["row_count"],
            oldest_pending_s=waited / MICROSECONDS_PER_SECOND,
        )

    async def retry(
        self, transaction: Transaction, selection: Sequence[int] | OutboxFilter, *, now: Instant
    ) -> list[ChangedRow]:
        """Let parked rows go again, with a fresh budget.

        Args:
            transaction: Commits the change.
            selection: Ids, at most `SELECTED_COUNT_MAX`; or a filter, which takes the oldest parked
                rows up to that number.
            now: The database's clock in this transaction.

        Raises:
            ValueError: there are more ids than that.
        """
        ids = await self._selected_ids(transaction, selection, self._failed_ids)
        rows = await self._read_told(transaction, self._told_locked, ids)
        changeable = _in_states(rows, _RETRIABLE)
        changed_count = await transaction.execute(self._retry, ids=changeable, now=now)
        assert changed_count == len(changeable), "the rows were locked when their state was read"
        transaction.after_commit(self._appended.set)
        return _results(ids, rows, allowed=_RETRIABLE, result=ChangeResult.RETRIED)

    async def discard(
        self, transaction: Transaction, selection: Sequence[int] | OutboxFilter, *, now: Instant
    ) -> list[ChangedRow]:
        """Give up rows that were not sent; what waited behind them goes on.

        Arguments as `retry`; a filter takes rows that wait only where it says so.
        """
        ids = await self._selected_ids(transaction, selection, self._discarded_by(selection))
        rows = await self._read_told(transaction, self._told_locked, ids)
        changeable = _in_states(rows, _DISCARDABLE)
        changed_count = await transaction.execute(self._discard, ids=changeable, now=now)
        assert changed_count == len(changeable), "the rows were locked when their state was read"
        transaction.after_commit(self._appended.set)
        return _results(ids, rows, allowed=_DISCARDABLE, result=ChangeResult.DISCARDED)

    async def preview_retry(
        self, transaction: ReadTransaction, selection: Sequence[int] | OutboxFilter
    ) -> list[ChangedRow]:
        """Return what `retry` would answer now, and change nothing."""
        ids = await self._selected_ids(transaction, selection, self._failed_ids)
        rows = await self._read_told(transaction, self._told, ids)
        return _results(ids, rows, allowed=_RETRIABLE, result=ChangeResult.RETRIED)

    async def preview_discard(
        self, transaction: ReadTransaction, selection: Sequence[int] | OutboxFilter
    ) -> list[ChangedRow]:
        """Return what `discard` would answer now, and change nothing."""
        ids = await self._selected_ids(transaction, selection, self._discarded_by(selection))
        rows = await self._read_told(transaction, self._told, ids)
        return _results(ids, rows, allowed=_DISCARDABLE, result=ChangeResult.DISCARDED)

    def _ids_statement(self, state: OutboxState) -> Statement:
        table = self._table
        return Statement(
            select(table.c.id)
            .where(
                table.c.state == written_out(state),
                is_none_or("route", Text(), lambda route: table.c.route == route),
                is_none_or("aggregate_id", Text(), lambda id_: table.c.aggregate_id == id_),
            )
            .order_by(self._row_number(state))
            .limit(SELECTED_COUNT_MAX)
        )

    def _row_number(self, state: OutboxState) -> ColumnElement[int]:
        row_number: ColumnElement[int] = self._table.c.id
        match state:
            case OutboxState.SENT | OutboxState.FAILED:
                return row_number
            case OutboxState.PENDING | OutboxState.DISCARDED:
                # Few among a million sent rows, with an index in another order: the addition keeps
                # an engine from walking all rows by their numbers instead.
                return row_number + 0
            case _:
                assert_never(state)

    def _count_statement(self, state: OutboxState) -> Statement:
        return Statement(
            select(func.count().label("row_count"))
            .select_from(self._table)
            .where(self._table.c.state == written_out(state))
        )

    async def _selected_ids(
        self,
        transaction: ReadTransaction,
        selection: Sequence[int] | OutboxFilter,
        filtered: Statement,
    ) -> list[int]:
        if isinstance(selection, OutboxFilter):
            rows = await transaction.fetch_all(
                filtered, route=selection.route, aggregate_id=selection.aggregate_id
            )
            return [row["id"] for row in rows]
        return named_ids(selection, what="outbox rows")

    def _discarded_by(self, selection: Sequence[int] | OutboxFilter) -> Statement:
        if isinstance(selection, OutboxFilter) and selection.state is OutboxState.PENDING:
            return self._pending_ids
        return self._failed_ids

    async def _read_told(
        self, transaction: ReadTransaction, statement: Statement, ids: Sequence[int]
    ) -> dict[int, Row]:
        rows = await transaction.fetch_all(statement, ids=ids)
        return {row["id"]: row for row in rows}


_RETRIABLE = frozenset({OutboxState.FAILED})
_DISCARDABLE = frozenset({OutboxState.PENDING, OutboxState.FAILED})


def _in_states(rows: Mapping[int, Row], allowed: frozenset[OutboxState]) -> list[int]:
    return [id_ for id_, row in rows.items() if row["state"] in allowed]


def _shown_row(row: Row) -> OutboxRow:
    shown = {name: row[name] for name in _SHOWN}
    shown["state"] = OutboxState(row["state"])
    shown["ordered"] = bool(row["ordered"])
    return OutboxRow(**shown)


def _results(
    ids: Sequence[int],
    rows: Mapping[int, Row],
    *,
    allowed: frozenset[OutboxState],
    result: ChangeResult,
) -> list[ChangedRow]:
    return [
        ChangedRow(
            id=id_,
            result=result if rows[id_]["state"] in allowed else ChangeResult.NOT_CHANGEABLE,
            told={name: rows[id_][name] for name in _TOLD},
        )
        if id_ in rows
        else ChangedRow(id=id_, result=ChangeResult.NOT_FOUND)
        for id_ in ids
    ]
