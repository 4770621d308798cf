"""What the broker says of each message, and whose fault it is where it cannot be published."""

import asyncio

import pytest

from orderkeep.messaging import PublishResult
from orderkeep.messaging.message import PublishOutcome
from orderkeep.messaging.rabbitmq import RabbitBroker
from tests.integration.rabbitmq.conftest import OpenBroker, Stranger
from tests.integration.rabbitmq.letters import (
    DEADLINE_S,
    NOW,
    TOPOLOGY,
    message,
    results_of,
    take,
)

CONFIRMED, ROUTE_DOWN, REFUSED = (
    PublishResult.CONFIRMED,
    PublishResult.ROUTE_DOWN,
    PublishResult.REFUSED,
)


@pytest.fixture
async def broker(open_broker: OpenBroker) -> RabbitBroker:
    broker = open_broker()
    await broker.declare(TOPOLOGY)
    return broker


async def outcome_of(broker: RabbitBroker, published) -> PublishOutcome:
    async with asyncio.timeout(DEADLINE_S):
        (outcome,) = await broker.publish([published], now=NOW)
    return outcome


async def test_what_is_sent_has_the_properties_of_the_contract(
    broker: RabbitBroker, stranger: Stranger
):
    await results_of(broker, message(1, headers={"x-schema-version": 1}))

    ((properties, body),) = stranger.take_all("parcels")
    assert body == b"body 1"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.message_id == "m1"
    assert properties.type == "parcel.packed"
    assert properties.timestamp == 1_700_000_000
    assert properties.headers == {"x-schema-version": 1}
    assert properties.expiration is None


async def test_a_queue_deleted_while_running_gets_nothing_and_heals(
    broker: RabbitBroker, stranger: Stranger
):
    await results_of(broker, message(1))
    stranger.channel.queue_delete("parcels")

    outcome = await outcome_of(broker, message(2))
    await broker.declare(TOPOLOGY)

    assert outcome == PublishOutcome(
        result=ROUTE_DOWN,
        detail="returned by the broker (312 NO_ROUTE): there is no queue parcels",
    )
    assert await results_of(broker, message(2)) == [CONFIRMED]
    assert len(stranger.take_all("parcels")) == 1


async def test_a_binding_deleted_while_running_is_made_again_before_the_next_message(
    broker: RabbitBroker, stranger: Stranger
):
    stranger.channel.queue_unbind("letters", "events", "letter.#")

    assert await results_of(broker, message(1, route="events", type="letter.sent")) == [CONFIRMED]
    assert len(stranger.take_all("letters")) == 1


async def test_one_of_several_bindings_deleted_while_publishing_is_made_again_within_a_second(
    broker: RabbitBroker, stranger: Stranger
):
    stranger.channel.queue_declare("everything", durable=True)
    stranger.channel.queue_bind("everything", "events", "#")
    event = message(1, route="events", type="letter.sent")
    assert await results_of(broker, event) == [CONFIRMED]
    stranger.channel.queue_unbind("letters", "events", "letter.#")
    stranger.take_all("letters")

    async def reaches_letters() -> bool:
        assert await results_of(broker, event) == [CONFIRMED]
        return bool(stranger.take_all("letters"))

    async with asyncio.timeout(DEADLINE_S):
        while not await reaches_letters():
            await asyncio.sleep(0.05)


async def test_a_queue_that_is_gone_while_another_is_bound_takes_its_exchange_down_alone(
    broker: RabbitBroker, stranger: Stranger
):
    stranger.channel.queue_declare("everything", durable=True)
    stranger.channel.queue_bind("everything", "events", "#")
    stranger.channel.queue_delete("letters")
    event = message(1, route="events", type="letter.sent")

    results = await results_of(broker, event, message(2))
    await broker.declare(TOPOLOGY)

    assert results == [ROUTE_DOWN, CONFIRMED]
    assert await results_of(broker, event) == [CONFIRMED]
    assert len(stranger.take_all("letters")) == 1


async def test_an_exchange_deleted_while_running_takes_nobody_with_it(
    broker: RabbitBroker, stranger: Stranger
):
    stranger.channel.exchange_delete("events")
    batch = [
        message(1),
        message(2, route="events", type="letter.sent"),
        message(3),
        message(4, route="events", type="letter.lost"),
        message(5, route="letters"),
    ]

    results = await results_of(broker, *batch)
    await broker.declare(TOPOLOGY)

    assert results == [CONFIRMED, ROUTE_DOWN, CONFIRMED, ROUTE_DOWN, CONFIRMED]
    assert await results_of(broker, batch[1], batch[3]) == [CONFIRMED, CONFIRMED]
    assert {properties.message_id for properties, _body in stranger.take_all("parcels")} == {
        "m1",
        "m3",
    }


