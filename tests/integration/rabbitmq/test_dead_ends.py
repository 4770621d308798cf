"""What nobody tells: that a channel, or a socket, is of no use any more."""

import pytest
from pika.frame import Heartbeat

from orderkeep.messaging import PublishResult
from orderkeep.messaging.rabbitmq import RabbitOptions
from orderkeep.messaging.rabbitmq.connection import connect, parameters_of
from tests.condition import eventually
from tests.integration.rabbitmq.conftest import OpenBroker, Stranger
from tests.integration.rabbitmq.letters import TOPOLOGY, message, results_of


async def test_a_channel_on_which_the_broker_refused_is_not_used_again(
    open_broker: OpenBroker, stranger: Stranger
):
    # One that has met a quorum queue without its leader would be refused on for ever.
    broker = open_broker()
    await broker.declare(TOPOLOGY)
    stranger.channel.queue_declare(
        "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    stranger.send("full")
    assert await results_of(broker, message(1)) == [PublishResult.CONFIRMED]
    before = broker._publisher._channel
    assert before is not None

    assert await results_of(broker, message(2, route="full")) == [PublishResult.ROUTE_DOWN]
    assert await results_of(broker, message(3)) == [PublishResult.CONFIRMED]

    assert broker._publisher._channel is not before
    assert not before.is_open


async def test_a_connection_whose_socket_the_loop_has_let_go_of_ends_with_the_next_write(
    url: str, monkeypatch: pytest.MonkeyPatch
):
    # As uvloop does with a reset that stands behind much that was not read yet. The heartbeat alone
    # would find it after minutes.
    options = RabbitOptions(heartbeat_s=60)
    connection = await connect(parameters_of(url, options=options, name="a test"))

    def refuse(_data: bytes) -> None:
        message = "the handler is closed"
        raise RuntimeError(message)

    monkeypatch.setattr(connection, "_adapter_emit_data", refuse)

    connection._output_marshaled_frames([Heartbeat().marshal()])

    await eventually(lambda: connection.is_closed)
