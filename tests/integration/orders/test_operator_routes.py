"""What operators call, over HTTP: any order, the catalogue with its stock, abandoned orders."""

from typing import Any

import pytest

from orderkeep.contracts.order_timeout_dlq import TimedOutOrder
from orderkeep.instant import after, rfc3339
from orderkeep.orders.consumers.order_timeout_dlq import order_timeout_dlq_consumer
from tests.integration.orders.shop import only, payment
from tests.integration.orders.storefront import Storefront, problem

TEA = {"title": "Tea", "price": "25.99", "currency": "CNY"}

WRITES = [
    ("POST", "/admin/orders/01/cancel"),
    ("PUT", "/admin/skus/tea"),
    ("POST", "/admin/skus/tea/stock-movements"),
    ("POST", "/admin/payment-cases/1/resolve"),
]
READS = [
    ("GET", "/admin/orders"),
    ("GET", "/admin/orders/01"),
    ("GET", "/admin/orders/01/timeline"),
    ("GET", "/admin/skus/tea"),
    ("GET", "/admin/timed-out-orders"),
    ("GET", "/admin/payment-cases"),
    ("GET", "/admin/payment-cases/1"),
]


async def _move(storefront: Storefront, body: object, *, key: str = "k", by: str = "olga") -> Any:
    return await storefront.post(
        "/admin/skus/tea/stock-movements", body, by=by, headers={"Idempotency-Key": key}
    )


# Who may.


@pytest.mark.parametrize(("method", "path"), [*READS, *WRITES])
async def test_a_buyer_may_not_operate(storefront: Storefront, method: str, path: str) -> None:
    before = storefront.shop.dump()

    answer = await storefront.call(method, path, by="ann")

    assert problem(answer) == (403, "insufficient_scope")
    assert "insufficient_scope" in answer.headers["www-authenticate"]
    assert storefront.shop.dump() == before


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_who_may_only_look_changes_nothing(
    storefront: Storefront, method: str, path: str
) -> None:
    answer = await storefront.call(method, path, by="otto")

    assert problem(answer) == (403, "insufficient_scope")


@pytest.mark.parametrize(("method", "path"), READS)
@pytest.mark.parametrize("by", ["otto", "olga"])
async def test_operators_may_look(storefront: Storefront, method: str, path: str, by: str) -> None:
    answer = await storefront.call(method, path, by=by)

    assert answer.status_code in {200, 404}


@pytest.mark.parametrize(("method", "path"), [*READS, *WRITES])
async def test_who_is_not_known_may_nothing(storefront: Storefront, method: str, path: str) -> None:
    assert problem(await storefront.call(method, path, by=None)) == (401, "unauthenticated")


# Orders.


