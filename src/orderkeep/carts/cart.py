"""What a cart holds and how much of it; no I/O here."""

from msgspec import Struct

from orderkeep.contracts.text import LINE_COUNT_MAX

# A cart that held more lines than an order takes could not be ordered at once.
LINES_PER_CART_MAX = LINE_COUNT_MAX


class CartItem(Struct, frozen=True, kw_only=True):
    """One line of a user's cart."""

    cart_item_id: str
    user_id: str
    sku_id: str
    quantity: int


class Addition(Struct, frozen=True, kw_only=True):
    """Pieces of one SKU on their way into a user's cart.

    Attributes:
        cart_item_id: The line's id if the SKU is new to the cart; a line that exists keeps its own.
    """

    cart_item_id: str
    user_id: str
    sku_id: str
    quantity: int


class QuantityChange(Struct, frozen=True, kw_only=True):
    """A new quantity for one line."""

    cart_item_id: str
    user_id: str
    quantity: int


class Removal(Struct, frozen=True, kw_only=True):
    """One line on its way out."""

    cart_item_id: str
    user_id: str
