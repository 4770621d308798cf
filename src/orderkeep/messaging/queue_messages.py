"""The rows behind the queues in the database: their table, their statements, and what they mean."""

from sqlalchemy import (
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    bindparam,
    delete,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.schema import INSTANT, METADATA, ROW_NUMBER
from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Value
from orderkeep.instant import Instant
from orderkeep.messaging.headers import decode_headers, encode_headers
from orderkeep.messaging.message import Delivery, Message

QUEUE_MESSAGES = Table(
    "queue_messages",
    METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("queue", Text, nullable=False),
    Column("order_key", Text),
    Column("message_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("published_at", INSTANT, nullable=False),
    Column("due_at", INSTANT, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", INSTANT),
    Column("delivery_count", Integer, nullable=False),
)
# A consumer takes what is due in its queue, longest due first, and asks when the next is due.
Index(
    "ix_queue_messages_due",
    QUEUE_MESSAGES.c.queue,
    QUEUE_MESSAGES.c.due_at,
    QUEUE_MESSAGES.c.id,
)
# A consumer asks whether an earlier message with the same key is still there.
Index(
    "ix_queue_messages_key",
    QUEUE_MESSAGES.c.queue,
    QUEUE_MESSAGES.c.order_key,
    QUEUE_MESSAGES.c.id,
    sqlite_where=QUEUE_MESSAGES.c.order_key.is_not(None),
    postgresql_where=QUEUE_MESSAGES.c.order_key.is_not(None),
)

_WRITTEN = (
    "queue",
    "order_key",
    "message_id",
    "type",
    "body",
    "headers",
    "published_at",
    "due_at",
    "delivery_count",
)

PUBLISH = RowStatement(
    insert(QUEUE_MESSAGES).values(
        {name: row_value(name, QUEUE_MESSAGES.c[name].type) for name in _WRITTEN}
    )
)

_EARLIER = QUEUE_MESSAGES.alias("earlier")
_CANDIDATE = QUEUE_MESSAGES.alias("candidate")

# A query of its own (WITH): inside the condition, PostgreSQL may run it again for every row it is
# asked about, and lock more than the limit says.
_TAKEN = (
    select(_CANDIDATE.c.id)
    .where(
        _CANDIDATE.c.queue == bindparam("queue"),
        _CANDIDATE.c.due_at <= bindparam("now"),
        or_(
            _CANDIDATE.c.lease_until.is_(None),
            _CANDIDATE.c.lease_until <= bindparam("now"),
        ),
        or_(
            _CANDIDATE.c.order_key.is_(None),
            ~select(_EARLIER.c.id)
            .where(
                _EARLIER.c.queue == _CANDIDATE.c.queue,
                _EARLIER.c.order_key == _CANDIDATE.c.order_key,
                _EARLIER.c.id < _CANDIDATE.c.id,
            )
            .exists(),
        ),
    )
    .order_by(_CANDIDATE.c.due_at, _CANDIDATE.c.id)
    .limit(bindparam("count_max"))
    .with_for_update(skip_locked=True, key_share=True)
    .cte("taken")
)

# One statement takes the rows and yields them. On PostgreSQL it passes over what another consumer
# is taking; the earliest row of a key still holds back the ones behind it while it is passed over.
TAKE = Statement(
    update(QUEUE_MESSAGES)
    .where(QUEUE_MESSAGES.c.id.in_(select(_TAKEN.c.id)))
    .values(
        lease_owner=bindparam("token"),
        lease_until=bindparam("new_lease_until"),
        delivery_count=QUEUE_MESSAGES.c.delivery_count + 1,
    )
    .returning(
        QUEUE_MESSAGES.c.id,
        QUEUE_MESSAGES.c.message_id,
        QUEUE_MESSAGES.c.type,
        QUEUE_MESSAGES.c.body,
        QUEUE_MESSAGES.c.headers,
        QUEUE_MESSAGES.c.due_at,
        QUEUE_MESSAGES.c.delivery_count,
    )
)

NEXT_DUE_AT = Statement(
    select(QUEUE_MESSAGES.c.due_at)
    .where(
        QUEUE_MESSAGES.c.queue == bindparam("queue"),
        QUEUE_MESSAGES.c.due_at > bindparam("now"),
    )
    .order_by(QUEUE_MESSAGES.c.due_at)
    .limit(1)
)

# Read only when nothing could be taken: what is due then is leased, or waits behind what is.
NEXT_LEASE_END = Statement(
    select(func.min(QUEUE_MESSAGES.c.lease_until).label("lease_until")).where(
        QUEUE_MESSAGES.c.queue == bindparam("queue"),
        QUEUE_MESSAGES.c.due_at <= bindparam("now"),
    )
)

ACKNOWLEDGE = Statement(
    delete(QUEUE_MESSAGES).where(
        is_any_of(QUEUE_MESSAGES.c.id, "ids"),
        QUEUE_MESSAGES.c.lease_owner == bindparam("token"),
    )
)

GIVE_BACK = Statement(
    update(QUEUE_MESSAGES)
    .where(
        is_any_of(QUEUE_MESSAGES.c.id, "ids"),
        QUEUE_MESSAGES.c.lease_owner == bindparam("token"),
    )
    .values(
        lease_owner=null(),
        lease_until=null(),
        delivery_count=QUEUE_MESSAGES.c.delivery_count - 1,
    )
)

RELEASE_ALL = Statement(
    update(QUEUE_MESSAGES)
    .where(QUEUE_MESSAGES.c.lease_owner.is_not(None))
    .values(lease_owner=null(), lease_until=null())
)


READY_COUNT = Statement(
    select(func.count().label("message_count")).where(
        QUEUE_MESSAGES.c.queue == bindparam("queue"),
        QUEUE_MESSAGES.c.due_at <= bindparam("now"),
        or_(
            QUEUE_MESSAGES.c.lease_until.is_(None),
            QUEUE_MESSAGES.c.lease_until <= bindparam("now"),
        ),
    )
)

_DEPTHS = Statement(
    select(QUEUE_MESSAGES.c.queue, func.count().label("message_count"))
    .group_by(QUEUE_MESSAGES.c.queue)
    .order_by(QUEUE_MESSAGES.c.queue)
    .limit(1000)
)


async def queue_depths(transaction: ReadTransaction) -> dict[str, int]:
    """Return how many messages wait in each queue that is not empty, delayed ones among them."""
    rows = await transaction.fetch_all(_DEPTHS)
    return {row["queue"]: row["message_count"] for row in rows}


def published_row(message: Message, *, queue: str, now: Instant) -> dict[str, Value]:
    """Return the row of a message in one of the queues it reaches."""
    return {
        "queue": queue,
        "order_key": message.order_key,
        "message_id": message.message_id,
        "type": message.type,
        "body": message.body,
        "headers": encode_headers(message.headers),
        "published_at": message.published_at,
        "due_at": now if message.deliver_at is None else message.deliver_at,
        "delivery_count": 0,
    }


def delivery_of(row: Row, *, queue: str) -> Delivery:
    """Return the delivery that a row yields when it is taken."""
    return Delivery(
        queue=queue,
        tag=row["id"],
        body=row["body"],
        message_id=row["message_id"].encode(),
        type=row["type"],
        headers=decode_headers(row["headers"]),
        redelivered=row["delivery_count"] > 1,
    )
