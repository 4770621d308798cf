"""The kernel on RabbitMQ: outbox, dispatcher and consumers of a small service, on a real broker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orderkeep.database.sqlite import SqliteDatabase
from orderkeep.instant import after
from orderkeep.messaging import HANDLED, Event, TryLater
from orderkeep.messaging.rabbitmq import DelayBackend, QueueArguments
from orderkeep.wiring import chance
from tests.condition import eventually
from tests.integration.messaging.shop_kernel import (
    Shop,
    create_tables,
    parcel,
    record_effects,
)
from tests.integration.rabbitmq.conftest import OpenBroker, Stranger, ready_count_becomes

HOLD_S = 0.5


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "shop.db")
    await create_tables(database)
    yield database
    await database.close()


async def effect_ids(shop: Shop) -> list[str]:
    rows = await shop.rows("SELECT message_id FROM effects ORDER BY id")
    return [row["message_id"] for row in rows]


def has_effects(shop: Shop, *message_ids: str):
    async def is_done() -> bool:
        return set(message_ids) <= set(await effect_ids(shop))

    return is_done


async def test_events_take_effect_once(database: SqliteDatabase, open_broker: OpenBroker):
    shop = Shop(database=database, broker=open_broker())
    await shop.append(*(parcel(number) for number in range(300)))

    await shop.work_until(
        has_effects(shop, *(f"P{number}-1-parcels" for number in range(300))),
        shop.dispatcher().run,
        shop.subscription(record_effects).run,
    )

    assert len(await effect_ids(shop)) == 300
    pending = await shop.rows("SELECT 1 FROM shop_outbox WHERE state <> 'sent'")
    assert pending == []


@pytest.mark.parametrize("delay", [DelayBackend.HOLD_QUEUE, DelayBackend.OUTBOX])
async def test_a_delayed_event_takes_effect_when_it_is_due(
    database: SqliteDatabase, open_broker: OpenBroker, delay: DelayBackend
):
    shop = Shop(database=database, broker=open_broker(delay=delay, hold_s=HOLD_S))
    # The first dispatch makes the queues, which takes its time from no message.
    await shop.append(parcel(1))
    await shop.dispatch_once()
    due_at = after(chance.now(), seconds=HOLD_S)
    event = parcel(2)
    await shop.append(
        Event(
            aggregate_id="P2",
            sequence=1,
            type=event.type,
            route="parcels",
            body=event.body,
            ordered=False,
            deliver_at=due_at,
            message_id="due",
        )
    )
    early: list[str] = []

    async def handle(transaction, batch):
        early.extend(
            each.message_id for each in batch if each.message_id == "due" and chance.now() < due_at
        )
        return await record_effects(transaction, batch)

    await shop.work_until(
        has_effects(shop, "due"), shop.dispatcher().run, shop.subscription(handle).run
    )

    assert early == []


async def test_a_held_message_that_is_tried_again_does_not_go_in_circles(
    database: SqliteDatabase, open_broker: OpenBroker
):
    """A broker drops a message that has been in a queue before, by its history of dying."""
    shop = Shop(database=database, broker=open_broker(hold_s=HOLD_S))
    await shop.append(parcel(1))
    await shop.dispatch_once()
    due_at = after(chance.now(), seconds=HOLD_S)
    await shop.append(
        Event(
            aggregate_id="P2",
            sequence=1,
            type="parcel.packed",
            route="parcels",
            body=b"x",
            ordered=False,
            deliver_at=due_at,
            message_id="due",
        )
    )
    tries: list[int] = []

    async def handle(transaction, batch):
        if [each.message_id for each in batch] == ["due"]:
            tries.append(batch[0].attempt)
            if len(tries) < 3:
                return [TryLater(reason="not_yet", detail="")]
        await record_effects(transaction, batch)
        return [HANDLED] * len(batch)

    await shop.work_until(
        has_effects(shop, "due"), shop.dispatcher().run, shop.subscription(handle).run
    )

    assert tries == [1, 2, 3]


class ProcessDiesError(BaseException):
    """Nobody catches it: what it meets ends, as with its process."""


@pytest.mark.parametrize("arguments", QueueArguments)
async def test_a_message_that_kills_its_consumer_is_set_aside_and_takes_nobody_with_it(
    database: SqliteDatabase, open_broker: OpenBroker, arguments: QueueArguments
):
    shop = Shop(database=database, broker=open_broker(arguments=arguments))
    await shop.append(parcel(0, body="poison"), *(parcel(number) for number in range(1, 4)))
    await shop.dispatch_once()
    deaths_count = 0

    async def handle(transaction, batch):
        if any(each.body == "poison" for each in batch):
            raise ProcessDiesError
        return await record_effects(transaction, batch)

    async def is_settled() -> bool:
        return len(await effect_ids(shop)) == 3 and bool(
            await shop.rows("SELECT 1 FROM shop_dead_letters")
        )

    while not await is_settled():
        living = Shop(database=database, broker=open_broker(arguments=arguments))
        try:
            await living.work_until(is_settled, living.subscription(handle).run)
        except ProcessDiesError:
            deaths_count += 1

    (letter,) = await shop.rows("SELECT message_id, reason FROM shop_dead_letters")
    assert (letter["message_id"], letter["reason"]) == ("P0-1-parcels", "kills_its_consumer")
    # Once with the others, before anybody knew; then as often as a message is tried, alone.
    assert deaths_count == 4


async def test_what_has_passed_its_limit_takes_effect_all_the_same(
    database: SqliteDatabase, open_broker: OpenBroker, stranger: Stranger
):
    broker = open_broker()
    shop = Shop(database=database, broker=broker)
    await shop.append(parcel(1))
    await shop.dispatch_once()
    stranger.send("parcels.dead", b"late", message_id="late")

    await shop.work_until(
        has_effects(shop, "late", "P1-1-parcels"), shop.subscription(record_effects).run
    )

    await ready_count_becomes(stranger, "parcels.dead", 0)


async def test_a_queue_deleted_at_work_is_made_again_and_the_events_arrive(
    database: SqliteDatabase, open_broker: OpenBroker, stranger: Stranger
):
    shop = Shop(database=database, broker=open_broker())
    await shop.append(parcel(1))
    await shop.dispatch_once()
    stranger.channel.queue_delete("parcels")

    held_back = await shop.dispatch_once()
    assert (held_back.sent_count, held_back.held_back_count) == (0, 0)
    await shop.append(parcel(2))
    dispatcher = shop.dispatcher()
    await shop.work_until(
        has_effects(shop, "P2-1-parcels"),
        dispatcher.run,
        shop.subscription(record_effects).run,
    )

    await eventually(lambda: stranger.ready_count("parcels") == 0)
