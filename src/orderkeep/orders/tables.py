"""The tables of the order service.

Money is in minor units beside its currency; times are instants. What a rule of the schema can hold,
the schema holds: stock is never negative, a key names one order, a payment is recorded once, a
stock movement cannot happen twice for one cause.
"""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from orderkeep.database.schema import AMOUNT_MINOR, INSTANT, METADATA, ROW_NUMBER
from orderkeep.messaging.tables import service_tables

KERNEL = service_tables(METADATA, service="order")

SKUS = Table(
    "skus",
    METADATA,
    Column("sku_id", Text, primary_key=True),
    Column("product_id", Text),
    Column("title", Text, nullable=False),
    Column("unit_price_minor", AMOUNT_MINOR, nullable=False),
    Column("currency", Text, nullable=False),
    Column("is_active", Boolean(create_constraint=False), nullable=False),
    Column("updated_at", INSTANT, nullable=False),
    CheckConstraint("unit_price_minor >= 0", name="unit_price_minor"),
)

STOCK = Table(
    "stock",
    METADATA,
    Column("sku_id", Text, ForeignKey("skus.sku_id"), primary_key=True),
    Column("available", ROW_NUMBER, nullable=False),
    Column("reserved", ROW_NUMBER, nullable=False),
    Column("sold", ROW_NUMBER, nullable=False),
    CheckConstraint("available >= 0", name="available"),
    CheckConstraint("reserved >= 0", name="reserved"),
    CheckConstraint("sold >= 0", name="sold"),
)

