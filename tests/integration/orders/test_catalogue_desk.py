"""The catalogue: SKUs are written at will, their stock moves only by movements, each once."""

import asyncio

import pytest

from orderkeep.database.audit import Act
from orderkeep.orders.catalogue_desk import SkuEntry
from orderkeep.orders.stock import Sku
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, payment, request

OLGA = Act(actor="olga", reason="spring sale")
TEA = SkuEntry(
    sku_id="tea",
    product_id="p-1",
    title="Green tea",
    unit_price_minor=2_599,
    currency="CNY",
    is_active=True,
    stock=10,
)


async def _refused(awaitable) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await awaitable
    return refused.value


def _move(shop: Shop, quantity: int, *, reason: str = "found", cause: str = "olga k1"):
    return shop.catalogue.move_stock(
        sku_id="tea", quantity=quantity, reason=reason, cause=cause, actor="olga"
    )


async def test_a_new_sku_has_its_first_stock_by_a_movement(shop: Shop) -> None:
    sku, is_new = await shop.catalogue.put(TEA, act=OLGA)

    assert is_new
    assert sku == Sku(
        sku_id="tea",
        product_id="p-1",
        title="Green tea",
        unit_price_minor=2_599,
        currency="CNY",
        is_active=True,
        available=10,
        reserved=0,
        sold=0,
    )
    assert await shop.catalogue.get("tea") == sku
    assert shop.movements("initial") == [("tea", "adjust", 10)]
    assert await shop.breaches() == []


@pytest.mark.parametrize("stock", [None, 0])
async def test_a_new_sku_without_stock_has_none_and_no_movement(
    shop: Shop, stock: int | None
) -> None:
    sku = await shop.put_sku("tea", stock=stock)

    assert (sku.available, sku.reserved, sku.sold) == (0, 0, 0)
    assert shop.count_rows("stock_movements") == 0
    assert await shop.breaches() == []


async def test_a_sku_is_written_anew_and_keeps_its_stock(shop: Shop) -> None:
    await shop.catalogue.put(TEA, act=OLGA)
    order = await shop.order(tea=3)
    await shop.pay(payment(order))
    await shop.order(tea=2)

    sku, is_new = await shop.catalogue.put(
        SkuEntry(
            sku_id="tea",
            product_id=None,
            title="Black tea",
            unit_price_minor=1,
            currency="EUR",
            is_active=False,
            stock=None,
        ),
        act=OLGA,
    )

    assert not is_new
    assert sku == Sku(
        sku_id="tea",
        product_id=None,
        title="Black tea",
        unit_price_minor=1,
        currency="EUR",
        is_active=False,
        available=5,
        reserved=2,
        sold=3,
    )
    assert await shop.catalogue.get("tea") == sku
    assert await shop.breaches() == []


@pytest.mark.parametrize("stock", [0, 10, 11])
async def test_a_sku_that_exists_takes_no_stock_and_stays_as_it_is(shop: Shop, stock: int) -> None:
    await shop.put_sku("tea", stock=10)
    before = shop.dump()

    refusal = await _refused(shop.put_sku("tea", unit_price_minor=1, stock=stock))

    assert refusal.code == "stock_exists"
    assert shop.dump() == before


async def test_a_currency_without_two_decimals_is_refused(shop: Shop) -> None:
    refusal = await _refused(shop.put_sku("tea", currency="JPY"))

    assert refusal.code == "unsupported_currency"
    assert shop.count_rows("skus") == 0


async def test_of_10_who_create_a_sku_at_once_one_does(shop: Shop) -> None:
    answers = await asyncio.gather(
        *(shop.catalogue.put(TEA, act=OLGA) for _ in range(10)), return_exceptions=True
    )

    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert [refusal.code for refusal in refusals] == ["stock_exists"] * 9
    assert shop.stock_of("tea") == (10, 0, 0)
    assert await shop.breaches() == []