async def test_an_operator_sees_any_order_and_whose_it_is(storefront: Storefront) -> None:
    await storefront.shop.fill(tea=10)
    placed = (await storefront.place(("tea", 2))).json()

    answer = await storefront.get(f"/admin/orders/{placed['order_no']}", by="otto")

    assert answer.headers["etag"] == '"1"'
    assert answer.json() == {**placed, "user_id": "ann"}
    again = await storefront.get(
        f"/admin/orders/{placed['order_no']}", by="otto", headers={"If-None-Match": '"1"'}
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_an_unknown_order_is_not_found(storefront: Storefront) -> None:
    for path in ("/admin/orders/0100", "/admin/orders/0100/timeline"):
        assert problem(await storefront.get(path, by="olga")) == (404, "not_found")


async def test_an_operator_reads_the_whole_story_of_any_order(storefront: Storefront) -> None:
    await storefront.shop.fill(tea=10)
    order = await storefront.shop.order("ann", tea=1)

    told = (await storefront.get(f"/admin/orders/{order.order_no}/timeline", by="otto")).json()

    assert told["order_no"] == order.order_no
    assert [item["kind"] for item in told["items"]] == ["state", "message", "message"]


async def test_an_operator_cancels_any_unpaid_order(storefront: Storefront) -> None:
    await storefront.shop.fill(tea=10)
    order = await storefront.shop.order("ann", tea=1)

    answer = await storefront.post(
        f"/admin/orders/{order.order_no}/cancel", {"reason": "fraud"}, by="olga"
    )

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert only(answer.json(), "status", "close_reason", "user_id") == {
        "status": "cancelled",
        "close_reason": "operator",
        "user_id": "ann",
    }
    assert storefront.shop.history(order.order_no)[1][3:] == ("operator", "olga")
    again = await storefront.post(f"/admin/orders/{order.order_no}/cancel", by="olga")
    assert (again.status_code, again.json()["version"]) == (200, 2)


async def test_an_operator_cannot_cancel_what_is_paid_unknown_or_changed(
    storefront: Storefront,
) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    paid = await shop.order("ann", tea=1)
    await shop.pay(payment(paid))
    pending = await shop.order("ann", tea=1)
    before = shop.dump()

    answers = [
        await storefront.post(f"/admin/orders/{paid.order_no}/cancel", by="olga"),
        await storefront.post("/admin/orders/0100/cancel", by="olga"),
        await storefront.post(
            f"/admin/orders/{pending.order_no}/cancel", by="olga", headers={"If-Match": '"9"'}
        ),
    ]

    assert [problem(answer) for answer in answers] == [
        (409, "order_not_pending"),
        (404, "not_found"),
        (412, "version_mismatch"),
    ]
    assert shop.dump() == before


async def _find(storefront: Storefront, query: str) -> list[str]:
    answer = await storefront.get(f"/admin/orders?{query}", by="otto")
    assert answer.status_code == 200, answer.text
    return [order["order_no"] for order in answer.json()["items"]]


async def test_orders_are_found_by_what_is_known_of_them(storefront: Storefront) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    first = await shop.order("ann", tea=1)
    await shop.tick()
    second = await shop.order("bob", tea=1)
    await shop.tick()
    third = await shop.order("ann", tea=1)
    await shop.pay(payment(first, "T-1"))
    one, two, three = first.order_no, second.order_no, third.order_no
    at, later = rfc3339(second.created_at), rfc3339(after(second.created_at, seconds=0.0005))

    assert await _find(storefront, "") == [three, two, one]
    assert await _find(storefront, f"order_no={two}") == [two]
    assert await _find(storefront, "user_id=ann") == [three, one]
    assert await _find(storefront, "status=paid") == [one]
    assert await _find(storefront, "trade_no=T-1") == [one]
    assert await _find(storefront, f"created_from={at}") == [three, two]
    assert await _find(storefront, f"created_to={at}") == [one]
    assert await _find(storefront, f"created_from={at}&created_to={later}") == [two]
    assert await _find(storefront, "user_id=ann&status=pending_payment") == [three]
    assert await _find(storefront, "user_id=nobody") == []
    assert await _find(storefront, "trade_no=T%20%27%22%25") == []


async def test_times_are_taken_with_any_offset(storefront: Storefront) -> None:
    await storefront.shop.fill(tea=10)
    order = await storefront.shop.order(tea=1)

    assert await _find(storefront, "created_from=2024-01-01T10:00:00%2B08:00") == [order.order_no]
    assert await _find(storefront, "created_to=2024-01-01T10:00:00.5-11:30") == []


async def test_orders_are_listed_in_pages_with_whose_they_are(storefront: Storefront) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    orders = [await shop.order(user_id, tea=1) for user_id in ("ann", "bob", "eve")]

    first = (await storefront.get("/admin/orders?limit=2", by="otto")).json()
    cursor = first["next_cursor"]
    rest = (await storefront.get(f"/admin/orders?limit=2&cursor={cursor}", by="otto")).json()

    assert [order["user_id"] for order in first["items"]] == ["eve", "bob"]
    assert [order["order_no"] for order in rest["items"]] == [orders[0].order_no]
    assert rest["next_cursor"] is None


async def test_orders_are_found_by_how_their_refunds_stand(storefront: Storefront) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    orders = [await shop.order(user_id, tea=1) for user_id in ("ann", "bob", "eve")]
    for order in orders[:2]:
        await shop.cancel(order)
        await shop.pay(payment(order, f"T-{order.user_id}"))
    shop.write("UPDATE order_refunds SET status = 'failed' WHERE trade_no = 'T-bob'")

    found = {
        status: (await storefront.get(f"/admin/orders?refund_status={status}", by="otto")).json()
        for status in ("requested", "failed", "succeeded")
    }

    assert {
        status: [order["user_id"] for order in page["items"]] for status, page in found.items()
    } == {"requested": ["ann"], "failed": ["bob"], "succeeded": []}


@pytest.mark.parametrize(
    ("query", "told", "pointers"),
    [
        ("refund_status=lost", (422, "invalid_request"), ["query/refund_status"]),
        ("status=piad", (422, "invalid_request"), ["query/status"]),
        ("status=paid&status=closed", (422, "invalid_request"), ["query/status"]),
        ("created_from=yesterday", (422, "invalid_request"), ["query/created_from"]),
        ("created_to=2024-01-01", (422, "invalid_request"), ["query/created_to"]),
        ("created_to=2024-02-30T10:00:00Z", (422, "invalid_request"), ["query/created_to"]),
        ("status=gone", (422, "invalid_request"), ["query/status"]),
        ("limit=0", (422, "invalid_request"), ["query/limit"]),
        ("user_id=%00", (422, "invalid_request"), ["query/"]),
        ("cursor=x", (400, "invalid_cursor"), None),
    ],
)
async def test_a_search_refuses_what_it_cannot_take(
    storefront: Storefront, query: str, told: tuple[int, str], pointers: list[str] | None
) -> None:
    answer = await storefront.get(f"/admin/orders?{query}", by="otto")

    assert problem(answer) == told
    if pointers is not None:
        assert [error["pointer"] for error in answer.json()["errors"]] == pointers


# The catalogue.


async def test_a_sku_is_created_with_stock_and_then_written_anew(storefront: Storefront) -> None:
    created = await storefront.put(
        "/admin/skus/tea", {**TEA, "product_id": "p-1", "stock": 10, "is_active": True}
    )
    written = await storefront.put("/admin/skus/tea", {**TEA, "price": "30.00", "is_active": False})

    assert (created.status_code, written.status_code) == (201, 200)
    assert created.json() == {
        "sku_id": "tea",
        "product_id": "p-1",
        "title": "Tea",
        "price": "25.99",
        "currency": "CNY",
        "is_active": True,
        "available": 10,
        "reserved": 0,
        "sold": 0,
    }
    assert written.json() == {
        "sku_id": "tea",
        "title": "Tea",
        "price": "30.00",
        "currency": "CNY",
        "is_active": False,
        "available": 10,
        "reserved": 0,
        "sold": 0,
    }
    assert (await storefront.get("/admin/skus/tea", by="otto")).json() == written.json()


async def test_stock_of_a_sku_that_exists_is_refused(storefront: Storefront) -> None:
    await storefront.put("/admin/skus/tea", {**TEA, "stock": 10})
    before = storefront.shop.dump()

    answer = await storefront.put("/admin/skus/tea", {**TEA, "price": "1.00", "stock": 10})

    assert problem(answer) == (409, "stock_exists")
    assert "/api/v1/admin/skus/tea/stock-movements" in answer.json()["detail"]
    assert storefront.shop.dump() == before


async def test_an_unknown_sku_is_not_found(storefront: Storefront) -> None:
    assert problem(await storefront.get("/admin/skus/tea", by="olga")) == (404, "not_found")
    assert problem(await _move(storefront, {"quantity": 1, "reason": "r"})) == (404, "not_found")
    assert problem(await storefront.put("/admin/skus/a%20b", TEA)) == (404, "not_found")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"currency": "JPY"}, (422, "unsupported_currency")),
        ({"currency": "XXX"}, (422, "unsupported_currency")),
        ({"currency": "cny"}, (422, "invalid_request")),
        ({"price": "10000000000.00"}, (422, "amount_too_large")),
        ({"price": "1"}, (422, "invalid_request")),
        ({"price": "1.234"}, (422, "invalid_request")),
        ({"price": "-1.00"}, (422, "invalid_request")),
        ({"price": 1}, (422, "invalid_request")),
        ({"price": None}, (422, "invalid_request")),
        ({"title": ""}, (422, "invalid_request")),
        ({"title": "t" * 201}, (422, "invalid_request")),
        ({"title": "a\x00b"}, (422, "invalid_request")),
        ({"stock": -1}, (422, "invalid_request")),
        ({"stock": 1_000_000_001}, (422, "invalid_request")),
        ({"stock": True}, (422, "invalid_request")),
        ({"stock": 1.5}, (422, "invalid_request")),
        ({"is_active": "yes"}, (422, "invalid_request")),
        ({"product_id": "a b"}, (422, "invalid_request")),
        ({"colour": "green"}, (422, "invalid_request")),
    ],
)
async def test_a_sku_refuses_what_it_cannot_be(
    storefront: Storefront, members: dict[str, Any], told: tuple[int, str]
) -> None:
    before = storefront.shop.dump()

    answer = await storefront.put("/admin/skus/tea", {**TEA, **members})

    assert problem(answer) == told
    assert storefront.shop.dump() == before


