"""What users call: their cart."""

from typing import TypeAlias

import msgspec
from litestar import Request, delete, get, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, SkipValidation
from litestar.types import ControllerRouterHandler

from orderkeep.carts.cart import CartItem
from orderkeep.carts.desk import CartDesk
from orderkeep.contracts.caller import Caller
from orderkeep.contracts.text import Identifier, Quantity

Carts: TypeAlias = NamedDependency[SkipValidation[CartDesk]]
UserRequest: TypeAlias = Request[Caller, object, State]

USER = {"access": "user"}


class AddItemBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pieces of a SKU to put into the cart."""

    sku_id: Identifier
    quantity: Quantity


class ChangeItemBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many pieces an item shall have."""

    quantity: Quantity


class CartItemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the cart."""

    cart_item_id: str
    sku_id: str
    quantity: int


class CartAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cart, oldest item first."""

    items: tuple[CartItemAnswer, ...]


@post("/cart/items", opt=USER, tags=["Cart"], summary="Put a SKU into the cart")
async def add_item(
    request: UserRequest, data: JSONBody[AddItemBody], cart_desk: Carts
) -> CartItemAnswer:
    """Add pieces of a SKU; the same SKU again sums."""
    item = await cart_desk.add(
        user_id=request.user.user_id, sku_id=data.sku_id, quantity=data.quantity
    )
    return _item_answer(item)


@get("/cart", opt=USER, tags=["Cart"], summary="Show the cart")
async def show_cart(request: UserRequest, cart_desk: Carts) -> CartAnswer:
    """Show every item of the cart."""
    items = await cart_desk.list_items(user_id=request.user.user_id)
    return CartAnswer(items=tuple(_item_answer(item) for item in items))


@patch("/cart/items/{cart_item_id:str}", opt=USER, tags=["Cart"], summary="Change a quantity")
async def change_item(
    request: UserRequest,
    cart_item_id: FromPath[str],
    data: JSONBody[ChangeItemBody],
    cart_desk: Carts,
) -> CartItemAnswer:
    """Set how many pieces an item has."""
    item = await cart_desk.change_quantity(
        cart_item_id, user_id=request.user.user_id, quantity=data.quantity
    )
    return _item_answer(item)


@delete("/cart/items/{cart_item_id:str}", opt=USER, tags=["Cart"], summary="Remove an item")
async def remove_item(request: UserRequest, cart_item_id: FromPath[str], cart_desk: Carts) -> None:
    """Remove an item."""
    await cart_desk.remove(cart_item_id, user_id=request.user.user_id)


# Paths are relative to the API's base, which the application sets.
ROUTE_HANDLERS: list[ControllerRouterHandler] = [add_item, show_cart, change_item, remove_item]


def _item_answer(item: CartItem) -> CartItemAnswer:
    return CartItemAnswer(
        cart_item_id=item.cart_item_id, sku_id=item.sku_id, quantity=item.quantity
    )
