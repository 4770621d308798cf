"""What became of each dead letter, and what it is about."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SERVICES = ("order", "cart", "payment")


def upgrade() -> None:
    """Add the columns, make the tables, and begin each history with why the letter is there."""
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    for service in _SERVICES:
        letters, history = f"{service}_dead_letters", f"{service}_dead_letter_history"
        op.add_column(letters, sa.Column("aggregate_id", sa.Text(), nullable=True))
        op.add_column(
            letters, sa.Column("sequence", row_number, nullable=False, server_default="0")
        )
        op.create_index(
            f"ix_{letters}_arrival", letters, ["state", "first_received_at", "sequence", "id"]
        )
        op.create_table(
            history,
            sa.Column("id", row_number, autoincrement=True, nullable=False),
            sa.Column("letter_id", row_number, nullable=False),
            sa.Column("settled_count", sa.Integer(), nullable=False),
            sa.Column("event", sa.Text(), nullable=False),
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.Column("reason", sa.Text(), nullable=True),
            sa.Column("detail", sa.Text(), nullable=True),
            sa.Column("tries", sa.Integer(), nullable=True),
            sa.Column("actor", sa.Text(), nullable=True),
            sa.Column("message_id", sa.Text(), nullable=True),
            sa.CheckConstraint(
                "event IN ('set_aside', 'replayed', 'edited', 'discarded')",
                name=op.f(f"ck_{history}_event"),
            ),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{history}")),
            sa.UniqueConstraint(
                "letter_id",
                "settled_count",
                "event",
                name=op.f(f"uq_{history}_letter_id_settled_count_event"),
            ),
        )
        op.execute(
            f"INSERT INTO {history} (letter_id, settled_count, event, at, reason, detail, tries)"  # noqa: S608 (names of ours)
            " SELECT id, settled_count - CASE WHEN state = 'open' THEN 0 ELSE 1 END,"
            f" 'set_aside', set_aside_at, reason, detail, tries FROM {letters} ORDER BY id"
        )
