"""What buyers call, over HTTP: tokens, orders, cancellations, timelines, the catalogue."""

import asyncio
import hashlib
from typing import Any

import pytest

from orderkeep.orders.bodies import ItemBody, PlaceOrderBody, ReceiverBody
from orderkeep.orders.routes import _body_hash
from tests.integration.orders.shop import Shop, only, payment
from tests.integration.orders.storefront import Storefront, problem

TWO_TEAS = {"items": [{"sku_id": "tea", "quantity": 2}]}


@pytest.fixture(autouse=True)
async def _stock(shop: Shop) -> None:
    await shop.fill(tea=10, pot=5)


async def _placed(storefront: Storefront, body: object, *, key: str = "k", **call: Any) -> Any:
    return await storefront.post("/orders", body, headers={"Idempotency-Key": key}, **call)


# Placing orders.


async def test_an_order_is_answered_with_its_place_its_tag_and_all_there_is_to_it(
    storefront: Storefront,
) -> None:
    answer = await _placed(
        storefront,
        {
            "items": [
                {"sku_id": "tea", "quantity": 2, "cart_item_id": "c1"},
                {"sku_id": "pot", "quantity": 1},
            ],
            "receiver": {"name": "Ann", "phone": "1", "address": "A street"},
            "buyer_remark": "no sugar",
            "expected_pay_amount": "151.98",
        },
    )

    order = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/orders/{order['order_no']}"
    assert answer.headers["etag"] == '"1"'
    assert "idempotent-replayed" not in answer.headers
    row = storefront.shop.order_row(order["order_no"])
    assert len(order.pop("order_no")) == 28
    assert order.pop("created_at").endswith("Z")
    assert order.pop("expires_at").endswith("Z")
    assert order == {
        "status": "pending_payment",
        "items": [
            {
                "sku_id": "tea",
                "title": "Tea",
                "unit_price": "25.99",
                "quantity": 2,
                "subtotal": "51.98",
                "cart_item_id": "c1",
            },
            {
                "sku_id": "pot",
                "title": "Pot",
                "unit_price": "100.00",
                "quantity": 1,
                "subtotal": "100.00",
            },
        ],
        "total_amount": "151.98",
        "pay_amount": "151.98",
        "currency": "CNY",
        "receiver": {"name": "Ann", "phone": "1", "address": "A street"},
        "buyer_remark": "no sugar",
        "version": 1,
    }
    assert row["user_id"] == "ann"


async def test_a_token_is_issued_and_makes_one_order(storefront: Storefront) -> None:
    issued = await storefront.post("/orders/tokens")
    assert issued.status_code == 201
    assert issued.json() == {"token": issued.json()["token"], "expires_in_s": 300}
    body = {**TWO_TEAS, "token": issued.json()["token"]}

    first = await storefront.post("/orders", body)
    again = await storefront.post("/orders", body)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()


async def test_two_tokens_are_never_the_same(storefront: Storefront) -> None:
    tokens = [(await storefront.post("/orders/tokens")).json()["token"] for _ in range(5)]

    assert len(set(tokens)) == 5


async def test_a_repeated_request_answers_201_with_the_order_as_it_is_now(
    storefront: Storefront,
) -> None:
    first = await _placed(storefront, TWO_TEAS)
    await storefront.post(f"/orders/{first.json()['order_no']}/cancel")

    again = await _placed(storefront, TWO_TEAS)

    assert again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["etag"] == '"2"'
    assert again.json()["status"] == "cancelled"


async def test_a_key_in_quotes_is_the_same_key(storefront: Storefront) -> None:
    first = await _placed(storefront, TWO_TEAS, key="k-1")

    again = await _placed(storefront, TWO_TEAS, key='"k-1"')

    assert again.json()["order_no"] == first.json()["order_no"]


