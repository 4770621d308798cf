"""Stock: what there is, what moved, and what orders hold are three tellings of one thing."""

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select

from orderkeep.database.statement import is_one_of
from orderkeep.orders.order import Status
from orderkeep.orders.stock import MovementKind
from orderkeep.orders.tables import ORDER_LINES, ORDERS, STOCK, STOCK_MOVEMENTS
from orderkeep.orders.verify.check import Check, breaches


def _moved(kind: MovementKind) -> ColumnElement[int]:
    return func.coalesce(
        func.sum(case((STOCK_MOVEMENTS.c.kind == kind.value, STOCK_MOVEMENTS.c.quantity), else_=0)),
        0,
    )


def _held(status: Status) -> ColumnElement[int]:
    return func.sum(case((ORDERS.c.status == status.value, ORDER_LINES.c.quantity), else_=0))


_ADJUSTED = _moved(MovementKind.ADJUST)
_RESERVED = _moved(MovementKind.RESERVE)
_RELEASED = _moved(MovementKind.RELEASE)
_SOLD = _moved(MovementKind.SELL)
_REVIVED = _moved(MovementKind.REVIVE)

# What the movements of each SKU add up to.
_FROM_MOVEMENTS = (
    select(
        STOCK_MOVEMENTS.c.sku_id,
        (_ADJUSTED - _RESERVED + _RELEASED - _REVIVED).label("available"),
        (_RESERVED - _RELEASED - _SOLD).label("reserved"),
        (_SOLD + _REVIVED).label("sold"),
    )
    .group_by(STOCK_MOVEMENTS.c.sku_id)
    .subquery()
)

# What the lines of all orders say should be held or sold of each SKU.
_FROM_ORDERS = (
    select(
        ORDER_LINES.c.sku_id,
        _held(Status.PENDING_PAYMENT).label("reserved"),
        _held(Status.PAID).label("sold"),
    )
    .select_from(ORDER_LINES.join(ORDERS, ORDERS.c.order_no == ORDER_LINES.c.order_no))
    .group_by(ORDER_LINES.c.sku_id)
    .subquery()
)

# What an order wants of a SKU, and what moved of it for the order: looked up line by line, since
# grouping all of them first would cost a sorted copy of both tables.
_SAME_SKU = ORDER_LINES.alias("same_sku")
_WANTED = (
    select(func.sum(_SAME_SKU.c.quantity))
    .where(
        _SAME_SKU.c.order_no == ORDER_LINES.c.order_no, _SAME_SKU.c.sku_id == ORDER_LINES.c.sku_id
    )
    .correlate(ORDER_LINES)
    .scalar_subquery()
)


def _moved_for_line(kind: MovementKind) -> ColumnElement[int]:
    quantity = (
        select(func.sum(STOCK_MOVEMENTS.c.quantity))
        .where(
            STOCK_MOVEMENTS.c.cause == ORDER_LINES.c.order_no,
            STOCK_MOVEMENTS.c.sku_id == ORDER_LINES.c.sku_id,
            STOCK_MOVEMENTS.c.kind == kind.value,
        )
        .correlate(ORDER_LINES)
        .scalar_subquery()
    )
    return func.coalesce(quantity, 0)


def _is_moved(*, released: bool, sold: bool, revived: bool) -> ColumnElement[bool]:
    """Return the condition that all of the demand, or none, moved in each of these ways."""
    return and_(
        *(
            _moved_for_line(kind) == (_WANTED if is_moved else 0)
            for kind, is_moved in (
                (MovementKind.RESERVE, True),
                (MovementKind.RELEASE, released),
                (MovementKind.SELL, sold),
                (MovementKind.REVIVE, revived),
            )
        )
    )


_AS_PENDING = _is_moved(released=False, sold=False, revived=False)
_AS_ENDED_UNPAID = _is_moved(released=True, sold=False, revived=False)
_AS_PAID = or_(
    _is_moved(released=False, sold=True, revived=False),
    _is_moved(released=True, sold=False, revived=True),
)

