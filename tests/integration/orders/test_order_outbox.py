"""`order.outbox`: one line in the log for each order event, one delivery for each receiver."""

import asyncio
import json
from typing import Any

import pytest
from structlog.typing import EventDict

from orderkeep.contracts.order_events import OrderEvent, decode
from orderkeep.messaging.consumer import HANDLED
from orderkeep.messaging.signal import Signal
from orderkeep.orders.consumers.order_outbox import order_outbox_consumer
from orderkeep.orders.order import Order
from tests.integration.orders.shop import Shop, payment

SHOP_FLOOR = "https://floor.example/hooks"
WAREHOUSE = "https://warehouse.example/hooks"


@pytest.fixture
async def order(shop: Shop) -> Order:
    """A paid order of Ann's: 2 teas, and a pot."""
    await shop.fill(tea=10, pot=5)
    order = await shop.order("ann", tea=2, pot=1)
    await shop.pay(payment(order))
    return order


def events(shop: Shop) -> list[OrderEvent]:
    rows = shop.rows("SELECT body FROM order_outbox WHERE route = 'order.events' ORDER BY id")
    return [decode(row["body"]) for row in rows]


def deliveries(shop: Shop) -> list[tuple[Any, ...]]:
    rows = shop.rows("SELECT * FROM webhook_deliveries ORDER BY id")
    names = ("receiver", "message_id", "order_no", "type", "state", "attempts")
    return [tuple(row[name] for name in names) for row in rows]


async def test_each_event_makes_one_delivery_for_each_receiver(shop: Shop, order: Order) -> None:
    consumer = order_outbox_consumer(receivers=[SHOP_FLOOR, WAREHOUSE], recorded=Signal())

    outcomes = await shop.receive(consumer, *events(shop), message_ids=["m-a", "m-b"])

    order_no = order.order_no
    assert outcomes == [HANDLED, HANDLED]
    assert deliveries(shop) == [
        (SHOP_FLOOR, "m-a", order_no, "order.created", "pending", 0),
        (WAREHOUSE, "m-a", order_no, "order.created", "pending", 0),
        (SHOP_FLOOR, "m-b", order_no, "order.paid", "pending", 0),
        (WAREHOUSE, "m-b", order_no, "order.paid", "pending", 0),
    ]


async def test_the_body_of_a_delivery_is_the_event_as_it_travelled(
    shop: Shop, order: Order
) -> None:
    consumer = order_outbox_consumer(receivers=[SHOP_FLOOR], recorded=Signal())

    await shop.receive(consumer, *events(shop))

    _, paid = shop.rows("SELECT body FROM webhook_deliveries ORDER BY id")
    _, sent = shop.rows("SELECT body FROM order_outbox WHERE route = 'order.events' ORDER BY id")
    told = json.loads(paid["body"])
    assert (told["type"], told["timestamp"]) == ("order.paid", told["data"]["occurred_at"])
    assert told["data"]["order_no"] == order.order_no
    assert b'"data":' + sent["body"] in paid["body"]
    assert b'"pay_amount":151.98' in paid["body"]


@pytest.mark.usefixtures("order")
async def test_an_event_that_comes_again_makes_no_second_delivery(shop: Shop) -> None:
    consumer = order_outbox_consumer(receivers=[SHOP_FLOOR], recorded=Signal())
    created, paid = events(shop)
    await shop.receive(consumer, created, paid, message_ids=["m-a", "m-b"])
    shop.write("UPDATE webhook_deliveries SET state = 'sent', attempts = 1")
    before = shop.dump()

    outcomes = await shop.receive(consumer, paid, created, message_ids=["m-b", "m-a"])

    assert outcomes == [HANDLED, HANDLED]
    assert shop.dump() == before


@pytest.mark.usefixtures("order")
async def test_without_receivers_nothing_is_recorded_and_the_events_are_done(shop: Shop) -> None:
    recorded = Signal()
    before = shop.dump()

    outcomes = await shop.receive(
        order_outbox_consumer(receivers=[], recorded=recorded), *events(shop)
    )

    assert outcomes == [HANDLED, HANDLED]
    assert shop.dump() == before
    assert not await recorded.wait(timeout_s=0)