async def test_the_same_key_with_another_body_is_refused(storefront: Storefront) -> None:
    await _placed(storefront, TWO_TEAS)

    answer = await _placed(storefront, {"items": [{"sku_id": "tea", "quantity": 3}]})

    assert problem(answer) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    "spelling",
    [
        b'{"items":[{"quantity":2,"sku_id":"tea"}]}',
        b' { "items" : [ { "sku_id" : "t\\u0065a" , "quantity" : 2 } ] } ',
        b'{"items":[{"sku_id":"tea","quantity":2,"cart_item_id":null}],"receiver":null}',
    ],
)
async def test_bodies_are_compared_as_decoded(storefront: Storefront, spelling: bytes) -> None:
    first = await _placed(storefront, TWO_TEAS)

    again = await storefront.call(
        "POST",
        "/orders",
        by="ann",
        headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
        content=spelling,
    )

    assert again.json() == first.json()


@pytest.mark.parametrize(
    "other",
    [
        {"items": [{"sku_id": "tea", "quantity": 1}, {"sku_id": "tea", "quantity": 1}]},
        {"items": [{"sku_id": "tea", "quantity": 2, "cart_item_id": "c1"}]},
        {**TWO_TEAS, "buyer_remark": ""},
        {**TWO_TEAS, "expected_pay_amount": "51.98"},
        {**TWO_TEAS, "receiver": {"name": "Ann", "phone": "1", "address": "A street"}},
    ],
)
async def test_bodies_that_say_something_else_are_others(
    storefront: Storefront, other: dict[str, Any]
) -> None:
    await _placed(storefront, TWO_TEAS)

    assert problem(await _placed(storefront, other)) == (422, "idempotency_key_reused")


def test_a_body_has_the_same_hash_in_every_release() -> None:
    # A key is kept for ever, with the hash of its body. Were hashes to change, even because a body
    # may have one member more, every repeated request of an earlier release would be refused.
    tea = ItemBody(sku_id="tea", quantity=2)
    plain = PlaceOrderBody(items=(tea,))
    full = PlaceOrderBody(
        items=(tea, ItemBody(sku_id="pot", quantity=1, cart_item_id="c1")),
        token="not a part of it",
        receiver=ReceiverBody(name="Ann", phone="1", address="A street"),
        buyer_remark="no sugar",
        expected_pay_amount="151.98",
    )

    assert _body_hash(plain) == _sha256('{"items":[{"quantity":2,"sku_id":"tea"}]}')
    assert _body_hash(full) == _sha256(
        '{"buyer_remark":"no sugar","expected_pay_amount":"151.98","items":'
        '[{"quantity":2,"sku_id":"tea"},{"cart_item_id":"c1","quantity":1,"sku_id":"pot"}],'
        '"receiver":{"address":"A street","name":"Ann","phone":"1"}}'
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("headers", "token", "told"),
    [
        ([], None, (400, "idempotency_key_missing")),
        ([("Idempotency-Key", "k")], "t", (400, "idempotency_key_ambiguous")),
        (
            [("Idempotency-Key", "k"), ("Idempotency-Key", "k")],
            None,
            (400, "idempotency_key_ambiguous"),
        ),
        ([("Idempotency-Key", "")], None, (400, "idempotency_key_invalid")),
        ([("Idempotency-Key", "a b")], None, (400, "idempotency_key_invalid")),
        ([("Idempotency-Key", "k" * 256)], None, (400, "idempotency_key_invalid")),
        ([], "unknown", (409, "token_expired")),
    ],
)
async def test_a_request_needs_exactly_one_good_key(
    storefront: Storefront, headers: Any, token: str | None, told: tuple[int, str]
) -> None:
    body = TWO_TEAS if token is None else {**TWO_TEAS, "token": token}
    before = storefront.shop.dump()

    answer = await storefront.post("/orders", body, headers=headers)

    assert problem(answer) == told
    assert storefront.shop.dump() == before


async def test_a_token_of_another_user_is_refused(storefront: Storefront) -> None:
    token = (await storefront.post("/orders/tokens", by="bob")).json()["token"]

    answer = await storefront.post("/orders", {**TWO_TEAS, "token": token})

    assert problem(answer) == (409, "token_expired")


async def test_what_is_out_of_stock_is_named(storefront: Storefront) -> None:
    answer = await storefront.place(("tea", 11), ("pot", 6))

    assert problem(answer) == (409, "out_of_stock")
    assert answer.json()["items"] == [
        {"sku_id": "pot", "requested": 6, "available": 5},
        {"sku_id": "tea", "requested": 11, "available": 10},
    ]


