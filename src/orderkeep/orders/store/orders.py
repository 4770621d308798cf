"""Orders, their lines and their history."""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value, written_out
from orderkeep.database.transaction import ReadTransaction, Row, Transaction, Value
from orderkeep.instant import Instant
from orderkeep.orders.order import CloseReason, Order, OrderLine, OrderNumber, Receiver, Status
from orderkeep.orders.tables import ORDER_HISTORY, ORDER_LINES, ORDERS

# A bound for look-ups by a list of keys; lists come from batches, which are far smaller.
_ROWS_MAX = 200_000

_INSERT_ORDER = RowStatement(
    insert(ORDERS).values({column.name: row_value(column.name, column.type) for column in ORDERS.c})
)
_INSERT_LINE = RowStatement(
    insert(ORDER_LINES).values(
        {column.name: row_value(column.name, column.type) for column in ORDER_LINES.c}
    )
)
_INSERT_HISTORY = RowStatement(
    insert(ORDER_HISTORY).values(
        {column.name: row_value(column.name, column.type) for column in ORDER_HISTORY.c}
    )
)
_LOCK = Statement(
    select(ORDERS)
    .where(is_any_of(ORDERS.c.order_no, "order_nos"))
    .order_by(ORDERS.c.order_no)
    .limit(_ROWS_MAX)
    .with_for_update(key_share=True)
)
_FIND = Statement(select(ORDERS).where(is_any_of(ORDERS.c.order_no, "order_nos")).limit(_ROWS_MAX))
_LINES = Statement(
    select(ORDER_LINES)
    .where(is_any_of(ORDER_LINES.c.order_no, "order_nos"))
    .order_by(ORDER_LINES.c.order_no, ORDER_LINES.c.line_no)
    .limit(_ROWS_MAX)
)
_HISTORY = Statement(
    select(ORDER_HISTORY)
    .where(ORDER_HISTORY.c.order_no == bindparam("order_no"))
    .order_by(ORDER_HISTORY.c.version)
)
_DUE = Statement(
    select(ORDERS.c.order_no)
    .where(
        ORDERS.c.status == written_out(Status.PENDING_PAYMENT.value),
        ORDERS.c.expires_at <= bindparam("due_at"),
    )
    .order_by(ORDERS.c.expires_at)
    .limit(bindparam("limit_count"))
    .offset(bindparam("passed_over_count"))
)

# What a use case may change of an order; everything else is written once.
_MUTABLE = (
    "status",
    "version",
    "event_seq",
    "expires_at",
    "paid_at",
    "closed_at",
    "cancelled_at",
    "close_reason",
    "pay_channel",
    "trade_no",
    "deadline_extended_at",
)
_SAVE = RowStatement(
    update(ORDERS)
    .where(
        ORDERS.c.order_no == row_value("the_order_no", ORDERS.c.order_no.type),
        ORDERS.c.status == row_value("old_status", ORDERS.c.status.type),
        ORDERS.c.version == row_value("old_version", ORDERS.c.version.type),
        ORDERS.c.event_seq == row_value("old_event_seq", ORDERS.c.event_seq.type),
    )
    .values({name: row_value(f"new_{name}", ORDERS.c[name].type) for name in _MUTABLE})
    .returning(ORDERS.c.order_no)
)


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One change of an order's status.

    Attributes:
        from_status: None for the order's beginning.
        cause: "buyer", "operator", "payment" or "payment_timeout".
        actor: Who or which: a user id, a message id, or "sweep".
        note: What the buyer or the operator said of it.
    """

    order_no: OrderNumber
    version: int
    from_status: Status | None
    to_status: Status
    cause: str
    actor: str
    changed_at: Instant
    note: str | None = None


class StaleOrderError(Exception):
    """An order was saved over another change: its lock was not held. A bug, never a refusal."""


async def insert_orders(transaction: Transaction, orders: Sequence[Order]) -> None:
    """Add new orders with their lines.

    Raises:
        ConstraintViolatedError: an order number is taken already.
    """
    await transaction.execute_rows(_INSERT_ORDER, [_order_values(order) for order in orders])
    await transaction.execute_rows(
        _INSERT_LINE,
        [_line_values(order.order_no, line) for order in orders for line in order.lines],
    )


async def insert_history(transaction: Transaction, entries: Sequence[HistoryEntry]) -> None:
    """Append to the history; an entry is never changed.

    Raises:
        ConstraintViolatedError: the order has an entry of that version already.
    """
    await transaction.execute_rows(_INSERT_HISTORY, [asdict(entry) for entry in entries])


async def lock_orders(
    transaction: Transaction, order_nos: Collection[str]
) -> dict[OrderNumber, Order]:
    """Lock the orders, in the order of their numbers, and return those that exist."""
    rows = await transaction.fetch_all(_LOCK, order_nos=sorted(order_nos))
    return await _with_lines(transaction, rows)


async def find_orders(
    transaction: ReadTransaction, order_nos: Collection[str]
) -> dict[OrderNumber, Order]:
    """Return the orders that exist."""
    rows = await transaction.fetch_all(_FIND, order_nos=sorted(order_nos))
    return await _with_lines(transaction, rows)


async def find_order(transaction: ReadTransaction, order_no: str) -> Order | None:
    """Return the order, or None."""
    return (await find_orders(transaction, [order_no])).get(OrderNumber(order_no))


async def save_orders(transaction: Transaction, changes: Sequence[tuple[Order, Order]]) -> None:
    """Write orders that this transaction has locked, each as (as it was, as it is now).

    Raises:
        StaleOrderError: an order is no longer as it was.
    """
    rows = await transaction.fetch_rows(
        _SAVE,
        [
            {
                "the_order_no": before.order_no,
                "old_status": before.status,
                "old_version": before.version,
                "old_event_seq": before.event_seq,
                **{f"new_{name}": getattr(after, name) for name in _MUTABLE},
            }
            for before, after in sorted(changes, key=lambda change: change[0].order_no)
        ],
    )
    missed = {before.order_no for before, _ in changes} - {row["order_no"] for row in rows}
    if missed:
        message = f"orders changed under their lock: {sorted(missed)}"
        raise StaleOrderError(message)


async def find_due_order_nos(
    transaction: ReadTransaction, *, due_at: Instant, passed_over_count: int, limit_count: int
) -> list[OrderNumber]:
    """Return unpaid orders whose deadline is not after `due_at`, the longest overdue first.

    Args:
        passed_over_count: So many of the longest overdue are left out.
    """
    rows = await transaction.fetch_all(
        _DUE, due_at=due_at, passed_over_count=passed_over_count, limit_count=limit_count
    )
    return [OrderNumber(row["order_no"]) for row in rows]


async def list_history(transaction: ReadTransaction, order_no: str) -> list[HistoryEntry]:
    """Return every change of the order's status, in order."""
    rows = await transaction.fetch_all(_HISTORY, order_no=order_no)
    return [
        HistoryEntry(
            order_no=OrderNumber(row["order_no"]),
            version=row["version"],
            from_status=None if row["from_status"] is None else Status(row["from_status"]),
            to_status=Status(row["to_status"]),
            cause=row["cause"],
            actor=row["actor"],
            changed_at=Instant(row["changed_at"]),
            note=row["note"],
        )
        for row in rows
    ]


