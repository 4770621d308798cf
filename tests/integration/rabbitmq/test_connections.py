"""Connections that are refused, lost, dropped, blocked, or never answer."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from orderkeep.messaging import BrokerUnavailableError, PublishResult
from orderkeep.messaging.rabbitmq import RabbitBroker, RabbitOptions
from tests.condition import eventually
from tests.integration.rabbitmq.conftest import OpenBroker, OwnServer, Stranger
from tests.integration.rabbitmq.letters import (
    DEADLINE_S,
    NOW,
    TOPOLOGY,
    ids,
    message,
    results_of,
    take,
    take_count,
)
from tests.servers.availability import rabbitmq_server
from tests.servers.own_process import free_port
from tests.servers.rabbitmq import PrivateRabbitServer, start_private_rabbitmq

CONFIRMED, ROUTE_DOWN, REFUSED = (
    PublishResult.CONFIRMED,
    PublishResult.ROUTE_DOWN,
    PublishResult.REFUSED,
)

# How long a publish waits for an alarm to end, in these tests.
BLOCKED_WAIT_S = 0.2


def unconfirmed_count(broker: RabbitBroker) -> int:
    """Return how many messages are on their way."""
    channel = broker._publisher._channel
    return 0 if channel is None else channel.unconfirmed_count


async def test_addresses_are_tried_in_turn(open_broker: OpenBroker, url: str):
    dead = f"amqp://127.0.0.1:{free_port()}/"
    broker = open_broker(urls=[dead, url])

    await broker.declare(TOPOLOGY)

    assert await results_of(broker, message(1)) == [CONFIRMED]


async def test_a_broker_that_is_away_is_told_at_once_with_the_reason_for_each_address(
    open_broker: OpenBroker,
):
    ports = [free_port(), free_port()]
    broker = open_broker(urls=[f"amqp://user:secret@127.0.0.1:{port}/shop" for port in ports])

    for call in (
        broker.declare(TOPOLOGY),
        broker.publish([message(1)], now=NOW),
        broker.consume("parcels", prefetch=1),
    ):
        with pytest.raises(BrokerUnavailableError) as raised:
            await asyncio.wait_for(call, DEADLINE_S)
        for port in ports:
            assert f"amqp://127.0.0.1:{port}/shop: ConnectionRefusedError" in str(raised.value)
        assert "secret" not in str(raised.value)


async def test_a_wrong_password_is_told(open_broker: OpenBroker, url: str):
    broker = open_broker(urls=[url.replace("guest:guest", "guest:wrong")])

    with pytest.raises(BrokerUnavailableError, match=r"ACCESS_REFUSED|authentication"):
        await broker.declare(TOPOLOGY)


async def test_each_side_shows_every_ten_seconds_that_it_is_alive(open_broker: OpenBroker):
    broker = open_broker()
    connection = await broker._consuming.connection()

    assert connection.params.heartbeat == 10


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    own_server: OwnServer, open_broker: OpenBroker
):
    broker = open_broker(urls=[f"amqps://guest:guest@localhost:{own_server.tls_port}/"])

    with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await broker.declare(TOPOLOGY)


async def test_a_certificate_of_a_known_authority_is_taken_for_its_host_alone(
    own_server: OwnServer, private_url: str, open_broker: OpenBroker
):
    vhost = private_url.rpartition("/")[2]
    options = f"?ssl_options={{'cafile': '{own_server.certificate}'}}"
    address = f"{own_server.tls_port}/{vhost}{options}"
    broker = open_broker(urls=[f"amqps://guest:guest@localhost:{address}"])
    other = open_broker(urls=[f"amqps://guest:guest@127.0.0.1:{address}"])

    await broker.declare(TOPOLOGY)
    assert (
        await results_of(broker, *(message(number) for number in range(200))) == [CONFIRMED] * 200
    )
    consumption = await broker.consume("parcels", prefetch=200)
    assert len(await take_count(consumption, 200)) == 200
    broker.stop_publishing()
    assert await results_of(broker, message(1)) == [CONFIRMED]
    with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await other.declare(TOPOLOGY)


def test_all_of_it_works_on_uvloop(url: str):
    async def work() -> list[bytes]:
        broker = RabbitBroker([url], options=RabbitOptions(), draw_jitter=lambda: 0.5)
        await broker.declare(TOPOLOGY)
        consumption = await broker.consume("parcels", prefetch=10)
        await results_of(broker, message(1))
        broker.stop_publishing()
        await results_of(broker, message(2))
        deliveries = await take_count(consumption, 2)
        await consumption.acknowledge(deliveries)
        await broker._consuming.close()
        again = await broker.consume("parcels", prefetch=10)
        await results_of(broker, message(3))
        deliveries += await take_count(again, 1)
        await broker.close()
        return ids(deliveries)

    assert uvloop.run(work()) == [b"m1", b"m2", b"m3"]


async def test_those_who_wait_share_one_connection(open_broker: OpenBroker):
    broker = open_broker()
    await broker.declare(TOPOLOGY)

    results = await asyncio.gather(*(results_of(broker, message(number)) for number in range(20)))

    assert results == [[CONFIRMED]] * 20


async def test_nothing_that_was_written_leaves_once_publishing_is_stopped(
    open_broker: OpenBroker, stranger: Stranger
):
    broker = open_broker()
    await broker.declare(TOPOLOGY)
    await results_of(broker, message(0))
    publishing = asyncio.create_task(
        broker.publish([message(number) for number in range(1, 101)], now=NOW)
    )
    while not unconfirmed_count(broker):
        await asyncio.sleep(0)

    broker.stop_publishing()

    with pytest.raises(BrokerUnavailableError, match="publishing was stopped"):
        await publishing
    assert await results_of(broker, message(101)) == [CONFIRMED]
    taken = [properties.message_id for properties, _body in stranger.take_all("parcels")]
    assert taken == ["m0", "m101"]


async def test_a_publish_that_waits_for_a_connection_ends_when_publishing_is_stopped(
    open_broker: OpenBroker,
):
    broker = open_broker()
    publishing = asyncio.create_task(broker.publish([message(1)], now=NOW))
    await asyncio.sleep(0)

    broker.stop_publishing()

    with pytest.raises(BrokerUnavailableError):
        await publishing


async def test_stopping_to_publish_leaves_consumers_alone(open_broker: OpenBroker):
    broker = open_broker()
    await broker.declare(TOPOLOGY)
    consumption = await broker.consume("parcels", prefetch=10)
    await results_of(broker, message(1))
    deliveries = await take(consumption)

    broker.stop_publishing()

    await results_of(broker, message(2))
    await consumption.acknowledge(deliveries)
    assert ids(await take(consumption)) == [b"m2"]


@pytest.fixture
async def private_broker(private_url: str) -> AsyncIterator[RabbitBroker]:
    options = RabbitOptions(blocked_wait_s=BLOCKED_WAIT_S, confirm_timeout_s=0.5)
    broker = RabbitBroker([private_url], options=options, draw_jitter=lambda: 0.5)
    await broker.declare(TOPOLOGY)
    yield broker
    await broker.close()


@pytest.fixture
def own_stranger(private_url: str) -> Iterator[Stranger]:
    stranger = Stranger(private_url)
    yield stranger
    stranger.close()


async def test_an_alarm_stops_publishing_and_nothing_piles_up(
    private_broker: RabbitBroker, private_server: PrivateRabbitServer, own_stranger: Stranger
):
    batch = [message(number) for number in range(10)]
    private_server.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.0001).")
    try:
        await eventually(lambda: "memory" in private_server.evaluate("rabbit_alarm:get_alarms()."))
        for _ in range(5):
            with pytest.raises(BrokerUnavailableError, match="blocked by an alarm"):
                await private_broker.publish(batch, now=NOW)
        assert unconfirmed_count(private_broker) == 10
    finally:
        private_server.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")

    await eventually(private_broker._publisher._unblocked.is_set)
    assert await results_of(private_broker, *batch) == [CONFIRMED] * 10
    taken = [properties.message_id for properties, _body in own_stranger.take_all("parcels")]
    # The ten that were on their way when the alarm began, and the ten of now.
    assert taken == [f"m{number}" for number in range(10)] * 2


async def test_an_alarm_keeps_nobody_from_consuming(
    private_broker: RabbitBroker, private_server: PrivateRabbitServer, private_url: str
):
    await results_of(private_broker, message(1), message(2))
    private_server.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.0001).")
    try:
        await eventually(lambda: "memory" in private_server.evaluate("rabbit_alarm:get_alarms()."))
        options = RabbitOptions(blocked_wait_s=BLOCKED_WAIT_S)
        broker = RabbitBroker([private_url], options=options, draw_jitter=lambda: 0.5)
        await broker.declare(TOPOLOGY)
        consumption = await broker.consume("parcels", prefetch=1)
        for number in (1, 2):
            deliveries = await take(consumption)
            assert ids(deliveries) == [f"m{number}".encode()]
            await consumption.acknowledge(deliveries)
        await broker.close()
    finally:
        private_server.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")


def set_message_size_max(server: PrivateRabbitServer, size: int) -> None:
    # Where older servers look for it, and where newer ones do.
    server.evaluate(
        f"application:set_env(rabbit, max_message_size, {size}), "
        f"persistent_term:put(max_message_size, {size})."
    )


async def test_a_message_that_is_too_large_is_refused_while_others_pass(
    private_broker: RabbitBroker, private_server: PrivateRabbitServer, own_stranger: Stranger
):
    set_message_size_max(private_server, 1_000)
    try:
        # Channels look at the limit when they are opened.
        private_broker.stop_publishing()
        outcomes = await private_broker.publish(
            [message(1), message(2, body=b"x" * 1001), message(3), message(4, route="letters")],
            now=NOW,
        )
    finally:
        set_message_size_max(private_server, 134_217_728)

    assert [outcome.result for outcome in outcomes] == [CONFIRMED, REFUSED, CONFIRMED, CONFIRMED]
    assert "larger than" in outcomes[1].detail
    assert {properties.message_id for properties, _ in own_stranger.take_all("parcels")} == {
        "m1",
        "m3",
    }


async def test_a_broker_that_does_not_confirm_in_time_has_an_unknown_outcome(
    private_broker: RabbitBroker, private_server: PrivateRabbitServer
):
    await results_of(private_broker, message(1))
    process_id = int(private_server.evaluate("list_to_integer(os:getpid())."))
    os.kill(process_id, signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnavailableError, match=r"no confirm within 0\.5 s"):
            await private_broker.publish([message(2)], now=NOW)
    finally:
        os.kill(process_id, signal.SIGCONT)

    consumption = await private_broker.consume("parcels", prefetch=10)
    assert await results_of(private_broker, message(2)) == [CONFIRMED]
    assert ids(await take(consumption))[0] == b"m1"


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[PrivateRabbitServer]:
    """A server for one death: RabbitMQ 3.10 does not always recover where queues were deleted."""
    rabbitmq_server()
    server = start_private_rabbitmq(tmp_path)
    yield server
    server.kill()


async def test_a_killed_broker_is_away_and_is_found_again_with_what_it_had_confirmed(
    mortal_server: PrivateRabbitServer, open_broker: OpenBroker
):
    broker = open_broker(urls=[mortal_server.url()])
    await broker.declare(TOPOLOGY)
    consumption = await broker.consume("parcels", prefetch=10)
    assert await results_of(broker, message(1)) == [CONFIRMED]
    in_hand = await take(consumption)

    mortal_server.kill()

    with pytest.raises(BrokerUnavailableError):
        await take(consumption)
    with pytest.raises(BrokerUnavailableError):
        await broker.publish([message(2)], now=NOW)
    with pytest.raises(BrokerUnavailableError):
        await consumption.acknowledge(in_hand)
    await consumption.give_back(in_hand)
    await consumption.close()
    mortal_server.start()
    again = await _consume_again(broker)
    assert await results_of(broker, message(3)) == [CONFIRMED]
    deliveries = await take_count(again, 2)
    assert ids(deliveries) == [b"m1", b"m3"]
    assert [delivery.redelivered for delivery in deliveries] == [True, False]


async def _consume_again(broker: RabbitBroker):
    end_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            await broker.declare(TOPOLOGY)
            return await broker.consume("parcels", prefetch=10)
        except BrokerUnavailableError:
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(0.05)
