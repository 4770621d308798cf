"""Bad input over HTTP: each is a problem document with its own code, and changes nothing."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest

from tests.acceptance.books import rows
from tests.acceptance.buyer import Buyer, Json
from tests.acceptance.running import RunningShop, start_shop

pytestmark = pytest.mark.slow

# Every table that a request can change.
TABLES = (
    "orders",
    "order_lines",
    "order_history",
    "order_requests",
    "order_outbox",
    "stock_movements",
    "skus",
    "carts",
    "cart_items",
    "cart_outbox",
    "payments",
    "payment_receipts",
    "payment_outbox",
    "refunds",
)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A shop, and what ann has there."""

    shop: RunningShop
    order: Json
    payment_no: str
    cart_item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A request that is to be refused.

    Attributes:
        body: JSON text, or what a client sends in its place.
        pointer: What `errors` names; None where there are no `errors`.
    """

    status: int
    code: str
    method: str = "POST"
    path: str = "/orders"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Idempotency-Key": "bad"})
    pointer: str | None = None


def lines(*items: object, **more: object) -> bytes:
    return json.dumps({"items": items, **more}).encode()


def one_line(**changed: object) -> bytes:
    return lines({"sku_id": "tea", "quantity": 1, **changed})


def wrong_line(name: str, value: object) -> Bad:
    return Bad(
        status=422,
        code="invalid_request",
        body=one_line(**{name: value}),
        pointer=f"/items/0/{name}",
    )


def wrong_body(pointer: str, body: bytes) -> Bad:
    return Bad(status=422, code="invalid_request", body=body, pointer=pointer)


def malformed(body: bytes) -> Bad:
    return Bad(status=400, code="malformed_json", body=body)


TEA = {"sku_id": "tea", "quantity": 1}

BAD_ORDERS = {
    "an unknown SKU": Bad(status=422, code="unknown_sku", body=one_line(sku_id="no-such-thing")),
    "quantity 0": wrong_line("quantity", 0),
    "a negative quantity": wrong_line("quantity", -1),
    "quantity 1.5": wrong_line("quantity", 1.5),
    "quantity true": wrong_line("quantity", True),  # noqa: FBT003 (a value of JSON)
    "quantity 10^9": wrong_line("quantity", 10**9),
    "quantity 10000": wrong_line("quantity", 10_000),
    "quantity in text": wrong_line("quantity", "1"),
    "no quantity": wrong_body("/items/0/quantity", lines({"sku_id": "tea"})),
    "a SKU that is no identifier": wrong_line("sku_id", "te a"),
    "a SKU of 65 characters": wrong_line("sku_id", "x" * 65),
    "a SKU with a newline": wrong_line("sku_id", "tea\n"),
    "one SKU on two lines, too much in sum": Bad(
        status=409,
        code="out_of_stock",
        body=lines({"sku_id": "tea", "quantity": 6}, {"sku_id": "tea", "quantity": 5}),
    ),
    "no lines": wrong_body("/items", lines()),
    "101 lines": wrong_body("/items", lines(*[TEA] * 101)),
    "no items": wrong_body("/items", b"{}"),
    "an unknown member": wrong_body("/price", lines(TEA, price="0.01")),
    "an unknown member of a line": wrong_line("unit_price", "0.01"),
    "a remark of 501 characters": wrong_body("/buyer_remark", lines(TEA, buyer_remark="x" * 501)),
    "a NUL in a remark": wrong_body("/buyer_remark", lines(TEA, buyer_remark="\x00")),
    "a lone surrogate in a remark": wrong_body("/buyer_remark", lines(TEA, buyer_remark="\ud800")),
    "an amount as a number": wrong_body(
        "/expected_pay_amount", lines(TEA, expected_pay_amount=10.0)
    ),
    "another price than was shown": Bad(
        status=409, code="price_changed", body=lines(TEA, expected_pay_amount="9.99")
    ),
    "broken JSON": malformed(b'{"items": ['),
    "no body": malformed(b""),
    "two documents": malformed(b"{}{}"),
    "60,000 deep JSON": malformed(b"[" * 60_000),
    "NaN": malformed(b'{"items": [{"sku_id": "tea", "quantity": NaN}]}'),
    "infinity": malformed(b'{"items": [{"sku_id": "tea", "quantity": Infinity}]}'),
    "a key twice": malformed(b'{"items": [{"sku_id": "tea", "quantity": 1, "quantity": 2}]}'),
    "no UTF-8": malformed(b'{"items": [], "buyer_remark": "\xff"}'),
    "100,000 deep JSON": Bad(status=413, code="body_too_large", body=b"[" * 100_000),
    "over 64 KiB": Bad(status=413, code="body_too_large", body=b" " * 65_537 + one_line()),
    "another media type": Bad(
        status=415,
        code="unsupported_media_type",
        body=one_line(),
        headers={"Idempotency-Key": "bad", "Content-Type": "text/plain"},
    ),
    "no key": Bad(status=400, code="idempotency_key_missing", body=one_line(), headers={}),
    "a key that is no key": Bad(
        status=400,
        code="idempotency_key_invalid",
        body=one_line(),
        headers={"Idempotency-Key": "a b"},
    ),
    "a key of 256 characters": Bad(
        status=400,
        code="idempotency_key_invalid",
        body=one_line(),
        headers={"Idempotency-Key": "k" * 256},
    ),
    "a key and a token": Bad(
        status=400, code="idempotency_key_ambiguous", body=lines(TEA, token="t")
    ),
    "a token that nobody issued": Bad(
        status=409, code="token_expired", body=lines(TEA, token="t"), headers={}
    ),
}

BAD_PATHS = {
    "no such path": Bad(status=404, code="not_found", path="/nothing"),
    "another method": Bad(status=405, code="method_not_allowed", method="DELETE", path="/cart"),
    "a path that is no identifier": Bad(
        status=404, code="not_found", method="GET", path="/orders/%00"
    ),
    "a cursor of nothing": Bad(
        status=400, code="invalid_cursor", method="GET", path="/orders?cursor=x"
    ),
    "a limit of 0": Bad(
        status=422,
        code="invalid_request",
        method="GET",
        path="/orders?limit=0",
        pointer="query/limit",
    ),
    "a limit of 101": Bad(
        status=422,
        code="invalid_request",
        method="GET",
        path="/orders?limit=101",
        pointer="query/limit",
    ),
    "a status of nothing": Bad(
        status=422,
        code="invalid_request",
        method="GET",
        path="/orders?status=lost",
        pointer="query/status",
    ),
    "a cart item of nothing": Bad(
        status=422,
        code="invalid_request",
        path="/cart/items",
        body=b'{"sku_id": "tea", "quantity": 0}',
        pointer="/quantity",
    ),
    "a channel of nothing": Bad(
        status=422,
        code="unknown_channel",
        path="/payments",
        body=b'{"order_no": "0100000000000009", "pay_channel": "cowries"}',
    ),
    "an operator's page": Bad(
        status=403, code="insufficient_scope", method="GET", path="/admin/orders"
    ),
    "an operator's deed": Bad(
        status=403,
        code="insufficient_scope",
        method="PUT",
        path="/admin/skus/tea",
        body=b'{"title": "Tea", "price": "0.01", "currency": "CNY"}',
    ),
}


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixed]:
    with start_shop(tmp_path_factory.mktemp("shop")) as shop, Buyer(shop, "ann") as ann:
        shop.put_sku("tea", stock=11, price="10.00")
        order = ann.order({"tea": 1})
        payment_no = ann.open_payment(order["order_no"])["payment_no"]
        cart_item_id = ann.fill_cart({"tea": 1})["tea"]
        shop.wait_until(
            lambda: any(
                item["kind"] == "payment_opened" for item in ann.timeline(order["order_no"])
            ),
            "nothing is under way",
        )
        yield Fixed(shop, order, payment_no, cart_item_id)


def counts(shop: RunningShop) -> list[Any]:
    """Return how many rows each table has, and what is in stock."""
    tables = " union all ".join(
        f"select '{table}', count(*), 0, 0 from {table}"  # noqa: S608 (our own names)
        for table in TABLES
    )
    stock = "select sku_id, available, reserved, sold from stock"
    quantities = "select cart_item_id, quantity, 0, 0 from cart_items"
    return rows(shop.database_path, f"{tables} union all {stock} union all {quantities}")


def send(client: httpx.Client, bad: Bad) -> httpx.Response:
    headers = {"Content-Type": "application/json", **bad.headers}
    return client.request(bad.method, bad.path, content=bad.body, headers=headers)


def problem_in(answer: httpx.Response, *, status: int, code: str) -> Json:
    """Return the problem document, which has everything that a client may count on."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), (
        answer.text
    )
    assert problem["type"] == f"urn:orderkeep:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"]
    return problem


