"""The topology as what has to be declared at RabbitMQ, in order. PURE.

Invariant: nothing here loses a message. Queues are durable; a quorum queue has an explicit limit of
deliveries, and what passes it goes to a queue beside it, which is consumed as well. What is
dead-lettered stays where it is until the other queue has confirmed it (`at-least-once`, which needs
`reject-publish`).

On a quorum queue every return, lost channel and lost connection adds one to the count of *every*
message that was prefetched, touched or not. So the limit is no judgement on a message; it is high,
and there for the broker's sake. Since RabbitMQ 4 a queue without one has a limit of 20.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from orderkeep.messaging.broker import Delay, ExchangeType, Topology
from orderkeep.messaging.rabbitmq.delays import DEFAULT_EXCHANGE, hold_ms, hold_queue
from orderkeep.messaging.rabbitmq.options import DelayBackend, QueueArguments, RabbitOptions

# Many thousand restarts of a consumer away; -1 would be without limit, and differs by version.
DELIVERY_LIMIT = 100_000

# What passes the limit of a queue beside is gone: there is nowhere to give it to, and back to where
# it came from would be a circle, which the broker cuts. So it is never passed: with one return a
# second it takes thirty years. None at all would be 20 on newer brokers.
DEAD_DELIVERY_LIMIT = 1_000_000_000

# The delayed message plugin's type of exchange, and how it then picks queues.
DELAYED_TYPE = "x-delayed-message"
DELAYED_ARGUMENTS = {"x-delayed-type": "direct"}

DEAD_SUFFIX = ".dead"

Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeDeclaration:
    """A durable exchange."""

    name: str
    type: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDeclaration:
    """A durable queue."""

    name: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingDeclaration:
    """A queue that receives what an exchange routes by the key."""

    exchange: str
    queue: str
    routing_key: str


Declaration = ExchangeDeclaration | QueueDeclaration | BindingDeclaration


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What stands in for the arguments of one queue that was declared without."""

    name: str
    pattern: str
    definition: Arguments


def dead_queue(queue: str) -> str:
    """Return the name of the queue that takes what passes the limit of the queue."""
    return f"{queue}{DEAD_SUFFIX}"


def declarations_of(topology: Topology, options: RabbitOptions) -> tuple[Declaration, ...]:
    """Return what has to be declared, each after what it refers to."""
    declarations: list[Declaration] = [
        ExchangeDeclaration(name=exchange.name, type=exchange.type)
        for exchange in topology.exchanges
    ]
    for queue in topology.queues:
        # The one that takes what the other gives up exists first.
        declarations.append(_dead_queue_declaration(queue.name, options))
        declarations.append(_queue_declaration(queue.name, options))
    for delay in topology.delays:
        declarations += _delay_declarations(delay, options)
    declarations += [
        BindingDeclaration(
            exchange=binding.exchange, queue=binding.queue, routing_key=binding.routing_key
        )
        for binding in topology.bindings
    ]
    return tuple(declarations)


def policies_of(topology: Topology) -> tuple[Policy, ...]:
    """Return the policies that give plain queues what the arguments give full ones.

    A classic queue has no limit and needs none of it; a plain declaration makes a quorum queue
    where the virtual host's default says so.
    """
    return tuple(
        Policy(
            name=f"orderkeep-{queue.name}",
            pattern=f"^{re.escape(queue.name)}$",
            definition={
                name.removeprefix("x-"): value
                for name, value in _limited(queue.name).items()
                if name != "x-queue-type"
            },
        )
        for queue in topology.queues
    )


def _queue_declaration(name: str, options: RabbitOptions) -> QueueDeclaration:
    match options.arguments:
        case QueueArguments.FULL:
            return QueueDeclaration(name=name, arguments=_limited(name))
        case QueueArguments.PLAIN:
            return QueueDeclaration(name=name)


def _dead_queue_declaration(queue: str, options: RabbitOptions) -> QueueDeclaration:
    name = dead_queue(queue)
    match options.arguments:
        case QueueArguments.FULL:
            return QueueDeclaration(
                name=name,
                arguments={"x-queue-type": "quorum", "x-delivery-limit": DEAD_DELIVERY_LIMIT},
            )
        case QueueArguments.PLAIN:
            return QueueDeclaration(name=name)


def _limited(queue: str) -> Arguments:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        **_dead_lettering(to_queue=dead_queue(queue)),
    }


def _delay_declarations(delay: Delay, options: RabbitOptions) -> list[Declaration]:
    if options.delay is DelayBackend.OUTBOX:
        return []
    if options.delay is DelayBackend.PLUGIN:
        return [
            ExchangeDeclaration(
                name=delay.exchange, type=DELAYED_TYPE, arguments=DELAYED_ARGUMENTS
            ),
            BindingDeclaration(exchange=delay.exchange, queue=delay.queue, routing_key=delay.queue),
        ]
    held_in = hold_queue(delay, options)
    # Under whatever arguments the others are declared: this one works by its own.
    holding = QueueDeclaration(
        name=held_in,
        arguments={
            "x-queue-type": "quorum",
            # Nobody consumes it; but whoever looks into it by hand returns what they saw, and past
            # a limit it would go to its queue before its time.
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-message-ttl": hold_ms(options),
            **_dead_lettering(to_queue=delay.queue),
        },
    )
    binding = BindingDeclaration(exchange=delay.exchange, queue=held_in, routing_key=held_in)
    exchange = ExchangeDeclaration(name=delay.exchange, type=ExchangeType.DIRECT)
    return [exchange, holding, binding]


def _dead_lettering(*, to_queue: str) -> Arguments:
    return {
        "x-dead-letter-exchange": DEFAULT_EXCHANGE,
        "x-dead-letter-routing-key": to_queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
