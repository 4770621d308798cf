"""What operators do about dead letters: replay them, send an edited one instead, or close them.

Invariant: a letter is settled once, by whoever is first, under its row's lock; the message goes
back through the outbox in the transaction that settles the letter. A crash before that commit
leaves the letter open and nothing on its way; a crash after it leaves the message in the outbox and
the letter settled. So a replay of many, piece by piece, is never half done: asked again, it goes on
with what is open.

Invariant: of a message and the edited one that stands for it, one takes effect. The message is
recorded in its consumer's inbox in the transaction that sends the edited one, so that a copy of it
that is still on its way meets its row; and where the row is there already, nothing is sent.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msgspec.structs import replace
from sqlalchemy import Select, bindparam, select, tuple_, update

from orderkeep.database.audit import Act
from orderkeep.database.schema import INSTANT, ROW_NUMBER
from orderkeep.database.statement import Statement, is_any_of
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant
from orderkeep.messaging.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    LetterBatch,
    LetterEvent,
    SettledLetter,
    SettleResult,
    letter_of,
)
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.inbox import Inbox
from orderkeep.messaging.letter_filter import filter_parameters, fits
from orderkeep.messaging.letter_history import LetterHistory
from orderkeep.messaging.message import EDITED_FROM_HEADER, Delivery, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.replay_rules import ReplayRules
from orderkeep.messaging.return_to_queue import place_of, returned_event
from orderkeep.messaging.selection import SELECTED_COUNT_MAX, named_ids

# Ids, at most `SELECTED_COUNT_MAX`; or a filter, which takes the oldest open letters up to that
# number; or a part of what a filter finds.
LetterSelection: TypeAlias = Sequence[int] | DeadLetterFilter | LetterBatch

# Before every letter: no message came that early.
_BEGINNING = {"first_received_at": -(2**62), "sequence": -1, "id": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An edited message, which goes on in the place of another.

    Attributes:
        message_id: A new one: it is another message now.
        body: What is sent.
    """

    message_id: str
    body: bytes