async def test_stock_is_added_and_taken_by_movements(shop: Shop) -> None:
    await shop.fill(tea=10)

    more = await _move(shop, 5, cause="olga k1")
    fewer = await _move(shop, -15, reason="broken", cause="olga k2")

    assert (more.available, fewer.available) == (15, 0)
    assert shop.rows("SELECT kind, cause, quantity, reason FROM stock_movements ORDER BY id") == [
        {"kind": "adjust", "cause": "initial", "quantity": 10, "reason": "initial stock"},
        {"kind": "adjust", "cause": "olga k1", "quantity": 5, "reason": "found"},
        {"kind": "adjust", "cause": "olga k2", "quantity": -15, "reason": "broken"},
    ]
    assert await shop.breaches() == []


async def test_a_repeated_movement_moves_nothing_and_answers_the_sku_as_it_is_now(
    shop: Shop,
) -> None:
    await shop.fill(tea=10)
    await _move(shop, 5)
    await shop.order(tea=1)
    before = shop.dump()

    again = await _move(shop, 5)

    assert (again.available, again.reserved) == (14, 1)
    assert shop.dump() == before


@pytest.mark.parametrize(("quantity", "reason"), [(6, "found"), (5, "bought")])
async def test_a_key_that_moved_something_else_before_is_refused(
    shop: Shop, quantity: int, reason: str
) -> None:
    await shop.fill(tea=10)
    await _move(shop, 5)
    before = shop.dump()

    refusal = await _refused(_move(shop, quantity, reason=reason))

    assert refusal.code == "idempotency_key_reused"
    assert shop.dump() == before


async def test_no_more_is_taken_than_is_available_and_the_key_stays_free(shop: Shop) -> None:
    await shop.fill(tea=10)
    await shop.order(tea=4)
    before = shop.dump()

    refusal = await _refused(_move(shop, -7))

    assert refusal.code == "out_of_stock"
    assert refusal.members == {"items": [{"sku_id": "tea", "available": 6}]}
    assert shop.dump() == before
    assert (await _move(shop, -6)).available == 0


async def test_a_repeated_taking_is_answered_when_nothing_is_left(shop: Shop) -> None:
    await shop.fill(tea=10)
    await _move(shop, -10)

    assert (await _move(shop, -10)).available == 0


async def test_stock_of_an_unknown_sku_does_not_move(shop: Shop) -> None:
    assert (await _refused(_move(shop, 1))).code == "not_found"


async def test_one_movement_sent_20_times_at_once_moves_once(shop: Shop) -> None:
    await shop.fill(tea=10)

    answers = await asyncio.gather(*(_move(shop, 5) for _ in range(20)))

    assert {answer.available for answer in answers} == {15}
    assert shop.movements("olga k1") == [("tea", "adjust", 5)]


async def test_orders_and_movements_at_once_never_oversell(shop: Shop) -> None:
    await shop.fill(tea=10)

    await asyncio.gather(
        *(shop.desk.place(request(("tea", 1), user_id=f"buyer-{n}")) for n in range(20)),
        *(_move(shop, -1, cause=f"olga k{n}") for n in range(20)),
        return_exceptions=True,
    )

    available, reserved, _ = shop.stock_of("tea")
    taken = shop.row("SELECT count(*) AS n FROM stock_movements WHERE quantity = -1")["n"]
    assert (available, reserved + taken) == (0, 10)
    assert await shop.breaches() == []


async def test_what_is_not_for_sale_is_not_shown_to_buyers(shop: Shop) -> None:
    await shop.put_sku("tea", is_active=False)

    assert (await _refused(shop.catalogue.get_active("tea"))).code == "not_found"
    assert (await shop.catalogue.get("tea")).sku_id == "tea"
    assert await shop.catalogue.list_active(after="", limit_count=10) == []


async def test_an_unknown_sku_is_not_found(shop: Shop) -> None:
    assert (await _refused(shop.catalogue.get("tea"))).code == "not_found"
    assert (await _refused(shop.catalogue.get_active("tea"))).code == "not_found"


async def test_the_catalogue_is_listed_by_sku_in_pages(shop: Shop) -> None:
    await shop.fill(tea=1, mug=1, pot=1)
    await shop.put_sku("old", unit_price_minor=1, is_active=False)

    first = await shop.catalogue.list_active(after="", limit_count=2)
    rest = await shop.catalogue.list_active(after="pot", limit_count=2)

    assert [sku.sku_id for sku in first] == ["mug", "pot"]
    assert [sku.sku_id for sku in rest] == ["tea"]
