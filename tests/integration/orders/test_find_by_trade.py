"""Operators find an order by every payment that came for it, and a case by either."""

from sqlalchemy.dialects import postgresql, sqlite

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.orders.payment import LatePaymentPolicy
from orderkeep.orders.store.reports import OrderFilter, orders_that_fit
from tests.integration.orders.shop import Shop, payment
from tests.integration.orders.storefront import Storefront


async def _found(storefront: Storefront, query: str) -> list[str]:
    answer = await storefront.get(f"/admin/orders?{query}", by="otto")
    assert answer.status_code == 200, answer.text
    return [order["order_no"] for order in answer.json()["items"]]


async def test_an_order_is_found_by_each_trade_whatever_became_of_it(
    storefront: Storefront,
) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    paid = await shop.order("ann", tea=1)
    await shop.pay(payment(paid, "T-paid"))
    await shop.pay(payment(paid, "T-twice"))
    short = await shop.order("bob", tea=1)
    await shop.pay(payment(short, "T-short", amount_minor=1))
    late = await shop.order("eve", tea=1)
    await shop.expire(late)
    await shop.pay(payment(late, "T-late"), policy=LatePaymentPolicy.REFUND)

    assert {
        trade_no: await _found(storefront, f"trade_no={trade_no}")
        for trade_no in ("T-paid", "T-twice", "T-short", "T-late", "T-none")
    } == {
        "T-paid": [paid.order_no],
        "T-twice": [paid.order_no],
        "T-short": [short.order_no],
        "T-late": [late.order_no],
        "T-none": [],
    }
    assert await _found(storefront, "trade_no=T-twice&user_id=bob") == []


async def test_orders_of_one_trade_number_at_two_channels_are_both_found(
    storefront: Storefront,
) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    first = await shop.order("ann", tea=1)
    await shop.pay(payment(first, "T-1", pay_channel="alipay"))
    await shop.tick()
    second = await shop.order("bob", tea=1)
    await shop.pay(payment(second, "T-1", pay_channel="wechat", amount_minor=1))

    assert await _found(storefront, "trade_no=T-1") == [second.order_no, first.order_no]


def test_a_trade_is_looked_up_in_the_indexes(shop: Shop) -> None:
    """No engine reads a whole table for it, however many orders and payments there are."""
    is_embedded = isinstance(shop.database, SqliteDatabase)
    dialect = sqlite.dialect() if is_embedded else postgresql.dialect()
    clause = orders_that_fit(OrderFilter(trade_no="T-1"), limit_count=20).clause
    sql = str(clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    if is_embedded:
        plan = [row["detail"] for row in shop.rows(f"EXPLAIN QUERY PLAN {sql}")]
    else:
        # An empty table is read whole, unless that is forbidden.
        shop.write("SET enable_seqscan = off")
        plan = [row["QUERY PLAN"] for row in shop.rows(f"EXPLAIN {sql}")]

    said = "\n".join(plan)
    assert "ix_orders_trade_no" in said
    assert "ix_order_payments_not_accepted" in said
    assert "SCAN orders" not in said
    assert "SCAN order_payments" not in said
    assert "Seq Scan" not in said


async def test_a_case_is_found_by_its_order_and_by_its_trade_in_any_state(
    storefront: Storefront,
) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    order = await shop.order("ann", tea=1)
    await shop.pay(payment(order, "T-1", amount_minor=1))
    await shop.pay(payment(order, "T-2", amount_minor=1))
    other = await shop.order("bob", tea=1)
    await shop.pay(payment(other, "T-3", amount_minor=1))
    body = {"action": "dismiss", "reason": "settled"}
    await storefront.post("/admin/payment-cases/1/resolve", body, by="olga")

    async def found(query: str) -> list[int]:
        page = (await storefront.get(f"/admin/payment-cases?{query}", by="otto")).json()
        return [case["id"] for case in page["items"]]

    assert await found("") == [3, 2]
    assert await found(f"order_no={order.order_no}") == [2, 1]
    assert await found(f"order_no={order.order_no}&state=open") == [2]
    assert await found("trade_no=T-1") == [1]
    assert await found("trade_no=T-1&state=open") == []
    assert await found("trade_no=T-9") == []
