"""Orders: the catalogue and its stock, orders, and what becomes of their money."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    _make_order_opened_payments()
    _make_order_payments()
    _make_order_refunds()
    _make_order_requests()
    _make_orders()
    _make_payment_cases()
    _make_skus()
    _make_stock_movements()
    _make_timed_out_orders()
    _make_webhook_deliveries()
    _make_order_history()
    _make_order_lines()
    _make_stock()


def _make_order_opened_payments() -> None:
    op.create_table(
        "order_opened_payments",
        sa.Column("payment_no", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("pay_channel", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_no", name=op.f("pk_order_opened_payments")),
    )
    op.create_index(
        "ix_order_opened_payments_order_no", "order_opened_payments", ["order_no"], unique=False
    )


def _make_order_payments() -> None:
    op.create_table(
        "order_payments",
        sa.Column("pay_channel", sa.Text(), nullable=False),
        sa.Column("trade_no", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("payment_no", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("paid_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'refund', 'case')", name=op.f("ck_order_payments_outcome")
        ),
        sa.PrimaryKeyConstraint("pay_channel", "trade_no", name=op.f("pk_order_payments")),
    )
    op.create_index("ix_order_payments_order_no", "order_payments", ["order_no"], unique=False)
    op.create_index(
        "uq_order_payments_accepted",
        "order_payments",
        ["order_no"],
        unique=True,
        sqlite_where=sa.text("outcome = 'accepted'"),
        postgresql_where=sa.text("outcome = 'accepted'"),
    )


def _make_order_refunds() -> None:
    op.create_table(
        "order_refunds",
        sa.Column("refund_no", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("pay_channel", sa.Text(), nullable=False),
        sa.Column("trade_no", sa.Text(), nullable=False),
        sa.Column("payment_no", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("channel_refund_no", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('requested', 'succeeded', 'failed')", name=op.f("ck_order_refunds_status")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_order_refunds_amount_minor")),
        sa.PrimaryKeyConstraint("refund_no", name=op.f("pk_order_refunds")),
        sa.UniqueConstraint(
            "pay_channel", "trade_no", name=op.f("uq_order_refunds_pay_channel_trade_no")
        ),
    )
    op.create_index(
        "ix_order_refunds_failed",
        "order_refunds",
        ["finished_at"],
        unique=False,
        sqlite_where=sa.text("status = 'failed'"),
        postgresql_where=sa.text("status = 'failed'"),
    )
    op.create_index(
        "ix_order_refunds_open",
        "order_refunds",
        ["requested_at"],
        unique=False,
        sqlite_where=sa.text("status = 'requested'"),
        postgresql_where=sa.text("status = 'requested'"),
    )
    op.create_index("ix_order_refunds_order_no", "order_refunds", ["order_no"], unique=False)


def _make_order_requests() -> None:
    op.create_table(
        "order_requests",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('token', 'header')", name=op.f("ck_order_requests_kind")),
        sa.PrimaryKeyConstraint("user_id", "kind", "key", name=op.f("pk_order_requests")),
    )


def _make_orders() -> None:
    op.create_table(
        "orders",
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("total_amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("pay_amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("receiver_name", sa.Text(), nullable=True),
        sa.Column("receiver_phone", sa.Text(), nullable=True),
        sa.Column("receiver_address", sa.Text(), nullable=True),
        sa.Column("buyer_remark", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("paid_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.Column("pay_channel", sa.Text(), nullable=True),
        sa.Column("trade_no", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending_payment', 'paid', 'cancelled', 'closed')",
            name=op.f("ck_orders_status"),
        ),
        sa.PrimaryKeyConstraint("order_no", name=op.f("pk_orders")),
    )
    op.create_index(
        "ix_orders_due",
        "orders",
        ["status", "expires_at"],
        unique=False,
        sqlite_where=sa.text("status = 'pending_payment'"),
        postgresql_where=sa.text("status = 'pending_payment'"),
    )
    op.create_index("ix_orders_status", "orders", ["status", "order_no"], unique=False)
    op.create_index(
        "ix_orders_trade_no",
        "orders",
        ["trade_no"],
        unique=False,
        sqlite_where=sa.text("trade_no IS NOT NULL"),
        postgresql_where=sa.text("trade_no IS NOT NULL"),
    )
    op.create_index("ix_orders_user_id", "orders", ["user_id", "order_no"], unique=False)


def _make_payment_cases() -> None:
    op.create_table(
        "payment_cases",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("pay_channel", sa.Text(), nullable=False),
        sa.Column("trade_no", sa.Text(), nullable=False),
        sa.Column("payment_no", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'resolved')", name=op.f("ck_payment_cases_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_cases")),
        sa.UniqueConstraint(
            "pay_channel",
            "trade_no",
            "order_no",
            "kind",
            "message_id",
            name=op.f("uq_payment_cases_pay_channel_trade_no_order_no_kind_message_id"),
        ),
    )
    op.create_index("ix_payment_cases_order_no", "payment_cases", ["order_no"], unique=False)
    op.create_index("ix_payment_cases_state", "payment_cases", ["state", "id"], unique=False)


def _make_skus() -> None:
    op.create_table(
        "skus",
        sa.Column("sku_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("unit_price_minor >= 0", name=op.f("ck_skus_unit_price_minor")),
        sa.PrimaryKeyConstraint("sku_id", name=op.f("pk_skus")),
    )


def _make_stock_movements() -> None:
    op.create_table(
        "stock_movements",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("sku_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind = 'adjust' OR quantity > 0", name=op.f("ck_stock_movements_quantity")
        ),
        sa.CheckConstraint(
            "kind IN ('adjust', 'reserve', 'release', 'sell', 'revive')",
            name=op.f("ck_stock_movements_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_movements")),
        sa.UniqueConstraint(
            "cause", "sku_id", "kind", name=op.f("uq_stock_movements_cause_sku_id_kind")
        ),
    )
    op.create_index(
        "ix_stock_movements_sku_id", "stock_movements", ["sku_id", "kind"], unique=False
    )


def _make_timed_out_orders() -> None:
    op.create_table(
        "timed_out_orders",
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("pay_amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("timed_out_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("order_no", name=op.f("pk_timed_out_orders")),
    )


def _make_webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'failed')", name=op.f("ck_webhook_deliveries_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "receiver", "message_id", name=op.f("uq_webhook_deliveries_receiver_message_id")
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_done",
        "webhook_deliveries",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("state != 'pending'"),
        postgresql_where=sa.text("state != 'pending'"),
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["receiver", "next_attempt_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_webhook_deliveries_open",
        "webhook_deliveries",
        ["receiver", "order_no", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_webhook_deliveries_order_no", "webhook_deliveries", ["order_no", "id"], unique=False
    )


def _make_order_history() -> None:
    op.create_table(
        "order_history",
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_no"], ["orders.order_no"], name=op.f("fk_order_history_order_no")
        ),
        sa.PrimaryKeyConstraint("order_no", "version", name=op.f("pk_order_history")),
    )


def _make_order_lines() -> None:
    op.create_table(
        "order_lines",
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("sku_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("subtotal_minor", sa.BigInteger(), nullable=False),
        sa.Column("cart_item_id", sa.Text(), nullable=True),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_order_lines_quantity")),
        sa.ForeignKeyConstraint(
            ["order_no"], ["orders.order_no"], name=op.f("fk_order_lines_order_no")
        ),
        sa.PrimaryKeyConstraint("order_no", "line_no", name=op.f("pk_order_lines")),
    )


def _make_stock() -> None:
    op.create_table(
        "stock",
        sa.Column("sku_id", sa.Text(), nullable=False),
        sa.Column(
            "available", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("reserved", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sold", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.CheckConstraint("available >= 0", name=op.f("ck_stock_available")),
        sa.CheckConstraint("reserved >= 0", name=op.f("ck_stock_reserved")),
        sa.CheckConstraint("sold >= 0", name=op.f("ck_stock_sold")),
        sa.ForeignKeyConstraint(["sku_id"], ["skus.sku_id"], name=op.f("fk_stock_sku_id")),
        sa.PrimaryKeyConstraint("sku_id", name=op.f("pk_stock")),
    )
