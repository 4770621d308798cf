"""The tables of the cart service."""

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, Text, UniqueConstraint

from orderkeep.database.schema import INSTANT, METADATA
from orderkeep.messaging.tables import service_tables

KERNEL = service_tables(METADATA, service="cart")

# One row for each user who ever added: its lock makes the count of lines hold at READ COMMITTED.
CARTS = Table(
    "carts",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("updated_at", INSTANT, nullable=False),
)

CART_ITEMS = Table(
    "cart_items",
    METADATA,
    Column("cart_item_id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("sku_id", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    # Rises with each new line of the user: two lines of one millisecond still have an order.
    Column("position", Integer, nullable=False),
    Column("created_at", INSTANT, nullable=False),
    Column("updated_at", INSTANT, nullable=False),
    CheckConstraint("quantity BETWEEN 1 AND 9999", name="quantity"),
    # One line for each SKU: adding a SKU again meets this row and sums.
    UniqueConstraint("user_id", "sku_id"),
)

# The list of one user's cart, oldest line first, and the position of the next one.
Index("ix_cart_items_user", CART_ITEMS.c.user_id, CART_ITEMS.c.position, unique=True)
