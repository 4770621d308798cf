"""The moment at which a payment under way moved an order's deadline."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; orders that are there have not been extended."""
    op.add_column("orders", sa.Column("deadline_extended_at", sa.BigInteger(), nullable=True))
