"""The door: who is let in, and what the others are told."""

import json

import pytest

from orderkeep.web.door import Door
from tests.unit.web.small_shop import Shop


def door_of(**more: object) -> Door:
    options: dict = {
        "new_request_id": lambda: "drawn-id",
        "requests_in_hand_max": 2,
        "goes_first": lambda method, path: (method, path) == ("POST", "/cancel"),
        "first_in_hand_max": 1,
        "goes_last": lambda method, path: (method, path) == ("POST", "/orders"),
        "last_in_hand_max": 1,
        **more,
    }
    return Door(**options)


@pytest.mark.parametrize(
    ("method", "path", "most"),
    [
        ("POST", "/orders", 0),
        ("GET", "/orders", 1),
        ("GET", "/cancel", 1),
        ("POST", "/cancel", 2),
        ("GET", "/metrics", 1000),
        ("GET", "/health/ready", 1000),
        ("GET", "/health/live", 1000),
    ],
)
def test_new_orders_are_refused_first_and_whoever_watches_never(
    method: str, path: str, most: int
) -> None:
    door = door_of()

    assert door.lets_in(method, path, in_hand_count=most)
    assert door.lets_in(method, path, in_hand_count=most + 1) is (most == 1000)


async def test_what_the_door_says_is_what_a_call_would_be_answered(shop: Shop) -> None:
    shop.requests_in_hand_max = 0
    app = shop.build()

    async with shop.client() as client:
        called = await client.get("/api/v1/orders", headers={"X-Request-Id": "mine"})
    refused = app.door.refuse(b"mine", stays_open=True)

    head, _, body = refused.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert dict(line.split(": ") for line in lines[1:]) == dict(called.headers)
    assert body == called.content


def test_who_brings_no_id_gets_one_of_its_own_each() -> None:
    door = door_of()

    ids = [
        json.loads(door.refuse(None, stays_open=True).partition(b"\r\n\r\n")[2])["request_id"]
        for _ in range(2)
    ]

    assert ids == ["drawn-id:1", "drawn-id:2"]


@pytest.mark.parametrize("given", [b"a b", b"x" * 65, b"", b"a\r\nset-cookie: b"])
def test_an_id_that_is_none_is_not_repeated(given: bytes) -> None:
    refused = door_of().refuse(given, stays_open=True)

    assert b"\r\nx-request-id: drawn-id:1\r\n" in refused


async def test_every_answer_is_counted_once(shop: Shop) -> None:
    counted: list[int] = []
    shop.count_answer = counted.append
    app = shop.build()

    async with shop.client_of(app) as client:
        await client.get("/nothing")
        await client.get("/health/live")
    app.door.refuse(None, stays_open=False)

    assert counted == [404, 200, 503]
