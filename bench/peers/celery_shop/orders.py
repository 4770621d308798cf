"""Placing an order and closing it, in the caller's session."""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, Field
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bench.peers.celery_shop.models import (
    IdempotencyKey,
    Order,
    OrderChange,
    OrderLine,
    OutboxMessage,
    Sku,
    Stock,
)
from bench.peers.celery_shop.settings import HAS_OUTBOX, PAYMENT_TIMEOUT_S

CLOSE_TASK = "shop.close_order"
OPEN_PAYMENT_TASK = "shop.open_payment"


class WantedItem(BaseModel):
    """A SKU that somebody orders."""

    sku_id: str = Field(min_length=1, max_length=64)
    quantity: int = Field(ge=1, le=9999)


class Receiver(BaseModel):
    """Where the goods go."""

    name: str = Field(max_length=100)
    phone: str = Field(max_length=32)
    address: str = Field(max_length=500)


class WantedOrder(BaseModel):
    """The body of a request."""

    items: list[WantedItem] = Field(min_length=1, max_length=100)
    receiver: Receiver | None = None


class RefusedError(Exception):
    """The shop said no; the text says why."""


def place_order(
    session: Session, wanted: WantedOrder, *, user_id: str, key: str
) -> tuple[Order, bool]:
    """Place the order and commit; return it, and whether it is new.

    Raises:
        RefusedError: a SKU is not on sale, or there is not enough of it.
    """
    if earlier := _find_earlier(session, user_id=user_id, key=key):
        return earlier, False
    order = _priced_order(session, wanted, user_id=user_id)
    session.add(order)
    session.add(IdempotencyKey(user_id=user_id, key=key, order=order))
    try:
        session.flush()
    except IntegrityError:
        # The same request, at the same moment.
        session.rollback()
        placed = _find_earlier(session, user_id=user_id, key=key)
        if placed is None:
            raise
        return placed, False
    if HAS_OUTBOX:
        session.add(OutboxMessage(task=CLOSE_TASK, arguments=[order.id], due_at=order.expires_at))
        session.add(OutboxMessage(task=OPEN_PAYMENT_TASK, arguments=[order.id]))
        session.flush()
    # Last, for others wait for it; and by id, so that two orders never wait for each other.
    for line in sorted(order.lines, key=lambda line: line.sku_id):
        reserved = session.execute(
            update(Stock)
            .where(Stock.sku_id == line.sku_id, Stock.available >= line.quantity)
            .values(
                available=Stock.available - line.quantity,
                reserved=Stock.reserved + line.quantity,
            )
            .execution_options(synchronize_session=False)
        )
        if not reserved.rowcount:
            message = f"not enough of {line.sku_id}"
            raise RefusedError(message)
    session.commit()
    return order, True


def close_order(session: Session, order_id: int) -> None:
    """Close the order if nobody has paid it, and commit."""
    order = session.get_one(Order, order_id, with_for_update=True)
    if order.status != "pending_payment":
        return
    now = datetime.now(UTC)
    order.status = "closed"
    order.version += 1
    order.closed_at = now
    order.history.append(
        OrderChange(version=order.version, to_status="closed", actor="timeout", changed_at=now)
    )
    for line in sorted(order.lines, key=lambda line: line.sku_id):
        session.execute(
            update(Stock)
            .where(Stock.sku_id == line.sku_id)
            .values(
                available=Stock.available + line.quantity,
                reserved=Stock.reserved - line.quantity,
            )
            .execution_options(synchronize_session=False)
        )
    session.commit()


def _find_earlier(session: Session, *, user_id: str, key: str) -> Order | None:
    earlier = session.get(IdempotencyKey, (user_id, key))
    return None if earlier is None else earlier.order


def _priced_order(session: Session, wanted: WantedOrder, *, user_id: str) -> Order:
    wanted_ids = [item.sku_id for item in wanted.items]
    skus = {
        sku.sku_id: sku
        for sku in session.scalars(select(Sku).where(Sku.sku_id.in_(wanted_ids), Sku.is_active))
    }
    if missing := set(wanted_ids) - skus.keys():
        message = f"not on sale: {', '.join(sorted(missing))}"
        raise RefusedError(message)
    lines = [
        OrderLine(
            line_no=line_no,
            sku_id=item.sku_id,
            title=skus[item.sku_id].title,
            unit_price_minor=skus[item.sku_id].unit_price_minor,
            quantity=item.quantity,
            subtotal_minor=item.quantity * skus[item.sku_id].unit_price_minor,
        )
        for line_no, item in enumerate(wanted.items, start=1)
    ]
    now = datetime.now(UTC)
    receiver = wanted.receiver
    return Order(
        user_id=user_id,
        status="pending_payment",
        version=1,
        total_amount_minor=sum(line.subtotal_minor for line in lines),
        currency=skus[wanted_ids[0]].currency,
        receiver_name=receiver and receiver.name,
        receiver_phone=receiver and receiver.phone,
        receiver_address=receiver and receiver.address,
        created_at=now,
        expires_at=now + timedelta(seconds=PAYMENT_TIMEOUT_S),
        lines=lines,
        history=[
            OrderChange(version=1, to_status="pending_payment", actor=user_id, changed_at=now)
        ],
    )
