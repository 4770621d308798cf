"""Bodies: bounded, strict, decoded once; whatever is wrong is named and changes nothing."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.unit.web.small_shop import Shop

GOOD = b'{"items": [{"sku_id": "a", "quantity": 1}]}'


async def post(shop: Shop, content, **headers: str) -> httpx.Response:
    async with shop.client() as client:
        return await client.post(
            "/api/v1/orders",
            content=content,
            headers={"Content-Type": "application/json", **shop.headers(), **headers},
        )


async def chunks(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b"nonsense", 400, "malformed_json"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"[" * 20_000 + b"]" * 20_000, 400, "malformed_json"),
        (b'{"items": NaN}', 400, "malformed_json"),
        (b'{"items": [{"sku_id": "a", "quantity": Infinity}]}', 400, "malformed_json"),
        (b'{"items": [], "items": []}', 400, "malformed_json"),
        (b"\xef\xbb\xbf" + GOOD, 400, "malformed_json"),
        (b"null", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
        (b'{"items": []}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": 1}], "price": 1}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": "1"}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": true}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": 1.5}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": 0}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": -1}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a", "quantity": 1000000000}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "a\\u0000", "quantity": 1}]}', 422, "invalid_request"),
        (b'{"items": [{"sku_id": "\\ud800", "quantity": 1}]}', 422, "invalid_request"),
    ],
)
async def test_a_wrong_body_is_refused_by_its_code(
    shop: Shop,
    content: bytes,
    status: int,
    code: str,
) -> None:
    answer = await post(shop, content)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert shop.desk.calls == []


async def test_a_hundred_thousand_levels_are_refused_before_they_are_read(shop: Shop) -> None:
    answer = await post(shop, b"[" * 100_000)

    assert answer.status_code == 413
    assert shop.desk.calls == []


async def test_what_is_wrong_is_pointed_at(shop: Shop) -> None:
    answer = await post(shop, b'{"items": [{"sku_id": "a", "quantity": 1}, {"sku_id": "b"}]}')

    assert answer.json()["errors"] == [
        {"pointer": "/items/1/quantity", "detail": "is missing"},
    ]


async def test_a_body_of_64_kib_is_read(shop: Shop) -> None:
    answer = await post(shop, GOOD + b" " * (65_536 - len(GOOD)))

    assert answer.status_code == 201


async def test_one_byte_more_is_too_large(shop: Shop) -> None:
    answer = await post(shop, GOOD + b" " * (65_537 - len(GOOD)))

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_in_chunks_is_counted_as_it_comes(shop: Shop) -> None:
    answer = await post(shop, chunks(size=1000, count=66))

    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_large_body_is_refused_unread_where_its_size_is_announced(shop: Shop) -> None:
    read_count = 0

    async def receive() -> dict[str, object]:
        nonlocal read_count
        read_count += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [
        (b"authorization", shop.headers()["Authorization"].encode()),
        (b"content-length", b"9999999"),
    ]
    application: Any = shop.build().asgi
    await application(
        {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/orders",
            "raw_path": b"/api/v1/orders",
            "query_string": b"",
            "headers": headers,
        },
        receive,
        send,
    )

    assert sent[0]["status"] == 413
    assert read_count == 0


async def test_a_client_that_goes_away_in_the_middle_is_no_error_of_ours(shop: Shop) -> None:
    messages: list[dict[str, object]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    application: Any = shop.build().asgi
    await application(
        {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/orders",
            "raw_path": b"/api/v1/orders",
            "query_string": b"",
            "headers": [(b"authorization", shop.headers()["Authorization"].encode())],
        },
        receive,
        send,
    )

    assert sent[0]["status"] == 400
    assert shop.desk.calls == []


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json; charset=latin-1",
        "application/msgpack",
        "",
    ],
)
async def test_another_media_type_is_not_read(shop: Shop, media_type: str) -> None:
    answer = await post(shop, GOOD, **{"Content-Type": media_type})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON", 'application/json; charset="UTF-8"'],
)
async def test_json_is_json_however_it_is_written(shop: Shop, media_type: str) -> None:
    answer = await post(shop, GOOD, **{"Content-Type": media_type})

    assert answer.status_code == 201


async def test_a_body_without_a_media_type_is_taken_for_json(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.post("/api/v1/orders", content=GOOD, headers=shop.headers())

    assert "Content-Type" not in answer.request.headers
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", None), (b"null", None), (b'{"reason": "late"}', "late")]
)
async def test_a_body_that_may_be_left_out_may_be_left_out(
    shop: Shop,
    content: bytes,
    reason: str | None,
) -> None:
    async with shop.client() as client:
        answer = await client.post(
            "/api/v1/orders/1/cancel", content=content, headers=shop.headers()
        )

    assert answer.status_code == 200
    assert answer.json()["reason"] == reason


async def test_a_raw_body_is_any_bytes_of_any_media_type(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.post(
            "/api/v1/raw", content=b"\x00\xff", headers={"Content-Type": "image/png"}
        )

    assert answer.json() == {"length": 2}
    assert shop.desk.calls == [b"\x00\xff"]


async def test_a_raw_body_has_the_same_limit(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.post("/api/v1/raw", content=chunks(size=1000, count=66))

    assert answer.status_code == 413
    assert shop.desk.calls == []
