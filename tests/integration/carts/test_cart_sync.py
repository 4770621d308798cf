"""The cart as `cart-sync` changes it."""

from collections.abc import Sequence
from itertools import count

import pytest

from orderkeep.carts.consumers.cart_sync import cart_sync_consumer
from orderkeep.carts.desk import CartDesk
from orderkeep.contracts.cart_sync import (
    CartCleared,
    CartEvent,
    CartItemAdded,
    CartItemRemoved,
    CartItemUpdated,
)
from orderkeep.database.transaction import Database, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.consumer import HANDLED, Outcome, Received, SetAside


@pytest.fixture
def desk(database: Database) -> CartDesk:
    numbers = count(1)
    return CartDesk(database, new_cart_item_id=lambda: f"c{next(numbers)}")


async def _receive(database: Database, *events: CartEvent) -> Sequence[Outcome]:
    drawn = count(1)
    consumer = cart_sync_consumer(new_cart_item_id=lambda: f"drawn-{next(drawn)}")
    batch = [
        Received(message_id=f"m{number}", body=event, attempt=1, first_received_at=Instant(0))
        for number, event in enumerate(events)
    ]

    async def work(transaction: Transaction) -> Sequence[Outcome]:
        return await consumer.handle(transaction, batch)

    return await database.transact(work)


async def _cart(desk: CartDesk, user_id: str) -> list[tuple[str, str, int]]:
    items = await desk.list_items(user_id=user_id)
    return [(item.cart_item_id, item.sku_id, item.quantity) for item in items]


async def test_items_that_an_order_took_leave_the_cart(database: Database, desk: CartDesk):
    for sku_id in ("tea", "milk", "salt"):
        await desk.add(user_id="ann", sku_id=sku_id, quantity=1)

    outcomes = await _receive(
        database,
        CartItemRemoved(user_id="ann", item_id="c1", order_no="0100000000000009"),
        CartItemRemoved(user_id="ann", item_id="c3", order_no="0100000000000009"),
    )

    assert outcomes == [HANDLED, HANDLED]
    assert await _cart(desk, "ann") == [("c2", "milk", 1)]


async def test_an_item_that_is_gone_already_can_be_removed_again(
    database: Database, desk: CartDesk
):
    await desk.add(user_id="ann", sku_id="tea", quantity=1)
    removed = CartItemRemoved(user_id="ann", item_id="c1")
    await _receive(database, removed)

    outcomes = await _receive(database, removed, removed)

    assert outcomes == [HANDLED, HANDLED]
    assert await _cart(desk, "ann") == []


async def test_an_item_of_another_user_stays(database: Database, desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=1)

    outcomes = await _receive(
        database,
        CartItemRemoved(user_id="bob", item_id="c1"),
        CartItemUpdated(user_id="bob", item_id="c1", quantity=9),
        CartCleared(user_id="bob"),
    )

    assert outcomes == [
        HANDLED,
        SetAside(reason="not_found", detail="There is no item c1 in this cart."),
        HANDLED,
    ]
    assert await _cart(desk, "ann") == [("c1", "tea", 1)]


async def test_an_added_item_keeps_the_id_it_comes_with(database: Database, desk: CartDesk):
    await _receive(
        database, CartItemAdded(user_id="ann", item_id="their-1", sku_id="tea", quantity=2)
    )

    assert await _cart(desk, "ann") == [("their-1", "tea", 2)]


async def test_an_added_item_without_id_is_given_one(database: Database, desk: CartDesk):
    await _receive(database, CartItemAdded(user_id="ann", sku_id="tea", quantity=2))

    assert await _cart(desk, "ann") == [("drawn-1", "tea", 2)]


async def test_an_added_sku_that_is_there_sums_into_its_item(database: Database, desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=1)

    await _receive(
        database, CartItemAdded(user_id="ann", item_id="their-1", sku_id="tea", quantity=2)
    )

    assert await _cart(desk, "ann") == [("c1", "tea", 3)]


async def test_an_added_item_under_an_id_that_names_another_is_set_aside(
    database: Database, desk: CartDesk
):
    await desk.add(user_id="ann", sku_id="tea", quantity=1)

    outcomes = await _receive(
        database, CartItemAdded(user_id="bob", item_id="c1", sku_id="milk", quantity=2)
    )

    assert outcomes == [SetAside(reason="invalid_request", detail="The id c1 names another item.")]
    assert await _cart(desk, "ann") == [("c1", "tea", 1)]
    assert await _cart(desk, "bob") == []


async def test_what_is_over_a_limit_is_set_aside_and_its_neighbours_take_effect(
    database: Database, desk: CartDesk
):
    outcomes = await _receive(
        database,
        CartItemAdded(user_id="ann", item_id="a", sku_id="tea", quantity=9_999),
        CartItemAdded(user_id="ann", item_id="a", sku_id="tea", quantity=1),
        CartItemAdded(user_id="ann", item_id="b", sku_id="milk", quantity=1),
    )

    assert [type(outcome).__name__ for outcome in outcomes] == ["Handled", "SetAside", "Handled"]
    assert await _cart(desk, "ann") == [("a", "tea", 9_999), ("b", "milk", 1)]


async def test_an_updated_quantity_replaces_the_old_one_and_the_last_one_stays(
    database: Database, desk: CartDesk
):
    await desk.add(user_id="ann", sku_id="tea", quantity=1)

    outcomes = await _receive(
        database,
        CartItemUpdated(user_id="ann", item_id="c1", quantity=5),
        CartItemUpdated(user_id="ann", item_id="c1", quantity=4),
    )

    assert outcomes == [HANDLED, HANDLED]
    assert await _cart(desk, "ann") == [("c1", "tea", 4)]


async def test_a_cleared_cart_is_empty(database: Database, desk: CartDesk):
    await desk.add(user_id="ann", sku_id="tea", quantity=1)
    await desk.add(user_id="ann", sku_id="milk", quantity=1)
    await desk.add(user_id="bob", sku_id="salt", quantity=1)

    await _receive(database, CartCleared(user_id="ann"))

    assert await _cart(desk, "ann") == []
    assert await _cart(desk, "bob") == [("c3", "salt", 1)]


async def test_events_of_a_batch_take_effect_in_the_order_they_came(
    database: Database, desk: CartDesk
):
    await _receive(
        database,
        CartItemAdded(user_id="ann", item_id="a", sku_id="tea", quantity=1),
        CartItemUpdated(user_id="ann", item_id="a", quantity=4),
        CartItemAdded(user_id="ann", item_id="a", sku_id="tea", quantity=1),
        CartItemRemoved(user_id="ann", item_id="nothing"),
        CartItemAdded(user_id="bob", item_id="b", sku_id="tea", quantity=1),
        CartCleared(user_id="bob"),
        CartItemAdded(user_id="bob", item_id="b", sku_id="milk", quantity=2),
    )

    assert await _cart(desk, "ann") == [("a", "tea", 5)]
    assert await _cart(desk, "bob") == [("b", "milk", 2)]