@pytest.mark.parametrize("what", [*BAD_ORDERS, *BAD_PATHS])
def test_a_bad_request_is_a_problem_document_and_changes_nothing(fixed: Fixed, what: str) -> None:
    bad = (BAD_ORDERS | BAD_PATHS)[what]
    before = counts(fixed.shop)

    with fixed.shop.client("ann") as ann:
        answer = send(ann, bad)

    problem = problem_in(answer, status=bad.status, code=bad.code)
    pointers = [error["pointer"] for error in problem.get("errors", [])]
    assert pointers == ([] if bad.pointer is None else [bad.pointer])
    assert counts(fixed.shop) == before


def test_a_refused_request_leaves_its_key_free(fixed: Fixed) -> None:
    with fixed.shop.client("eve") as eve:
        too_much = {"items": [{"sku_id": "tea", "quantity": 999}]}
        key = {"Idempotency-Key": "again"}
        refused = eve.post("/orders", json=too_much, headers=key)
        accepted = eve.post("/orders", json={"items": [TEA]}, headers=key)
        cancelled = eve.post(f"/orders/{accepted.json()['order_no']}/cancel")

    problem = problem_in(refused, status=409, code="out_of_stock")
    assert [(item["sku_id"], item["requested"]) for item in problem["items"]] == [("tea", 999)]
    assert (accepted.status_code, cancelled.status_code) == (201, 200)


