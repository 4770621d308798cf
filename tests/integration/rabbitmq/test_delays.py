"""Messages that have to wait, at a broker that has no clock for them."""

import asyncio

from orderkeep.instant import Instant, after
from orderkeep.messaging import PublishResult
from orderkeep.messaging.rabbitmq import DelayBackend
from orderkeep.wiring import chance
from tests.integration.rabbitmq.conftest import OpenBroker, Stranger
from tests.integration.rabbitmq.letters import (
    DEADLINE_S,
    TOPOLOGY,
    ids,
    message,
    results_of,
    take,
    take_count,
)

HOLD_S = 0.5

CONFIRMED, NOT_HELD = PublishResult.CONFIRMED, PublishResult.NOT_HELD


async def test_no_held_message_comes_before_its_time(open_broker: OpenBroker):
    broker = open_broker(hold_s=HOLD_S)
    await broker.declare(TOPOLOGY)
    consumption = await broker.consume("parcels", prefetch=200)
    due: dict[bytes, Instant] = {}

    for round_ in range(5):
        now = chance.now()
        batch = [
            message(
                number,
                # From nine tenths of the delay up to all of it, to the microsecond.
                deliver_at=after(now, seconds=HOLD_S * (0.9 + 0.1 * (number % 20) / 20)),
            )
            for number in range(round_ * 20, round_ * 20 + 20)
        ]
        due |= {each.message_id.encode(): each.deliver_at or now for each in batch}
        assert await results_of(broker, *batch, now=now) == [CONFIRMED] * 20

    early: list[bytes] = []
    taken_count = 0
    async with asyncio.timeout(DEADLINE_S):
        while taken_count < 100:
            deliveries = await consumption.take(count_max=200)
            taken_at = chance.now()
            taken_count += len(deliveries)
            early += [name for name in ids(deliveries) if due[name] > taken_at]
    assert early == []


async def test_what_does_not_fit_the_hold_queue_is_not_taken(
    open_broker: OpenBroker, stranger: Stranger
):
    broker = open_broker(hold_s=HOLD_S)
    await broker.declare(TOPOLOGY)
    now = chance.now()

    results = await results_of(
        broker,
        message(1, deliver_at=after(now, seconds=0.449)),
        message(2, deliver_at=after(now, seconds=0.45)),
        message(3, deliver_at=after(now, seconds=0.5)),
        message(4, deliver_at=Instant(after(now, seconds=0.5) + 1)),
        message(5, deliver_at=after(now, seconds=0.5), route="letters"),
        message(6, deliver_at=now),
        now=now,
    )

    assert results == [NOT_HELD, CONFIRMED, CONFIRMED, NOT_HELD, NOT_HELD, CONFIRMED]
    consumption = await broker.consume("parcels", prefetch=10)
    assert sorted(ids(await take_count(consumption, 3))) == [b"m2", b"m3", b"m6"]
    assert stranger.ready_count("parcels.hold.500") == 0


async def test_a_held_message_has_lost_its_time_to_live_when_it_arrives(
    open_broker: OpenBroker,
):
    broker = open_broker(hold_s=HOLD_S)
    await broker.declare(TOPOLOGY)
    now = chance.now()
    await results_of(broker, message(1, deliver_at=after(now, seconds=HOLD_S)), now=now)
    consumption = await broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)

    # Longer than it was held: a message that still had its time to live would be gone.
    await consumption.give_back([delivery])
    await asyncio.sleep(HOLD_S * 1.5)

    (again,) = await take(consumption)
    assert again.message_id == b"m1"
    assert again.headers["x-first-death-queue"] == "parcels.hold.500"


async def test_a_missing_hold_queue_or_exchange_is_the_fault_of_the_route_and_heals(
    open_broker: OpenBroker, stranger: Stranger
):
    broker = open_broker(hold_s=HOLD_S)
    await broker.declare(TOPOLOGY)

    for delete in (
        lambda: stranger.channel.queue_delete("parcels.hold.500"),
        lambda: stranger.channel.exchange_delete("parcels.delayed"),
    ):
        delete()
        now = chance.now()
        held = message(1, deliver_at=after(now, seconds=HOLD_S))
        assert await results_of(broker, held, message(2), now=now) == [
            PublishResult.ROUTE_DOWN,
            CONFIRMED,
        ]
        await broker.declare(TOPOLOGY)
        assert await results_of(broker, held, now=now) == [CONFIRMED]


async def test_with_the_outbox_delay_nothing_is_held(open_broker: OpenBroker):
    broker = open_broker(delay=DelayBackend.OUTBOX, hold_s=HOLD_S)
    await broker.declare(TOPOLOGY)
    now = chance.now()

    results = await results_of(
        broker,
        message(1, deliver_at=after(now, seconds=HOLD_S)),
        message(2, deliver_at=now),
        now=now,
    )

    assert results == [NOT_HELD, CONFIRMED]


async def test_what_cannot_be_held_needs_no_broker(open_broker: OpenBroker):
    broker = open_broker(urls=["amqp://127.0.0.1:1/"], delay=DelayBackend.OUTBOX)
    now = chance.now()

    assert await results_of(broker, message(1, deliver_at=after(now, seconds=HOLD_S)), now=now) == [
        NOT_HELD
    ]