STOCK_CHECKS = (
    Check(
        invariant="stock-equals-movements",
        says="available, reserved and sold of each SKU are what its movements add up to",
        breaches=breaches(
            select(STOCK.c.sku_id.label("subject")).select_from(
                STOCK.outerjoin(_FROM_MOVEMENTS, _FROM_MOVEMENTS.c.sku_id == STOCK.c.sku_id)
            ),
            wrong=[
                STOCK.c.available != func.coalesce(_FROM_MOVEMENTS.c.available, 0),
                STOCK.c.reserved != func.coalesce(_FROM_MOVEMENTS.c.reserved, 0),
                STOCK.c.sold != func.coalesce(_FROM_MOVEMENTS.c.sold, 0),
            ],
        ),
        remedy="stop selling the SKU; compare its movements with its orders and adjust the stock",
    ),
    Check(
        invariant="movement-has-its-stock",
        says="only SKUs of the catalogue move",
        breaches=breaches(
            select(STOCK_MOVEMENTS.c.sku_id.label("subject")),
            wrong=[~exists().where(STOCK.c.sku_id == STOCK_MOVEMENTS.c.sku_id)],
        ),
        remedy="a SKU was taken out by hand: put it back; to stop selling it, make it inactive",
    ),
    Check(
        invariant="stock-not-negative",
        says="available, reserved and sold of each SKU are never negative",
        breaches=breaches(
            select(STOCK.c.sku_id.label("subject")),
            wrong=[STOCK.c.available < 0, STOCK.c.reserved < 0, STOCK.c.sold < 0],
        ),
        remedy="the schema forbids this: look for a change made by hand",
    ),
    Check(
        invariant="stock-equals-orders",
        says="reserved is what unpaid orders hold of each SKU, sold is what paid orders took",
        breaches=breaches(
            select(STOCK.c.sku_id.label("subject")).select_from(
                STOCK.outerjoin(_FROM_ORDERS, _FROM_ORDERS.c.sku_id == STOCK.c.sku_id)
            ),
            wrong=[
                STOCK.c.reserved != func.coalesce(_FROM_ORDERS.c.reserved, 0),
                STOCK.c.sold != func.coalesce(_FROM_ORDERS.c.sold, 0),
            ],
        ),
        remedy="compare the SKU's movements with the lines and the states of its orders",
    ),
    Check(
        invariant="order-moves-its-stock",
        says="each order reserved what its lines say, once; ended, it gave back or sold all of it",
        breaches=breaches(
            select(ORDERS.c.order_no.label("subject")).select_from(
                ORDER_LINES.join(ORDERS, ORDERS.c.order_no == ORDER_LINES.c.order_no)
            ),
            wrong=[
                and_(ORDERS.c.status == Status.PENDING_PAYMENT.value, ~_AS_PENDING),
                and_(
                    is_one_of(ORDERS.c.status, Status.CANCELLED.value, Status.CLOSED.value),
                    ~_AS_ENDED_UNPAID,
                ),
                and_(ORDERS.c.status == Status.PAID.value, ~_AS_PAID),
            ],
        ),
        remedy="an ended order holds stock, or an unpaid one does not: compare it with its lines",
    ),
    Check(
        invariant="movement-has-its-line",
        says="stock moves for a line of an order, or because an operator adjusts it",
        breaches=breaches(
            select(STOCK_MOVEMENTS.c.cause.label("subject")),
            wrong=[
                and_(
                    STOCK_MOVEMENTS.c.kind != MovementKind.ADJUST.value,
                    ~exists().where(
                        ORDER_LINES.c.order_no == STOCK_MOVEMENTS.c.cause,
                        ORDER_LINES.c.sku_id == STOCK_MOVEMENTS.c.sku_id,
                    ),
                )
            ],
        ),
        remedy="an order was lost, or its lines were changed by hand: restore them",
    ),
)