async def test_batches_that_share_the_channel_are_not_blamed_for_each_other(
    broker: RabbitBroker, stranger: Stranger
):
    stranger.channel.exchange_delete("events")

    results = await asyncio.gather(
        results_of(broker, *(message(number) for number in range(50))),
        results_of(broker, message(100, route="events", type="letter.sent")),
        results_of(broker, *(message(number) for number in range(200, 250))),
    )

    assert results == [[CONFIRMED] * 50, [ROUTE_DOWN], [CONFIRMED] * 50]


async def test_one_id_on_two_routes_has_an_outcome_on_each(broker: RabbitBroker):
    assert await results_of(
        broker,
        message(1),
        message(1, route="events", type="letter.sent"),
        message(1, route="nowhere"),
    ) == [CONFIRMED, CONFIRMED, ROUTE_DOWN]


async def test_a_thousand_confirms_of_queues_of_unlike_speed_are_told_apart(
    broker: RabbitBroker, stranger: Stranger
):
    """A classic queue confirms sooner than a quorum queue, and a missing one sooner than both."""
    stranger.channel.queue_declare("classic", durable=True)
    routes = ("parcels", "classic", "nowhere")

    results = await results_of(
        broker, *(message(number, route=routes[number % 3]) for number in range(1500))
    )

    assert results == [CONFIRMED, CONFIRMED, ROUTE_DOWN] * 500
    assert len(stranger.take_all("parcels")) == 500
    assert len(stranger.take_all("classic")) == 500


async def test_the_same_message_twice_in_one_batch_is_accounted_for_twice(
    broker: RabbitBroker, stranger: Stranger
):
    results = await results_of(
        broker, message(1), message(1), message(2, route="nowhere"), message(2, route="nowhere")
    )

    assert results == [CONFIRMED, CONFIRMED, ROUTE_DOWN, ROUTE_DOWN]
    assert len(stranger.take_all("parcels")) == 2


async def test_what_the_broker_refuses_is_the_fault_of_the_route(
    broker: RabbitBroker, stranger: Stranger
):
    stranger.channel.queue_declare(
        "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    stranger.send("full")

    outcome = await outcome_of(broker, message(1, route="full"))

    assert outcome.result is ROUTE_DOWN
    assert "nack" in outcome.detail


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"headers": {"x-number": 2**63}}, "64 bits"),
        ({"headers": {"x" * 256: 1}}, "header name"),
        ({"headers": {"x-long": "x" * 140_000}}, "its headers take"),
        ({"headers": {"x-odd": object()}}, "no form for a header of the kind object"),
        ({"type": "t" * 256}, "the type takes 256 bytes"),
        ({"message_id": "ö" * 128}, "the message id takes 256 bytes"),
        ({"route": "q" * 256}, "the routing key takes 256 bytes"),
    ],
    ids=["number", "name", "size", "kind", "type", "message id", "route"],
)
async def test_what_amqp_cannot_carry_is_the_fault_of_the_message_alone(
    broker: RabbitBroker, changed: dict, words: str
):
    outcomes = await broker.publish([message(1), message(2, **changed), message(3)], now=NOW)

    assert [outcome.result for outcome in outcomes] == [CONFIRMED, REFUSED, CONFIRMED]
    assert words.replace("64 bits", "AMQP has 64") in outcomes[1].detail


async def test_headers_come_out_as_they_went_in(broker: RabbitBroker):
    headers = {
        "x-big": 2**62,
        "x-negative": -(2**40),
        "x-float": -0.1,
        "x-none": None,
        "x-false": False,
        "x-text": "größer\x00",
        "x-bytes-that-were-no-text": "\udcff\udcfe",
    }

    await results_of(broker, message(1, headers=headers))

    consumption = await broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)
    assert delivery.headers == headers


async def test_the_history_and_the_copies_of_an_earlier_sending_are_left_behind(
    broker: RabbitBroker, stranger: Stranger
):
    headers = {
        "x-death": "x",
        "x-first-death-queue": "parcels",
        "x-last-death-reason": "expired",
        "x-delivery-count": 7,
        "CC": "letters",
        "x-deathly": "kept",
        "x-kept": 1,
    }

    await results_of(broker, message(1, headers=headers))

    ((properties, _body),) = stranger.take_all("parcels")
    assert properties.headers == {"x-deathly": "kept", "x-kept": 1}
    assert stranger.take_all("letters") == []
