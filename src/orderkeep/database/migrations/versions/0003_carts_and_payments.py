"""Carts and payments."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _make_cart_items()
    _make_carts()
    _make_payment_orders()
    _make_payment_receipts()
    _make_payments()
    _make_refunds()


def _make_cart_items() -> None:
    op.create_table(
        "cart_items",
        sa.Column("cart_item_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("sku_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("quantity BETWEEN 1 AND 9999", name=op.f("ck_cart_items_quantity")),
        sa.PrimaryKeyConstraint("cart_item_id", name=op.f("pk_cart_items")),
        sa.UniqueConstraint("user_id", "sku_id", name=op.f("uq_cart_items_user_id_sku_id")),
    )
    op.create_index("ix_cart_items_user", "cart_items", ["user_id", "position"], unique=True)


def _make_carts() -> None:
    op.create_table(
        "carts",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_carts")),
    )


def _make_payment_orders() -> None:
    op.create_table(
        "payment_orders",
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "event_seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("order_no", name=op.f("pk_payment_orders")),
    )


def _make_payment_receipts() -> None:
    op.create_table(
        "payment_receipts",
        sa.Column("pay_channel", sa.Text(), nullable=False),
        sa.Column("trade_no", sa.Text(), nullable=False),
        sa.Column("payment_no", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("paid_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "pay_channel",
            "trade_no",
            "payment_no",
            "amount_minor",
            "currency",
            name=op.f("pk_payment_receipts"),
        ),
    )
    op.create_index("ix_payment_receipts_trade_no", "payment_receipts", ["trade_no"], unique=False)


def _make_payments() -> None:
    op.create_table(
        "payments",
        sa.Column("payment_no", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("pay_channel", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("trade_no", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("paid_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('open', 'succeeded', 'failed', 'closed')", name=op.f("ck_payments_status")
        ),
        sa.PrimaryKeyConstraint("payment_no", name=op.f("pk_payments")),
    )
    op.create_index(
        "uq_payments_open",
        "payments",
        ["order_no", "pay_channel"],
        unique=True,
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "uq_payments_trade_no",
        "payments",
        ["pay_channel", "trade_no"],
        unique=True,
        sqlite_where=sa.text("trade_no IS NOT NULL"),
        postgresql_where=sa.text("trade_no IS NOT NULL"),
    )


def _make_refunds() -> None:
    op.create_table(
        "refunds",
        sa.Column("refund_no", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("payment_no", sa.Text(), nullable=True),
        sa.Column("pay_channel", sa.Text(), nullable=True),
        sa.Column("trade_no", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("channel_refund_no", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('requested', 'succeeded', 'failed')", name=op.f("ck_refunds_status")
        ),
        sa.PrimaryKeyConstraint("refund_no", name=op.f("pk_refunds")),
    )
    op.create_index(
        "ix_refunds_due",
        "refunds",
        ["next_attempt_at", "refund_no"],
        unique=False,
        sqlite_where=sa.text("status = 'requested'"),
        postgresql_where=sa.text("status = 'requested'"),
    )
    op.create_index("ix_refunds_payment_no", "refunds", ["payment_no"], unique=False)
    op.create_index("ix_refunds_trade_no", "refunds", ["trade_no"], unique=False)
