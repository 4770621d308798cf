"""Dead letters: what could not be handled, kept as it came, until an operator decides.

Invariant: a message is acknowledged without effect only in the transaction that writes its dead
letter (or its next try). There is one letter for each message of a consumer; a message that fails
again after a replay opens its letter again. Two messages that differ in their bodies but claim one
id are two letters: none of them is lost. A crash before the commit leaves the message in its queue;
a crash after it, before the acknowledgement, brings a copy that writes the same letter again.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, Text, bindparam, cast, func, or_, select, update
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
    SettledLetter,
    SettleResult,
    letter_of,
    own_id,
    row_of,
    summary_of,
)
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.message import Delivery, Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.return_to_queue import returned_event

# One replay or discard settles so many at most; whoever asked for more asks again.
SELECTED_COUNT_MAX = 1000

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
)

# What a second failure of the same message changes; the message itself stays as it is.
_REWRITTEN = ("headers", "reason", "detail", "traceback", "tries", "state", "set_aside_at")

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
)


class DeadLetters:
    """The dead letters of one service."""

    def __init__(self, outbox: Outbox) -> None:
        """Keep the letters beside the outbox through which they are replayed."""
        self._outbox = outbox
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
            ).returning(table.c.consumer, table.c.message_id, table.c.body)
        )
        summary = select(*(table.c[name] for name in _SUMMARISED))
        self._list = Statement(
            summary.where(
                table.c.state == bindparam("state"),
                _is_absent_or("queue", table.c.queue),
                _is_absent_or("reason", table.c.reason),
                table.c.id < bindparam("before_id"),
            )
            .order_by(table.c.id.desc())
            .limit(bindparam("limit"))
        )
        self._find = Statement(select(table).where(table.c.id == bindparam("id")))
        by_ids = select(table).where(is_any_of(table.c.id, "ids")).order_by(table.c.id)
        self._by_ids_locked = Statement(_bounded(by_ids).with_for_update(key_share=True))
        self._states_by_ids = Statement(
            _bounded(by_ids.with_only_columns(table.c.id, table.c.state))
        )
        open_ids = (
            select(table.c.id)
            .where(
                table.c.state == DeadLetterState.OPEN,
                _is_absent_or("queue", table.c.queue),
                _is_absent_or("reason", table.c.reason),
            )
            .order_by(table.c.id)
        )
        self._open_ids = Statement(_bounded(open_ids))
        self._settle = Statement(
            update(table)
            .where(is_any_of(table.c.id, "ids"), table.c.state == DeadLetterState.OPEN)
            .values(
                state=bindparam("new_state"),
                settled_at=bindparam("now"),
                settled_count=table.c.settled_count + 1,
            )
        )
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
        await transaction.fetch_rows(
            self._write,
            [row_of(namesakes[id_], message_id=id_, now=now) for id_ in sorted(namesakes)],
        )

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
            queue=which.queue,
            reason=which.reason,
            before_id=_BEYOND if before_id is None else before_id,
            limit=limit,
        )
        return [summary_of(row) for row in rows]

    async def find(self, transaction: ReadTransaction, letter_id: int) -> DeadLetter | None:
        """Return the letter whole, or None if there is none with this id."""
        row = await transaction.fetch_one(self._find, id=letter_id)
        return None if row is None else letter_of(row)

    async def open_counts(self, transaction: ReadTransaction) -> dict[str, int]:
        """Return how many letters are open, by queue; queues without any are left out."""
        rows = await transaction.fetch_all(self._open_counts)
        return {row["queue"]: row["open_count"] for row in rows}

    async def replay(
        self,
        transaction: Transaction,
        selection: Sequence[int] | DeadLetterFilter,
        *,
        now: Instant,
    ) -> list[SettledLetter]:
        """Send the messages to their queues again, through the outbox, as if for the first time.

        Args:
            transaction: Appends and settles together: a letter is replayed once, by whoever is
                first.
            selection: Ids, at most `SELECTED_COUNT_MAX`; or a filter, which takes the oldest open
                ones up to that number.
            now: The database's clock in this transaction.

        Raises:
            ValueError: there are more ids than that.
        """
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids_locked, ids=ids)
        letters = [letter_of(row) for row in rows]
        await self._outbox.pass_on(
            transaction,
            [
                _replay_event(letter)
                for letter in letters
                if letter.summary.state is DeadLetterState.OPEN
            ],
            now=now,
        )
        states = {letter.summary.id: letter.summary.state for letter in letters}
        await self._settle_open(transaction, states, state=DeadLetterState.REPLAYED, now=now)
        return _results(ids, states, result=SettleResult.REPLAYED)

    async def discard(
        self,
        transaction: Transaction,
        selection: Sequence[int] | DeadLetterFilter,
        *,
        now: Instant,
    ) -> list[SettledLetter]:
        """Close the letters without another try; they stay to be read. Arguments as `replay`."""
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._by_ids_locked, ids=ids)
        states = {row["id"]: DeadLetterState(row["state"]) for row in rows}
        await self._settle_open(transaction, states, state=DeadLetterState.DISCARDED, now=now)
        return _results(ids, states, result=SettleResult.DISCARDED)

    async def preview(
        self,
        transaction: ReadTransaction,
        selection: Sequence[int] | DeadLetterFilter,
        *,
        result: SettleResult,
    ) -> list[SettledLetter]:
        """Return what a replay or a discard would answer now, and change nothing.

        Args:
            transaction: A snapshot.
            selection: As for `replay`.
            result: `REPLAYED` or `DISCARDED`.
        """
        ids = await self._selected_ids(transaction, selection)
        rows = await transaction.fetch_all(self._states_by_ids, ids=ids)
        states = {row["id"]: DeadLetterState(row["state"]) for row in rows}
        return _results(ids, states, result=result)

    async def _selected_ids(
        self, transaction: ReadTransaction, selection: Sequence[int] | DeadLetterFilter
    ) -> list[int]:
        if isinstance(selection, DeadLetterFilter):
            rows = await transaction.fetch_all(
                self._open_ids, queue=selection.queue, reason=selection.reason
            )
            return [row["id"] for row in rows]
        if len(selection) > SELECTED_COUNT_MAX:
            message = f"{len(selection)} dead letters at once; at most {SELECTED_COUNT_MAX}"
            raise ValueError(message)
        return list(dict.fromkeys(selection))

    async def _settle_open(
        self,
        transaction: Transaction,
        states: dict[int, DeadLetterState],
        *,
        state: DeadLetterState,
        now: Instant,
    ) -> None:
        open_ids = [id_ for id_, was in states.items() if was is DeadLetterState.OPEN]
        changed_count = await transaction.execute(
            self._settle, ids=open_ids, new_state=state, now=now
        )
        assert changed_count == len(open_ids), "the rows were locked when their state was read"


# Row numbers are positive 64-bit integers.
_BEYOND = 2**63 - 1


def _bounded(query: Select[tuple[object, ...]]) -> Select[tuple[object, ...]]:
    return query.limit(SELECTED_COUNT_MAX)


def _is_absent_or(name: str, column: ColumnElement[str]) -> ColumnElement[bool]:
    # The cast tells PostgreSQL the parameter's type where it is compared with nothing.
    parameter = cast(bindparam(name, type_=Text()), Text())
    return or_(parameter.is_(None), column == parameter)


def _replay_event(letter: DeadLetter) -> Event:
    return returned_event(
        Delivery(
            queue=letter.summary.queue,
            tag=0,
            body=letter.body,
            message_id=letter.sender_message_id,
            type=letter.type.decode("utf-8", "surrogateescape"),
            headers=decode_headers(letter.headers_json),
            redelivered=False,
        ),
        message_id=letter.summary.message_id,
        # Attempt 1, no failed try, received when it comes: a first try carries none of these.
        retry_headers={},
    )


def _results(
    ids: Sequence[int], states: dict[int, DeadLetterState], *, result: SettleResult
) -> list[SettledLetter]:
    return [
        SettledLetter(
            id=id_,
            result=SettleResult.NOT_FOUND
            if id_ not in states
            else result
            if states[id_] is DeadLetterState.OPEN
            else SettleResult.NOT_OPEN,
        )
        for id_ in ids
    ]
