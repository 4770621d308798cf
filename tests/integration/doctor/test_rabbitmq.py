"""Looking at a real RabbitMQ: what is seen, and that it stays as it was."""

import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.rabbitmq import DelayBackend, RabbitBroker, RabbitOptions
from orderkeep.messaging.rabbitmq.facts import (
    ArgumentDifference,
    BrokerFacts,
    ExchangeFacts,
    QueueFacts,
    Right,
)
from orderkeep.messaging.rabbitmq.look import look_at_address, look_at_broker
from tests.servers.availability import fresh_vhost, rabbitmq_server
from tests.servers.erlang_shell import ErlangError
from tests.servers.own_process import free_port

OPTIONS = RabbitOptions()

CONSUMED = [queue.name for queue in TOPOLOGY.queues]

HOLD_QUEUE = "order.timeout.hold.1800000"

QUORUM = {"x-queue-type": "quorum"}


@pytest.fixture
def url() -> Iterator[str]:
    """A virtual host of its own."""
    with fresh_vhost(rabbitmq_server()) as url:
        yield url


@pytest.fixture
def stranger(url: str) -> Iterator[BlockingChannel]:
    """A channel of a program of somebody else's."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


async def looked_at(url: str, options: RabbitOptions = OPTIONS) -> BrokerFacts:
    facts = await look_at_broker(url, TOPOLOGY, options=options, consumed_queues=CONSUMED)
    assert facts.lost is None
    return facts


async def make_topology(url: str) -> None:
    broker = RabbitBroker([url], options=OPTIONS, draw_jitter=lambda: 0.5)
    await broker.declare(TOPOLOGY)
    await broker.close()


def queue_of(facts: BrokerFacts, name: str) -> QueueFacts:
    return next(queue for queue in facts.queues if queue.name == name)


def exchange_of(facts: BrokerFacts, name: str) -> ExchangeFacts:
    return next(exchange for exchange in facts.exchanges if exchange.name == name)


def refused_rights(facts: BrokerFacts) -> dict[str, frozenset[Right]]:
    """Return the rights that are missing, by what they are missing for."""
    queues = {each.name: each.refused for each in facts.queues}
    return queues | {each.name: each.refused for each in facts.exchanges}


def listed(url: str) -> list[str]:
    """Return what a node lists of the virtual host; its counts of messages lag, so without them."""
    vhost = urlsplit(url).path.removeprefix("/")
    try:
        return [
            rabbitmq_server().ctl(*command, "--vhost", vhost)
            for command in (
                ("list_queues", "name"),
                ("list_exchanges",),
                ("list_bindings",),
                ("list_consumers",),
            )
        ]
    except ErlangError as error:
        pytest.skip(f"rabbitmqctl cannot reach the broker: {error}")


async def test_an_address_says_what_it_is(url: str) -> None:
    facts = await look_at_address(url, options=OPTIONS)

    assert facts.error is None
    assert facts.product == "RabbitMQ"
    assert facts.version == rabbitmq_server().version
    assert facts.cluster
    assert not facts.is_encrypted


async def test_an_address_that_is_none_says_why() -> None:
    facts = await look_at_address(f"amqp://shop:hidden@127.0.0.1:{free_port()}", options=OPTIONS)

    assert facts.error is not None
    assert "hidden" not in repr(facts)


async def test_what_we_made_is_as_declared(url: str) -> None:
    await make_topology(url)

    facts = await looked_at(url)

    assert len(facts.queues) == 19
    assert [queue.differences for queue in facts.queues] == [()] * 19
    assert [(each.name, each.type) for each in facts.exchanges] == [
        ("amq.default", "direct"),
        ("order.events", "topic"),
        ("order.timeout.delayed", "direct"),
    ]
    assert set(refused_rights(facts).values()) == {frozenset()}
    assert facts.stray_binding is None


async def test_nothing_is_made_where_nothing_is(url: str) -> None:
    before = listed(url)

    facts = await looked_at(url)
    await looked_at(url, RabbitOptions(delay=DelayBackend.PLUGIN))

    assert {queue.message_count for queue in facts.queues} == {None}
    assert [exchange.type for exchange in facts.exchanges] == ["direct", None, None]
    assert listed(url) == before


async def test_nothing_is_taken_where_something_is(url: str, stranger: BlockingChannel) -> None:
    await make_topology(url)
    stranger.confirm_delivery()
    for number in range(3):
        stranger.basic_publish("", "cart-sync", str(number).encode())
    before = listed(url)

    facts = await looked_at(url)

    assert queue_of(facts, "cart-sync").message_count == 3
    assert listed(url) == before
    taken = [stranger.basic_get("cart-sync", auto_ack=True) for _ in range(3)]
    assert [method is not None and method.redelivered for method, *_ in taken] == [False] * 3


@pytest.mark.parametrize(
    ("arguments", "different"),
    [
        (
            {},
            {
                "x-dead-letter-exchange": None,
                "x-dead-letter-routing-key": None,
                "x-overflow": None,
                "x-queue-type": None,
            },
        ),
        (
            {**QUORUM, "x-delivery-limit": 20, "x-max-length": 500},
            {
                "x-dead-letter-exchange": None,
                "x-dead-letter-routing-key": None,
                "x-dead-letter-strategy": None,
                "x-delivery-limit": 20,
                "x-max-length": 500,
                "x-overflow": None,
            },
        ),
        (
            {"x-max-priority": 5, "x-single-active-consumer": True},
            {
                "x-dead-letter-exchange": None,
                "x-dead-letter-routing-key": None,
                "x-max-priority": 5,
                "x-overflow": None,
                "x-queue-type": None,
                "x-single-active-consumer": True,
            },
        ),
        ({"x-queue-type": "stream"}, {"x-queue-type": "stream"}),
    ],
    ids=["classic", "quorum", "classic with a priority", "stream"],
)
async def test_every_argument_that_differs_is_found(
    url: str, stranger: BlockingChannel, arguments: dict, different: dict
) -> None:
    stranger.queue_declare("cart-sync", durable=True, arguments=arguments)

    found = queue_of(await looked_at(url), "cart-sync")

    assert found.unclear is None
    # Of a queue that is no quorum queue a broker does not compare what only quorum queues have.
    assert {each.name: each.theirs for each in found.differences} == different


async def test_a_queue_that_does_not_last_is_found(url: str, stranger: BlockingChannel) -> None:
    stranger.queue_declare("cart-sync", durable=False)

    found = queue_of(await looked_at(url), "cart-sync")

    assert found.differences == (ArgumentDifference(name="durable", ours=None, theirs="false"),)


async def test_a_queue_of_one_connection_alone_is_found(
    url: str, stranger: BlockingChannel
) -> None:
    stranger.queue_declare("cart-sync", exclusive=True)

    found = queue_of(await looked_at(url), "cart-sync")

    assert found.unclear is not None
    assert "RESOURCE_LOCKED" in found.unclear


@pytest.mark.parametrize(
    ("name", "type_"),
    [("order.events", "fanout"), ("order.events", "direct"), ("order.timeout.delayed", "topic")],
)
async def test_an_exchange_of_another_type_is_found(
    url: str, stranger: BlockingChannel, name: str, type_: str
) -> None:
    stranger.exchange_declare(name, type_, durable=True)

    assert exchange_of(await looked_at(url), name).type == type_


async def test_an_exchange_that_does_not_last_is_found(url: str, stranger: BlockingChannel) -> None:
    stranger.exchange_declare("order.events", "topic", durable=False)

    found = exchange_of(await looked_at(url), "order.events")

    assert found.unclear is not None
    assert "'durable'" in found.unclear


async def test_a_binding_past_the_hold_queue_is_found(url: str, stranger: BlockingChannel) -> None:
    await make_topology(url)
    stranger.queue_bind("order.timeout.queue", "order.timeout.delayed", "order.timeout.queue")

    facts = await looked_at(url)

    assert facts.stray_binding is not None
    assert "order.timeout.delayed" in facts.stray_binding.what


async def test_the_plugin_is_asked_for_only_where_it_is_wanted(url: str) -> None:
    broker = rabbitmq_server()

    without = await looked_at(url)
    wanted = await looked_at(url, RabbitOptions(delay=DelayBackend.PLUGIN))

    assert without.plugin_error is None
    assert (wanted.plugin_error is None) is broker.has_delayed_message_plugin


@pytest.fixture
async def guests_url(url: str) -> AsyncIterator[str]:
    """For a user who may make `order…`, publish to `cart…` and read `payment…`, all of it there."""
    await make_topology(url)
    broker = rabbitmq_server()
    name = f"orderkeep_test_{uuid.uuid4().hex[:8]}"
    parts = urlsplit(url)
    vhost = parts.path.removeprefix("/")
    try:
        broker.ctl("add_user", name, "pw")
    except ErlangError as error:
        pytest.skip(f"rabbitmqctl cannot reach the broker: {error}")
    try:
        broker.ctl("set_permissions", "--vhost", vhost, name, "^order", "^cart", "^payment")
        yield f"amqp://{name}:pw@{parts.hostname}:{parts.port}/{vhost}"
    finally:
        broker.ctl("delete_user", name)


async def test_rights_that_are_missing_are_found(guests_url: str) -> None:
    refused = refused_rights(await looked_at(guests_url))

    assert refused["order.timeout.queue"] == {Right.READ}
    assert refused["order.timeout.queue.dead"] == {Right.READ}
    assert refused["order.outbox"] == {Right.READ, Right.WRITE}
    assert refused["cart-sync"] == {Right.CONFIGURE, Right.READ}
    assert refused["payment.success.notify"] == {Right.CONFIGURE}
    assert refused["payment.order.events"] == {Right.CONFIGURE, Right.WRITE}
    assert refused[HOLD_QUEUE] == {Right.WRITE}
    assert refused["amq.default"] == {Right.WRITE}
    assert refused["order.events"] >= {Right.WRITE}
