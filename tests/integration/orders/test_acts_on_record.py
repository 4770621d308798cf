"""What operators do to orders, SKUs and stock is put on record; what changes nothing is not."""

from typing import Any

import pytest

from orderkeep.database.audit import Act, AuditEntry, append_audit
from orderkeep.database.transaction import Transaction
from orderkeep.orders import cancel_order, catalogue_desk
from orderkeep.orders.order import Cause
from tests.integration.orders.shop import Shop
from tests.integration.orders.storefront import Storefront


def recorded(shop: Shop) -> list[tuple[Any, ...]]:
    """Return who did what to what, why and with which detail, the first first."""
    rows = shop.rows("SELECT actor, action, subject, reason, detail FROM admin_audit ORDER BY id")
    return [tuple(row.values()) for row in rows]


async def test_an_operators_cancelling_is_on_record_once(storefront: Storefront) -> None:
    await storefront.shop.fill(tea=10)
    storefront.shop.write("DELETE FROM admin_audit")
    order = await storefront.shop.order("ann", tea=1)
    path = f"/admin/orders/{order.order_no}/cancel"

    await storefront.post(path, {"reason": "fraud"}, by="olga")
    await storefront.post(path, {"reason": "fraud again"}, by="olga")
    await storefront.post("/admin/orders/0100/cancel", by="olga")

    assert recorded(storefront.shop) == [
        ("olga", "orders.cancel", order.order_no, "fraud", '{"user_id":"ann","version":1}')
    ]


async def test_a_buyers_cancelling_is_no_operators_act(shop: Shop) -> None:
    await shop.fill(tea=10)
    shop.write("DELETE FROM admin_audit")

    await shop.cancel(await shop.order("ann", tea=1))

    assert recorded(shop) == []


async def test_a_sku_is_on_record_with_what_it_was_and_is(storefront: Storefront) -> None:
    body = {"title": "Tea", "price": "25.99", "currency": "CNY"}

    await storefront.put("/admin/skus/tea", {**body, "stock": 3, "reason": "new"})
    await storefront.put("/admin/skus/tea", {**body, "price": "20.00"})
    await storefront.put("/admin/skus/tea", {**body, "stock": 9})

    told = '{"product_id":null,"title":"Tea","price":"%s","currency":"CNY","is_active":true}'
    dear, cheap = told % "25.99", told % "20.00"
    assert recorded(storefront.shop) == [
        ("olga", "skus.put", "tea", "new", f'{{"after":{dear},"stock":3}}'),
        ("olga", "skus.put", "tea", None, f'{{"after":{cheap},"before":{dear}}}'),
    ]


async def test_a_movement_of_stock_is_on_record_once(storefront: Storefront) -> None:
    await storefront.shop.fill(tea=10)
    storefront.shop.write("DELETE FROM admin_audit")
    path, body = "/admin/skus/tea/stock-movements", {"quantity": -4, "reason": "broken"}

    for _ in range(2):
        await storefront.post(path, body, by="olga", headers={"Idempotency-Key": "k"})
    await storefront.post(
        path, {**body, "quantity": -40}, by="olga", headers={"Idempotency-Key": "m"}
    )

    assert recorded(storefront.shop) == [
        ("olga", "stock.move", "tea", "broken", '{"quantity":-4,"available_before":10}')
    ]


@pytest.mark.parametrize("what", ["cancel", "put", "move"])
async def test_an_act_that_cannot_be_put_on_record_has_no_effect(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await shop.fill(tea=10)
    order = await shop.order("ann", tea=1)
    before = shop.dump()

    async def fail(*_arguments: object, **_named: object) -> None:
        message = "the record cannot be written"
        raise LookupError(message)

    monkeypatch.setattr(cancel_order, "append_audit", fail)
    monkeypatch.setattr(catalogue_desk, "append_audit", fail)
    acts = {
        "cancel": lambda: shop.cancel(order, by=Cause.OPERATOR),
        "put": lambda: shop.put_sku("tea", unit_price_minor=1),
        "move": lambda: shop.catalogue.move_stock(
            sku_id="tea", quantity=1, reason="found", cause="olga k", actor="olga"
        ),
    }
    with pytest.raises(LookupError):
        await acts[what]()

    assert shop.dump() == before


async def test_an_empty_reason_is_none(shop: Shop) -> None:
    entry = AuditEntry(act=Act(actor="olga", reason=""), action="skus.put", subject="tea")

    async def work(transaction: Transaction) -> None:
        await append_audit(transaction, [entry], now=await transaction.now())

    await shop.database.transact(work)

    assert recorded(shop) == [("olga", "skus.put", "tea", None, "{}")]
