"""What operators and buyers list: orders by what is known of them, and abandoned orders."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    ScalarSelect,
    Text,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union,
)
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.statement import RowStatement, Statement, row_value, written_out
from orderkeep.database.transaction import ReadTransaction, Row, Transaction
from orderkeep.instant import Instant
from orderkeep.orders.order import Order, OrderNumber, Status
from orderkeep.orders.payment import PaymentOutcome
from orderkeep.orders.store.orders import with_lines
from orderkeep.orders.tables import (
    ORDER_PAYMENTS,
    ORDER_REFUNDS,
    ORDERS,
    PAYMENT_CASES,
    TIMED_OUT_ORDERS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    """What the listed orders have in common; None is anything.

    Attributes:
        trade_no: Only orders for which a payment of this trade number is on record, whatever became
            of it: it paid, it waits in a case, or it goes back.
        refund_status: Only orders of which a refund stands so: "requested", "succeeded", "failed".
        before: Only orders with a smaller number: the next page.
    """

    order_no: str | None = None
    user_id: str | None = None
    status: Status | None = None
    trade_no: str | None = None
    refund_status: str | None = None
    created_from: Instant | None = None
    created_to: Instant | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOutOrder:
    """An order whose buyer never paid.

    Attributes:
        recovered_by_order_no: The first order that the same buyer placed afterwards and paid (or
            this one, if it was revived): the sale was not lost. None until then.
    """

    order_no: OrderNumber
    user_id: str
    pay_amount_minor: int
    currency: str | None
    reason_code: str
    created_at: Instant
    timed_out_at: Instant
    recovered_by_order_no: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMoney:
    """How many cases and refunds there are that somebody must still see to."""

    cases_open: int
    refunds_open: int
    refunds_failed: int


_INSERT_TIMED_OUT = RowStatement(
    insert(TIMED_OUT_ORDERS)
    .values({column.name: row_value(column.name, column.type) for column in TIMED_OUT_ORDERS.c})
    .on_conflict_do_nothing(index_elements=["order_no"])
)
_LATER = ORDERS.alias("later")
_ITSELF = ORDERS.alias("itself")
_RECOVERED_BY = (
    select(func.min(_LATER.c.order_no))
    .where(
        _LATER.c.user_id == TIMED_OUT_ORDERS.c.user_id,
        _LATER.c.order_no >= TIMED_OUT_ORDERS.c.order_no,
        # Not as the plain column: an engine could pick its index, and read all that was ever paid.
        func.coalesce(_LATER.c.status, "") == Status.PAID.value,
    )
    .scalar_subquery()
    .label("recovered_by_order_no")
)
# None is no limit. No text would do for one: which is the greatest is up to a database's collation.
_BEFORE = bindparam("before", type_=Text())
_TIMED_OUT = Statement(
    select(*TIMED_OUT_ORDERS.c, _ITSELF.c.currency, _RECOVERED_BY)
    .select_from(
        TIMED_OUT_ORDERS.outerjoin(_ITSELF, _ITSELF.c.order_no == TIMED_OUT_ORDERS.c.order_no)
    )
    .where(or_(_BEFORE.is_(None), TIMED_OUT_ORDERS.c.order_no < _BEFORE))
    .order_by(TIMED_OUT_ORDERS.c.order_no.desc())
    .limit(bindparam("limit_count"))
)
_STATUS_COUNTS = Statement(
    select(ORDERS.c.status, func.count().label("count")).group_by(ORDERS.c.status).limit(4)
)
_OVERDUE = Statement(
    select(func.count().label("count"), func.min(ORDERS.c.expires_at).label("oldest")).where(
        ORDERS.c.status == written_out(Status.PENDING_PAYMENT.value),
        ORDERS.c.expires_at <= bindparam("due_at"),
    )
)


def _refunds_in(status: str) -> ScalarSelect[int]:
    return (
        select(func.count())
        .select_from(ORDER_REFUNDS)
        .where(ORDER_REFUNDS.c.status == written_out(status))
        .scalar_subquery()
    )


_OPEN_MONEY = Statement(
    select(
        select(func.count())
        .select_from(PAYMENT_CASES)
        .where(PAYMENT_CASES.c.state == written_out("open"))
        .scalar_subquery()
        .label("cases_open"),
        _refunds_in("requested").label("refunds_open"),
        _refunds_in("failed").label("refunds_failed"),
    )
)


async def insert_timed_out(transaction: Transaction, orders: Sequence[TimedOutOrder]) -> None:
    """Add to the report; an order that stands there already is left as it is."""
    await transaction.execute_rows(
        _INSERT_TIMED_OUT,
        [
            {
                "order_no": order.order_no,
                "user_id": order.user_id,
                "pay_amount_minor": order.pay_amount_minor,
                "reason_code": order.reason_code,
                "created_at": order.created_at,
                "timed_out_at": order.timed_out_at,
            }
            for order in sorted(orders, key=lambda order: order.order_no)
        ],
    )


async def list_timed_out(
    transaction: ReadTransaction, *, before: str | None, limit_count: int
) -> list[TimedOutOrder]:
    """Return abandoned orders, newest first, from the one behind `before`."""
    rows = await transaction.fetch_all(_TIMED_OUT, before=before, limit_count=limit_count)
    return [_timed_out(row) for row in rows]


def _orders_of_trade(trade_no: str) -> CompoundSelect[tuple[str]]:
    # Each half has an index of its own: an order tells what paid it, and of all other payments,
    # which are few, there is a partial index, whose condition must stand in the text.
    itself = ORDERS.alias("itself")
    return union(
        select(itself.c.order_no).where(itself.c.trade_no == trade_no),
        select(ORDER_PAYMENTS.c.order_no).where(
            ORDER_PAYMENTS.c.trade_no == trade_no,
            ORDER_PAYMENTS.c.outcome != written_out(PaymentOutcome.ACCEPTED.value),
        ),
    )


async def list_orders(
    transaction: ReadTransaction, wanted: OrderFilter, *, limit_count: int
) -> list[Order]:
    """Return orders that fit the filter, newest first."""
    statement = orders_that_fit(wanted, limit_count=limit_count)
    return await with_lines(transaction, await transaction.fetch_all(statement))


def orders_that_fit(wanted: OrderFilter, *, limit_count: int) -> Statement:
    """Return what reads the orders that fit the filter, without their lines, newest first."""
    conditions = []
    if wanted.order_no is not None:
        conditions.append(ORDERS.c.order_no == wanted.order_no)
    if wanted.user_id is not None:
        conditions.append(ORDERS.c.user_id == wanted.user_id)
    if wanted.trade_no is not None:
        conditions.append(ORDERS.c.order_no.in_(_orders_of_trade(wanted.trade_no)))
    if wanted.refund_status is not None:
        # Few refunds fail, so the orders are looked up from them. The status stands in the text:
        # an engine takes a partial index only for what the statement itself says.
        refunded = select(ORDER_REFUNDS.c.order_no).where(
            ORDER_REFUNDS.c.status == written_out(wanted.refund_status)
        )
        conditions.append(ORDERS.c.order_no.in_(refunded))
    newest_first = [ORDERS.c.order_no.desc()]
    if wanted.status is not None and conditions:
        # No condition on the column itself: see `_page_of_status`, for any of its indexes.
        conditions.append(ORDERS.c.status + literal_column("''") == wanted.status.value)
    elif wanted.status is not None:
        conditions.extend(_page_of_status(wanted.status.value, before=wanted.before))
        newest_first.insert(0, ORDERS.c.status.desc())
    if wanted.created_from is not None:
        conditions.append(ORDERS.c.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        conditions.append(ORDERS.c.created_at < wanted.created_to)
    if wanted.before is not None:
        conditions.append(ORDERS.c.order_no < wanted.before)
    return Statement(select(ORDERS).where(*conditions).order_by(*newest_first).limit(limit_count))


def _page_of_status(status: str, *, before: str | None) -> Sequence[ColumnElement[bool]]:
    """Return the conditions of a page of one status, which one index has in order.

    They are a range of that index. Asked for unpaid orders by `=`, a server that has counted few of
    them takes the index of those that are due, and goes through the crowd that came since.
    """
    last: ColumnElement[bool] = ORDERS.c.status <= status
    if before is not None:
        last = tuple_(ORDERS.c.status, ORDERS.c.order_no) < tuple_(status, before)
    return ORDERS.c.status >= status, last


async def count_by_status(transaction: ReadTransaction) -> dict[str, int]:
    """Return how many orders stand in each status, by counting them all."""
    rows = await transaction.fetch_all(_STATUS_COUNTS)
    return {row["status"]: row["count"] for row in rows}


async def count_overdue(
    transaction: ReadTransaction, *, due_at: Instant
) -> tuple[int, Instant | None]:
    """Return how many unpaid orders had their deadline by `due_at`, and the earliest of these."""
    row = await transaction.fetch_one(_OVERDUE, due_at=due_at)
    assert row is not None
    return row["count"], row["oldest"]


async def count_open_money(transaction: ReadTransaction) -> OpenMoney:
    """Return how much of what the service knows of money still asks for somebody."""
    row = await transaction.fetch_one(_OPEN_MONEY)
    assert row is not None
    return OpenMoney(
        cases_open=row["cases_open"],
        refunds_open=row["refunds_open"],
        refunds_failed=row["refunds_failed"],
    )


def _timed_out(row: Row) -> TimedOutOrder:
    return TimedOutOrder(
        order_no=OrderNumber(row["order_no"]),
        user_id=row["user_id"],
        pay_amount_minor=row["pay_amount_minor"],
        currency=row["currency"],
        reason_code=row["reason_code"],
        created_at=Instant(row["created_at"]),
        timed_out_at=Instant(row["timed_out_at"]),
        recovered_by_order_no=row["recovered_by_order_no"],
    )
