"""Stock that others take between a batch's look at it and its lock."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from unittest.mock import patch

import pytest

from orderkeep.database.transaction import Transaction
from orderkeep.orders import place_orders
from orderkeep.orders.order import Order
from orderkeep.orders.place_orders import PlacedOrder
from orderkeep.orders.store.orders import insert_orders
from orderkeep.refusal import Refusal
from tests.condition import eventually
from tests.integration.orders.shop import Shop, request
from tests.integration.orders.test_several_processes import (
    all_of,
    opened_shops,
    waits_for_a_lock,
)


@asynccontextmanager
async def held_before_writing(
    shop: Shop, *quantities: int
) -> AsyncIterator[list[asyncio.Task[PlacedOrder]]]:
    """Let one batch for so much tea each decide, and write only when the context ends."""
    has_decided, may_write = asyncio.Event(), asyncio.Event()

    async def insert(transaction: Transaction, orders: Sequence[Order]) -> None:
        if any(order.user_id.startswith("early") for order in orders):
            has_decided.set()
            await may_write.wait()
        await insert_orders(transaction, orders)

    with patch.object(place_orders, "insert_orders", insert):
        buying = [
            asyncio.create_task(shop.desk.place(request(("tea", quantity), user_id=f"early-{n}")))
            for n, quantity in enumerate(quantities)
        ]
        try:
            await has_decided.wait()
            yield buying
        finally:
            may_write.set()


async def test_while_a_batch_is_written_others_may_take_of_the_same_stock(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)

        async with held_before_writing(shop, 4) as buying:
            await other.order("bob", tea=6)
        await all_of(*buying)

        assert shop.stock_of("tea") == (0, 10, 0)
        assert shop.count_rows("orders") == 2
        assert await shop.breaches() == []


async def test_who_saw_stock_that_others_have_taken_since_is_decided_on_what_is_left(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)

        async with held_before_writing(shop, 2, 1) as buying:
            await other.order("bob", tea=8)
        async with asyncio.timeout(10):
            first, second = await asyncio.gather(*buying, return_exceptions=True)

        assert isinstance(first, PlacedOrder)
        assert isinstance(second, Refusal)
        assert second.members["items"] == [{"sku_id": "tea", "requested": 1, "available": 0}]
        assert shop.stock_of("tea") == (0, 10, 0)
        assert shop.count_rows("orders") == 2
        assert shop.count_rows("order_requests") == 2
        assert await shop.breaches() == []


async def test_stock_that_is_scarce_is_locked_before_a_batch_is_decided(
    postgresql_url: str,
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=5)

        async with held_before_writing(shop, 3) as buying:
            late = asyncio.create_task(other.order("bob", tea=3))
            await eventually(lambda: waits_for_a_lock(shop))
        await all_of(*buying)
        with pytest.raises(Refusal, match="out_of_stock"):
            await late

        assert shop.stock_of("tea") == (2, 3, 0)
        assert await shop.breaches() == []