@pytest.mark.usefixtures("order")
async def test_the_worker_is_woken_after_the_commit(shop: Shop) -> None:
    recorded = Signal()

    await shop.receive(
        order_outbox_consumer(receivers=[SHOP_FLOOR], recorded=recorded), *events(shop)
    )

    async with asyncio.timeout(10):
        assert await recorded.wait(timeout_s=None)


async def test_each_event_is_one_line_in_the_log_with_its_order_and_message(
    shop: Shop, order: Order, logged: list[EventDict]
) -> None:
    logged.clear()

    await shop.receive(
        order_outbox_consumer(receivers=[], recorded=Signal()),
        *events(shop),
        message_ids=["m-a", "m-b"],
    )

    assert logged == [
        {
            "event": "order_created",
            "log_level": "info",
            "order_no": order.order_no,
            "message_id": "m-a",
            "user_id": "ann",
            "status": "pending_payment",
            "pay_amount": "151.98",
            "currency": "CNY",
        },
        {
            "event": "order_paid",
            "log_level": "info",
            "order_no": order.order_no,
            "message_id": "m-b",
            "user_id": "ann",
            "status": "paid",
            "pay_amount": "151.98",
            "currency": "CNY",
        },
    ]


@pytest.mark.usefixtures("order")
async def test_each_event_is_counted_by_its_type_after_the_commit(shop: Shop) -> None:
    counted: list[str] = []
    consumer = order_outbox_consumer(
        receivers=[], recorded=Signal(), count_event=lambda event: counted.append(str(event))
    )

    await shop.receive(consumer, *events(shop))

    assert counted == ["order.created", "order.paid"]


def sent(shop: Shop) -> dict[str, OrderEvent]:
    """Return the events by the ids that they travel under, in their order."""
    rows = shop.rows("SELECT * FROM order_outbox WHERE route = 'order.events' ORDER BY id")
    return {row["message_id"]: decode(row["body"]) for row in rows}


@pytest.mark.usefixtures("order")
async def test_an_event_that_overtakes_another_is_recorded_behind_it(shop: Shop) -> None:
    consumer = order_outbox_consumer(receivers=[SHOP_FLOOR, WAREHOUSE], recorded=Signal())
    (created_id, created), (paid_id, paid) = sent(shop).items()

    await shop.receive(consumer, paid, message_ids=[paid_id])

    recorded = deliveries(shop)
    assert [row[:2] for row in recorded] == [
        (SHOP_FLOOR, created_id),
        (WAREHOUSE, created_id),
        (SHOP_FLOOR, paid_id),
        (WAREHOUSE, paid_id),
    ]

    await shop.receive(consumer, created, message_ids=[created_id])

    assert deliveries(shop) == recorded


@pytest.mark.usefixtures("order")
async def test_what_comes_in_one_batch_is_recorded_in_its_order(shop: Shop) -> None:
    consumer = order_outbox_consumer(receivers=[SHOP_FLOOR], recorded=Signal())
    (created_id, created), (paid_id, paid) = sent(shop).items()

    await shop.receive(consumer, paid, created, message_ids=[paid_id, created_id])

    assert [row[1] for row in deliveries(shop)] == [created_id, paid_id]


@pytest.mark.parametrize("reason", ["it was discarded", "it was heard of long ago"])
@pytest.mark.usefixtures("order")
async def test_an_earlier_event_that_needs_no_delivery_gets_none(shop: Shop, reason: str) -> None:
    consumer = order_outbox_consumer(receivers=[SHOP_FLOOR], recorded=Signal())
    (created_id, _), (paid_id, paid) = sent(shop).items()
    if reason == "it was discarded":
        shop.write(
            "UPDATE order_outbox SET state = 'discarded', discarded_at = 1 WHERE message_id = :id",
            id=created_id,
        )
    else:
        shop.write(
            "INSERT INTO order_inbox (consumer, message_id, received_at)"
            " VALUES ('order.outbox', :id, 1)",
            id=created_id,
        )

    await shop.receive(consumer, paid, message_ids=[paid_id])

    assert [row[1] for row in deliveries(shop)] == [paid_id]
