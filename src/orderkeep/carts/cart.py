"""What a cart holds and how much of it; no I/O here."""

from dataclasses import dataclass

from orderkeep.contracts.text import LINE_COUNT_MAX

# A cart that held more lines than an order takes could not be ordered at once.
LINES_PER_CART_MAX = LINE_COUNT_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class CartItem:
    """One line of a user's cart."""

    cart_item_id: str
    user_id: str
    sku_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Pieces of one SKU on their way into a user's cart.

    Attributes:
        cart_item_id: The line's id if the SKU is new to the cart; a line that exists keeps its own.
    """

    cart_item_id: str
    user_id: str
    sku_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityChange:
    """A new quantity for one line."""

    cart_item_id: str
    user_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One line on its way out."""

    cart_item_id: str
    user_id: str
