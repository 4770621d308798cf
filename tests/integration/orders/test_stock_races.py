"""Stock that others change between a batch's look at it and its lock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import pytest
from structlog.typing import EventDict

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.orders import place_orders, write_changes
from orderkeep.orders.order import Order
from orderkeep.orders.placing import PlacedOrder
from orderkeep.orders.stock import Sku
from orderkeep.orders.store.orders import insert_history, insert_orders
from orderkeep.orders.store.stock import lock_skus, look_at_skus
from orderkeep.refusal import Refusal
from tests.condition import eventually
from tests.integration.orders.shop import PATIENCE_S, Shop, request
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
            assert len(orders) == len(quantities) or has_decided.is_set()
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
            await asyncio.wait(buying, timeout=PATIENCE_S)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the stock was asked for, in order: by a look, or by a lock before the decision."""
    asked: list[str] = []

    def noted(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        async def asks(transaction: Transaction, sku_ids: Collection[str]) -> Any:
            asked.append(name)
            return await ask(transaction, sku_ids)

        return asks

    monkeypatch.setattr(place_orders, "look_at_skus", noted("look", look_at_skus))
    monkeypatch.setattr(place_orders, "lock_skus", noted("lock", lock_skus))
    return asked


def _events(logged: Sequence[EventDict]) -> list[str]:
    return [line["event"] for line in logged if line["log_level"] != "debug"]


async def test_while_a_batch_is_written_others_may_take_of_the_same_stock(
    postgresql_url: str, asked: list[str]
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)

        async with held_before_writing(shop, 4) as buying:
            await other.order("bob", tea=6)
        await all_of(*buying)

        # Of ten there are not twice six.
        assert asked == ["look", "look", "lock"]
        assert shop.stock_of("tea") == (0, 10, 0)
        assert shop.count_rows("orders") == 2
        assert await shop.breaches() == []


async def test_who_saw_stock_that_others_have_taken_since_is_decided_on_what_is_left(
    postgresql_url: str, asked: list[str], logged: list[EventDict]
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)

        async with held_before_writing(shop, 3) as buying:
            await other.order("bob", tea=8)
            asked.clear()
        (answer,) = await asyncio.gather(*buying, return_exceptions=True)

        assert isinstance(answer, Refusal)
        assert answer.members["items"] == [{"sku_id": "tea", "requested": 3, "available": 2}]
        # Run again on locked stock, and by nobody else.
        assert asked == ["lock"]
        assert _events(logged) == ["sku_changed_meanwhile"]
        assert shop.stock_of("tea") == (2, 8, 0)
        assert shop.count_rows("orders") == shop.count_rows("order_requests") == 1
        assert await shop.breaches() == []


async def test_of_a_batch_whose_stock_was_taken_each_is_decided_anew(
    postgresql_url: str, logged: list[EventDict]
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)

        async with held_before_writing(shop, 2, 1) as buying:
            await other.order("bob", tea=8)
        first, second = await asyncio.gather(*buying, return_exceptions=True)

        assert isinstance(first, PlacedOrder)
        assert isinstance(second, Refusal)
        assert _events(logged) == ["sku_changed_meanwhile"]
        assert shop.stock_of("tea") == (0, 10, 0)
        assert await shop.breaches() == []


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"unit_price_minor": 9_999}], ids=["withdrawn", "repriced"]
)
async def test_a_sku_that_is_changed_meanwhile_is_not_sold_as_it_was(
    change: dict[str, Any], postgresql_url: str
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)

        async with held_before_writing(shop, 3) as buying:
            await other.put_sku("tea", **change)
        (answer,) = await asyncio.gather(*buying, return_exceptions=True)

        if "is_active" in change:
            assert isinstance(answer, Refusal)
            assert answer.code == "unknown_sku"
        else:
            assert isinstance(answer, PlacedOrder)
            assert answer.order.pay_amount_minor == 3 * 9_999
        assert await shop.breaches() == []


@pytest.mark.parametrize(("stock", "ways"), [(8, ["look"]), (7, ["look", "lock"])])
async def test_plenty_is_twice_of_what_is_taken(
    stock: int, ways: list[str], postgresql_url: str, asked: list[str]
) -> None:
    async with opened_shops(postgresql_url, 1) as (shop,):
        await shop.fill(tea=stock)

        await shop.order(tea=4)

        assert asked == ways
        assert shop.stock_of("tea") == (stock - 4, 4, 0)


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


async def test_nobody_is_refused_for_stock_that_came_back_before_it_was_locked(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=10)
        order = await other.order("bob", tea=8)

        async def look(
            transaction: Transaction, sku_ids: Collection[str]
        ) -> tuple[dict[str, Sku], Instant]:
            seen = await look_at_skus(transaction, sku_ids)
            await other.cancel(order)
            return seen

        monkeypatch.setattr(place_orders, "look_at_skus", look)
        placed = await shop.order(tea=5)

        assert placed.status == "pending_payment"
        assert shop.stock_of("tea") == (5, 5, 0)


async def test_while_a_change_is_written_others_may_take_of_the_same_stock(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_shops(postgresql_url, 2) as (shop, other):
        await shop.fill(tea=100)
        order = await shop.order(tea=1)
        is_writing, may_write = asyncio.Event(), asyncio.Event()

        async def insert(transaction: Transaction, entries: Any) -> None:
            is_writing.set()
            await may_write.wait()
            await insert_history(transaction, entries)

        monkeypatch.setattr(write_changes, "insert_history", insert)
        cancelling = asyncio.create_task(shop.cancel(order))
        await is_writing.wait()
        async with asyncio.timeout(PATIENCE_S):
            await other.order("bob", tea=2)
        may_write.set()
        await cancelling

        assert shop.stock_of("tea") == (98, 2, 0)
        assert await shop.breaches() == []