async def with_lines(transaction: ReadTransaction, rows: Sequence[Row]) -> list[Order]:
    """Return the orders of rows of the orders table, in the rows' order."""
    orders = await _with_lines(transaction, rows)
    return list(orders.values())


async def _with_lines(
    transaction: ReadTransaction, rows: Sequence[Row]
) -> dict[OrderNumber, Order]:
    if not rows:
        return {}
    lines: dict[str, list[OrderLine]] = {row["order_no"]: [] for row in rows}
    for row in await transaction.fetch_all(_LINES, order_nos=sorted(lines)):
        lines[row["order_no"]].append(_line(row))
    return {
        OrderNumber(row["order_no"]): _order(row, tuple(lines[row["order_no"]])) for row in rows
    }


def _order(row: Row, lines: tuple[OrderLine, ...]) -> Order:
    receiver = None
    if row["receiver_name"] is not None:
        receiver = Receiver(
            name=row["receiver_name"],
            phone=row["receiver_phone"],
            address=row["receiver_address"],
        )
    return Order(
        order_no=OrderNumber(row["order_no"]),
        user_id=row["user_id"],
        status=Status(row["status"]),
        version=row["version"],
        event_seq=row["event_seq"],
        lines=lines,
        total_amount_minor=row["total_amount_minor"],
        pay_amount_minor=row["pay_amount_minor"],
        currency=row["currency"],
        receiver=receiver,
        buyer_remark=row["buyer_remark"],
        created_at=Instant(row["created_at"]),
        expires_at=Instant(row["expires_at"]),
        paid_at=row["paid_at"],
        closed_at=row["closed_at"],
        cancelled_at=row["cancelled_at"],
        close_reason=None if row["close_reason"] is None else CloseReason(row["close_reason"]),
        pay_channel=row["pay_channel"],
        trade_no=row["trade_no"],
        deadline_extended_at=row["deadline_extended_at"],
    )


def _line(row: Row) -> OrderLine:
    return OrderLine(
        line_no=row["line_no"],
        sku_id=row["sku_id"],
        title=row["title"],
        unit_price_minor=row["unit_price_minor"],
        quantity=row["quantity"],
        subtotal_minor=row["subtotal_minor"],
        cart_item_id=row["cart_item_id"],
    )


def _order_values(order: Order) -> Mapping[str, Value]:
    receiver = order.receiver
    # Of what is there only what has a column is looked at: not the lines, nor the receiver.
    return {
        **asdict(order),
        "receiver_name": None if receiver is None else receiver.name,
        "receiver_phone": None if receiver is None else receiver.phone,
        "receiver_address": None if receiver is None else receiver.address,
    }


def _line_values(order_no: OrderNumber, line: OrderLine) -> Mapping[str, Value]:
    return {"order_no": order_no, **asdict(line)}
