"""What the doctor thinks of a RabbitMQ."""

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest

from orderkeep.contracts.topology import TOPOLOGY
from orderkeep.messaging.rabbitmq.facts import (
    ArgumentDifference,
    BrokerFacts,
    ExchangeFacts,
    QueueFacts,
    Right,
)
from orderkeep.messaging.rabbitmq.options import DelayBackend, QueueArguments, WrongTopologyError
from orderkeep.wiring.doctor.examination import Examination
from orderkeep.wiring.doctor.of_addresses import examine_addresses
from orderkeep.wiring.doctor.of_rabbitmq import examine_topology, policy_commands
from tests.unit.doctor.facts import ADDRESS, BROKER, CONSUMED, OPTIONS, found, remedy, verdicts

HOLD_QUEUE = "order.timeout.hold.1800000"


def examined(facts: BrokerFacts = BROKER, options=OPTIONS) -> list[Examination]:
    return list(examine_topology(facts, TOPOLOGY, options=options, consumed=CONSUMED))


def with_queue(name: str, **changes: Any) -> BrokerFacts:
    """Return a sound broker with one queue changed."""
    assert name in {queue.name for queue in BROKER.queues}
    return replace(
        BROKER,
        queues=tuple(
            replace(queue, **changes) if queue.name == name else queue for queue in BROKER.queues
        ),
    )


def with_exchange(name: str, **changes: Any) -> BrokerFacts:
    """Return a sound broker with one exchange changed."""
    assert name in {exchange.name for exchange in BROKER.exchanges}
    return replace(
        BROKER,
        exchanges=tuple(
            replace(exchange, **changes) if exchange.name == name else exchange
            for exchange in BROKER.exchanges
        ),
    )


def difference(name: str, *, ours: Any, theirs: Any) -> ArgumentDifference:
    return ArgumentDifference(name=name, ours=ours, theirs=theirs)


