"""What the payment service knows of orders, and the count of the events it sends about each."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from sqlalchemy import and_, bindparam, false, or_, select
from sqlalchemy.dialects.postgresql import insert

from orderkeep.contracts.order_status import Status
from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant
from orderkeep.payments.tables import PAYMENT_ORDERS


class KnownOrder(Struct, frozen=True, kw_only=True):
    """An order as its events have told of it.

    Attributes:
        amount_minor: What is owed.
    """

    order_no: str
    user_id: str
    status: Status
    version: int
    amount_minor: int
    currency: str
    expires_at: Instant


# Far above any batch: a prefetch of messages, one order each.
_LOCKED_ORDERS_MAX = 10_000

_TOLD = ("user_id", "status", "version", "amount_minor", "currency", "expires_at")

_FIND_ORDER = Statement(
    select(PAYMENT_ORDERS).where(PAYMENT_ORDERS.c.order_no == bindparam("order_no")).limit(1)
)

# A row must be there to be locked; without an event it is only a counter. One that is there is
# locked by the conflict, though nothing is changed in it (PostgreSQL, INSERT, "ON CONFLICT DO
# UPDATE": all rows are locked, also those that the WHERE leaves as they are). Whoever locks rows of
# this table does it so, in one pass and in the order of the numbers: two passes, first over those
# that are missing, would wait for one another.
_LOCK_ORDER = RowStatement(
    insert(PAYMENT_ORDERS)
    .values(
        order_no=row_value("order_no", PAYMENT_ORDERS.c.order_no.type),
        event_seq=0,
        updated_at=row_value("updated_at", PAYMENT_ORDERS.c.updated_at.type),
    )
    .on_conflict_do_update(
        index_elements=["order_no"],
        set_={"event_seq": PAYMENT_ORDERS.c.event_seq},
        where=false(),
    )
)
_FIND_ORDERS = Statement(
    select(PAYMENT_ORDERS)
    .where(is_any_of(PAYMENT_ORDERS.c.order_no, "order_nos"))
    .order_by(PAYMENT_ORDERS.c.order_no)
    .limit(_LOCKED_ORDERS_MAX)
)

_insert_told = insert(PAYMENT_ORDERS).values(
    order_no=row_value("order_no", PAYMENT_ORDERS.c.order_no.type),
    event_seq=0,
    updated_at=row_value("updated_at", PAYMENT_ORDERS.c.updated_at.type),
    **{name: row_value(name, PAYMENT_ORDERS.c[name].type) for name in _TOLD},
)
_new = _insert_told.excluded
# The version rises with each change of state; only a later deadline comes without one.
_is_news = or_(
    PAYMENT_ORDERS.c.version.is_(None),
    PAYMENT_ORDERS.c.version < _new.version,
    and_(
        PAYMENT_ORDERS.c.version == _new.version,
        PAYMENT_ORDERS.c.expires_at < _new.expires_at,
    ),
)
_NOTE_ORDER = RowStatement(
    _insert_told.on_conflict_do_update(
        index_elements=["order_no"],
        set_={name: _new[name] for name in (*_TOLD, "updated_at")},
        where=_is_news,
    ).returning(PAYMENT_ORDERS.c.order_no)
)

_insert_count = insert(PAYMENT_ORDERS).values(
    order_no=row_value("order_no", PAYMENT_ORDERS.c.order_no.type),
    event_seq=row_value("event_count", PAYMENT_ORDERS.c.event_seq.type),
    updated_at=row_value("updated_at", PAYMENT_ORDERS.c.updated_at.type),
)
_RAISE_SEQUENCE = RowStatement(
    _insert_count.on_conflict_do_update(
        index_elements=["order_no"],
        set_={"event_seq": PAYMENT_ORDERS.c.event_seq + _insert_count.excluded.event_seq},
    ).returning(PAYMENT_ORDERS.c.order_no, PAYMENT_ORDERS.c.event_seq)
)


async def find_order(transaction: ReadTransaction, order_no: str) -> KnownOrder | None:
    """Return the order, or None before the first of its events was heard."""
    row = await transaction.fetch_one(_FIND_ORDER, order_no=order_no)
    return None if row is None else _order(row)


async def lock_orders(
    transaction: Transaction, order_nos: Iterable[str], *, now: Instant
) -> dict[str, KnownOrder]:
    """Lock the orders' rows, whether anything was heard of them or not.

    Returns:
        The orders that were heard of.
    """
    in_order = sorted(set(order_nos))
    await transaction.execute_rows(
        _LOCK_ORDER, [{"order_no": order_no, "updated_at": now} for order_no in in_order]
    )
    rows = await transaction.fetch_all(_FIND_ORDERS, order_nos=in_order)
    orders = [_order(row) for row in rows]
    return {order.order_no: order for order in orders if order is not None}


async def note_orders(
    transaction: Transaction, orders: Sequence[KnownOrder], *, now: Instant
) -> set[str]:
    """Lock the orders' rows and note what events told, in one pass in the order of their numbers.

    Args:
        orders: No two have one number.

    Returns:
        The numbers of the orders for which it was news.
    """
    rows: list[dict[str, Value]] = [
        {
            "order_no": order.order_no,
            "user_id": order.user_id,
            "status": order.status.value,
            "version": order.version,
            "amount_minor": order.amount_minor,
            "currency": order.currency,
            "expires_at": order.expires_at,
            "updated_at": now,
        }
        for order in sorted(orders, key=lambda order: order.order_no)
    ]
    return {row["order_no"] for row in await transaction.fetch_rows(_NOTE_ORDER, rows)}


async def raise_sequences(
    transaction: Transaction, event_counts: Mapping[str, int], *, now: Instant
) -> dict[str, int]:
    """Count events that are about to leave, and return each order's sequence after them.

    The row's lock, held until the commit, makes the order of sequences the order of commits.
    """
    rows: list[dict[str, Value]] = [
        {"order_no": order_no, "event_count": event_counts[order_no], "updated_at": now}
        for order_no in sorted(event_counts)
    ]
    raised = await transaction.fetch_rows(_RAISE_SEQUENCE, rows)
    return {row["order_no"]: row["event_seq"] for row in raised}


def _order(row: Row) -> KnownOrder | None:
    if row["version"] is None:
        return None
    return KnownOrder(
        order_no=row["order_no"],
        user_id=row["user_id"],
        status=Status(row["status"]),
        version=row["version"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        expires_at=Instant(row["expires_at"]),
    )
