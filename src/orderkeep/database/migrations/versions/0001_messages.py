"""Messages: the queues in the database, and each service's outbox, inbox and dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SERVICES = ("order", "cart", "payment")

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _make_queue_messages()
    for service in SERVICES:
        _make_outbox(f"{service}_outbox")
        _make_inbox(f"{service}_inbox")
        _make_dead_letters(f"{service}_dead_letters")
        _make_delivery_attempts(f"{service}_delivery_attempts")


def _make_queue_messages() -> None:
    op.create_table(
        "queue_messages",
        sa.Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("order_key", sa.Text()),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("delivery_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_queue_messages"),
    )
    op.create_index("ix_queue_messages_due", "queue_messages", ["queue", "due_at", "id"])
    op.create_index(
        "ix_queue_messages_key",
        "queue_messages",
        ["queue", "order_key", "id"],
        sqlite_where=sa.text("order_key IS NOT NULL"),
        postgresql_where=sa.text("order_key IS NOT NULL"),
    )


def _make_outbox(name: str) -> None:
    op.create_table(
        name,
        sa.Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("aggregate_id", sa.Text(), nullable=False),
        sa.Column("sequence", ROW_NUMBER, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ordered", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("deliver_at", sa.BigInteger()),
        sa.Column("retry_key", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger()),
        sa.Column("discarded_at", sa.BigInteger()),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'failed', 'discarded')", name=op.f(f"ck_{name}_state")
        ),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.UniqueConstraint("retry_key", name=f"uq_{name}_retry_key"),
    )
    _index_state(name, "pending", ["not_before", "id", "route", "partition"])
    _index_state(name, "failed", ["id"])
    _index_state(name, "sent", ["sent_at"])
    _index_state(name, "discarded", ["discarded_at"])
    op.create_index(
        f"ix_{name}_open",
        name,
        ["aggregate_id", "route", "sequence", "id"],
        # SQLite compares its plain 0 and 1; PostgreSQL has a type for truth.
        sqlite_where=sa.text("ordered = 1 AND state IN ('pending', 'failed')"),
        postgresql_where=sa.text("ordered AND state IN ('pending', 'failed')"),
    )
    op.create_index(f"ix_{name}_aggregate", name, ["aggregate_id", "id"])


def _index_state(name: str, state: str, columns: list[str]) -> None:
    only = sa.text(f"state = '{state}'")
    op.create_index(f"ix_{name}_{state}", name, columns, sqlite_where=only, postgresql_where=only)


def _make_inbox(name: str) -> None:
    op.create_table(
        name,
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "message_id", name=f"pk_{name}"),
    )
    op.create_index(f"ix_{name}_received_at", name, ["received_at"])


def _make_dead_letters(name: str) -> None:
    op.create_table(
        name,
        sa.Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("sender_message_id", sa.LargeBinary()),
        sa.Column("type", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("first_received_at", sa.BigInteger(), nullable=False),
        sa.Column("set_aside_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger()),
        sa.Column("settled_count", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('open', 'replayed', 'discarded')", name=op.f(f"ck_{name}_state")
        ),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.UniqueConstraint("consumer", "message_id", name=f"uq_{name}_consumer_message_id"),
    )
    op.create_index(f"ix_{name}_state", name, ["state", "id"])
    op.create_index(f"ix_{name}_queue", name, ["state", "queue"])


def _make_delivery_attempts(name: str) -> None:
    op.create_table(
        name,
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "message_id", name=f"pk_{name}"),
    )
