"""The cart over HTTP, to the letter of the contract."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from httpx import AsyncClient

from orderkeep.carts.desk import CartDesk
from orderkeep.carts.routes import ROUTE_HANDLERS
from orderkeep.database.transaction import Database
from tests.integration.web_client import as_user, web_client

ANN = as_user("ann")
BOB = as_user("bob")


@pytest.fixture
async def client(database: Database) -> AsyncIterator[AsyncClient]:
    numbers = count(1)
    desk = CartDesk(database, new_cart_item_id=lambda: f"c{next(numbers)}")
    async with web_client(ROUTE_HANDLERS, dependencies={"cart_desk": desk}) as client:
        yield client


async def _add(client: AsyncClient, sku_id: str, quantity: int = 1) -> None:
    body = {"sku_id": sku_id, "quantity": quantity}
    answer = await client.post("/cart/items", json=body, headers=ANN)
    assert answer.status_code == 201


async def test_an_item_is_added(client: AsyncClient):
    answer = await client.post("/cart/items", json={"sku_id": "tea", "quantity": 2}, headers=ANN)

    assert answer.status_code == 201
    assert answer.json() == {"cart_item_id": "c1", "sku_id": "tea", "quantity": 2}


async def test_the_same_sku_again_sums(client: AsyncClient):
    await _add(client, "tea", 2)

    answer = await client.post("/cart/items", json={"sku_id": "tea", "quantity": 3}, headers=ANN)

    assert answer.status_code == 201
    assert answer.json() == {"cart_item_id": "c1", "sku_id": "tea", "quantity": 5}


async def test_the_cart_is_shown_whole_and_to_its_user_alone(client: AsyncClient):
    await _add(client, "tea")
    await _add(client, "milk")

    own = await client.get("/cart", headers=ANN)
    other = await client.get("/cart", headers=BOB)

    assert own.status_code == 200
    assert own.json() == {
        "items": [
            {"cart_item_id": "c1", "sku_id": "tea", "quantity": 1},
            {"cart_item_id": "c2", "sku_id": "milk", "quantity": 1},
        ]
    }
    assert other.json() == {"items": []}


async def test_a_quantity_is_changed(client: AsyncClient):
    await _add(client, "tea")

    answer = await client.patch("/cart/items/c1", json={"quantity": 9_999}, headers=ANN)

    assert answer.status_code == 200
    assert answer.json() == {"cart_item_id": "c1", "sku_id": "tea", "quantity": 9_999}


async def test_an_item_is_removed(client: AsyncClient):
    await _add(client, "tea")

    answer = await client.delete("/cart/items/c1", headers=ANN)

    assert answer.status_code == 204
    assert answer.content == b""
    assert (await client.get("/cart", headers=ANN)).json() == {"items": []}


@pytest.mark.parametrize("item", ["c404", "c1", "c%2F1", "c%00", "x" * 65])
async def test_what_is_not_in_the_own_cart_is_not_found(client: AsyncClient, item: str):
    await _add(client, "tea")

    changed = await client.patch(f"/cart/items/{item}", json={"quantity": 1}, headers=BOB)
    removed = await client.delete(f"/cart/items/{item}", headers=BOB)

    for answer in (changed, removed):
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"
    assert len((await client.get("/cart", headers=ANN)).json()["items"]) == 1


@pytest.mark.parametrize("quantity", [0, -1, 1.5, True, 10**9, "1", None])
async def test_a_wrong_quantity_is_refused_and_changes_nothing(
    client: AsyncClient, quantity: object
):
    await _add(client, "milk")

    body = {"sku_id": "tea", "quantity": quantity}
    added = await client.post("/cart/items", json=body, headers=ANN)
    changed = await client.patch("/cart/items/c1", json={"quantity": quantity}, headers=ANN)

    for answer in (added, changed):
        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid_request"
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/quantity"]
    items = (await client.get("/cart", headers=ANN)).json()["items"]
    assert items == [{"cart_item_id": "c1", "sku_id": "milk", "quantity": 1}]


@pytest.mark.parametrize("sku_id", ["", "a b", "x" * 65, "té", 7])
async def test_a_wrong_sku_is_refused(client: AsyncClient, sku_id: object):
    body = {"sku_id": sku_id, "quantity": 1}

    answer = await client.post("/cart/items", json=body, headers=ANN)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/sku_id"]


async def test_a_sum_over_the_limit_names_the_quantity(client: AsyncClient):
    await _add(client, "tea", 9_999)

    answer = await client.post("/cart/items", json={"sku_id": "tea", "quantity": 1}, headers=ANN)

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/quantity"]


async def test_an_unknown_member_is_refused(client: AsyncClient):
    body = {"sku_id": "tea", "quantity": 1, "price": "0.01"}

    answer = await client.post("/cart/items", json=body, headers=ANN)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/price"]


async def test_nobody_has_a_cart_without_a_token(client: AsyncClient):
    answers = [
        await client.get("/cart"),
        await client.post("/cart/items", json={"sku_id": "tea", "quantity": 1}),
        await client.patch("/cart/items/c1", json={"quantity": 1}),
        await client.delete("/cart/items/c1"),
    ]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 401]
