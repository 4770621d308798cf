"""What is in hand, and what becomes of it."""

import asyncio
from typing import Any

import pytest
from pika.spec import Basic

from orderkeep.database.transaction import Transaction
from orderkeep.messaging import BrokerUnavailableError, LeaseLostError
from orderkeep.messaging.headers import decode_headers, encode_headers
from orderkeep.messaging.rabbitmq import QueueArguments, RabbitBroker
from tests.condition import eventually
from tests.integration.rabbitmq.conftest import OpenBroker, Stranger, ready_count_becomes
from tests.integration.rabbitmq.letters import (
    DEADLINE_S,
    TOPOLOGY,
    ids,
    message,
    results_of,
    take,
    take_count,
)

# The broker has no part in a transaction: the calls that take one do not look at it.
NO_TRANSACTION: Transaction = None  # type: ignore[assignment]


@pytest.fixture
async def broker(open_broker: OpenBroker) -> RabbitBroker:
    broker = open_broker()
    await broker.declare(TOPOLOGY)
    return broker


async def publish(broker: RabbitBroker, count: int) -> None:
    await results_of(broker, *(message(number) for number in range(1, count + 1)))


def spied_settlements(broker: RabbitBroker) -> list[tuple[str, int, bool]]:
    """Return what is acknowledged and returned from now on, as the list grows."""
    seen: list[tuple[str, int, bool]] = []
    connection: Any = broker._consuming._connection
    real = connection._send_method

    def spy(channel_number, method, content=None):
        if isinstance(method, (Basic.Ack, Basic.Nack)):
            seen.append((method.NAME, method.delivery_tag, method.multiple))
        real(channel_number, method, content)

    connection._send_method = spy
    return seen


async def test_a_batch_is_acknowledged_with_one_frame(broker: RabbitBroker):
    await publish(broker, 5)
    consumption = await broker.consume("parcels", prefetch=10)
    deliveries = await take_count(consumption, 5)
    seen = spied_settlements(broker)

    await consumption.acknowledge(deliveries[:3])
    await consumption.acknowledge(deliveries[3:])

    assert seen == [("Basic.Ack", 3, True), ("Basic.Ack", 5, True)]


async def test_what_has_an_older_one_in_hand_is_acknowledged_by_itself(broker: RabbitBroker):
    await publish(broker, 5)
    consumption = await broker.consume("parcels", prefetch=10)
    deliveries = await take_count(consumption, 5)
    seen = spied_settlements(broker)

    await consumption.acknowledge([deliveries[1], deliveries[3]])
    await consumption.acknowledge([deliveries[0], deliveries[2]])
    await consumption.give_back([deliveries[4]])

    assert seen == [
        ("Basic.Ack", 2, False),
        ("Basic.Ack", 4, False),
        ("Basic.Ack", 3, True),
        ("Basic.Nack", 5, True),
    ]


async def test_what_is_acknowledged_or_given_back_twice_is_so_once(broker: RabbitBroker):
    await publish(broker, 2)
    consumption = await broker.consume("parcels", prefetch=10)
    first, second = await take_count(consumption, 2)
    seen = spied_settlements(broker)

    await consumption.acknowledge([first])
    await consumption.give_back([first, second])
    await consumption.give_back([first, second])

    assert seen == [("Basic.Ack", 1, True), ("Basic.Nack", 2, True)]


async def test_with_the_connection_goes_what_was_in_hand(broker: RabbitBroker):
    await publish(broker, 3)
    consumption = await broker.consume("parcels", prefetch=10)
    taken = await take(consumption, count_max=1)

    broker._consuming.drop("the test")

    with pytest.raises(BrokerUnavailableError):
        await take_count(consumption, 3)
    with pytest.raises(LeaseLostError):
        await consumption.acknowledge_within(NO_TRANSACTION, taken)
    with pytest.raises(BrokerUnavailableError):
        await consumption.acknowledge(taken)
    await consumption.give_back(taken)
    await consumption.close()
    again = await broker.consume("parcels", prefetch=10)
    deliveries = await take_count(again, 3)
    assert ids(deliveries) == [b"m1", b"m2", b"m3"]
    assert all(delivery.redelivered for delivery in deliveries)


async def test_what_is_in_hand_may_be_acknowledged(broker: RabbitBroker):
    await publish(broker, 1)
    consumption = await broker.consume("parcels", prefetch=10)

    await consumption.acknowledge_within(NO_TRANSACTION, await take(consumption))


async def test_closing_returns_what_was_taken_and_what_was_not(
    broker: RabbitBroker, stranger: Stranger
):
    await publish(broker, 10)
    consumption = await broker.consume("parcels", prefetch=10)
    deliveries = list(await take(consumption, count_max=3))
    await consumption.acknowledge(deliveries[:1])

    await consumption.close()

    await ready_count_becomes(stranger, "parcels", 9)


async def test_after_stopping_what_is_in_hand_can_be_acknowledged(
    broker: RabbitBroker, stranger: Stranger
):
    await publish(broker, 5)
    consumption = await broker.consume("parcels", prefetch=5)
    deliveries = await take(consumption, count_max=2)

    consumption.stop_taking()
    await consumption.acknowledge(deliveries)
    assert list(await take(consumption)) == []
    await consumption.close()

    await ready_count_becomes(stranger, "parcels", 5 - len(deliveries))