async def test_a_changed_price_is_told_with_the_lines_as_they_are(storefront: Storefront) -> None:
    answer = await _placed(storefront, {**TWO_TEAS, "expected_pay_amount": "50.00"})

    assert problem(answer) == (409, "price_changed")
    assert only(answer.json(), "items", "pay_amount", "currency") == {
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


async def test_lines_of_two_currencies_are_refused(storefront: Storefront) -> None:
    await storefront.shop.put_sku("mug", currency="EUR", stock=1)

    answer = await storefront.place(("tea", 1), ("mug", 1))

    assert problem(answer) == (422, "mixed_currencies")
    assert answer.json()["currencies"] == ["CNY", "EUR"]


async def test_an_order_over_the_largest_amount_is_refused(storefront: Storefront) -> None:
    await storefront.shop.put_sku("gold", unit_price_minor=999_999_999_999, stock=2)

    assert problem(await storefront.place(("gold", 2))) == (422, "amount_too_large")
    assert (await storefront.place(("gold", 1))).status_code == 201


async def test_200_buyers_at_once_for_10_units_get_exactly_10_orders(
    storefront: Storefront,
) -> None:
    answers = await asyncio.gather(
        *(storefront.place(("tea", 1), by=f"buyer-{n}") for n in range(200))
    )

    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(201), statuses.count(409)) == (10, 190)
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {
        "out_of_stock"
    }
    assert await storefront.shop.breaches() == []


async def test_50_requests_at_once_with_one_key_are_answered_one_order(
    storefront: Storefront,
) -> None:
    answers = await asyncio.gather(*(storefront.place(("tea", 2)) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["order_no"] for answer in answers}) == 1
    replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
    assert (replayed.count(None), replayed.count("true")) == (1, 49)
    assert storefront.shop.stock_of("tea") == (8, 2, 0)


# Reading orders.


async def test_a_buyer_sees_an_order_of_their_own(storefront: Storefront) -> None:
    placed = (await storefront.place(("tea", 2))).json()

    answer = await storefront.get(f"/orders/{placed['order_no']}")

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"1"'
    assert answer.json() == placed


async def test_a_paid_order_tells_its_payment(storefront: Storefront) -> None:
    shop = storefront.shop
    order = await shop.order("ann", tea=1)
    await shop.pay(payment(order))

    answer = await storefront.get(f"/orders/{order.order_no}")

    told = answer.json()
    assert answer.headers["etag"] == '"2"'
    assert told["paid_at"].endswith("Z")
    assert only(told, "status", "pay_channel", "trade_no", "version") == {
        "status": "paid",
        "pay_channel": "alipay",
        "trade_no": "T1",
        "version": 2,
    }
    assert not {"closed_at", "cancelled_at", "close_reason", "receiver"} & told.keys()


async def test_a_closed_order_tells_when_and_why(storefront: Storefront) -> None:
    shop = storefront.shop
    order = await shop.order("ann", tea=1)
    await shop.expire(order)

    told = (await storefront.get(f"/orders/{order.order_no}")).json()

    assert (told["status"], told["close_reason"]) == ("closed", "payment_timeout")
    assert told["closed_at"] >= told["expires_at"]


@pytest.mark.parametrize(
    ("tags", "status"),
    [('"1"', 304), ('W/"1"', 304), ('"7", "1"', 304), ("*", 304), ('"2"', 200), ("1", 200)],
)
async def test_an_order_that_the_client_has_is_not_sent_again(
    storefront: Storefront, tags: str, status: int
) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]

    answer = await storefront.get(f"/orders/{order_no}", headers={"If-None-Match": tags})

    assert answer.status_code == status
    assert answer.headers["etag"] == '"1"'
    assert bool(answer.content) is (status == 200)


