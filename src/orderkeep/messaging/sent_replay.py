"""Replay of events that were sent before, to all who got them or to one queue.

Invariant: a replayed event is the message it was: its id, its body, its headers. Whoever has it
already knows it by its id.

Invariant: under one key an event goes to one place once. Its new row in the outbox carries a key
made of that of the replay, the event and the place, and outlives the event's own row. A crash
before the commit leaves nothing of a piece; a crash after it leaves all of it, and whoever asks
again, with the same key, goes on with what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Table, Text, bindparam, select

from orderkeep.database.schema import INSTANT
from orderkeep.database.statement import Statement, is_any_of, is_none_or, written_out
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.messaging.broker import Topology
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.message import RETRY_HEADERS, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.outbox_rows import OutboxState
from orderkeep.messaging.replay_rules import ReplayRules
from orderkeep.messaging.routing import Routes
from orderkeep.messaging.selection import SELECTED_COUNT_MAX, named_ids

# Stands for everybody who got the event.
_EVERYBODY = "*"


class SentReplayResult(StrEnum):
    """What became of one event of a replay."""

    REPLAYED = "replayed"
    NOT_FOUND = "not_found"
    # It has not left yet, is parked, or was given up.
    NOT_SENT = "not_sent"
    # Nothing of its type goes to that queue, or its route leads nowhere any more.
    NOT_FOR_QUEUE = "not_for_queue"
    # It went there before under this key.
    NOT_AGAIN = "not_again"
    # Its consumers may have forgotten that they took effect.
    NOT_REMEMBERED = "not_remembered"
    # Its own row cannot be read: somebody has changed it by hand.
    NOT_READABLE = "not_readable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedEvent:
    """One event of a replay, by the number of its row, and what became of it, or would."""

    id: int
    result: SentReplayResult


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFilter:
    """Which sent events; None is any.

    Attributes:
        sent_from: Sent at this moment or later.
        sent_to: Sent before this moment.
    """

    route: str | None = None
    aggregate_id: str | None = None
    sent_from: Instant | None = None
    sent_to: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentBatch:
    """Events that fit a filter, in the order in which they were appended, up to a number.

    What went out for a second time, by a retry or a replay, is no event of its own.

    Attributes:
        after_id: Only those behind this row; None begins at the first.
    """

    which: SentFilter
    after_id: int | None = None
    count_max: int = SELECTED_COUNT_MAX


SentSelection: TypeAlias = Sequence[int] | SentBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a replay goes, and what it is known by.

    Attributes:
        queue: None is everybody who got the event.
        key: A replay under another key sends again what an earlier one has sent.
    """

    queue: str | None = None
    key: str = ""

    def retry_key(self, row_id: int) -> str:
        """Return what the copy of an event is known by in the outbox."""
        return f"replay {row_id} {self.queue or _EVERYBODY} {self.key}"