class LetterSettlement:
    """Settles the dead letters of one service."""

    def __init__(self, outbox: Outbox) -> None:
        """Settle letters that lie beside the outbox through which they are replayed."""
        self._outbox = outbox
        self._inbox = Inbox(outbox.tables)
        self._history = LetterHistory(outbox.tables)
        table = outbox.tables.dead_letters
        by_ids = select(table).where(is_any_of(table.c.id, "ids")).order_by(table.c.id)
        self._by_ids = Statement(_bounded(by_ids))
        self._by_ids_locked = Statement(_bounded(by_ids).with_for_update(key_share=True))
        arrival = (table.c.first_received_at, table.c.sequence, table.c.id)
        self._open_ids = Statement(
            select(table.c.id)
            .where(
                table.c.state == DeadLetterState.OPEN,
                *fits(table),
                tuple_(*arrival)
                > tuple_(
                    bindparam("after_first_received_at", type_=INSTANT),
                    bindparam("after_sequence", type_=ROW_NUMBER),
                    bindparam("after_id", type_=ROW_NUMBER),
                ),
            )
            .order_by(*arrival)
            .limit(bindparam("count_max"))
        )
        self._place = Statement(select(*arrival).where(table.c.id == bindparam("id")))
        self._settle = Statement(
            update(table)
            .where(is_any_of(table.c.id, "ids"), table.c.state == DeadLetterState.OPEN)
            .values(
                state=bindparam("new_state"),
                settled_at=bindparam("now"),
                settled_count=table.c.settled_count + 1,
            )
        )

    async def replay(
        self,
        transaction: Transaction,
        selection: LetterSelection,
        *,
        now: Instant,
        rules: ReplayRules | None = None,
        act: Act | None = None,
    ) -> list[SettledLetter]:
        """Send the messages to their queues again, through the outbox, as if for the first time.

        Those of one aggregate leave in their order. What cannot be replayed holds up nobody else.

        Args:
            transaction: Appends and settles together: a letter is replayed once, by whoever is
                first.
            selection: Which.
            now: The database's clock in this transaction.
            rules: How; None takes the defaults.
            act: Who does it and why, for the history of each letter.

        Raises:
            ValueError: there are too many ids.
        """
        rules = rules or ReplayRules()
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids_locked, ids=ids)
        results = _replay_results(rows, rules=rules, now=now)
        going = [row for row in _in_arrival_order(rows) if results[row["id"]] is _REPLAYED]
        await self._outbox.pass_on(
            transaction,
            [
                replace(_replay_event(letter_of(row)), not_before=rules.not_before(index, now=now))
                for index, row in enumerate(going)
            ],
            now=now,
        )
        reach("replay_letters.after_append")
        await self._settle_open(transaction, going, event=LetterEvent.REPLAYED, act=act, now=now)
        reach("replay_letters.after_settle")
        return _settled(ids, results)

    async def replay_edited(
        self,
        transaction: Transaction,
        letter_id: int,
        edit: Edit,
        *,
        now: Instant,
        rules: ReplayRules | None = None,
        act: Act | None = None,
    ) -> SettledLetter:
        """Send an edited message in the place of the one that was set aside.

        It has an id of its own, names the old one in a header, and is named in the letter's
        history. From then on the old one can take no effect.

        Args:
            transaction: As for `replay`.
            letter_id: Whose place it takes.
            edit: What is sent.
            now: As for `replay`.
            rules: Without a memory, it is sent even where the message took effect.
            act: As for `replay`.
        """
        rules = rules or ReplayRules()
        rows = await transaction.fetch_all(self._by_ids_locked, ids=[letter_id])
        result = _replay_results(rows, rules=rules, now=now).get(letter_id, SettleResult.NOT_FOUND)
        if result is not _REPLAYED:
            return SettledLetter(id=letter_id, result=result)
        letter = letter_of(rows[0])
        fresh_ids = await self._inbox.record(
            transaction,
            consumer=letter.summary.consumer,
            message_ids=[letter.summary.message_id],
            now=now,
        )
        if not fresh_ids and rules.memory_s is not None:
            return SettledLetter(id=letter_id, result=SettleResult.NOT_WITHOUT_EFFECT)
        await self._outbox.pass_on(transaction, [_edited_event(letter, edit)], now=now)
        reach("replay_edited.after_append")
        await self._settle_open(
            transaction,
            rows,
            event=LetterEvent.EDITED,
            act=act,
            now=now,
            message_id=edit.message_id,
        )
        return SettledLetter(id=letter_id, result=_REPLAYED, message_id=edit.message_id)

    async def discard(
        self,
        transaction: Transaction,
        selection: LetterSelection,
        *,
        now: Instant,
        act: Act | None = None,
    ) -> list[SettledLetter]:
        """Close the letters without another try; they stay to be read. Arguments as `replay`."""
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids_locked, ids=ids)
        open_rows = [row for row in rows if _is_open(row)]
        await self._settle_open(
            transaction, open_rows, event=LetterEvent.DISCARDED, act=act, now=now
        )
        return _settled(ids, _discard_results(rows))

    async def preview_replay(
        self,
        transaction: ReadTransaction,
        selection: LetterSelection,
        *,
        rules: ReplayRules | None = None,
    ) -> list[SettledLetter]:
        """Return what `replay` would answer now, and change nothing."""
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids, ids=ids)
        now = await transaction.now()
        return _settled(ids, _replay_results(rows, rules=rules or ReplayRules(), now=now))

    async def preview_edited(
        self, transaction: ReadTransaction, letter_id: int, *, rules: ReplayRules | None = None
    ) -> SettledLetter:
        """Return what `replay_edited` would answer now, without an id, and change nothing."""
        rules = rules or ReplayRules()
        rows = await transaction.fetch_all(self._by_ids, ids=[letter_id])
        now = await transaction.now()
        result = _replay_results(rows, rules=rules, now=now).get(letter_id, SettleResult.NOT_FOUND)
        if result is _REPLAYED and rules.memory_s is not None:
            known_ids = await self._inbox.known(
                transaction, consumer=rows[0]["consumer"], message_ids=[rows[0]["message_id"]]
            )
            if known_ids:
                result = SettleResult.NOT_WITHOUT_EFFECT
        return SettledLetter(id=letter_id, result=result)

    async def preview_discard(
        self, transaction: ReadTransaction, selection: LetterSelection
    ) -> list[SettledLetter]:
        """Return what `discard` would answer now, and change nothing."""
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids, ids=ids)
        return _settled(ids, _discard_results(rows))

    async def _selected_ids(
        self, transaction: ReadTransaction, selection: LetterSelection
    ) -> list[int]:
        if isinstance(selection, DeadLetterFilter):
            selection = LetterBatch(which=selection)
        if isinstance(selection, LetterBatch):
            place = None
            if selection.after_id is not None:
                place = await transaction.fetch_one(self._place, id=selection.after_id)
            behind = place or _BEGINNING
            rows = await transaction.fetch_all(
                self._open_ids,
                **filter_parameters(selection.which),
                **{f"after_{name}": behind[name] for name in _BEGINNING},
                count_max=min(selection.count_max, SELECTED_COUNT_MAX),
            )
            return [row["id"] for row in rows]
        return named_ids(selection, what="dead letters")

    async def _settle_open(
        self,
        transaction: Transaction,
        rows: Sequence[Row],
        *,
        event: LetterEvent,
        act: Act | None,
        now: Instant,
        message_id: str | None = None,
    ) -> None:
        is_discarded = event is LetterEvent.DISCARDED
        changed_count = await transaction.execute(
            self._settle,
            ids=sorted(row["id"] for row in rows),
            new_state=DeadLetterState.DISCARDED if is_discarded else DeadLetterState.REPLAYED,
            now=now,
        )
        assert changed_count == len(rows), "the rows were locked when their state was read"
        await self._history.note_settled(
            transaction, rows, event=event, act=act, now=now, message_id=message_id
        )


