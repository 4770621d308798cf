"""Bad input over HTTP: each is a problem document with a stable code, and changes nothing."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from orderkeep.instant import after
from orderkeep.web.tokens import sign_token
from tests.integration.orders.shop import Shop
from tests.integration.orders.storefront import KEY, TEN, Storefront, problem

TEA = {"sku_id": "tea", "quantity": 1}
JSON = {"Content-Type": "application/json"}
KEYED = {"Idempotency-Key": "k"}


@pytest.fixture(autouse=True)
async def _stock(shop: Shop) -> None:
    await shop.fill(tea=20_000, pot=5)


async def _unchanged(storefront: Storefront, **request: Any) -> httpx.Response:
    """Place an order as Ann, by default; see that nothing changes and that the key stays free."""
    sent = {"method": "POST", "path": "/orders", "by": "ann", "headers": KEYED, **request}
    before = storefront.shop.dump()
    answer = await storefront.call(**sent)
    assert storefront.shop.dump() == before
    return answer


def pointers(answer: httpx.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


def line(**members: object) -> dict[str, Any]:
    return {"items": [{**TEA, **members}]}


def lines(count: int) -> dict[str, Any]:
    return {"items": [TEA] * count}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        pytest.param(line(quantity=0), "/items/0/quantity", id="quantity 0"),
        pytest.param(line(quantity=-1), "/items/0/quantity", id="quantity -1"),
        pytest.param(line(quantity=1.5), "/items/0/quantity", id="quantity 1.5"),
        pytest.param(line(quantity=1.0), "/items/0/quantity", id="quantity 1.0"),
        pytest.param(line(quantity=True), "/items/0/quantity", id="quantity true"),
        pytest.param(line(quantity=10**9), "/items/0/quantity", id="quantity 1000000000"),
        pytest.param(line(quantity=10**30), "/items/0/quantity", id="quantity 1e30 in digits"),
        pytest.param(line(quantity=10_000), "/items/0/quantity", id="quantity 10000"),
        pytest.param(line(quantity="1"), "/items/0/quantity", id="quantity as text"),
        pytest.param(line(quantity=None), "/items/0/quantity", id="quantity null"),
        pytest.param({"items": [{"sku_id": "tea"}]}, "/items/0/quantity", id="no quantity"),
        pytest.param({"items": [{"quantity": 1}]}, "/items/0/sku_id", id="no SKU"),
        pytest.param({"items": [TEA, {**TEA, "quantity": 0}]}, "/items/1/quantity", id="2nd line"),
        pytest.param(line(sku_id=""), "/items/0/sku_id", id="empty SKU"),
        pytest.param(line(sku_id="a b"), "/items/0/sku_id", id="SKU with a space"),
        pytest.param(line(sku_id="tea\n"), "/items/0/sku_id", id="SKU with a line feed"),
        pytest.param(line(sku_id="s" * 65), "/items/0/sku_id", id="SKU of 65 characters"),
        pytest.param(line(sku_id="tea\x00"), "/items/0/sku_id", id="SKU with NUL"),
        pytest.param(line(cart_item_id=""), "/items/0/cart_item_id", id="empty cart item"),
        pytest.param(line(price="0.01"), "/items/0/price", id="a price of the client's own"),
        pytest.param(lines(0), "/items", id="0 lines"),
        pytest.param(lines(101), "/items", id="101 lines"),
        pytest.param({"items": None}, "/items", id="lines null"),
        pytest.param({"items": {}}, "/items", id="lines no list"),
        pytest.param({}, "/items", id="no lines"),
        pytest.param([], "", id="no object"),
        pytest.param(None, "", id="null"),
        pytest.param("text", "", id="text"),
        pytest.param({**lines(1), "colour": "green"}, "/colour", id="unknown member"),
        pytest.param({**lines(1), "user_id": "bob"}, "/user_id", id="somebody else's order"),
        pytest.param({**lines(1), "buyer_remark": "r" * 501}, "/buyer_remark", id="long remark"),
        pytest.param({**lines(1), "buyer_remark": 1}, "/buyer_remark", id="remark no text"),
        pytest.param({**lines(1), "buyer_remark": "a\x00"}, "/buyer_remark", id="remark with NUL"),
        pytest.param({**lines(1), "token": ""}, "/token", id="empty token"),
        pytest.param({**lines(1), "token": "t" * 256}, "/token", id="long token"),
        pytest.param({**lines(1), "receiver": {}}, "/receiver/name", id="empty receiver"),
        pytest.param({**lines(1), "receiver": "Ann"}, "/receiver", id="receiver no object"),
        pytest.param(
            {**lines(1), "expected_pay_amount": "25.9"}, "/expected_pay_amount", id="one decimal"
        ),
        pytest.param(
            {**lines(1), "expected_pay_amount": 25.99}, "/expected_pay_amount", id="amount no text"
        ),
        pytest.param(
            {**lines(1), "expected_pay_amount": "-1.00"}, "/expected_pay_amount", id="below 0"
        ),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused_with_what_is_wrong(
    storefront: Storefront, body: object, pointer: str
) -> None:
    answer = await _unchanged(storefront, content=_json(body), headers={**KEYED, **JSON})

    assert problem(answer) == (422, "invalid_request")
    assert pointers(answer) == [pointer]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" ", id="blank"),
        pytest.param(b'{"items": [', id="broken"),
        pytest.param(b'{"items": [{"sku_id": "tea", "quantity": 1}]} {}', id="two bodies"),
        pytest.param(b'{"items": [{"sku_id": "tea", "quantity": NaN}]}', id="NaN"),
        pytest.param(b'{"items": [{"sku_id": "tea", "quantity": Infinity}]}', id="Infinity"),
        pytest.param(
            b'{"items": [{"sku_id": "tea", "quantity": 1, "quantity": 2}]}', id="key twice"
        ),
        pytest.param(
            b'{"items": [{"sku_id": "tea", "quantity": 1}], "items": []}', id="lines twice"
        ),
        pytest.param(
            b'{"items": [{"sku_id": "tea", "quantity": 1, "\\u0071uantity": 2}]}',
            id="key twice, once escaped",
        ),
        pytest.param(b"[" * 50_000, id="50000 deep and open"),
        pytest.param(b"[" * 32_000 + b"]" * 32_000, id="32000 deep"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, id="10000 objects deep"),
        pytest.param(b'{"items": [{"sku_id": "t\xe9a", "quantity": 1}]}', id="Latin-1"),
        pytest.param('{"items": []}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(
            b'{"items": [{"sku_id": "tea", "quantity": 1' + b"0" * 5_000 + b"}]}", id="big"
        ),
        pytest.param(b'{"items": [{"sku_id": "tea", "quantity": 1e999999999}]}', id="1e999999999"),
        pytest.param(b'{"items": [{"sku_id": "tea", "quantity": 01}]}', id="leading zero"),
        pytest.param(b"{'items': []}", id="single quotes"),
    ],
)
async def test_a_body_that_is_no_sound_json_is_refused(storefront: Storefront, body: bytes) -> None:
    answer = await _unchanged(storefront, content=body, headers={**KEYED, **JSON})

    assert problem(answer) == (400, "malformed_json")


@pytest.mark.parametrize("member", ["sku_id", "cart_item_id"])
async def test_a_lone_surrogate_is_refused(storefront: Storefront, member: str) -> None:
    body = b'{"items": [{"sku_id": "tea", "quantity": 1, "cart_item_id": "c"}]}'
    body = body.replace(b'"c"' if member == "cart_item_id" else b'"tea"', b'"\\ud800"')

    answer = await _unchanged(storefront, content=body, headers={**KEYED, **JSON})

    assert problem(answer) == (422, "invalid_request")
    assert pointers(answer) == [f"/items/0/{member}"]


async def test_100000_deep_json_is_too_large_and_nothing_breaks(storefront: Storefront) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000

    answer = await _unchanged(storefront, content=deep, headers={**KEYED, **JSON})

    assert problem(answer) == (413, "body_too_large")


async def test_a_body_of_64_kib_is_read_and_one_byte_more_is_not(storefront: Storefront) -> None:
    body = _json(lines(1))
    most = body + b" " * (64 * 1024 - len(body))

    too_large = await _unchanged(storefront, content=most + b" ", headers={**KEYED, **JSON})
    read = await storefront.call(
        "POST", "/orders", by="ann", content=most, headers={**KEYED, **JSON}
    )

    assert problem(too_large) == (413, "body_too_large")
    assert read.status_code == 201


async def test_a_body_of_unknown_length_is_not_read_beyond_64_kib(storefront: Storefront) -> None:
    async def endless():
        while True:
            yield b" " * 4_096

    answer = await _unchanged(storefront, content=endless(), headers={**KEYED, **JSON})

    assert problem(answer) == (413, "body_too_large")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"]
)
async def test_a_body_of_another_media_type_is_refused(
    storefront: Storefront, media_type: str
) -> None:
    answer = await _unchanged(
        storefront, content=_json(lines(1)), headers={**KEYED, "Content-Type": media_type}
    )

    assert problem(answer) == (415, "unsupported_media_type")


async def test_an_unknown_sku_is_refused(storefront: Storefront) -> None:
    answer = await _unchanged(storefront, json=line(sku_id="nothing"))

    assert problem(answer) == (422, "unknown_sku")
    assert answer.json()["sku_id"] == "nothing"


async def test_the_same_sku_on_two_lines_is_summed(storefront: Storefront) -> None:
    four, three = {"sku_id": "pot", "quantity": 4}, {"sku_id": "pot", "quantity": 3}

    refused = await _unchanged(storefront, json={"items": [four, three]})
    placed = await storefront.place(("pot", 3), ("pot", 2))

    assert problem(refused) == (409, "out_of_stock")
    assert refused.json()["items"] == [{"sku_id": "pot", "requested": 7, "available": 5}]
    assert [item["quantity"] for item in placed.json()["items"]] == [3, 2]


async def test_the_most_that_an_order_may_hold_is_taken(storefront: Storefront) -> None:
    most = await storefront.post(
        "/orders",
        {
            "items": [{"sku_id": "tea", "quantity": 9_999}, *[TEA] * 99],
            "buyer_remark": "\N{GRINNING FACE}" * 500,
        },
        headers=KEYED,
    )

    assert most.status_code == 201
    assert len(most.json()["items"]) == 100
    assert most.json()["pay_amount"] == "262447.02"


def _signed(**claims: Any) -> str:
    key = replace(KEY, **{name: claims[name] for name in ("secret", "audience") if name in claims})
    expires_at = after(TEN, seconds=claims.get("expires_in_s", 3_600.0))
    return sign_token(key, user_id="ann", scopes=(), expires_at=expires_at)


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Bearer nonsense", id="nonsense"),
        pytest.param("Basic YW5uOnNlY3JldA==", id="a password"),
        pytest.param(
            f"Bearer {_signed(secret='another secret of at least 32 bytes')}", id="foreign"
        ),
        pytest.param(f"Bearer {_signed(audience='another')}", id="another audience"),
        pytest.param(f"Bearer {_signed(expires_in_s=-31.0)}", id="expired"),
        pytest.param(f"Bearer {_signed()}x", id="changed"),
    ],
)
async def test_a_missing_or_foreign_token_is_refused(
    storefront: Storefront, authorization: str | None
) -> None:
    headers = KEYED if authorization is None else {**KEYED, "Authorization": authorization}

    answer = await _unchanged(storefront, by=None, json=lines(1), headers=headers)

    assert problem(answer) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_who_calls_is_asked_before_what_they_send_is_read(storefront: Storefront) -> None:
    answer = await _unchanged(storefront, by=None, content=b"{", headers=JSON)

    assert problem(answer) == (401, "unauthenticated")


async def test_another_users_order_is_not_found_whatever_is_done_to_it(
    storefront: Storefront,
) -> None:
    order = await storefront.shop.order("bob", tea=1)
    path = f"/orders/{order.order_no}"

    answers = [
        await _unchanged(storefront, method="GET", path=path),
        await _unchanged(storefront, method="GET", path=f"{path}/timeline"),
        await _unchanged(storefront, path=f"{path}/cancel"),
        await _unchanged(storefront, path=f"{path}/cancel", headers={"If-Match": '"1"'}),
    ]

    assert [problem(answer) for answer in answers] == [(404, "not_found")] * 4


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"reason": 1}', (422, "invalid_request")),
        (b'{"reason": "' + b"r" * 501 + b'"}', (422, "invalid_request")),
        (b'{"why": "x"}', (422, "invalid_request")),
        (b"[]", (422, "invalid_request")),
        (b'{"reason": NaN}', (400, "malformed_json")),
        (b'{"reason": "x", "reason": "y"}', (400, "malformed_json")),
        (b"{", (400, "malformed_json")),
    ],
)
async def test_a_cancellation_with_a_bad_body_cancels_nothing(
    storefront: Storefront, body: bytes, told: tuple[int, str]
) -> None:
    order = await storefront.shop.order("ann", tea=1)

    answer = await _unchanged(
        storefront, path=f"/orders/{order.order_no}/cancel", content=body, headers=JSON
    )

    assert problem(answer) == told


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/orders"), ("DELETE", "/orders/01"), ("GET", "/orders/tokens/x")]
)
async def test_what_is_not_there_is_not_there(
    storefront: Storefront, method: str, path: str
) -> None:
    status, code = problem(await _unchanged(storefront, method=method, path=path))

    assert (status, code) in {(405, "method_not_allowed"), (404, "not_found")}


def _json(body: object) -> bytes:
    return json.dumps(body).encode()
