"""Many buyers at one moment: the last units, and one key sent many times."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.buyer import collect
from tests.acceptance.running import RunningShop, start_shop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """A shop that every test of this module uses; each sells a SKU of its own."""
    with start_shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


async def order_all_at_once(
    shop: RunningShop, sku_id: str, *, users_and_keys: list[tuple[str, str]]
) -> list[httpx.Response]:
    """Order one unit for each pair of user and key, each on a connection of its own."""
    body = {"items": [{"sku_id": sku_id, "quantity": 1}]}
    tokens = {user_id: shop.token(user_id) for user_id, _ in users_and_keys}
    count = len(users_and_keys)
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(
        base_url=f"{shop.url}/api/v1", limits=limits, timeout=60.0, trust_env=False
    ) as client:
        return await asyncio.gather(
            *(
                client.post(
                    "/orders",
                    json=body,
                    headers={
                        "Authorization": f"Bearer {tokens[user_id]}",
                        "Idempotency-Key": key,
                    },
                )
                for user_id, key in users_and_keys
            )
        )


def outcome_of(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    return answer.status_code, body.get("code", body.get("status"))


async def test_of_200_buyers_at_once_exactly_10_get_the_last_10_units(shop: RunningShop) -> None:
    shop.put_sku("last-ten", stock=10)
    buyers = [(f"buyer-{number}", f"key-{number}") for number in range(200)]

    answers = await order_all_at_once(shop, "last-ten", users_and_keys=buyers)

    assert Counter(map(outcome_of, answers)) == {
        (201, "pending_payment"): 10,
        (409, "out_of_stock"): 190,
    }
    refusals = [answer.json() for answer in answers if answer.status_code == 409]
    assert {item["sku_id"] for refusal in refusals for item in refusal["items"]} == {"last-ten"}
    order_nos = {answer.json()["order_no"] for answer in answers if answer.status_code == 201}
    with shop.operator() as operator:
        sku = operator.get("/admin/skus/last-ten").json()
        orders = [
            order
            for order in collect(operator, "/admin/orders")
            if order["items"][0]["sku_id"] == "last-ten"
        ]
    assert (sku["available"], sku["reserved"], sku["sold"]) == (0, 10, 0)
    assert len(order_nos) == 10
    assert {order["order_no"] for order in orders} == order_nos
    verified = shop.command("verify")
    assert verified.returncode == 0, verified.stdout


async def test_50_requests_at_once_with_one_key_make_one_order(shop: RunningShop) -> None:
    shop.put_sku("plenty", stock=1000)

    answers = await order_all_at_once(shop, "plenty", users_and_keys=[("ann", "the-key")] * 50)

    outcomes = Counter(map(outcome_of, answers))
    accepted = [answer for answer in answers if answer.status_code == 201]
    (order_no,) = {answer.json()["order_no"] for answer in accepted}
    assert outcomes.keys() <= {(201, "pending_payment"), (409, "in_progress")}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in accepted) == 1
    with shop.client("ann") as ann:
        other = ann.post(
            "/orders",
            json={"items": [{"sku_id": "plenty", "quantity": 2}]},
            headers={"Idempotency-Key": "the-key"},
        )
        mine = collect(ann, "/orders")
    assert outcome_of(other) == (422, "idempotency_key_reused")
    assert [order["order_no"] for order in mine] == [order_no]
    with shop.operator() as operator:
        assert operator.get("/admin/skus/plenty").json()["reserved"] == 1


async def test_the_same_key_of_50_users_makes_50_orders(shop: RunningShop) -> None:
    shop.put_sku("everyones", stock=50)
    users = [(f"namesake-{number}", "the-key") for number in range(50)]

    answers = await order_all_at_once(shop, "everyones", users_and_keys=users)

    assert Counter(map(outcome_of, answers)) == {(201, "pending_payment"): 50}
    assert len({answer.json()["order_no"] for answer in answers}) == 50
