"""What every broker that ships promises; see `orderkeep.messaging.broker`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orderkeep.instant import Instant, after
from orderkeep.messaging import (
    BrokerUnavailableError,
    Consumption,
    Delivery,
    Message,
    PublishResult,
)
from tests.contract.conftest import DEADLINE_S, DELAY_S, BrokerUnderTest

NOW = Instant(1_700_000_000_000_000)


def message(number: int, **changed) -> Message:
    values: dict[str, Any] = {
        "route": "parcels",
        "message_id": f"m{number}",
        "type": "parcel.packed",
        "body": f"body {number}".encode(),
        "headers": {},
        "published_at": NOW,
    }
    return Message(**(values | changed))


async def take(consumption: Consumption, *, count_max: int = 100) -> Sequence[Delivery]:
    async with asyncio.timeout(DEADLINE_S):
        return await consumption.take(count_max=count_max)


async def take_count(consumption: Consumption, count: int) -> list[Delivery]:
    deliveries: list[Delivery] = []
    while len(deliveries) < count:
        deliveries += await take(consumption)
    return deliveries


async def acknowledge(
    under_test: BrokerUnderTest, consumption: Consumption, deliveries: Sequence[Delivery]
) -> None:
    await under_test.database.transact(
        lambda transaction: consumption.acknowledge_within(transaction, deliveries)
    )
    await consumption.acknowledge(deliveries)


def ids(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message_id or b"" for delivery in deliveries]


async def test_a_message_comes_out_as_it_went_in(under_test: BrokerUnderTest):
    headers = {"x-sequence": 7, "x-note": "größer", "x-rate": 0.5, "x-flag": True, "x-none": None}

    outcomes = await under_test.broker.publish([message(1, headers=headers)], now=NOW)

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)
    assert [outcome.result for outcome in outcomes] == [PublishResult.CONFIRMED]
    assert delivery.queue == "parcels"
    assert delivery.message_id == b"m1"
    assert delivery.type == "parcel.packed"
    assert delivery.body == b"body 1"
    assert delivery.headers == headers
    assert not delivery.redelivered


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\xff\xfe\x00\xd8", b'{"a": 1', bytes(range(256)) * 256],
    ids=["empty", "nul", "no text", "broken", "64 KiB"],
)
async def test_any_bytes_travel_unchanged(under_test: BrokerUnderTest, body: bytes):
    await under_test.broker.publish([message(1, body=body)], now=NOW)

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)
    assert delivery.body == body


async def test_a_confirmed_message_survives_a_restart(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(1)], now=NOW)

    await under_test.restart()

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    assert ids(await take(consumption)) == [b"m1"]


async def test_messages_come_oldest_first(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(1), message(2)], now=NOW)
    await under_test.broker.publish([message(3)], now=NOW)

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    assert ids(await take_count(consumption, 3)) == [b"m1", b"m2", b"m3"]


async def test_a_waiting_consumer_is_woken_by_a_message(under_test: BrokerUnderTest):
    consumption = await under_test.broker.consume("parcels", prefetch=10)
    taking = asyncio.create_task(consumption.take(count_max=10))
    await asyncio.sleep(0)

    await under_test.broker.publish([message(1)], now=NOW)

    # Far below the poll interval, which would find it as well.
    async with asyncio.timeout(2):
        assert ids(await taking) == [b"m1"]


async def test_a_delayed_message_comes_when_it_is_due_and_not_before(under_test: BrokerUnderTest):
    consumption = await under_test.broker.consume("parcels", prefetch=10)
    now = await under_test.now()
    due_at = after(now, seconds=DELAY_S)

    (outcome,) = await under_test.broker.publish([message(1, deliver_at=due_at)], now=now)
    (delivery,) = await take(consumption)

    taken_at = await under_test.now()
    assert outcome.result is PublishResult.CONFIRMED
    assert delivery.message_id == b"m1"
    assert due_at <= taken_at < after(due_at, seconds=0.3)


async def test_what_is_due_already_comes_at_once(under_test: BrokerUnderTest):
    now = await under_test.now()
    consumption = await under_test.broker.consume("parcels", prefetch=10)

    await under_test.broker.publish([message(1, deliver_at=now)], now=now)

    assert ids(await take(consumption)) == [b"m1"]


async def test_a_delayed_message_holds_back_no_other(under_test: BrokerUnderTest):
    now = await under_test.now()
    due_at = after(now, seconds=DELAY_S)
    consumption = await under_test.broker.consume("parcels", prefetch=10)

    await under_test.broker.publish([message(1, deliver_at=due_at), message(2)], now=now)

    assert ids(await take(consumption)) == [b"m2"]
    assert ids(await take(consumption)) == [b"m1"]


async def test_what_is_due_earlier_overtakes_what_is_due_later(queues_in_database: BrokerUnderTest):
    """A hold queue expires in the order of arrival, so it takes only what has nearly one delay."""
    broker = queues_in_database.broker
    now = await queues_in_database.now()
    later, sooner = after(now, seconds=0.6), after(now, seconds=0.2)
    consumption = await broker.consume("parcels", prefetch=10)

    await broker.publish([message(1, deliver_at=later), message(2, deliver_at=sooner)], now=now)

    assert ids(await take(consumption)) == [b"m2"]
    assert ids(await take(consumption)) == [b"m1"]


# A broker across the network knows no order keys: its consumers guard effects by version.


async def test_of_one_order_key_only_the_first_is_handed_out(
    queues_in_database: BrokerUnderTest,
):
    await queues_in_database.broker.publish(
        [
            message(1, order_key="A"),
            message(2, order_key="A"),
            message(3, order_key="B"),
            message(4),
            message(5),
        ],
        now=NOW,
    )
    consumption = await queues_in_database.broker.consume("parcels", prefetch=10)

    first = await take_count(consumption, 4)
    assert sorted(ids(first)) == [b"m1", b"m3", b"m4", b"m5"]

    await acknowledge(queues_in_database, consumption, first)
    assert ids(await take(consumption)) == [b"m2"]


async def test_an_order_key_is_kept_between_consumers(queues_in_database: BrokerUnderTest):
    await queues_in_database.broker.publish(
        [message(1, order_key="A"), message(2, order_key="A")], now=NOW
    )
    first = await queues_in_database.broker.consume("parcels", prefetch=10)
    second = await queues_in_database.broker.consume("parcels", prefetch=10)

    in_hand = await take(first)
    taking = asyncio.create_task(second.take(count_max=10))
    await asyncio.sleep(0)
    await acknowledge(queues_in_database, first, in_hand)

    async with asyncio.timeout(DEADLINE_S):
        assert ids(in_hand) + ids(await taking) == [b"m1", b"m2"]


async def test_an_order_key_holds_back_nothing_in_another_queue(
    queues_in_database: BrokerUnderTest,
):
    await queues_in_database.broker.publish(
        [message(1, order_key="A"), message(2, order_key="A", route="letters")], now=NOW
    )

    parcels = await queues_in_database.broker.consume("parcels", prefetch=10)
    letters = await queues_in_database.broker.consume("letters", prefetch=10)

    assert ids(await take(parcels)) == [b"m1"]
    assert ids(await take(letters)) == [b"m2"]


async def test_two_consumers_never_have_the_same_message(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(number) for number in range(40)], now=NOW)
    first = await under_test.broker.consume("parcels", prefetch=20)
    second = await under_test.broker.consume("parcels", prefetch=20)

    taken = await asyncio.gather(take_count(first, 20), take_count(second, 20))

    assert sorted(ids([*taken[0], *taken[1]])) == sorted(f"m{n}".encode() for n in range(40))


async def test_what_a_dead_consumer_had_in_hand_comes_back_marked(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(1)], now=NOW)
    dying = await under_test.broker.consume("parcels", prefetch=10)
    await take(dying)

    await under_test.end_consumers()

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    (delivery,) = await take(consumption)
    assert delivery.message_id == b"m1"
    assert delivery.redelivered


async def test_an_acknowledged_message_never_comes_back(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(1), message(2)], now=NOW)
    dying = await under_test.broker.consume("parcels", prefetch=10)
    first, _second = await take_count(dying, 2)

    await acknowledge(under_test, dying, [first])
    await under_test.end_consumers()

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    assert ids(await under_test.taken_at_once(consumption, queue="parcels")) == [b"m2"]


async def test_an_acknowledgement_in_a_rolled_back_transaction_is_none(
    under_test: BrokerUnderTest,
):
    await under_test.broker.publish([message(1)], now=NOW)
    dying = await under_test.broker.consume("parcels", prefetch=10)
    deliveries = await take(dying)

    async def fail(transaction) -> None:
        await dying.acknowledge_within(transaction, deliveries)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await under_test.database.transact(fail)
    await under_test.end_consumers()

    consumption = await under_test.broker.consume("parcels", prefetch=10)
    assert ids(await take(consumption)) == [b"m1"]


async def test_what_is_given_back_comes_again(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(1)], now=NOW)
    consumption = await under_test.broker.consume("parcels", prefetch=10)

    await consumption.give_back(await take(consumption))

    assert ids(await take(consumption)) == [b"m1"]


async def test_no_more_than_the_prefetch_is_in_hand(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(number) for number in range(5)], now=NOW)
    consumption = await under_test.broker.consume("parcels", prefetch=3)
    in_hand = await take_count(consumption, 3)
    taking = asyncio.create_task(consumption.take(count_max=100))
    await asyncio.sleep(0)

    await acknowledge(under_test, consumption, in_hand[:1])

    async with asyncio.timeout(DEADLINE_S):
        assert ids(await taking) == [b"m3"]


async def test_no_more_than_asked_for_is_taken(under_test: BrokerUnderTest):
    await under_test.broker.publish([message(number) for number in range(5)], now=NOW)
    consumption = await under_test.broker.consume("parcels", prefetch=10)

    assert ids(await take(consumption, count_max=1)) == [b"m0"]


async def test_an_exchange_reaches_every_queue_that_is_bound_to_the_type(
    under_test: BrokerUnderTest,
):
    await under_test.broker.publish(
        [
            message(1, route="parcel.events", type="parcel.packed"),
            message(2, route="parcel.events", type="parcel.sent.abroad"),
        ],
        now=NOW,
    )

    parcels = await under_test.broker.consume("parcels", prefetch=10)
    copies = await under_test.broker.consume("copies", prefetch=10)
    letters = await under_test.broker.consume("letters", prefetch=10)
    assert ids(await take_count(parcels, 2)) == [b"m1", b"m2"]
    assert ids(await under_test.taken_at_once(copies, queue="copies")) == [b"m1"]
    assert ids(await under_test.taken_at_once(letters, queue="letters")) == []


@pytest.mark.parametrize(
    ("route", "type_"),
    [("nowhere", "parcel.packed"), ("parcel.events", "letter.sent")],
    ids=["unknown route", "nothing bound to the type"],
)
async def test_what_reaches_no_queue_is_the_fault_of_its_route_alone(
    under_test: BrokerUnderTest, route: str, type_: str
):
    outcomes = await under_test.broker.publish(
        [message(1), message(2, route=route, type=type_), message(3)], now=NOW
    )

    assert [outcome.result for outcome in outcomes] == [
        PublishResult.CONFIRMED,
        PublishResult.ROUTE_DOWN,
        PublishResult.CONFIRMED,
    ]
    assert outcomes[1].detail


async def test_nobody_consumes_a_queue_that_is_missing(under_test: BrokerUnderTest):
    with pytest.raises(BrokerUnavailableError):
        await under_test.broker.consume("nowhere", prefetch=10)


async def test_a_waiting_take_ends_with_nothing_when_taking_stops(under_test: BrokerUnderTest):
    consumption = await under_test.broker.consume("parcels", prefetch=10)
    taking = asyncio.create_task(consumption.take(count_max=10))
    await asyncio.sleep(0)

    consumption.stop_taking()

    async with asyncio.timeout(2):
        assert list(await taking) == []


async def test_a_consumer_that_was_closed_is_woken_no_more(under_test: BrokerUnderTest):
    consumption = await under_test.broker.consume("parcels", prefetch=10)
    await consumption.close()

    await under_test.broker.publish([message(1)], now=NOW)

    following = await under_test.broker.consume("parcels", prefetch=10)
    assert ids(await take(following)) == [b"m1"]


async def test_what_waits_in_nobodys_hand_is_counted(under_test: BrokerUnderTest):
    broker = under_test.broker
    await broker.publish([message(number) for number in range(3)], now=NOW)
    consumption = await broker.consume("parcels", prefetch=2)
    await take_count(consumption, 2)

    async with asyncio.timeout(DEADLINE_S):
        while await broker.ready_count("parcels") != 1:
            await asyncio.sleep(0.01)
    await consumption.close()

    assert await broker.ready_count("letters") == 0
    assert await broker.ready_count("nobodys") == 0
