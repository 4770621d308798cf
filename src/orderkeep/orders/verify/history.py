"""History: each order goes its one way to its one end, and its row says the same."""

from sqlalchemy import ColumnElement, and_, func, or_, select

from orderkeep.database.statement import is_one_of
from orderkeep.orders.order import Cause, Status
from orderkeep.orders.tables import ORDER_HISTORY, ORDERS
from orderkeep.orders.verify.check import Check, breaches


def _of_history(told: ColumnElement[int]) -> ColumnElement[int]:
    """Return what an aggregate tells of one order's history, looked up order by order."""
    return (
        select(told)
        .where(ORDER_HISTORY.c.order_no == ORDERS.c.order_no)
        .correlate(ORDERS)
        .scalar_subquery()
    )


_NEXT = ORDER_HISTORY.alias("next_entry")
_LAST = ORDER_HISTORY.alias("last_entry")

HISTORY_CHECKS = (
    Check(
        invariant="history-without-gaps",
        says="each order's history runs from version 1 to the version in its row, without a gap",
        breaches=breaches(
            select(ORDERS.c.order_no.label("subject")),
            wrong=[
                _of_history(func.count()) != ORDERS.c.version,
                _of_history(func.min(ORDER_HISTORY.c.version)) != 1,
                _of_history(func.max(ORDER_HISTORY.c.version)) != ORDERS.c.version,
            ],
        ),
        remedy="the history is never changed by the service: look for a change made by hand",
    ),
    Check(
        invariant="history-equals-order",
        says="the last entry of each order's history leads to the status in its row",
        breaches=breaches(
            select(ORDERS.c.order_no.label("subject")).select_from(
                ORDERS.join(
                    _LAST,
                    and_(
                        _LAST.c.order_no == ORDERS.c.order_no,
                        _LAST.c.version == ORDERS.c.version,
                    ),
                )
            ),
            wrong=[_LAST.c.to_status != ORDERS.c.status],
        ),
        remedy="the row and its history were not written together: look for a change made by hand",
    ),
    Check(
        invariant="history-is-a-chain",
        says="an order begins unpaid and ends once; only a closed one may be paid after its end",
        breaches=breaches(
            select(ORDER_HISTORY.c.order_no.label("subject")).select_from(
                ORDER_HISTORY.outerjoin(
                    _NEXT,
                    and_(
                        _NEXT.c.order_no == ORDER_HISTORY.c.order_no,
                        _NEXT.c.version == ORDER_HISTORY.c.version + 1,
                    ),
                )
            ),
            wrong=[
                and_(ORDER_HISTORY.c.version == 1, ORDER_HISTORY.c.from_status.is_not(None)),
                and_(
                    ORDER_HISTORY.c.version == 1,
                    ORDER_HISTORY.c.to_status != Status.PENDING_PAYMENT.value,
                ),
                and_(
                    _NEXT.c.order_no.is_not(None),
                    _NEXT.c.from_status.is_distinct_from(ORDER_HISTORY.c.to_status),
                ),
                and_(
                    _NEXT.c.order_no.is_not(None),
                    is_one_of(ORDER_HISTORY.c.to_status, Status.PAID.value, Status.CANCELLED.value),
                ),
                and_(
                    ORDER_HISTORY.c.to_status == Status.CLOSED.value,
                    or_(
                        _NEXT.c.to_status != Status.PAID.value,
                        _NEXT.c.cause != Cause.REVIVAL.value,
                    ),
                ),
                _NEXT.c.to_status == Status.PENDING_PAYMENT.value,
            ],
        ),
        remedy="the order ended twice: settle it with its buyer, and report this as a bug",
    ),
    Check(
        invariant="end-has-its-time",
        says="each ended order says when it ended, and a paid one by which trade",
        breaches=breaches(
            select(ORDERS.c.order_no.label("subject")),
            wrong=[
                and_(ORDERS.c.status == Status.PAID.value, ORDERS.c.paid_at.is_(None)),
                and_(ORDERS.c.status == Status.PAID.value, ORDERS.c.trade_no.is_(None)),
                and_(ORDERS.c.status == Status.CANCELLED.value, ORDERS.c.cancelled_at.is_(None)),
                and_(ORDERS.c.status == Status.CLOSED.value, ORDERS.c.closed_at.is_(None)),
            ],
        ),
        remedy="the row was changed by hand: its history and its payments tell what is missing",
    ),
    Check(
        invariant="closed-not-early",
        says="no order is closed before its payment deadline",
        breaches=breaches(
            select(ORDERS.c.order_no.label("subject")),
            wrong=[ORDERS.c.closed_at < ORDERS.c.expires_at],
        ),
        remedy="the deadline or the clock was changed by hand: settle it with the buyer",
    ),
)
