"""Queues, exchanges and bindings as the contract lists them."""

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.broker import Binding, Exchange, ExchangeType


def test_every_queue_of_the_contract_is_declared_and_only_the_timeout_queue_waits() -> None:
    queues = {queue.name: queue.is_delayed for queue in TOPOLOGY.queues}

    assert queues == {
        "order.timeout.queue": True,
        "cart-sync": False,
        "payment.success.notify": False,
        "order.timeout.dlq": False,
        "order.outbox": False,
        "payment.order.events": False,
        "payment.refund.request": False,
        "payment.refund.result": False,
        "payment.opened.notify": False,
    }


def test_every_order_event_reaches_the_two_queues_of_ours() -> None:
    assert TOPOLOGY.exchanges == (
        Exchange(name="order.timeout.delayed", type=ExchangeType.DIRECT),
        Exchange(name="order.events", type=ExchangeType.TOPIC),
    )
    assert TOPOLOGY.bindings == (
        Binding(exchange="order.events", queue="order.outbox", routing_key="order.#"),
        Binding(exchange="order.events", queue="payment.order.events", routing_key="order.#"),
    )