@pytest.mark.parametrize("path", ["/orders/{}", "/orders/{}/timeline"])
async def test_another_users_order_is_not_found_and_operators_see_it(
    storefront: Storefront, path: str
) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]

    assert problem(await storefront.get(path.format(order_no), by="bob")) == (404, "not_found")
    assert problem(await storefront.get(path.format("0100"), by="ann")) == (404, "not_found")
    assert problem(await storefront.get(path.format("a b"), by="ann")) == (404, "not_found")
    assert (await storefront.get(path.format(order_no), by="olga")).status_code == 200
    assert (await storefront.get(path.format(order_no), by="otto")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/orders/tokens"),
        ("POST", "/orders"),
        ("GET", "/orders"),
        ("GET", "/orders/01"),
        ("GET", "/orders/01/timeline"),
        ("POST", "/orders/01/cancel"),
    ],
)
async def test_who_is_not_known_is_told_to_say_who_they_are(
    storefront: Storefront, method: str, path: str
) -> None:
    answer = await storefront.call(method, path, by=None)

    assert problem(answer) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


# Lists.


async def _orders(storefront: Storefront, count: int) -> list[str]:
    """Place orders of Ann's and one of Bob's; return the numbers of Ann's, newest first."""
    await storefront.shop.order("bob", tea=1)
    orders = [await storefront.shop.order("ann", tea=1) for _ in range(count)]
    return [str(order.order_no) for order in reversed(orders)]


async def test_a_buyer_lists_their_own_orders_newest_first_in_pages(
    storefront: Storefront,
) -> None:
    newest, middle, oldest = await _orders(storefront, 3)

    first = (await storefront.get("/orders?limit=2")).json()
    rest = (await storefront.get(f"/orders?limit=2&cursor={first['next_cursor']}")).json()

    assert [order["order_no"] for order in first["items"]] == [newest, middle]
    assert [order["order_no"] for order in rest["items"]] == [oldest]
    assert rest["next_cursor"] is None


async def test_a_page_that_holds_the_rest_exactly_is_the_last(storefront: Storefront) -> None:
    await _orders(storefront, 2)

    page = (await storefront.get("/orders?limit=2")).json()

    assert len(page["items"]) == 2
    assert page["next_cursor"] is None


async def test_who_has_no_order_sees_an_empty_list(storefront: Storefront) -> None:
    assert (await storefront.get("/orders")).json() == {"items": [], "next_cursor": None}


async def test_orders_are_listed_by_status(storefront: Storefront) -> None:
    newest, _, oldest = await _orders(storefront, 3)
    await storefront.post(f"/orders/{newest}/cancel")
    await storefront.post(f"/orders/{oldest}/cancel")

    page = (await storefront.get("/orders?status=cancelled")).json()

    assert [order["order_no"] for order in page["items"]] == [newest, oldest]
    assert (await storefront.get("/orders?status=paid")).json()["items"] == []


async def test_a_page_has_20_orders_unless_asked_otherwise(storefront: Storefront) -> None:
    await storefront.shop.catalogue.move_stock(
        sku_id="tea", quantity=100, reason="found", cause="olga k", actor="olga"
    )
    await _orders(storefront, 21)

    assert len((await storefront.get("/orders")).json()["items"]) == 20
    assert len((await storefront.get("/orders?limit=100")).json()["items"]) == 21


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=0", (422, "invalid_request")),
        ("limit=101", (422, "invalid_request")),
        ("limit=-1", (422, "invalid_request")),
        ("limit=1.5", (422, "invalid_request")),
        ("limit=many", (422, "invalid_request")),
        ("status=gone", (422, "invalid_request")),
        ("cursor=", (400, "invalid_cursor")),
        ("cursor=x", (400, "invalid_cursor")),
        ("cursor=WzFd", (400, "invalid_cursor")),  # [1]
        ("cursor=WyJhIiwiYiJd", (400, "invalid_cursor")),  # ["a","b"]
        ("cursor=eyJhIjoxfQ", (400, "invalid_cursor")),  # {"a":1}
    ],
)
async def test_a_list_refuses_what_it_cannot_take(
    storefront: Storefront, query: str, told: tuple[int, str]
) -> None:
    assert problem(await storefront.get(f"/orders?{query}")) == told


# Cancelling.


