"""Messages and small waits of these tests."""

import asyncio
from collections.abc import Sequence
from typing import Any

from orderkeep.instant import Instant
from orderkeep.messaging import (
    Binding,
    Broker,
    Consumption,
    Delay,
    Delivery,
    Exchange,
    ExchangeType,
    Message,
    PublishResult,
    Queue,
    Topology,
)

NOW = Instant(1_700_000_000_000_000)

DEADLINE_S = 20.0

TOPOLOGY = Topology(
    queues=(Queue(name="parcels"), Queue(name="letters")),
    exchanges=(Exchange(name="events", type=ExchangeType.TOPIC),),
    bindings=(Binding(exchange="events", queue="letters", routing_key="letter.#"),),
    delays=(Delay(queue="parcels", exchange="parcels.delayed", hold_queue_prefix="parcels.hold."),),
)


def message(number: int, **changed: Any) -> Message:
    """Return a message to the parcels."""
    values: dict[str, Any] = {
        "route": "parcels",
        "message_id": f"m{number}",
        "type": "parcel.packed",
        "body": f"body {number}".encode(),
        "headers": {},
        "published_at": NOW,
    }
    return Message(**(values | changed))


async def results_of(broker: Broker, *messages: Message, now: Instant = NOW) -> list[PublishResult]:
    """Publish and return what became of each."""
    async with asyncio.timeout(DEADLINE_S):
        return [outcome.result for outcome in await broker.publish(messages, now=now)]


async def take(consumption: Consumption, *, count_max: int = 100) -> Sequence[Delivery]:
    """Take what comes."""
    async with asyncio.timeout(DEADLINE_S):
        return await consumption.take(count_max=count_max)


async def take_count(consumption: Consumption, count: int) -> list[Delivery]:
    """Take so many."""
    deliveries: list[Delivery] = []
    while len(deliveries) < count:
        deliveries += await take(consumption)
    return deliveries


def ids(deliveries: Sequence[Delivery]) -> list[bytes]:
    """Return the message ids."""
    return [delivery.message_id or b"" for delivery in deliveries]
