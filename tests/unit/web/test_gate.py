"""The gate: an id on every answer, a bound on what is in hand, and no error without a document."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from orderkeep.database.turns import Turns
from orderkeep.web.door import Door
from orderkeep.web.gate import Gate
from tests.unit.web.small_shop import Shop

Message = dict[str, object]


def client_of(
    application: Any, *, requests_in_hand_max: int = 10, first_in_hand_max: int = 0
) -> httpx.AsyncClient:
    door = Door(
        new_request_id=lambda: "drawn-id",
        requests_in_hand_max=requests_in_hand_max,
        goes_first=lambda method, path: (method, path) == ("POST", "/cancel"),
        first_in_hand_max=first_in_hand_max,
    )
    gate: Any = Gate(application, door=door)
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://shop")


@pytest.mark.parametrize(
    "path", ["/api/v1/public", "/api/v1/orders", "/nothing", "/health/live", "/metrics", "/docs"]
)
async def test_every_answer_bears_a_request_id(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.headers["X-Request-Id"] == "drawn-id"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_sane_id_of_the_client_is_kept(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nothing", headers={"X-Request-Id": "trace-17:a.b_c"})

    assert answer.headers["X-Request-Id"] == "trace-17:a.b_c"
    assert answer.json()["request_id"] == "trace-17:a.b_c"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a;b", "a\tb"])
async def test_another_id_is_not(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/nothing", headers={"X-Request-Id": given})

    assert answer.headers["X-Request-Id"] == "drawn-id"


async def test_head_answers_as_get_without_the_body(shop: Shop) -> None:
    async with shop.client() as client:
        answer = await client.head("/api/v1/orders/17", headers=shop.headers())

    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == "17"
    assert answer.content == b""


async def held(
    until: asyncio.Event, arrived: asyncio.Event, *, paths: tuple[str, ...] = ("/held",)
) -> Callable[..., Awaitable[None]]:
    async def application(scope: Message, _receive: object, send: Callable) -> None:
        if scope["path"] in paths and (scope["method"], scope["path"]) != ("GET", "/cancel"):
            arrived.set()
            await until.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return application


async def test_one_request_too_many_is_told_to_come_again() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with client_of(await held(until, arrived), requests_in_hand_max=1) as client:
        first = asyncio.create_task(client.get("/held"))
        await arrived.wait()

        refused = await client.get("/other")
        health = [await client.get(path) for path in ("/health/live", "/health/ready", "/metrics")]
        until.set()
        served = await first
        after = await client.get("/other")

    assert refused.status_code == 503
    assert refused.json()["code"] == "overloaded"
    assert refused.headers["Retry-After"] == "1"
    assert [answer.status_code for answer in health] == [200, 200, 200]
    assert (served.status_code, after.status_code) == (200, 200)


async def test_what_goes_first_has_places_of_its_own_and_these_are_bounded_too() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    application = await held(until, arrived, paths=("/held", "/cancel"))
    async with client_of(application, requests_in_hand_max=1, first_in_hand_max=1) as client:
        first = asyncio.create_task(client.get("/held"))
        await arrived.wait()
        arrived.clear()

        refused = await client.get("/cancel")
        second = asyncio.create_task(client.post("/cancel"))
        await arrived.wait()
        one_too_many = await client.post("/cancel")
        until.set()
        served = [await first, await second]

    assert [refused.status_code, one_too_many.status_code] == [503, 503]
    assert [answer.status_code for answer in served] == [200, 200]


async def test_the_transactions_of_what_goes_first_do_so_too() -> None:
    turns: Turns[str] = Turns()

    async def application(scope: Message, _receive: object, send: Callable) -> None:
        turns.add(str(scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with client_of(application) as client:
        await client.get("/other")
        await client.post("/cancel")

    assert [turns.begin(), turns.begin()] == ["/cancel", "/other"]


async def test_an_error_that_nobody_caught_is_a_document_still() -> None:
    async def application(_scope: object, _receive: object, _send: object) -> None:
        message = "secret words"
        raise RuntimeError(message)

    async with client_of(application) as client:
        answer = await client.get("/")

    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert answer.headers["X-Request-Id"] == "drawn-id"
    assert "secret" not in answer.text


async def test_an_error_in_the_middle_of_an_answer_breaks_it_off() -> None:
    sent: list[Message] = []

    async def application(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        message = "too late"
        raise RuntimeError(message)

    async def send(message: Message) -> None:
        sent.append(message)

    door = Door(new_request_id=lambda: "drawn-id", requests_in_hand_max=1)
    gate: Any = Gate(application, door=door)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    with pytest.raises(RuntimeError, match="too late"):
        await gate(scope, None, send)

    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_each_request_has_its_line_where_that_is_wanted(shop: Shop) -> None:
    shop.logs_requests = True

    with capture_logs() as lines:
        async with shop.client() as client:
            await client.get("/api/v1/public?token=secret")

    [line] = [line for line in lines if line["event"] == "request_answered"]
    assert line.pop("took_ms") >= 0
    assert line == {
        "event": "request_answered",
        "log_level": "debug",
        "request_id": "drawn-id",
        "method": "GET",
        "path": "/api/v1/public",
        "status": 422,
    }


async def test_a_request_that_is_given_up_frees_its_place() -> None:
    until, arrived = asyncio.Event(), asyncio.Event()
    async with client_of(await held(until, arrived), requests_in_hand_max=1) as client:
        given_up = asyncio.create_task(client.get("/held"))
        await arrived.wait()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up

        answer = await client.get("/other")

    assert answer.status_code == 200
