"""Queues, exchanges and bindings as the contract lists them."""

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.broker import Binding, Delay, Exchange, ExchangeType


def test_every_queue_of_the_contract_is_declared() -> None:
    assert {queue.name for queue in TOPOLOGY.queues} == {
        "order.timeout.queue",
        "cart-sync",
        "payment.success.notify",
        "order.timeout.dlq",
        "order.outbox",
        "payment.order.events",
        "payment.refund.request",
        "payment.refund.result",
        "payment.opened.notify",
    }


def test_only_timeout_checks_wait() -> None:
    assert TOPOLOGY.delays == (
        Delay(
            queue="order.timeout.queue",
            exchange="order.timeout.delayed",
            hold_queue_prefix="order.timeout.hold.",
        ),
    )


def test_every_order_event_reaches_the_two_queues_of_ours() -> None:
    assert TOPOLOGY.exchanges == (Exchange(name="order.events", type=ExchangeType.TOPIC),)
    assert TOPOLOGY.bindings == (
        Binding(exchange="order.events", queue="order.outbox", routing_key="order.#"),
        Binding(exchange="order.events", queue="payment.order.events", routing_key="order.#"),
    )