def test_a_sound_broker_has_nothing_to_mend() -> None:
    examinations = [*examine_addresses([ADDRESS]), *examined()]

    assert verdicts(examinations) == []
    assert found(examinations, "broker.version") == "RabbitMQ 4.1.3"
    assert found(examinations, "broker.queues") == "19 queues as declared"
    assert found(examinations, "broker.exchanges") == "2 exchanges as declared"


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"version": "3.9.29"}, "broker.version", "wrong"),
        ({"product": "LavinMQ", "version": "2.4.0"}, "broker.version", "warning"),
        ({"is_encrypted": False}, "broker.encryption", "warning"),
        ({"error": "connection refused"}, "broker.reachable", "wrong"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(
    changes: dict[str, Any], name: str, verdict: str
) -> None:
    examinations = list(examine_addresses([replace(ADDRESS, **changes)]))

    assert verdicts(examinations) == [(name, verdict)]
    assert remedy(examinations, name)


def test_the_oldest_version_that_will_do_is_not_too_old() -> None:
    assert verdicts(list(examine_addresses([replace(ADDRESS, version="3.10.0")]))) == []


def test_one_of_several_addresses_may_be_away() -> None:
    away = replace(ADDRESS, address="amqps://two:5671/shop", error="no answer", cluster=None)

    assert verdicts(list(examine_addresses([ADDRESS, away]))) == [("broker.reachable", "warning")]


def test_addresses_of_different_brokers_are_wrong() -> None:
    other = replace(ADDRESS, address="amqps://two:5671/shop", cluster="rabbit@two")

    examinations = list(examine_addresses([ADDRESS, other]))

    assert verdicts(examinations) == [("broker.cluster", "wrong")]
    assert "rabbit@one, rabbit@two" in found(examinations, "broker.cluster")


def test_an_empty_broker_will_be_filled_by_work() -> None:
    empty = replace(
        BROKER,
        queues=tuple(QueueFacts(name=queue.name, message_count=None) for queue in BROKER.queues),
        exchanges=tuple(
            each if each.name == "amq.default" else replace(each, type=None)
            for each in BROKER.exchanges
        ),
    )

    examinations = examined(empty)

    assert verdicts(examinations) == []
    assert found(examinations, "broker.queues").startswith("19 queues missing, for `work` to make")
    assert found(examinations, "broker.exchanges").endswith("order.events, order.timeout.delayed")


def test_a_queue_of_others_is_used_as_it_is() -> None:
    examinations = examined(
        with_queue(
            "cart-sync",
            differences=(
                difference("x-queue-type", ours="quorum", theirs=None),
                difference("x-dead-letter-exchange", ours="", theirs=None),
                difference("x-max-length", ours=None, theirs=500),
            ),
        )
    )

    assert verdicts(examinations) == [("broker.queue", "warning")]
    assert found(examinations, "broker.queue") == (
        "it is used as it is: x-queue-type is unset, not quorum; x-dead-letter-exchange is unset,"
        " not ''; x-max-length is 500, not unset"
    )


def test_with_plain_arguments_others_decide() -> None:
    facts = with_queue(
        "cart-sync", differences=(difference("x-queue-type", ours=None, theirs="quorum"),)
    )

    examinations = examined(facts, replace(OPTIONS, arguments=QueueArguments.PLAIN))

    assert verdicts(examinations) == []
    assert found(examinations, "broker.queue") == (
        "it is used as it is: x-queue-type is quorum, not unset"
    )


def test_a_queue_that_does_not_last_is_wrong() -> None:
    facts = with_queue("cart-sync", differences=(difference("durable", ours=None, theirs="false"),))

    assert verdicts(examined(facts)) == [("broker.queue", "wrong")]


@pytest.mark.parametrize(
    ("argument", "verdict"),
    [
        (difference("x-message-ttl", ours=1_800_000, theirs=60_000), "wrong"),
        (difference("x-dead-letter-routing-key", ours="order.timeout.queue", theirs=None), "wrong"),
        (difference("x-queue-type", ours="quorum", theirs="classic"), "warning"),
    ],
)
def test_a_hold_queue_works_by_its_arguments(argument: ArgumentDifference, verdict: str) -> None:
    facts = with_queue(HOLD_QUEUE, differences=(argument,))

    assert verdicts(examined(facts)) == [("broker.queue", verdict)]


def test_messages_that_nobody_reads_are_told() -> None:
    waiting = with_queue("cart-sync", message_count=7, consumer_count=0)
    given_up = with_queue("cart-sync.dead", message_count=1, consumer_count=0)

    assert verdicts(examined(waiting)) == [("broker.unread_queue", "warning")]
    assert verdicts(examined(given_up)) == [("broker.dead_queue", "warning")]


def test_messages_that_are_held_or_read_are_nobodys_business() -> None:
    held = with_queue(HOLD_QUEUE, message_count=7, consumer_count=0)
    read = with_queue("cart-sync", message_count=7, consumer_count=2)

    assert verdicts(examined(held)) == []
    assert verdicts(examined(read)) == []


def test_an_exchange_of_another_type_is_wrong() -> None:
    examinations = examined(with_exchange("order.events", type="fanout"))

    assert verdicts(examinations) == [("broker.exchange", "wrong")]
    assert "delete exchange name=order.events" in remedy(examinations, "broker.exchange")


def test_rights_that_are_missing_are_named() -> None:
    facts = with_queue("cart-sync", refused=frozenset({Right.READ, Right.WRITE}))
    facts = replace(
        facts,
        exchanges=(
            ExchangeFacts(
                name="amq.default",
                wanted_type="direct",
                type="direct",
                refused=frozenset({Right.WRITE}),
            ),
        ),
    )

    examinations = examined(facts)

    assert verdicts(examinations) == [("broker.rights", "wrong")]
    assert found(examinations, "broker.rights") == (
        "the user shop lacks rights in /shop: read on cart-sync, write on cart-sync, write on"
        " amq.default"
    )


def test_what_is_there_need_not_be_made() -> None:
    refused = frozenset({Right.CONFIGURE})

    there = examined(with_queue("cart-sync", refused=refused))
    missing = examined(with_queue("cart-sync", refused=refused, message_count=None))

    assert verdicts(there) == []
    assert "nobody tells with what arguments they were: cart-sync" in found(there, "broker.queues")
    assert verdicts(missing) == [("broker.queue", "wrong")]


def test_a_missing_plugin_is_wrong() -> None:
    facts = replace(
        BROKER, plugin_error=WrongTopologyError("It lacks the plugin", steps="do without.")
    )

    examinations = examined(facts, replace(OPTIONS, delay=DelayBackend.PLUGIN))

    assert ("broker.delay", "wrong") in verdicts(examinations)
    assert found(examinations, "broker.delay") == "It lacks the plugin; `work` does not start"
    assert remedy(examinations, "broker.delay") == "do without."


def test_the_plugin_itself_is_a_warning() -> None:
    examinations = examined(BROKER, replace(OPTIONS, delay=DelayBackend.PLUGIN))

    assert verdicts(examinations) == [("broker.delay", "warning")]


def test_a_binding_past_the_hold_queue_is_wrong() -> None:
    facts = replace(
        BROKER,
        stray_binding=WrongTopologyError("It is bound past the hold queue", steps="unbind it."),
    )

    examinations = examined(facts)

    assert verdicts(examinations) == [("broker.delay", "wrong")]
    assert found(examinations, "broker.delay") == "It is bound past the hold queue"
    assert remedy(examinations, "broker.delay") == "unbind it."


def test_a_look_that_ended_early_says_so() -> None:
    examinations = examined(BrokerFacts(user="shop", vhost="/", lost="no answer within 15 s"))

    assert verdicts(examinations) == [("broker.look", "wrong")]
    assert found(examinations, "broker.rights") == ""


def test_plain_queues_come_with_the_policies_that_stand_in() -> None:
    examinations = examined(BROKER, replace(OPTIONS, arguments=QueueArguments.PLAIN))

    words = remedy(examinations, "broker.policies")
    assert "No policy makes a classic queue a quorum queue" in words
    assert words.count("\nrabbitmqctl set_policy --vhost /shop --apply-to queues ") == 9


def test_a_policy_is_a_command_that_a_shell_reads_back() -> None:
    words = shlex.split(policy_commands(TOPOLOGY, vhost="my shop")[0])

    assert words[:7] == [
        "rabbitmqctl",
        "set_policy",
        "--vhost",
        "my shop",
        "--apply-to",
        "queues",
        "orderkeep-order.timeout.queue",
    ]
    assert json.loads(words[8])["dead-letter-routing-key"] == "order.timeout.queue.dead"
    assert "queue-type" not in json.loads(words[8])