async def test_stock_moves_once_for_each_key(storefront: Storefront) -> None:
    await storefront.put("/admin/skus/tea", {**TEA, "stock": 10})

    first = await _move(storefront, {"quantity": 5, "reason": "found"})
    again = await _move(storefront, {"quantity": 5, "reason": "found"}, key='"k"')
    taken = await _move(storefront, {"quantity": -15, "reason": "broken"}, key="k2")

    assert [answer.status_code for answer in (first, again, taken)] == [201, 201, 201]
    assert [answer.json()["available"] for answer in (first, again, taken)] == [15, 15, 0]
    assert await storefront.shop.breaches() == []


@pytest.mark.parametrize(
    ("body", "key", "told"),
    [
        ({"quantity": 6, "reason": "found"}, "k", (422, "idempotency_key_reused")),
        ({"quantity": 5, "reason": "bought"}, "k", (422, "idempotency_key_reused")),
        ({"quantity": -16, "reason": "broken"}, "k2", (409, "out_of_stock")),
        ({"quantity": 1.5, "reason": "r"}, "k2", (422, "invalid_request")),
        ({"quantity": True, "reason": "r"}, "k2", (422, "invalid_request")),
        ({"quantity": "1", "reason": "r"}, "k2", (422, "invalid_request")),
        ({"quantity": 1_000_000_001, "reason": "r"}, "k2", (422, "invalid_request")),
        ({"quantity": -1_000_000_001, "reason": "r"}, "k2", (422, "invalid_request")),
        ({"quantity": 1, "reason": ""}, "k2", (422, "invalid_request")),
        ({"quantity": 1}, "k2", (422, "invalid_request")),
        ({"quantity": 1, "reason": "r"}, "", (400, "idempotency_key_invalid")),
    ],
)
async def test_a_movement_that_cannot_be_changes_nothing(
    storefront: Storefront, body: object, key: str, told: tuple[int, str]
) -> None:
    await storefront.put("/admin/skus/tea", {**TEA, "stock": 10})
    await _move(storefront, {"quantity": 5, "reason": "found"}, key="k")
    before = storefront.shop.dump()

    answer = await _move(storefront, body, key=key)

    assert problem(answer) == told
    assert storefront.shop.dump() == before


