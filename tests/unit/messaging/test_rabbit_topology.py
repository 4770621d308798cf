"""What is declared for a topology, and in which order."""

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.rabbitmq import DelayBackend, QueueArguments, RabbitOptions
from orderkeep.messaging.rabbitmq.topology import (
    BindingDeclaration,
    Declaration,
    ExchangeDeclaration,
    QueueDeclaration,
    declarations_of,
    policies_of,
)

PLAIN = QueueArguments.PLAIN


def declared(**options) -> tuple[Declaration, ...]:
    return declarations_of(TOPOLOGY, RabbitOptions(**options))


def queue(name: str, **options) -> QueueDeclaration:
    (found,) = (
        each
        for each in declared(**options)
        if isinstance(each, QueueDeclaration) and each.name == name
    )
    return found


def test_every_quorum_queue_has_a_limit_of_its_own():
    quorum = [
        each
        for each in declared()
        if isinstance(each, QueueDeclaration) and each.arguments["x-queue-type"] == "quorum"
    ]

    assert len(quorum) == 19
    assert {each.arguments["x-delivery-limit"] for each in quorum} == {100_000, 1_000_000_000}


def test_what_passes_the_limit_goes_to_the_queue_beside_and_from_there_nowhere():
    assert queue("cart-sync").arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "cart-sync.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert queue("cart-sync.dead").arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000_000,
    }


def test_the_hold_queue_is_named_by_its_delay_and_leads_to_its_queue():
    held = queue("order.timeout.hold.1800000")

    assert held.arguments["x-message-ttl"] == 1_800_000
    assert held.arguments["x-dead-letter-routing-key"] == "order.timeout.queue"
    assert queue("order.timeout.hold.500", hold_s=0.5).arguments["x-message-ttl"] == 500


def test_plain_queues_have_no_arguments_and_the_hold_queue_has_its_own():
    assert queue("cart-sync", arguments=PLAIN).arguments == {}
    assert queue("cart-sync.dead", arguments=PLAIN).arguments == {}
    assert queue("order.timeout.hold.1800000", arguments=PLAIN).arguments != {}


def test_no_argument_is_one_that_newer_brokers_refuse():
    names = {
        name
        for options in ({}, {"arguments": PLAIN}, {"delay": DelayBackend.PLUGIN})
        for each in declared(**options)
        if isinstance(each, QueueDeclaration)
        for name in each.arguments
    }

    assert not names & {"x-queue-mode", "x-queue-version"}


def test_everything_is_declared_after_what_it_refers_to():
    for options in ({}, {"delay": DelayBackend.PLUGIN}, {"delay": DelayBackend.OUTBOX}):
        seen = {""}
        for each in declared(**options):
            if isinstance(each, BindingDeclaration):
                assert {each.exchange, each.queue} <= seen
                continue
            if isinstance(each, QueueDeclaration):
                assert each.arguments.get("x-dead-letter-routing-key", "") in seen
            seen.add(each.name)


def test_the_way_of_a_delay_depends_on_who_holds():
    name = "order.timeout.delayed"

    def of(**options) -> list[Declaration]:
        return [
            each
            for each in declared(**options)
            if name in (getattr(each, "name", ""), getattr(each, "exchange", ""))
        ]

    assert of() == [
        ExchangeDeclaration(name=name, type="direct"),
        BindingDeclaration(
            exchange=name,
            queue="order.timeout.hold.1800000",
            routing_key="order.timeout.hold.1800000",
        ),
    ]
    assert of(delay=DelayBackend.PLUGIN) == [
        ExchangeDeclaration(
            name=name, type="x-delayed-message", arguments={"x-delayed-type": "direct"}
        ),
        BindingDeclaration(
            exchange=name, queue="order.timeout.queue", routing_key="order.timeout.queue"
        ),
    ]
    assert of(delay=DelayBackend.OUTBOX) == []


def test_a_policy_stands_in_for_the_arguments_of_each_plain_queue():
    policies = {policy.name: policy for policy in policies_of(TOPOLOGY)}

    policy = policies["orderkeep-order.timeout.queue"]
    assert policy.pattern == r"^order\.timeout\.queue$"
    assert policy.definition == {
        "delivery-limit": 100_000,
        "dead-letter-exchange": "",
        "dead-letter-routing-key": "order.timeout.queue.dead",
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
    }
