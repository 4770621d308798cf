"""The tables, as SQLAlchemy's ORM declares them, and the sessions."""

from datetime import datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    create_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from bench.peers.celery_shop.settings import DATABASE_URL, THREAD_COUNT

engine = create_engine(DATABASE_URL, pool_size=THREAD_COUNT, max_overflow=0)
# An order is read for its answer after the commit: not once more from the database.
Session = sessionmaker(engine, expire_on_commit=False)


class ShopTable(DeclarativeBase):
    """All tables; times have a time zone, numbers are 64 bits."""

    type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger}  # noqa: RUF012 (SQLAlchemy's own way)


class Sku(ShopTable):
    """What can be ordered."""

    __tablename__ = "skus"

    sku_id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    unit_price_minor: Mapped[int]
    currency: Mapped[str]
    is_active: Mapped[bool]


class Stock(ShopTable):
    """What there is of it."""

    __tablename__ = "stock"
    __table_args__ = (CheckConstraint("least(available, reserved, sold) >= 0"),)

    sku_id: Mapped[str] = mapped_column(ForeignKey("skus.sku_id"), primary_key=True)
    available: Mapped[int]
    reserved: Mapped[int] = mapped_column(default=0)
    sold: Mapped[int] = mapped_column(default=0)


class OrderLine(ShopTable):
    """One SKU of an order."""

    __tablename__ = "order_lines"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    line_no: Mapped[int] = mapped_column(primary_key=True)
    sku_id: Mapped[str]
    title: Mapped[str]
    unit_price_minor: Mapped[int]
    quantity: Mapped[int]
    subtotal_minor: Mapped[int]


class OrderChange(ShopTable):
    """One change of an order's status."""

    __tablename__ = "order_history"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    to_status: Mapped[str]
    actor: Mapped[str]
    changed_at: Mapped[datetime]


class Order(ShopTable):
    """An order."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_user_id", "user_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[str]
    status: Mapped[str]
    version: Mapped[int]
    total_amount_minor: Mapped[int]
    currency: Mapped[str]
    receiver_name: Mapped[str | None]
    receiver_phone: Mapped[str | None]
    receiver_address: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    lines: Mapped[list[OrderLine]] = relationship(order_by=OrderLine.line_no)
    history: Mapped[list[OrderChange]] = relationship(order_by=OrderChange.version)


class IdempotencyKey(ShopTable):
    """One wish of a buyer, and the order that it became."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    order: Mapped[Order] = relationship()


class Payment(ShopTable):
    """What the payment service knows of an order: it can be paid."""

    __tablename__ = "payments"

    order_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount_minor: Mapped[int]
    opened_at: Mapped[datetime]


class OutboxMessage(ShopTable):
    """A task to be published."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_unsent", "id", postgresql_where="sent_at IS NULL"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    task: Mapped[str]
    arguments: Mapped[list[int]] = mapped_column(JSON)
    due_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
