"""Placing orders: everything is written or nothing is, and each request is decided by itself."""

import asyncio
import json

import pytest

from orderkeep.database.transaction import Database
from orderkeep.orders.desk import OrderRequest
from orderkeep.orders.idempotency_key import KeyKind
from orderkeep.orders.order import Receiver
from orderkeep.orders.placing import PlacedOrder
from orderkeep.orders.pricing import WantedLine
from orderkeep.refusal import Refusal
from tests.integration.orders.shop import Shop, only, request

TOO_MUCH_TEA = 99_999_999_999


async def _refused(shop: Shop, wanted: OrderRequest) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await shop.desk.place(wanted)
    return refused.value


async def test_an_order_is_written_with_lines_history_movements_stock_and_messages(
    shop: Shop,
) -> None:
    await shop.fill(tea=10, pot=5)

    placed = await shop.desk.place(
        OrderRequest(
            user_id="ann",
            key_kind=KeyKind.HEADER,
            key="k",
            body_hash="hash",
            wanted=(
                WantedLine(sku_id="tea", quantity=3, cart_item_id="c1"),
                WantedLine(sku_id="pot", quantity=1, cart_item_id="c2"),
                WantedLine(sku_id="tea", quantity=1, cart_item_id="c1"),
                WantedLine(sku_id="tea", quantity=2),
            ),
            receiver=Receiver(name="Ann", phone="1", address="A street"),
            buyer_remark="no sugar",
            expected_pay_amount_minor=25_594,
        )
    )

    order_no = placed.order.order_no
    assert not placed.is_replayed
    row = shop.order_row(order_no)
    assert row["expires_at"] - row["created_at"] == 1_800_000_000
    assert only(row, "user_id", "status", "version", "event_seq", "currency", "buyer_remark") == {
        "user_id": "ann",
        "status": "pending_payment",
        "version": 1,
        "event_seq": 4,
        "currency": "CNY",
        "buyer_remark": "no sugar",
    }
    assert only(row, "total_amount_minor", "pay_amount_minor") == {
        "total_amount_minor": 25_594,
        "pay_amount_minor": 25_594,
    }
    assert only(row, "receiver_name", "receiver_phone", "receiver_address") == {
        "receiver_name": "Ann",
        "receiver_phone": "1",
        "receiver_address": "A street",
    }
    assert [tuple(line.values()) for line in shop.rows("SELECT * FROM order_lines")] == [
        (order_no, 1, "tea", "Tea", 2_599, 3, 7_797, "c1"),
        (order_no, 2, "pot", "Pot", 10_000, 1, 10_000, "c2"),
        (order_no, 3, "tea", "Tea", 2_599, 1, 2_599, "c1"),
        (order_no, 4, "tea", "Tea", 2_599, 2, 5_198, None),
    ]
    assert shop.history(order_no) == [(1, None, "pending_payment", "buyer", "ann")]
    assert shop.movements(order_no) == [("tea", "reserve", 6), ("pot", "reserve", 1)]
    assert (shop.stock_of("tea"), shop.stock_of("pot")) == ((4, 6, 0), (4, 1, 0))
    assert await shop.breaches() == []


async def test_an_order_leaves_its_messages_in_the_outbox_numbered_from_1(shop: Shop) -> None:
    await shop.fill(tea=10)
    wanted = request(("tea", 1))
    lines = tuple(
        WantedLine(sku_id="tea", quantity=1, cart_item_id=item) for item in ("c1", "c2", "c1")
    )

    placed = await shop.desk.place(
        OrderRequest(
            user_id="ann",
            key_kind=wanted.key_kind,
            key=wanted.key,
            body_hash="hash",
            wanted=lines,
            receiver=None,
            buyer_remark=None,
            expected_pay_amount_minor=None,
        )
    )

    order = placed.order
    rows = shop.rows("SELECT * FROM order_outbox ORDER BY id")
    assert [only(row, "sequence", "type", "route", "ordered", "state") for row in rows] == [
        {
            "sequence": 1,
            "type": "order.timeout.check",
            "route": "order.timeout.queue",
            "ordered": 0,
            "state": "pending",
        },
        {
            "sequence": 2,
            "type": "cart.item.removed",
            "route": "cart-sync",
            "ordered": 1,
            "state": "pending",
        },
        {
            "sequence": 3,
            "type": "cart.item.removed",
            "route": "cart-sync",
            "ordered": 1,
            "state": "pending",
        },
        {
            "sequence": 4,
            "type": "order.created",
            "route": "order.events",
            "ordered": 1,
            "state": "pending",
        },
    ]
    assert [row["deliver_at"] for row in rows] == [order.expires_at, None, None, None]
    assert {row["aggregate_id"] for row in rows} == {order.order_no}
    assert [json.loads(row["body"]).get("item_id") for row in rows] == [None, "c1", "c2", None]
    assert shop.order_row(order.order_no)["event_seq"] == 4