@pytest.mark.parametrize("deleted", ["parcels", "parcels.dead"])
async def test_a_deleted_queue_ends_the_consumption_and_heals(
    broker: RabbitBroker, stranger: Stranger, deleted: str
):
    consumption = await broker.consume("parcels", prefetch=10)

    stranger.channel.queue_delete(deleted)

    with pytest.raises(BrokerUnavailableError, match="ended the consumption"):
        await take(consumption)
    await consumption.close()
    await broker.declare(TOPOLOGY)
    again = await broker.consume("parcels", prefetch=10)
    await publish(broker, 1)
    assert ids(await take(again)) == [b"m1"]
    assert stranger.has_queue(deleted)


async def test_what_has_passed_its_limit_comes_one_at_a_time_as_redelivered(
    broker: RabbitBroker, stranger: Stranger
):
    for number in range(3):
        stranger.send("parcels.dead", b"dead", message_id=f"d{number}")
    consumption = await broker.consume("parcels", prefetch=10)

    for number in range(3):
        (delivery,) = await take(consumption)
        assert delivery.message_id == f"d{number}".encode()
        assert delivery.queue == "parcels"
        assert delivery.redelivered
        await consumption.acknowledge([delivery])

    await ready_count_becomes(stranger, "parcels.dead", 0)


async def test_both_queues_are_settled_each_on_its_own(broker: RabbitBroker, stranger: Stranger):
    await publish(broker, 2)
    stranger.send("parcels.dead", b"dead", message_id="d")
    consumption = await broker.consume("parcels", prefetch=10)
    deliveries = await take_count(consumption, 3)
    assert len({delivery.tag for delivery in deliveries}) == 3

    await consumption.acknowledge([each for each in deliveries if each.message_id != b"m2"])
    await consumption.close()

    await ready_count_becomes(stranger, "parcels", 1)
    assert stranger.ready_count("parcels.dead") == 0


async def test_a_queue_of_a_stranger_has_none_beside_it(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.queue_declare("foreign", durable=True)
    stranger.send("foreign")

    consumption = await open_broker().consume("foreign", prefetch=10)

    (delivery,) = await take(consumption)
    assert (delivery.body, delivery.message_id, delivery.type) == (b"{}", None, "")
    assert delivery.headers == {}


async def test_an_outage_of_a_thousand_returns_passes_no_limit(
    broker: RabbitBroker, stranger: Stranger
):
    """The broker's default of newer versions is 20."""
    await publish(broker, 1)
    consumption = await broker.consume("parcels", prefetch=10)

    for _ in range(1_100):
        (delivery,) = await take(consumption)
        await consumption.give_back([delivery])

    (delivery,) = await take(consumption)
    assert delivery.message_id == b"m1"
    assert delivery.headers["x-delivery-count"] == 1_100
    assert stranger.ready_count("parcels.dead") == 0


async def test_what_a_stranger_writes_comes_out_whatever_bytes_it_is(
    broker: RabbitBroker, stranger: Stranger
):
    no_text = b"\xff\x00\xfe"
    headers = {
        "x-table": {"inner": [1, "two", {"three": None}]},
        "x-bytes": no_text,
        "x-number": 2**40,
        "x-void": None,
    }
    stranger.send("parcels", no_text, message_id=no_text, type=no_text, headers=headers)

    consumption = await broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)

    assert delivery.body == no_text
    assert delivery.message_id == no_text
    assert delivery.type.encode("utf-8", "surrogateescape") == no_text
    assert delivery.headers == headers
    # It can be kept in an outbox or a dead letter, and be sent again.
    kept = decode_headers(encode_headers(delivery.headers))
    assert kept["x-table"] == headers["x-table"]
    results = await results_of(broker, message(1, headers=kept, type=delivery.type))
    assert results == ["confirmed"]


async def test_a_plain_queue_marks_what_comes_again(open_broker: OpenBroker):
    broker = open_broker(arguments=QueueArguments.PLAIN)
    await broker.declare(TOPOLOGY)
    await publish(broker, 1)
    consumption = await broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)
    assert not delivery.redelivered

    broker._consuming.drop("the test")

    again = await broker.consume("parcels", prefetch=10)
    (delivery,) = await take(again)
    assert delivery.redelivered


async def test_a_take_that_waits_ends_when_taking_stops(broker: RabbitBroker):
    consumption = await broker.consume("parcels", prefetch=10)
    taking = asyncio.create_task(consumption.take(count_max=10))
    await asyncio.sleep(0)

    consumption.stop_taking()

    async with asyncio.timeout(DEADLINE_S):
        assert list(await taking) == []


async def test_what_nobody_took_is_returned_by_us_and_not_by_the_closing_channel(
    broker: RabbitBroker, stranger: Stranger
):
    """A newer broker counts what a closing channel returns as failed."""
    await publish(broker, 3)
    consumption = await broker.consume("parcels", prefetch=10)
    await eventually(lambda: len(consumption._arrived) == 3)
    seen = spied_settlements(broker)

    await consumption.close()

    assert seen == [("Basic.Nack", 3, True)]
    await ready_count_becomes(stranger, "parcels", 3)
