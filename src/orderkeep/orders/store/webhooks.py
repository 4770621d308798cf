"""Webhook deliveries: one row for each order event and receiver, sent in order, one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from sqlalchemy import ColumnElement, FromClause, bindparam, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.contracts import order_events
from orderkeep.database.statement import (
    RowStatement,
    Statement,
    is_any_of,
    row_value,
    written_out,
)
from orderkeep.database.transaction import ReadTransaction, Transaction
from orderkeep.instant import Instant
from orderkeep.orders.tables import KERNEL
from orderkeep.orders.tables import WEBHOOK_DELIVERIES as DELIVERIES


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDelivery:
    """One order event on its way to one receiver.

    Attributes:
        attempts: Tries made so far.
        created_at: When the event reached us: the time for giving up counts from here.
    """

    delivery_id: int
    receiver: str
    message_id: str
    order_no: str
    type: str
    body: bytes
    attempts: int
    created_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenEvent:
    """An order event as the outbox has it.

    Attributes:
        is_heard: Its message has arrived, and had its deliveries made.
    """

    message_id: str
    order_no: str
    sequence: int
    body: bytes
    is_heard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookState:
    """Where a delivery stands, for the timeline."""

    receiver: str
    message_id: str
    type: str
    state: str
    attempts: int
    last_error: str | None
    created_at: Instant
    sent_at: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResult:
    """What one try made of a delivery.

    Attributes:
        state: "sent", "pending" (again at `next_attempt_at`) or "failed".
    """

    delivery_id: int
    attempts: int
    state: str
    next_attempt_at: Instant
    error: str | None


_NEW = ("receiver", "message_id", "order_no", "type", "body", "state", "attempts")
_INSERT = RowStatement(
    insert(DELIVERIES)
    .values(
        {
            name: row_value(name, DELIVERIES.c[name].type)
            for name in (*_NEW, "next_attempt_at", "created_at")
        }
    )
    .on_conflict_do_nothing(index_elements=["receiver", "message_id"])
)
_EARLIER = DELIVERIES.alias("earlier")


def _is_first(delivery: FromClause) -> ColumnElement[bool]:
    """Return the condition that holds for one at a time per receiver and order, in order."""
    return ~exists().where(
        _EARLIER.c.receiver == delivery.c.receiver,
        _EARLIER.c.order_no == delivery.c.order_no,
        _EARLIER.c.state == written_out("pending"),
        _EARLIER.c.id < delivery.c.id,
    )


_CANDIDATE = DELIVERIES.alias("candidate")
# A query of its own (WITH): inside the condition, PostgreSQL may run it again for every row it is
# asked about, and claim more than the limit says.
_DUE = (
    select(_CANDIDATE.c.id)
    .where(
        _CANDIDATE.c.state == written_out("pending"),
        _CANDIDATE.c.receiver == bindparam("receiver"),
        _CANDIDATE.c.next_attempt_at <= bindparam("now"),
        _is_first(_CANDIDATE),
    )
    .order_by(_CANDIDATE.c.next_attempt_at, _CANDIDATE.c.id)
    .limit(bindparam("limit_count"))
    .with_for_update(skip_locked=True, key_share=True)
    .cte("due")
)
# One statement claims the rows and yields them. On PostgreSQL it passes over what another worker is
# claiming; the first of an order still holds back the ones behind it.
_CLAIM = Statement(
    update(DELIVERIES)
    .where(DELIVERIES.c.id.in_(select(_DUE.c.id)))
    .values(next_attempt_at=bindparam("claimed_until"))
    .returning(*DELIVERIES.c)
)
_RELEASE = Statement(
    update(DELIVERIES)
    .where(
        DELIVERIES.c.state == written_out("pending"),
        DELIVERIES.c.next_attempt_at > bindparam("now"),
    )
    .values(next_attempt_at=bindparam("now"))
)
_NEXT_DUE = Statement(
    select(func.min(DELIVERIES.c.next_attempt_at).label("next_attempt_at")).where(
        DELIVERIES.c.state == written_out("pending"),
        DELIVERIES.c.receiver == bindparam("receiver"),
        _is_first(DELIVERIES),
    )
)
_NEXT_RECEIVER = Statement(
    select(func.min(DELIVERIES.c.receiver).label("receiver")).where(
        DELIVERIES.c.state == written_out("pending"),
        DELIVERIES.c.receiver > bindparam("behind"),
    )
)
_SETTLE = RowStatement(
    update(DELIVERIES)
    .where(
        DELIVERIES.c.id == row_value("the_id", DELIVERIES.c.id.type),
        DELIVERIES.c.state == written_out("pending"),
        DELIVERIES.c.attempts == row_value("old_attempts", DELIVERIES.c.attempts.type),
    )
    .values(
        attempts=DELIVERIES.c.attempts + 1,
        state=row_value("new_state", DELIVERIES.c.state.type),
        next_attempt_at=row_value("new_next_attempt_at", DELIVERIES.c.next_attempt_at.type),
        last_error=row_value("new_last_error", DELIVERIES.c.last_error.type),
        sent_at=row_value("new_sent_at", DELIVERIES.c.sent_at.type),
    )
)
_OUTBOX, _INBOX = KERNEL.outbox, KERNEL.inbox
_EVENTS = Statement(
    select(
        _OUTBOX.c.message_id,
        _OUTBOX.c.aggregate_id,
        _OUTBOX.c.sequence,
        _OUTBOX.c.body,
        exists()
        .where(
            _INBOX.c.consumer == bindparam("consumer"),
            _INBOX.c.message_id == _OUTBOX.c.message_id,
        )
        .label("is_heard"),
    ).where(
        is_any_of(_OUTBOX.c.aggregate_id, "order_nos"),
        _OUTBOX.c.route == bindparam("route"),
        _OUTBOX.c.retry_key.is_(None),
        _OUTBOX.c.state != written_out("discarded"),
    )
)
_OF_ORDER = Statement(
    select(DELIVERIES)
    .where(DELIVERIES.c.order_no == bindparam("order_no"))
    .order_by(DELIVERIES.c.id)
    .limit(1000)
)


async def list_events(transaction: ReadTransaction, order_nos: Sequence[str]) -> list[WrittenEvent]:
    """Return every event of the orders that nobody has discarded; copies are none."""
    rows = await transaction.fetch_all(
        _EVENTS,
        order_nos=order_nos,
        route=order_events.ROUTE,
        consumer=order_events.QUEUE_OUTBOX,
    )
    return [
        WrittenEvent(
            message_id=row["message_id"],
            order_no=row["aggregate_id"],
            sequence=row["sequence"],
            body=row["body"],
            is_heard=bool(row["is_heard"]),
        )
        for row in rows
    ]


async def insert_deliveries(
    transaction: Transaction, deliveries: Sequence[WebhookDelivery]
) -> None:
    """Record deliveries to be made at once; one that is known already is left as it is."""
    await transaction.execute_rows(
        _INSERT,
        [
            {
                "receiver": delivery.receiver,
                "message_id": delivery.message_id,
                "order_no": delivery.order_no,
                "type": delivery.type,
                "body": delivery.body,
                "state": "pending",
                "attempts": 0,
                "next_attempt_at": delivery.created_at,
                "created_at": delivery.created_at,
            }
            for delivery in deliveries
        ],
    )


async def list_receivers(transaction: ReadTransaction) -> list[str]:
    """Return the receivers that have deliveries to be made, whether due or not."""
    receivers: list[str] = []
    behind = ""
    # From one to the next through the index: however much waits for each, it is not read.
    while row := await transaction.fetch_one(_NEXT_RECEIVER, behind=behind):
        if row["receiver"] is None:
            break
        behind = row["receiver"]
        receivers.append(behind)
    return receivers


async def claim_deliveries(
    transaction: Transaction, *, receiver: str, now: Instant, until: Instant, limit_count: int
) -> list[WebhookDelivery]:
    """Claim what is due for the receiver, the longest waiting first, at most one of each order.

    Args:
        until: Not before then does another worker claim the same.
    """
    rows = await transaction.fetch_all(
        _CLAIM, receiver=receiver, now=now, claimed_until=until, limit_count=limit_count
    )
    # RETURNING promises no order.
    rows.sort(key=itemgetter("id"))
    return [
        WebhookDelivery(
            delivery_id=row["id"],
            receiver=row["receiver"],
            message_id=row["message_id"],
            order_no=row["order_no"],
            type=row["type"],
            body=row["body"],
            attempts=row["attempts"],
            created_at=Instant(row["created_at"]),
        )
        for row in rows
    ]


async def release_deliveries(transaction: Transaction, *, now: Instant) -> int:
    """Let every claim, and with them every pause, be over; return how many there were."""
    return await transaction.execute(_RELEASE, now=now)


async def find_next_due(transaction: ReadTransaction, *, receiver: str) -> Instant | None:
    """Return when the next delivery to the receiver may be claimed, or None if there is none."""
    row = await transaction.fetch_one(_NEXT_DUE, receiver=receiver)
    return None if row is None else row["next_attempt_at"]


async def settle_deliveries(
    transaction: Transaction, results: Sequence[WebhookResult], *, now: Instant
) -> None:
    """Record one try of each delivery, unless another worker has recorded one meanwhile."""
    await transaction.execute_rows(
        _SETTLE,
        [
            {
                "the_id": result.delivery_id,
                "old_attempts": result.attempts,
                "new_state": result.state,
                "new_next_attempt_at": result.next_attempt_at,
                "new_last_error": result.error,
                "new_sent_at": now if result.state == "sent" else None,
            }
            for result in results
        ],
    )


async def list_webhooks(transaction: ReadTransaction, order_no: str) -> list[WebhookState]:
    """Return every delivery of the order's events, the earliest first."""
    rows = await transaction.fetch_all(_OF_ORDER, order_no=order_no)
    return [
        WebhookState(
            receiver=row["receiver"],
            message_id=row["message_id"],
            type=row["type"],
            state=row["state"],
            attempts=row["attempts"],
            last_error=row["last_error"],
            created_at=Instant(row["created_at"]),
            sent_at=row["sent_at"],
        )
        for row in rows
    ]
