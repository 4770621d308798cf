"""An order is found by every payment that came for it, not only by the one that paid it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index; few payments are in it, so it is made while the table is read once."""
    op.create_index(
        "ix_order_payments_not_accepted",
        "order_payments",
        ["trade_no"],
        unique=False,
        sqlite_where=sa.text("outcome != 'accepted'"),
        postgresql_where=sa.text("outcome != 'accepted'"),
    )