def test_one_sku_on_two_lines_is_summed(fixed: Fixed) -> None:
    before = counts(fixed.shop)

    with Buyer(fixed.shop, "eve") as eve:
        answer = eve.client.post(
            "/orders",
            content=lines({"sku_id": "tea", "quantity": 2}, {"sku_id": "tea", "quantity": 3}),
            headers={"Idempotency-Key": "summed", "Content-Type": "application/json"},
        )
        order = answer.json()
        taken = counts(fixed.shop)
        eve.cancel(order["order_no"])

    assert answer.status_code == 201
    assert order["pay_amount"] == "50.00"
    stock_before, stock_taken = (
        next(row for row in found if row[0] == "tea") for found in (before, taken)
    )
    assert stock_taken[1:3] == (stock_before[1] - 5, stock_before[2] + 5)


def test_a_body_over_64_kib_in_chunks_is_refused_as_well(fixed: Fixed) -> None:
    before = counts(fixed.shop)

    with fixed.shop.client("ann") as ann:
        answer = ann.post(
            "/orders",
            content=iter([b" " * 40_000, b" " * 40_000, one_line()]),
            headers={"Content-Type": "application/json", "Idempotency-Key": "bad"},
        )

    problem_in(answer, status=413, code="body_too_large")
    assert counts(fixed.shop) == before


def tokens_that_are_no_good(shop: RunningShop) -> dict[str, str]:
    """Return what stands in the Authorization header; empty where there is none."""
    now_s = int(time.time())  # noqa: TID251 (a token is dated by the machine that issues it)
    good = {"sub": "ann", "aud": "orderkeep", "exp": now_s + 600}

    def signed(secret: str | None = None, algorithm: str = "HS256", **changed: object) -> str:
        claims = {name: value for name, value in {**good, **changed}.items() if value is not None}
        return "Bearer " + jwt.encode(claims, secret or shop.secret, algorithm=algorithm)

    return {
        "no token": "",
        "no bearer token": "Basic YW5uOnNlc2FtZQ==",
        "no token at all": "Bearer tea",
        "a foreign signature": signed("x" * 32),
        "a foreign audience": signed(aud="another-shop"),
        "no audience": signed(aud=None),
        "an expired token": signed(exp=now_s - 60),
        "a token without end": signed(exp=None),
        "nobody": signed(sub=None),
        "a name that is no identifier": signed(sub="ann\n"),
        "another algorithm": signed("x" * 64, "HS512"),
        "an unsigned token": "Bearer " + jwt.encode(good, None, algorithm="none"),
    }


def test_a_caller_without_a_good_token_is_nobody(fixed: Fixed) -> None:
    order_no = fixed.order["order_no"]
    before = counts(fixed.shop)
    tried = tokens_that_are_no_good(fixed.shop)

    with httpx.Client(base_url=f"{fixed.shop.url}/api/v1", trust_env=False) as client:
        answers = {
            (what, path): client.request(
                method,
                path,
                content=one_line() if path == "/orders" else b"",
                headers={
                    "Idempotency-Key": "bad",
                    **({"Authorization": authorization} if authorization else {}),
                },
            )
            for what, authorization in tried.items()
            for method, path in (
                ("POST", "/orders"),
                ("GET", f"/orders/{order_no}"),
                ("POST", f"/orders/{order_no}/cancel"),
                ("GET", "/admin/orders"),
            )
        }

    for answer in answers.values():
        problem_in(answer, status=401, code="unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert counts(fixed.shop) == before


def test_what_belongs_to_another_user_does_not_exist(fixed: Fixed) -> None:
    order_no, payment_no = fixed.order["order_no"], fixed.payment_no
    item_path = f"/cart/items/{fixed.cart_item_id}"
    before = counts(fixed.shop)

    with fixed.shop.client("eve") as eve:
        answers = [
            eve.get(f"/orders/{order_no}"),
            eve.get(f"/orders/{order_no}/timeline"),
            eve.post(f"/orders/{order_no}/cancel"),
            eve.post("/payments", json={"order_no": order_no, "pay_channel": "sandbox"}),
            eve.get(f"/payments/{payment_no}"),
            eve.post(f"/payments/{payment_no}/sandbox", json={"result": "succeeded"}),
            eve.patch(item_path, json={"quantity": 5}),
            eve.delete(item_path),
        ]
        orders = eve.get("/orders").json()["items"]
        cart = eve.get("/cart").json()["items"]

    for answer in answers:
        problem_in(answer, status=404, code="not_found")
    assert order_no not in {order["order_no"] for order in orders}
    assert cart == []
    assert counts(fixed.shop) == before