async def test_prices_are_those_of_the_catalogue_when_the_order_is_made(shop: Shop) -> None:
    await shop.fill(tea=10)
    first = await shop.order(tea=2)
    await shop.put_sku("tea", unit_price_minor=3_000)

    second = await shop.order(tea=2)

    assert (first.pay_amount_minor, second.pay_amount_minor) == (5_198, 6_000)
    assert (await shop.desk.get(first.order_no, user_id="ann")).pay_amount_minor == 5_198


async def test_lines_of_one_sku_are_summed_against_its_stock(shop: Shop) -> None:
    await shop.fill(tea=5)

    refusal = await _refused(shop, request(("tea", 3), ("tea", 3)))

    assert refusal.code == "out_of_stock"
    assert refusal.members == {"items": [{"sku_id": "tea", "requested": 6, "available": 5}]}
    assert (await shop.order(tea=5)).pay_amount_minor == 12_995


async def test_what_is_out_of_stock_is_named_with_what_is_available(shop: Shop) -> None:
    await shop.fill(tea=2, pot=0, mug=9)

    refusal = await _refused(shop, request(("tea", 3), ("mug", 1), ("pot", 1)))

    assert refusal.members == {
        "items": [
            {"sku_id": "pot", "requested": 1, "available": 0},
            {"sku_id": "tea", "requested": 3, "available": 2},
        ]
    }


async def _shop_of_everything(shop: Shop) -> None:
    await shop.fill(tea=10)
    await shop.put_sku("old", unit_price_minor=1, stock=10, is_active=False)
    await shop.put_sku("euro", unit_price_minor=1, stock=10, currency="EUR")
    await shop.put_sku("gold", unit_price_minor=TOO_MUCH_TEA, stock=100)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (request(("nothing", 1)), "unknown_sku"),
        (request(("tea", 1), ("nothing", 1)), "unknown_sku"),
        (request(("old", 1)), "unknown_sku"),
        (request(("tea", 1), ("euro", 1)), "mixed_currencies"),
        (request(("gold", 11)), "amount_too_large"),
        (request(("tea", 1), expected_pay_amount_minor=2_600), "price_changed"),
        (request(("tea", 11)), "out_of_stock"),
    ],
)
async def test_a_refused_request_leaves_no_row_and_its_key_is_free(
    shop: Shop, wanted: OrderRequest, code: str
) -> None:
    await _shop_of_everything(shop)
    before = shop.dump()

    refusal = await _refused(shop, wanted)

    assert refusal.code == code
    assert shop.dump() == before
    again = await shop.desk.place(request(("tea", 1), key=wanted.key, body="another"))
    assert not again.is_replayed


async def test_a_changed_price_is_refused_with_the_lines_as_they_are(shop: Shop) -> None:
    await shop.fill(tea=10)

    refusal = await _refused(shop, request(("tea", 2), expected_pay_amount_minor=5_000))

    assert refusal.members == {
        "items": [
            {
                "sku_id": "tea",
                "title": "Tea",
                "unit_price": "25.99",
                "quantity": 2,
                "subtotal": "51.98",
            }
        ],
        "pay_amount": "51.98",
        "currency": "CNY",
    }


async def test_of_200_buyers_at_once_for_10_units_exactly_10_get_one(shop: Shop) -> None:
    await shop.fill(tea=10)

    answers = await asyncio.gather(
        *(shop.desk.place(request(("tea", 1), user_id=f"buyer-{n}")) for n in range(200)),
        return_exceptions=True,
    )

    placed = [answer for answer in answers if isinstance(answer, PlacedOrder)]
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(placed) == 10
    assert [refusal.code for refusal in refusals] == ["out_of_stock"] * 190
    assert shop.stock_of("tea") == (0, 10, 0)
    assert shop.count_rows("orders") == 10
    assert shop.count_rows("order_requests") == 10
    assert await shop.breaches() == []


async def test_a_batch_admits_its_requests_in_the_order_they_came(shop: Shop) -> None:
    await shop.fill(tea=5)
    wanted = [3, 4, 2, 1]

    answers = await asyncio.gather(
        *(
            shop.desk.place(request(("tea", quantity), key=f"k{n}"))
            for n, quantity in enumerate(wanted)
        ),
        return_exceptions=True,
    )

    assert [isinstance(answer, PlacedOrder) for answer in answers] == [True, False, True, False]


async def test_two_orders_of_one_batch_never_share_a_number(database: Database) -> None:
    shop = Shop(database)
    drawn = iter([7, 7, 7, 8])
    shop.desk._draw_number = lambda: next(drawn)
    async with shop.open():
        await shop.fill(tea=10)

        first, second = await asyncio.gather(
            shop.desk.place(request(("tea", 1), key="k1")),
            shop.desk.place(request(("tea", 2), key="k2")),
        )

    assert first.order.order_no != second.order.order_no
    assert shop.count_rows("orders") == 2
    assert await shop.breaches() == []
