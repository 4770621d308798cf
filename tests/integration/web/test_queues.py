"""Messages handed in over HTTP: in the outbox with the identity that their consumer would give."""

from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from orderkeep.carts.tables import KERNEL as CART
from orderkeep.contracts import cart_sync, payment_success_notify
from orderkeep.database.statement import Statement
from orderkeep.database.transaction import Database, ReadTransaction, Row, Transaction
from orderkeep.messaging.consumer import HANDLED, Consumer, Outcome, Received
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.tables import ServiceTables
from orderkeep.orders.tables import KERNEL as ORDER
from orderkeep.web.queues import ROUTE_HANDLERS, InboundQueue
from tests.unit.web.small_shop import Shop

PAYMENT = b'{"order_no": "0100000000000009", "trade_no": "T1", "amount": 1, "channel": "alipay"}'


async def handle(_transaction: Transaction, batch: Sequence[Received]) -> Sequence[Outcome]:
    return [HANDLED] * len(batch)


def consumer_of(module: Any) -> Consumer:
    return Consumer(
        name=module.QUEUE,
        queue=module.QUEUE,
        decode=module.decode,
        business_key=module.business_key,
        handle=handle,
    )


@pytest.fixture
async def client(shop: Shop, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    shop.route_handlers = ROUTE_HANDLERS
    queues = {
        "payment.success.notify": InboundQueue(
            outbox=Outbox(ORDER, new_message_id=lambda: "never-drawn"),
            consumer=consumer_of(payment_success_notify),
            database=database,
        ),
        "cart-sync": InboundQueue(
            outbox=Outbox(CART, new_message_id=lambda: "never-drawn"),
            consumer=consumer_of(cart_sync),
            database=database,
        ),
    }
    shop.dependencies = {"inbound_queues": queues}
    async with shop.client() as client:
        client.headers.update(shop.headers("messages"))
        yield client


async def rows_of(database: Database, tables: ServiceTables = ORDER) -> list[Row]:
    statement = Statement(select(tables.outbox).limit(10))

    async def work(transaction: ReadTransaction) -> list[Row]:
        return await transaction.fetch_all(statement)

    return await database.read(work)


async def hand_in(
    client: httpx.AsyncClient, body: bytes, *, queue: str = "payment.success.notify", **headers: str
) -> httpx.Response:
    return await client.post(
        f"/api/v1/queues/{queue}/messages",
        content=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def test_a_message_goes_into_its_consumers_outbox(
    client: httpx.AsyncClient, database: Database
) -> None:
    answer = await hand_in(client, PAYMENT, Message_Id="foreign-17")

    [row] = await rows_of(database)
    assert answer.status_code == 202
    assert answer.json() == {"message_id": "foreign-17"}
    assert row["message_id"] == "foreign-17"
    assert row["route"] == "payment.success.notify"
    assert row["body"] == PAYMENT
    assert row["headers"] == b'{"x-aggregate-id":"0100000000000009"}'
    assert row["aggregate_id"] == "0100000000000009"
    assert not row["ordered"]
    assert row["state"] == "pending"


async def test_without_an_id_the_business_key_is_the_identity(client: httpx.AsyncClient) -> None:
    first = await hand_in(client, PAYMENT)
    second = await hand_in(client, PAYMENT + b" ")

    message_id = first.json()["message_id"]
    assert "T1" in message_id
    assert second.json()["message_id"] == message_id


async def test_what_cannot_be_read_is_taken_and_known_by_its_bytes(
    client: httpx.AsyncClient, database: Database
) -> None:
    raw = b"\x00\xff not JSON at all"

    answer = await hand_in(client, raw)

    [row] = await rows_of(database)
    parts = (b"body", b"payment.success.notify", raw)
    digest = sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
    assert answer.status_code == 202
    assert answer.json() == {"message_id": f"sha256:{digest}"}
    assert row["body"] == raw
    assert row["aggregate_id"] == ""


async def test_each_service_has_its_own_outbox(
    client: httpx.AsyncClient, database: Database
) -> None:
    body = b'{"event_type": "cart.cleared", "user_id": "ann"}'

    answer = await hand_in(client, body, queue="cart-sync")

    assert answer.status_code == 202
    assert await rows_of(database) == []
    [row] = await rows_of(database, CART)
    assert row["route"] == "cart-sync"


@pytest.mark.parametrize("queue", ["order.outbox", "nowhere", "payment.success.notify.dead"])
async def test_a_queue_that_is_not_consumed_here_is_404(
    client: httpx.AsyncClient, database: Database, queue: str
) -> None:
    answer = await hand_in(client, PAYMENT, queue=queue)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert await rows_of(database) == []


@pytest.mark.parametrize("message_id", ["", "a b", "x" * 129, "é"])
async def test_an_id_that_is_not_visible_ascii_is_refused(
    client: httpx.AsyncClient, database: Database, message_id: str
) -> None:
    answer = await client.post(
        "/api/v1/queues/cart-sync/messages",
        content=b"{}",
        headers=[(b"Message-Id", message_id.encode())],
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "header/Message-Id"
    assert await rows_of(database, CART) == []


async def test_two_ids_are_one_too_many(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/api/v1/queues/cart-sync/messages",
        content=b"{}",
        headers=[("Message-Id", "a"), ("Message-Id", "b")],
    )

    assert answer.status_code == 422


async def test_an_id_of_128_visible_characters_is_kept(client: httpx.AsyncClient) -> None:
    answer = await hand_in(client, PAYMENT, Message_Id="~" * 128)

    assert answer.json() == {"message_id": "~" * 128}


async def test_a_body_over_the_limit_is_refused(
    client: httpx.AsyncClient, database: Database
) -> None:
    answer = await hand_in(client, b" " * 65_537)

    assert answer.status_code == 413
    assert await rows_of(database) == []


@pytest.mark.parametrize("scopes", [(), ("operator",)])
async def test_only_who_may_send_messages_may(
    shop: Shop, client: httpx.AsyncClient, scopes: tuple[str, ...]
) -> None:
    answer = await client.post(
        "/api/v1/queues/cart-sync/messages", content=b"{}", headers=shop.headers(*scopes)
    )

    assert answer.status_code == 403