class SentReplay:
    """Replays the events of one outbox."""

    def __init__(self, outbox: Outbox, *, topology: Topology) -> None:
        """Replay by the queues and bindings of the topology."""
        self._outbox = outbox
        self._routes = Routes(topology)
        table = outbox.tables.outbox
        by_ids = (
            select(table)
            .where(is_any_of(table.c.id, "ids"))
            .order_by(table.c.id)
            .limit(SELECTED_COUNT_MAX)
        )
        self._by_ids = Statement(by_ids)
        self._by_ids_locked = Statement(by_ids.with_for_update(key_share=True))
        self._ids = Statement(
            select(table.c.id)
            .where(
                table.c.state == written_out(OutboxState.SENT),
                table.c.retry_key.is_(None),
                table.c.id > bindparam("after_id"),
                *_fits(table),
            )
            .order_by(table.c.id)
            .limit(bindparam("count_max"))
        )
        self._known_keys = Statement(
            select(table.c.retry_key).where(is_any_of(table.c.retry_key, "keys"))
        )

    def has_queue(self, queue: str) -> bool:
        """Return whether there is a queue of this name to replay to."""
        return queue in self._routes.queues

    async def replay(
        self,
        transaction: Transaction,
        selection: SentSelection,
        *,
        to: Destination,
        now: Instant,
        rules: ReplayRules | None = None,
    ) -> list[ReplayedEvent]:
        """Send events again; those of one aggregate leave in their order.

        Args:
            transaction: Appends; of two that replay the same, the second finds it done.
            selection: Ids of rows, at most `SELECTED_COUNT_MAX`; or a part of what a filter finds.
            to: Where to.
            now: The database's clock in this transaction.
            rules: How; None takes the defaults.

        Raises:
            ValueError: there are too many ids.
        """
        rules = rules or ReplayRules()
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids_locked, ids=ids)
        results = await self._results(transaction, rows, to=to, now=now, rules=rules)
        going = [row for row in rows if results[row["id"]] is SentReplayResult.REPLAYED]
        await self._outbox.pass_on(
            transaction,
            [
                _event(row, to=to, not_before=rules.not_before(index, now=now))
                for index, row in enumerate(going)
            ],
            now=now,
        )
        reach("replay_sent.after_append")
        return _replayed(ids, results)

    async def preview(
        self,
        transaction: ReadTransaction,
        selection: SentSelection,
        *,
        to: Destination,
        rules: ReplayRules | None = None,
    ) -> list[ReplayedEvent]:
        """Return what `replay` would answer now, and change nothing."""
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids, ids=ids)
        now = await transaction.now()
        results = await self._results(
            transaction, rows, to=to, now=now, rules=rules or ReplayRules()
        )
        return _replayed(ids, results)

    async def _selected_ids(
        self, transaction: ReadTransaction, selection: SentSelection
    ) -> list[int]:
        if isinstance(selection, SentBatch):
            rows = await transaction.fetch_all(
                self._ids,
                after_id=selection.after_id or 0,
                count_max=min(selection.count_max, SELECTED_COUNT_MAX),
                **_parameters(selection.which),
            )
            return [row["id"] for row in rows]
        return named_ids(selection, what="outbox rows")

    async def _results(
        self,
        transaction: ReadTransaction,
        rows: Sequence[Row],
        *,
        to: Destination,
        now: Instant,
        rules: ReplayRules,
    ) -> dict[int, SentReplayResult]:
        found = await transaction.fetch_all(
            self._known_keys, keys=[to.retry_key(row["id"]) for row in rows]
        )
        known_keys = {row["retry_key"] for row in found}
        return {
            row["id"]: (
                SentReplayResult.NOT_AGAIN
                if to.retry_key(row["id"]) in known_keys
                else self._result(row, to=to, now=now, rules=rules)
            )
            for row in rows
        }

    def _result(
        self, row: Row, *, to: Destination, now: Instant, rules: ReplayRules
    ) -> SentReplayResult:
        if row["state"] != OutboxState.SENT.value:
            return SentReplayResult.NOT_SENT
        reached = self._routes.queues_for(row["route"], message_type=row["type"])
        if not reached or (to.queue is not None and to.queue not in reached):
            return SentReplayResult.NOT_FOR_QUEUE
        # Nobody can have had it before it was appended; a copy does not tell when that was.
        is_copy = row["retry_key"] is not None and rules.memory_s is not None
        if is_copy or not rules.is_remembered(since=row["created_at"], now=now):
            return SentReplayResult.NOT_REMEMBERED
        try:
            decode_headers(row["headers"])
        except (ValueError, RecursionError):
            return SentReplayResult.NOT_READABLE
        return SentReplayResult.REPLAYED


def _event(row: Row, *, to: Destination, not_before: Instant | None) -> Event:
    deliver_at = row["deliver_at"]
    if to.queue is not None and deliver_at is not None:
        # It goes straight to the queue, past whatever would hold it until its time.
        not_before, deliver_at = max(deliver_at, not_before or deliver_at), None
    return Event(
        aggregate_id=row["aggregate_id"],
        sequence=row["sequence"],
        type=row["type"],
        route=to.queue or row["route"],
        body=row["body"],
        ordered=bool(row["ordered"]),
        deliver_at=deliver_at,
        not_before=not_before,
        message_id=row["message_id"],
        retry_key=to.retry_key(row["id"]),
        headers={
            name: value
            for name, value in decode_headers(row["headers"]).items()
            if name not in RETRY_HEADERS
        },
    )


def _fits(table: Table) -> list[ColumnElement[bool]]:
    return [
        is_none_or("route", Text(), lambda route: table.c.route == route),
        is_none_or("aggregate_id", Text(), lambda id_: table.c.aggregate_id == id_),
        is_none_or("sent_from", INSTANT, lambda moment: table.c.sent_at >= moment),
        is_none_or("sent_to", INSTANT, lambda moment: table.c.sent_at < moment),
    ]


def _parameters(which: SentFilter) -> dict[str, Any]:
    return {
        "route": which.route,
        "aggregate_id": which.aggregate_id,
        "sent_from": which.sent_from,
        "sent_to": which.sent_to,
    }


def _replayed(ids: Sequence[int], results: dict[int, SentReplayResult]) -> list[ReplayedEvent]:
    return [
        ReplayedEvent(id=id_, result=results.get(id_, SentReplayResult.NOT_FOUND)) for id_ in ids
    ]
