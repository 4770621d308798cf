"""The tables of the payment service."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    Table,
    Text,
)

from orderkeep.database.schema import AMOUNT_MINOR, INSTANT, METADATA, ROW_NUMBER
from orderkeep.messaging.tables import service_tables

KERNEL = service_tables(METADATA, service="payment")

# What this service knows of an order. A row that no order event has filled yet (version is null)
# only counts the events that this service sends about it.
PAYMENT_ORDERS = Table(
    "payment_orders",
    METADATA,
    Column("order_no", Text, primary_key=True),
    Column("user_id", Text),
    Column("status", Text),
    Column("version", Integer),
    Column("amount_minor", AMOUNT_MINOR),
    Column("currency", Text),
    Column("expires_at", INSTANT),
    # Raised, under the row's lock, by every event that leaves about the order.
    Column("event_seq", ROW_NUMBER, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
)

PAYMENTS = Table(
    "payments",
    METADATA,
    Column("payment_no", Text, primary_key=True),
    Column("order_no", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("pay_channel", Text, nullable=False),
    Column("amount_minor", AMOUNT_MINOR, nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("trade_no", Text),
    Column("opened_at", INSTANT, nullable=False),
    Column("paid_at", INSTANT),
    Column("ended_at", INSTANT),
    Column("reason", Text),
    CheckConstraint("status IN ('open', 'succeeded', 'failed', 'closed')", name="status"),
)

# Opening the same payment again finds the open one; two at once cannot both insert. It also serves
# the look-up of what an order that ended leaves open.
Index(
    "uq_payments_open",
    PAYMENTS.c.order_no,
    PAYMENTS.c.pay_channel,
    unique=True,
    sqlite_where=PAYMENTS.c.status == "open",
    postgresql_where=PAYMENTS.c.status == "open",
)
# A channel's trade pays one payment.
Index(
    "uq_payments_trade_no",
    PAYMENTS.c.pay_channel,
    PAYMENTS.c.trade_no,
    unique=True,
    sqlite_where=PAYMENTS.c.trade_no.is_not(None),
    postgresql_where=PAYMENTS.c.trade_no.is_not(None),
)

# Every report of money, once: what a channel says again is the same row, and what it says
# differently (another amount, another payment) is a row of its own that orders hear of too.
PAYMENT_RECEIPTS = Table(
    "payment_receipts",
    METADATA,
    Column("pay_channel", Text, primary_key=True),
    Column("trade_no", Text, primary_key=True),
    Column("payment_no", Text, primary_key=True),
    Column("amount_minor", AMOUNT_MINOR, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("paid_at", INSTANT, nullable=False),
    Column("received_at", INSTANT, nullable=False),
)
# A refund that names no channel is looked up by its trade alone.
Index("ix_payment_receipts_trade_no", PAYMENT_RECEIPTS.c.trade_no)

REFUNDS = Table(
    "refunds",
    METADATA,
    Column("refund_no", Text, primary_key=True),
    Column("order_no", Text, nullable=False),
    # As asked for, or as found here where the request left them out.
    Column("payment_no", Text),
    Column("pay_channel", Text),
    Column("trade_no", Text, nullable=False),
    Column("amount_minor", AMOUNT_MINOR, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("channel_refund_no", Text),
    Column("failure_reason", Text),
    Column("requested_at", INSTANT, nullable=False),
    # By the database's clock: how long the channel is asked counts from here.
    Column("received_at", INSTANT, nullable=False),
    Column("finished_at", INSTANT),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", INSTANT, nullable=False),
    CheckConstraint("status IN ('requested', 'succeeded', 'failed')", name="status"),
)
# The worker reads what is due, longest waiting first.
Index(
    "ix_refunds_due",
    REFUNDS.c.next_attempt_at,
    REFUNDS.c.refund_no,
    sqlite_where=REFUNDS.c.status == "requested",
    postgresql_where=REFUNDS.c.status == "requested",
)
# A payment is shown with its refunds.
Index("ix_refunds_payment_no", REFUNDS.c.payment_no)
# What was given back of a trade is summed before more of it is.
Index("ix_refunds_trade_no", REFUNDS.c.trade_no)
