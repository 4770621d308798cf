"""What an operator did with a payment case, who it was, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; no case has been resolved by a command so far."""
    for name in ("resolution", "resolved_by", "resolution_reason"):
        op.add_column("payment_cases", sa.Column(name, sa.Text(), nullable=True))