_REPLAYED = SettleResult.REPLAYED


def _bounded(query: Select[tuple[object, ...]]) -> Select[tuple[object, ...]]:
    return query.limit(SELECTED_COUNT_MAX)


def _is_open(row: Row) -> bool:
    return bool(row["state"] == DeadLetterState.OPEN.value)


def _in_arrival_order(rows: Collection[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["first_received_at"], row["sequence"], row["id"]))


def _replay_results(
    rows: Sequence[Row], *, rules: ReplayRules, now: Instant
) -> dict[int, SettleResult]:
    return {row["id"]: _replay_result(row, rules=rules, now=now) for row in rows}


def _replay_result(row: Row, *, rules: ReplayRules, now: Instant) -> SettleResult:
    if not _is_open(row):
        return SettleResult.NOT_OPEN
    if not rules.is_remembered(since=row["first_received_at"], now=now):
        return SettleResult.NOT_REMEMBERED
    try:
        _replay_event(letter_of(row))
    except (ValueError, RecursionError):
        return SettleResult.NOT_READABLE
    return _REPLAYED


def _discard_results(rows: Sequence[Row]) -> dict[int, SettleResult]:
    return {
        row["id"]: SettleResult.DISCARDED if _is_open(row) else SettleResult.NOT_OPEN
        for row in rows
    }


def _settled(ids: Sequence[int], results: dict[int, SettleResult]) -> list[SettledLetter]:
    return [SettledLetter(id=id_, result=results.get(id_, SettleResult.NOT_FOUND)) for id_ in ids]


def _replay_event(letter: DeadLetter) -> Event:
    """Return the event that brings the message back: a copy, named by the letter and its turn."""
    summary = letter.summary
    headers = decode_headers(letter.headers_json)
    return returned_event(
        Delivery(
            queue=summary.queue,
            tag=0,
            body=letter.body,
            message_id=letter.sender_message_id,
            type=letter.type.decode("utf-8", "surrogateescape"),
            headers=headers,
            redelivered=False,
        ),
        message_id=summary.message_id,
        # Not an event of its own: it would pass for as young as its row. The message is named, for
        # a database may give the number of a letter that is purged to another one.
        retry_key=f"letter {summary.id} {summary.settled_count} {summary.message_id}",
        # Attempt 1, no failed try, received when it comes: a first try carries none of these.
        retry_headers={},
        # What does not tell what it is about has no neighbours.
        ordered=place_of(headers)[0] is not None,
    )


def _edited_event(letter: DeadLetter, edit: Edit) -> Event:
    event = _replay_event(letter)
    return replace(
        event,
        body=edit.body,
        message_id=edit.message_id,
        # It is another message now, and no older than its row.
        retry_key=None,
        headers={**event.headers, EDITED_FROM_HEADER: letter.summary.message_id},
    )
