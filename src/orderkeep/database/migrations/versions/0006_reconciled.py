"""How far each consumer is known to have what was sent to it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SERVICES = ("order", "cart", "payment")


def upgrade() -> None:
    """Make the tables."""
    for service in _SERVICES:
        op.create_table(
            f"{service}_reconciled",
            sa.Column("consumer", sa.Text(), nullable=False),
            sa.Column("sent_at", sa.BigInteger(), nullable=False),
            sa.Column(
                "row_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
            ),
            sa.PrimaryKeyConstraint("consumer", name=op.f(f"pk_{service}_reconciled")),
        )