async def test_a_movement_needs_a_key(storefront: Storefront) -> None:
    await storefront.put("/admin/skus/tea", TEA)

    answer = await storefront.post(
        "/admin/skus/tea/stock-movements", {"quantity": 1, "reason": "r"}, by="olga"
    )

    assert problem(answer) == (400, "idempotency_key_missing")


async def test_keys_of_two_operators_never_mix(
    storefront: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = {"eu": ("operator",), "eu:west": ("operator",)}
    monkeypatch.setattr(Storefront, "SCOPES", {**Storefront.SCOPES, **scopes})
    await storefront.put("/admin/skus/tea", TEA)

    await _move(storefront, {"quantity": 5, "reason": "found"}, by="eu", key="west:1")
    answer = await _move(storefront, {"quantity": 5, "reason": "found"}, by="eu:west", key="1")

    assert answer.json()["available"] == 10


# Abandoned orders.


async def test_abandoned_orders_are_listed_newest_first_in_pages(storefront: Storefront) -> None:
    shop = storefront.shop
    await shop.fill(tea=10)
    orders = [await shop.order(user_id, tea=1) for user_id in ("ann", "bob", "eve")]
    await shop.expire(*orders)
    await shop.receive(
        order_timeout_dlq_consumer(), *(TimedOutOrder(order_no=it.order_no) for it in orders)
    )
    back = await shop.order("ann", tea=1)
    await shop.pay(payment(back))

    first = (await storefront.get("/admin/timed-out-orders?limit=2", by="otto")).json()
    cursor = first["next_cursor"]
    rest = await storefront.get(f"/admin/timed-out-orders?limit=2&cursor={cursor}", by="otto")

    assert [entry["user_id"] for entry in first["items"]] == ["eve", "bob"]
    (entry,) = rest.json()["items"]
    assert rest.json()["next_cursor"] is None
    assert entry.pop("created_at").endswith("Z")
    assert entry.pop("timed_out_at").endswith("Z")
    assert entry == {
        "order_no": orders[0].order_no,
        "user_id": "ann",
        "pay_amount": "25.99",
        "currency": "CNY",
        "reason_code": "payment_timeout",
        "is_recovered": True,
        "recovered_by_order_no": back.order_no,
    }
    assert first["items"][0]["is_recovered"] is False
    assert first["items"][0]["recovered_by_order_no"] is None


@pytest.mark.parametrize(
    ("query", "told"),
    [("limit=101", (422, "invalid_request")), ("cursor=x", (400, "invalid_cursor"))],
)
async def test_the_report_refuses_what_it_cannot_take(
    storefront: Storefront, query: str, told: tuple[int, str]
) -> None:
    assert problem(await storefront.get(f"/admin/timed-out-orders?{query}", by="otto")) == told