STOCK_MOVEMENTS = Table(
    "stock_movements",
    METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("sku_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # What moved it: an order number, or the key of an operator's adjustment.
    Column("cause", Text, nullable=False),
    Column("quantity", ROW_NUMBER, nullable=False),
    Column("reason", Text),
    Column("moved_at", INSTANT, nullable=False),
    CheckConstraint("kind IN ('adjust', 'reserve', 'release', 'sell', 'revive')", name="kind"),
    CheckConstraint("kind = 'adjust' OR quantity > 0", name="quantity"),
    # A second release for one order is impossible.
    UniqueConstraint("cause", "sku_id", "kind"),
)
# `verify` sums the movements of each SKU.
Index("ix_stock_movements_sku_id", STOCK_MOVEMENTS.c.sku_id, STOCK_MOVEMENTS.c.kind)

ORDERS = Table(
    "orders",
    METADATA,
    Column("order_no", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    # Rises with each change of status, and only then.
    Column("version", Integer, nullable=False),
    # Rises with each event of the order; raising it is the lock that puts events in commit order.
    Column("event_seq", Integer, nullable=False),
    Column("total_amount_minor", AMOUNT_MINOR, nullable=False),
    Column("pay_amount_minor", AMOUNT_MINOR, nullable=False),
    Column("currency", Text, nullable=False),
    Column("receiver_name", Text),
    Column("receiver_phone", Text),
    Column("receiver_address", Text),
    Column("buyer_remark", Text),
    Column("created_at", INSTANT, nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    Column("paid_at", INSTANT),
    Column("closed_at", INSTANT),
    Column("cancelled_at", INSTANT),
    Column("close_reason", Text),
    Column("pay_channel", Text),
    Column("trade_no", Text),
    # When a payment under way moved the deadline: it moves once.
    Column("deadline_extended_at", INSTANT),
    CheckConstraint("status IN ('pending_payment', 'paid', 'cancelled', 'closed')", name="status"),
)
# The sweep reads unpaid orders past their deadline. The status stands in front although every row
# has the same: without it the planner takes the index by status, and sorts.
Index(
    "ix_orders_due",
    ORDERS.c.status,
    ORDERS.c.expires_at,
    sqlite_where=ORDERS.c.status == "pending_payment",
    postgresql_where=ORDERS.c.status == "pending_payment",
)
# A buyer lists their orders, newest first; order numbers rise with time.
Index("ix_orders_user_id", ORDERS.c.user_id, ORDERS.c.order_no)
# Operators list by status, newest first.
Index("ix_orders_status", ORDERS.c.status, ORDERS.c.order_no)
# Operators look an order up by what the bank calls the payment.
Index(
    "ix_orders_trade_no",
    ORDERS.c.trade_no,
    sqlite_where=ORDERS.c.trade_no.is_not(None),
    postgresql_where=ORDERS.c.trade_no.is_not(None),
)

ORDER_LINES = Table(
    "order_lines",
    METADATA,
    Column("order_no", Text, ForeignKey("orders.order_no"), primary_key=True),
    Column("line_no", Integer, primary_key=True),
    Column("sku_id", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("unit_price_minor", AMOUNT_MINOR, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("subtotal_minor", AMOUNT_MINOR, nullable=False),
    Column("cart_item_id", Text),
    CheckConstraint("quantity > 0", name="quantity"),
)

ORDER_HISTORY = Table(
    "order_history",
    METADATA,
    Column("order_no", Text, ForeignKey("orders.order_no"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    # What did it: a `Cause` of order.py.
    Column("cause", Text, nullable=False),
    # Who or which: a user id, a message id, or "sweep".
    Column("actor", Text, nullable=False),
    # What the buyer or the operator said of it.
    Column("note", Text),
    Column("changed_at", INSTANT, nullable=False),
)

ORDER_REQUESTS = Table(
    "order_requests",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # No foreign key: the claim is made before its order, in the same transaction.
    Column("order_no", Text, nullable=False),
    Column("body_hash", Text, nullable=False),
    CheckConstraint("kind IN ('token', 'header')", name="kind"),
)

ORDER_PAYMENTS = Table(
    "order_payments",
    METADATA,
    # Every payment ever seen, by its identity; an empty channel is no channel.
    Column("pay_channel", Text, primary_key=True),
    Column("trade_no", Text, primary_key=True),
    Column("order_no", Text, nullable=False),
    Column("payment_no", Text),
    Column("amount_minor", AMOUNT_MINOR),
    Column("currency", Text),
    Column("paid_at", INSTANT, nullable=False),
    Column("received_at", INSTANT, nullable=False),
    # What became of it: "accepted", "refund" or "case".
    Column("outcome", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    CheckConstraint("outcome IN ('accepted', 'refund', 'case')", name="outcome"),
)
# The timeline shows the payments of one order.
Index("ix_order_payments_order_no", ORDER_PAYMENTS.c.order_no)
# An order is paid by one payment.
Index(
    "uq_order_payments_accepted",
    ORDER_PAYMENTS.c.order_no,
    unique=True,
    sqlite_where=ORDER_PAYMENTS.c.outcome == "accepted",
    postgresql_where=ORDER_PAYMENTS.c.outcome == "accepted",
)
# Operators look orders up by what the bank calls a payment; one that paid stands in its order too.
Index(
    "ix_order_payments_not_accepted",
    ORDER_PAYMENTS.c.trade_no,
    sqlite_where=ORDER_PAYMENTS.c.outcome != "accepted",
    postgresql_where=ORDER_PAYMENTS.c.outcome != "accepted",
)

OPENED_PAYMENTS = Table(
    "order_opened_payments",
    METADATA,
    Column("payment_no", Text, primary_key=True),
    Column("order_no", Text, nullable=False),
    Column("pay_channel", Text),
    Column("opened_at", INSTANT, nullable=False),
    Column("received_at", INSTANT, nullable=False),
)
# The timeline shows the payments that were opened for one order.
Index("ix_order_opened_payments_order_no", OPENED_PAYMENTS.c.order_no)

PAYMENT_CASES = Table(
    "payment_cases",
    METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("order_no", Text, nullable=False),
    Column("pay_channel", Text, nullable=False),
    Column("trade_no", Text, nullable=False),
    Column("payment_no", Text),
    Column("amount_minor", AMOUNT_MINOR),
    Column("currency", Text),
    Column("message_id", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("opened_at", INSTANT, nullable=False),
    Column("resolved_at", INSTANT),
    # What an operator did with it, a `CaseAction` of case_resolution.py; who, and why.
    Column("resolution", Text),
    Column("resolved_by", Text),
    Column("resolution_reason", Text),
    CheckConstraint("state IN ('open', 'resolved')", name="state"),
    # One report of one payment opens one case of a kind.
    UniqueConstraint("pay_channel", "trade_no", "order_no", "kind", "message_id"),
)
# Operators list the open cases; the metric counts them.
Index("ix_payment_cases_state", PAYMENT_CASES.c.state, PAYMENT_CASES.c.id)
# The timeline shows the cases of one order.
Index("ix_payment_cases_order_no", PAYMENT_CASES.c.order_no)

ORDER_REFUNDS = Table(
    "order_refunds",
    METADATA,
    Column("refund_no", Text, primary_key=True),
    Column("order_no", Text, nullable=False),
    Column("pay_channel", Text, nullable=False),
    Column("trade_no", Text, nullable=False),
    Column("payment_no", Text),
    Column("amount_minor", AMOUNT_MINOR, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("channel_refund_no", Text),
    Column("failure_reason", Text),
    Column("requested_at", INSTANT, nullable=False),
    Column("finished_at", INSTANT),
    CheckConstraint("status IN ('requested', 'succeeded', 'failed')", name="status"),
    CheckConstraint("amount_minor > 0", name="amount_minor"),
    # A payment is refunded once.
    UniqueConstraint("pay_channel", "trade_no"),
)
# The timeline shows the refunds of one order.
Index("ix_order_refunds_order_no", ORDER_REFUNDS.c.order_no)
# The status counts the refunds that a person must see to.
Index(
    "ix_order_refunds_failed",
    ORDER_REFUNDS.c.finished_at,
    sqlite_where=ORDER_REFUNDS.c.status == "failed",
    postgresql_where=ORDER_REFUNDS.c.status == "failed",
)
# The metric counts the refunds still under way.
Index(
    "ix_order_refunds_open",
    ORDER_REFUNDS.c.requested_at,
    sqlite_where=ORDER_REFUNDS.c.status == "requested",
    postgresql_where=ORDER_REFUNDS.c.status == "requested",
)

TIMED_OUT_ORDERS = Table(
    "timed_out_orders",
    METADATA,
    Column("order_no", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("pay_amount_minor", AMOUNT_MINOR, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("timed_out_at", INSTANT, nullable=False),
)

WEBHOOK_DELIVERIES = Table(
    "webhook_deliveries",
    METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("receiver", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("order_no", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", INSTANT, nullable=False),
    Column("last_error", Text),
    Column("created_at", INSTANT, nullable=False),
    Column("sent_at", INSTANT),
    CheckConstraint("state IN ('pending', 'sent', 'failed')", name="state"),
    UniqueConstraint("receiver", "message_id"),
)
# The worker reads what is due for one receiver, the longest waiting first.
Index(
    "ix_webhook_deliveries_due",
    WEBHOOK_DELIVERIES.c.receiver,
    WEBHOOK_DELIVERIES.c.next_attempt_at,
    WEBHOOK_DELIVERIES.c.id,
    sqlite_where=WEBHOOK_DELIVERIES.c.state == "pending",
    postgresql_where=WEBHOOK_DELIVERIES.c.state == "pending",
)
# The worker asks for the first open delivery of an order to a receiver.
Index(
    "ix_webhook_deliveries_open",
    WEBHOOK_DELIVERIES.c.receiver,
    WEBHOOK_DELIVERIES.c.order_no,
    WEBHOOK_DELIVERIES.c.id,
    sqlite_where=WEBHOOK_DELIVERIES.c.state == "pending",
    postgresql_where=WEBHOOK_DELIVERIES.c.state == "pending",
)
# The timeline shows the deliveries of one order.
Index("ix_webhook_deliveries_order_no", WEBHOOK_DELIVERIES.c.order_no, WEBHOOK_DELIVERIES.c.id)
# Retention reads the oldest of what is done with.
Index(
    "ix_webhook_deliveries_done",
    WEBHOOK_DELIVERIES.c.created_at,
    sqlite_where=WEBHOOK_DELIVERIES.c.state != "pending",
    postgresql_where=WEBHOOK_DELIVERIES.c.state != "pending",
)
