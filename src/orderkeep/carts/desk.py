"""The edge of the cart service: opens each transaction, commits it once, answers afterwards."""

from collections.abc import Callable

from orderkeep.carts import change_cart, store
from orderkeep.carts.cart import Addition, CartItem, QuantityChange, Removal
from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.refusal import Refusal


class CartDesk:
    """What users ask of their carts."""

    def __init__(self, database: Database, *, new_cart_item_id: Callable[[], str]) -> None:
        """Serve carts from the database.

        Args:
            database: Where they are.
            new_cart_item_id: Draws an id that names no item yet, such as a UUID.
        """
        self._database = database
        self._new_cart_item_id = new_cart_item_id

    async def add(self, *, user_id: str, sku_id: str, quantity: int) -> CartItem:
        """Add pieces of a SKU, summed with what the cart holds of it.

        Raises:
            Refusal: `invalid_request`: the sum, or the number of lines, would be over its limit.
        """
        addition = Addition(
            cart_item_id=self._new_cart_item_id(),
            user_id=user_id,
            sku_id=sku_id,
            quantity=quantity,
        )

        async def work(transaction: Transaction) -> CartItem:
            now = await transaction.now()
            [answer] = await change_cart.add_items(transaction, [addition], now=now)
            return _granted(answer)

        return await self._database.transact(work)

    async def list_items(self, *, user_id: str) -> list[CartItem]:
        """Return every item of the user's cart, oldest first."""

        async def work(transaction: ReadTransaction) -> list[CartItem]:
            return await store.list_lines(transaction, user_id=user_id)

        return await self._database.read(work)

    async def change_quantity(self, cart_item_id: str, *, user_id: str, quantity: int) -> CartItem:
        """Set how many pieces an item has.

        Raises:
            Refusal: `not_found`: the user's cart has no such item.
        """
        change = QuantityChange(cart_item_id=cart_item_id, user_id=user_id, quantity=quantity)

        async def work(transaction: Transaction) -> CartItem:
            now = await transaction.now()
            [answer] = await change_cart.change_quantities(transaction, [change], now=now)
            return _granted(answer)

        return await self._database.transact(work)

    async def remove(self, cart_item_id: str, *, user_id: str) -> None:
        """Remove an item.

        Raises:
            Refusal: `not_found`: the user's cart has no such item.
        """
        removal = Removal(cart_item_id=cart_item_id, user_id=user_id)

        async def work(transaction: Transaction) -> None:
            if not await store.remove_lines(transaction, [removal]):
                raise change_cart.unknown_item(cart_item_id)

        await self._database.transact(work)


def _granted(answer: CartItem | Refusal) -> CartItem:
    if isinstance(answer, Refusal):
        raise answer
    return answer