@pytest.mark.parametrize("body", [None, {}, {"reason": None}, {"reason": "too late"}])
async def test_a_buyer_cancels_an_order_with_or_without_a_reason(
    storefront: Storefront, body: object
) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]

    answer = await storefront.post(f"/orders/{order_no}/cancel", body)

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert only(answer.json(), "status", "close_reason", "version") == {
        "status": "cancelled",
        "close_reason": "buyer",
        "version": 2,
    }
    assert storefront.shop.stock_of("tea") == (10, 0, 0)


async def test_cancelling_again_is_200_and_changes_nothing(storefront: Storefront) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]
    first = await storefront.post(f"/orders/{order_no}/cancel", headers={"If-Match": '"1"'})
    before = storefront.shop.dump()

    again = await storefront.post(f"/orders/{order_no}/cancel", headers={"If-Match": '"1"'})

    assert again.status_code == 200
    assert again.json() == first.json()
    assert storefront.shop.dump() == before


async def test_what_cannot_be_cancelled_stays_and_says_why(storefront: Storefront) -> None:
    shop = storefront.shop
    paid = await shop.order("ann", tea=1)
    await shop.pay(payment(paid))
    closed = await shop.order("ann", tea=1)
    await shop.expire(closed)
    foreign = await shop.order("bob", tea=1)
    before = shop.dump()

    answers = [
        await storefront.post(f"/orders/{order_no}/cancel")
        for order_no in (paid.order_no, closed.order_no, foreign.order_no, "0100")
    ]

    assert [problem(answer) for answer in answers] == [
        (409, "order_not_pending"),
        (409, "order_not_pending"),
        (404, "not_found"),
        (404, "not_found"),
    ]
    assert [answer.json().get("status") for answer in answers[:2]] == [409, 409]
    assert [answer.json().get("order_status") for answer in answers[:2]] == ["paid", "closed"]
    assert shop.dump() == before


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', "1", "nonsense", ""])
async def test_an_order_of_another_version_than_expected_stays(
    storefront: Storefront, tag: str
) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]
    before = storefront.shop.dump()

    answer = await storefront.post(f"/orders/{order_no}/cancel", headers={"If-Match": tag})

    assert problem(answer) == (412, "version_mismatch")
    assert storefront.shop.dump() == before


@pytest.mark.parametrize("tag", ['"1"', "*"])
async def test_an_order_of_the_expected_version_is_cancelled(
    storefront: Storefront, tag: str
) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]

    answer = await storefront.post(f"/orders/{order_no}/cancel", headers={"If-Match": tag})

    assert answer.status_code == 200


# Timelines and the catalogue.


async def test_a_timeline_is_told_as_one_object(storefront: Storefront) -> None:
    order_no = (await storefront.place(("tea", 2))).json()["order_no"]

    told = (await storefront.get(f"/orders/{order_no}/timeline")).json()

    assert told.keys() == {"order_no", "items"}
    assert told["order_no"] == order_no
    assert [item["kind"] for item in told["items"]] == ["state", "message", "message"]
    assert all(item["at"].endswith("Z") for item in told["items"])


async def test_the_catalogue_is_shown_without_login(storefront: Storefront) -> None:
    await storefront.shop.put_sku("old", unit_price_minor=1, is_active=False)

    first = (await storefront.get("/skus?limit=1", by=None)).json()
    rest = (await storefront.get(f"/skus?cursor={first['next_cursor']}", by=None)).json()

    assert [sku["sku_id"] for sku in first["items"]] == ["pot"]
    assert rest == {
        "items": [
            {
                "sku_id": "tea",
                "title": "Tea",
                "price": "25.99",
                "currency": "CNY",
                "is_active": True,
                "available": 10,
            }
        ],
        "next_cursor": None,
    }


async def test_a_sku_is_shown_without_login_while_it_is_for_sale(storefront: Storefront) -> None:
    await storefront.shop.put_sku("old", unit_price_minor=1, is_active=False)

    shown = await storefront.get("/skus/tea", by=None)

    assert (shown.status_code, shown.json()["sku_id"]) == (200, "tea")
    assert problem(await storefront.get("/skus/old", by=None)) == (404, "not_found")
    assert problem(await storefront.get("/skus/nothing", by=None)) == (404, "not_found")
    assert problem(await storefront.get("/skus?cursor=x", by=None)) == (400, "invalid_cursor")
