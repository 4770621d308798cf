"""The cart as its users meet it: sums, limits, and nobody else's items."""

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from orderkeep.carts.cart import CartItem
from orderkeep.carts.desk import CartDesk
from orderkeep.database.transaction import Database
from orderkeep.refusal import Refusal


@pytest.fixture
def new_cart_item_id() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"c{next(numbers)}"


@pytest.fixture
def desk(database: Database, new_cart_item_id: Callable[[], str]) -> CartDesk:
    return CartDesk(database, new_cart_item_id=new_cart_item_id)


async def test_an_added_item_is_in_the_cart_of_its_user_alone(desk: CartDesk):
    added = await desk.add(user_id="ann", sku_id="tea", quantity=2)

    assert added == CartItem(cart_item_id="c1", user_id="ann", sku_id="tea", quantity=2)
    assert await desk.list_items(user_id="ann") == [added]
    assert await desk.list_items(user_id="bob") == []


async def test_the_same_sku_again_sums_and_keeps_its_id(desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=2)

    again = await desk.add(user_id="ann", sku_id="tea", quantity=3)

    assert (again.cart_item_id, again.quantity) == ("c1", 5)


async def test_the_same_sku_of_two_users_is_two_items(desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=2)

    other = await desk.add(user_id="bob", sku_id="tea", quantity=1)

    assert (other.cart_item_id, other.quantity) == ("c2", 1)


async def test_a_sum_over_9999_is_refused_and_changes_nothing(desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=9_000)

    with pytest.raises(Refusal) as refused:
        await desk.add(user_id="ann", sku_id="tea", quantity=1_000)

    assert refused.value.code == "invalid_request"
    assert refused.value.members == {
        "errors": [
            {
                "pointer": "/quantity",
                "detail": "The cart holds 9000 of tea already; with 1000 more it would hold over"
                " 9999.",
            }
        ]
    }
    assert [item.quantity for item in await desk.list_items(user_id="ann")] == [9_000]


async def test_a_sum_of_exactly_9999_is_accepted(desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=9_000)

    item = await desk.add(user_id="ann", sku_id="tea", quantity=999)

    assert item.quantity == 9_999


async def test_a_cart_takes_100_different_items_and_no_more(desk: CartDesk):
    for number in range(100):
        await desk.add(user_id="ann", sku_id=f"sku-{number}", quantity=1)

    with pytest.raises(Refusal) as refused:
        await desk.add(user_id="ann", sku_id="one-more", quantity=1)

    assert refused.value.code == "invalid_request"
    assert refused.value.detail == ("The cart holds 100 different items already; remove one first.")
    known = await desk.add(user_id="ann", sku_id="sku-7", quantity=1)
    assert known.quantity == 2
    assert len(await desk.list_items(user_id="ann")) == 100


async def test_items_are_listed_oldest_first_whatever_their_ids(database: Database):
    ids = iter(["c9", "c1", "c5"])
    desk = CartDesk(database, new_cart_item_id=lambda: next(ids))
    for sku_id in ("tea", "milk", "salt"):
        await desk.add(user_id="ann", sku_id=sku_id, quantity=1)

    items = await desk.list_items(user_id="ann")

    assert [item.sku_id for item in items] == ["tea", "milk", "salt"]


async def test_a_quantity_is_changed(desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=2)

    changed = await desk.change_quantity("c1", user_id="ann", quantity=7)

    assert changed.quantity == 7
    assert await desk.list_items(user_id="ann") == [changed]


async def test_an_item_of_another_user_can_be_neither_changed_nor_removed(desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=2)

    with pytest.raises(Refusal, match="not_found"):
        await desk.change_quantity("c1", user_id="bob", quantity=7)
    with pytest.raises(Refusal, match="not_found"):
        await desk.remove("c1", user_id="bob")

    assert [item.quantity for item in await desk.list_items(user_id="ann")] == [2]


async def test_an_unknown_item_can_be_neither_changed_nor_removed(desk: CartDesk):
    with pytest.raises(Refusal, match="not_found"):
        await desk.change_quantity("c1", user_id="ann", quantity=7)
    with pytest.raises(Refusal, match="not_found"):
        await desk.remove("c1", user_id="ann")


async def test_a_removed_item_is_gone_and_leaves_room(desk: CartDesk):
    for number in range(100):
        await desk.add(user_id="ann", sku_id=f"sku-{number}", quantity=1)

    await desk.remove("c1", user_id="ann")

    added = await desk.add(user_id="ann", sku_id="one-more", quantity=1)
    items = await desk.list_items(user_id="ann")
    assert len(items) == 100
    assert items[0].sku_id == "sku-1"
    assert items[-1] == added


async def test_50_tasks_that_add_one_sku_make_one_item_of_50(desk: CartDesk):
    await asyncio.gather(*(desk.add(user_id="ann", sku_id="tea", quantity=1) for _ in range(50)))

    items = await desk.list_items(user_id="ann")
    assert [(item.sku_id, item.quantity) for item in items] == [("tea", 50)]


async def test_150_tasks_that_add_different_skus_fill_the_cart_to_100(desk: CartDesk):
    answers = await asyncio.gather(
        *(desk.add(user_id="ann", sku_id=f"sku-{number}", quantity=1) for number in range(150)),
        return_exceptions=True,
    )

    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(refusals) == 50
    assert len(await desk.list_items(user_id="ann")) == 100
