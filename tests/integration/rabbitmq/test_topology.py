"""What is declared, at a broker where others may have been first."""

import asyncio

import pytest
from pika.exceptions import ChannelClosedByBroker

from orderkeep.messaging import (
    BrokerUnavailableError,
    PublishResult,
)
from orderkeep.messaging.rabbitmq import (
    DelayBackend,
    DelayPluginMissingError,
    QueueArguments,
    RabbitBroker,
    RabbitOptions,
    WrongTopologyError,
)
from tests.integration.rabbitmq.conftest import OpenBroker, Stranger
from tests.integration.rabbitmq.letters import TOPOLOGY, ids, message, results_of, take
from tests.servers.availability import fresh_vhost, rabbitmq_server
from tests.servers.rabbitmq import PrivateRabbitServer

CONFIRMED = PublishResult.CONFIRMED


async def test_queues_are_quorum_queues_with_a_limit_and_a_queue_for_what_passes_it(
    open_broker: OpenBroker, stranger: Stranger
):
    await open_broker().declare(TOPOLOGY)

    # The broker takes a second declaration only if it is the same.
    stranger.channel.queue_declare(
        "parcels",
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 100_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "parcels.dead",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    stranger.channel.queue_declare(
        "parcels.dead",
        durable=True,
        arguments={"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000},
    )
    stranger.channel.queue_declare(
        "parcels.hold.1800000",
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 100_000,
            "x-message-ttl": 1_800_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "parcels",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


async def test_a_plain_declaration_of_a_stranger_who_was_first_is_used_as_it_is(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.queue_declare("parcels", durable=True)
    broker = open_broker()

    await broker.declare(TOPOLOGY)

    (difference,) = broker.differences
    assert difference.name == "parcels"
    assert "406" in difference.detail
    assert await results_of(broker, message(1)) == [CONFIRMED]
    consumption = await broker.consume("parcels", prefetch=10)
    assert ids(await take(consumption)) == [b"m1"]


async def test_a_queue_with_any_other_arguments_is_used_as_it_is(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.queue_declare("letters", durable=True, arguments={"x-max-priority": 3})
    broker = open_broker(arguments=QueueArguments.PLAIN)

    await broker.declare(TOPOLOGY)

    assert [difference.name for difference in broker.differences] == ["letters"]
    assert await results_of(broker, message(1, route="events", type="letter.sent")) == [CONFIRMED]


async def test_plain_queues_are_what_a_stranger_declares_whoever_is_first(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.queue_declare("letters", durable=True)
    broker = open_broker(arguments=QueueArguments.PLAIN)

    await broker.declare(TOPOLOGY)

    for name in ("parcels", "parcels.dead", "letters", "letters.dead"):
        stranger.channel.queue_declare(name, durable=True)
    assert broker.differences == ()


async def test_an_exchange_of_another_type_is_refused_with_the_steps_to_mend_it(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.exchange_declare("parcels.delayed", "topic", durable=True)
    broker = open_broker()

    with pytest.raises(WrongTopologyError, match=r"parcels\.delayed") as raised:
        await broker.declare(TOPOLOGY)

    assert "rabbitmqadmin delete exchange name=parcels.delayed" in raised.value.steps
    stranger.channel.exchange_delete("parcels.delayed")
    await broker.declare(TOPOLOGY)


async def test_an_exchange_with_other_arguments_is_used_as_it_is(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.exchange_declare(
        "events", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"}
    )
    broker = open_broker()

    await broker.declare(TOPOLOGY)

    assert [difference.name for difference in broker.differences] == ["events"]
    assert await results_of(broker, message(1, route="events", type="letter.sent")) == [CONFIRMED]


async def test_a_binding_straight_to_the_queue_is_refused_with_the_steps_to_mend_it(
    open_broker: OpenBroker, stranger: Stranger
):
    await open_broker().declare(TOPOLOGY)
    stranger.channel.queue_bind("parcels", "parcels.delayed", "parcels")
    broker = open_broker()

    with pytest.raises(WrongTopologyError, match="straight to the queue parcels") as raised:
        await broker.declare(TOPOLOGY)

    assert "rabbitmqadmin delete binding source=parcels.delayed" in raised.value.steps
    stranger.channel.queue_unbind("parcels", "parcels.delayed", "parcels")
    await broker.declare(TOPOLOGY)


async def test_looking_for_a_stray_binding_leaves_nothing_to_handle(
    open_broker: OpenBroker, stranger: Stranger
):
    consuming = open_broker()
    await consuming.declare(TOPOLOGY)
    stranger.channel.queue_bind("parcels", "parcels.delayed", "parcels")
    with pytest.raises(WrongTopologyError):
        await open_broker().declare(TOPOLOGY)
    await results_of(consuming, message(1))

    consumption = await consuming.consume("parcels", prefetch=10)

    # It came before the message, and was let go.
    assert ids(await take(consumption)) == [b"m1"]


async def test_another_delay_makes_another_hold_queue_and_the_old_one_drains(
    open_broker: OpenBroker,
):
    before = open_broker(hold_s=1.0)
    await before.declare(TOPOLOGY)
    now = message(1).published_at
    due = message(1, deliver_at=now + 1_000_000)
    assert await results_of(before, due, now=now) == [CONFIRMED]
    await before.close()

    after = open_broker(hold_s=0.5)
    await after.declare(TOPOLOGY)
    sooner = message(2, deliver_at=now + 500_000)
    assert await results_of(after, sooner, now=now) == [CONFIRMED]

    consumption = await after.consume("parcels", prefetch=10)
    taken = ids(await take(consumption))
    while len(taken) < 2:
        taken += ids(await take(consumption))
    assert sorted(taken) == [b"m1", b"m2"]


async def test_many_who_declare_at_once_share_two_passes(open_broker: OpenBroker, monkeypatch):
    passes: list[int] = []
    real = RabbitBroker._declare

    async def counted(self, topology):
        passes.append(1)
        await real(self, topology)

    monkeypatch.setattr(RabbitBroker, "_declare", counted)
    broker = open_broker()

    await asyncio.gather(*(broker.declare(TOPOLOGY) for _ in range(9)))

    assert len(passes) == 2


async def test_a_broker_without_the_plugin_is_refused_with_what_to_do(open_broker: OpenBroker):
    if rabbitmq_server().has_delayed_message_plugin:
        pytest.skip("this broker has the plugin")
    broker = open_broker(delay=DelayBackend.PLUGIN)

    with pytest.raises(DelayPluginMissingError, match="x-delayed-message") as raised:
        await broker.declare(TOPOLOGY)

    assert "ORDERKEEP_DELAY_BACKEND=hold-queue" in raised.value.steps


async def test_a_queue_that_is_in_exclusive_use_is_unavailable(
    open_broker: OpenBroker, stranger: Stranger
):
    stranger.channel.queue_declare("parcels", exclusive=True)

    with pytest.raises(BrokerUnavailableError, match="405"):
        await open_broker().declare(TOPOLOGY)


async def test_the_outbox_delay_declares_nothing_to_hold(
    open_broker: OpenBroker, stranger: Stranger
):
    await open_broker(delay=DelayBackend.OUTBOX).declare(TOPOLOGY)

    assert stranger.has_queue("parcels")
    assert not stranger.has_queue("parcels.hold.1800000")
    with pytest.raises(ChannelClosedByBroker):
        stranger.connection.channel().exchange_declare("parcels.delayed", passive=True)


async def test_a_user_of_few_rights_uses_what_is_there(
    private_server: PrivateRabbitServer,
):
    with fresh_vhost(private_server) as url:
        first = RabbitBroker([url], options=RabbitOptions(), draw_jitter=lambda: 0.5)
        await first.declare(TOPOLOGY)
        await first.close()
        vhost = url.rpartition("/")[2]
        private_server.evaluate(
            'rabbit_auth_backend_internal:put_user(#{name => <<"few">>, '
            'password => <<"few">>, tags => <<"">>}, <<"test">>), '
            'rabbit_auth_backend_internal:set_permissions(<<"few">>, '
            f'<<"{vhost}">>, <<"^$">>, <<"^(amq[.]default|parcels)$">>, '
            '<<"^(parcels|events)">>, <<"test">>).'
        )
        broker = RabbitBroker(
            [url.replace("guest:guest", "few:few")],
            options=RabbitOptions(),
            draw_jitter=lambda: 0.5,
        )

        await broker.declare(TOPOLOGY)

        assert await results_of(
            broker, message(1), message(2, route="events", type="letter.sent")
        ) == [CONFIRMED, PublishResult.ROUTE_DOWN]
        assert "parcels" in {difference.name for difference in broker.differences}
        await broker.close()
