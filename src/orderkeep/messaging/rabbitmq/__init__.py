"""RabbitMQ, from 3.10 to 4, as the broker that carries the kernel's messages across the network.

What is here, from the outside in:

    broker        the port's calls, and which connection serves which
    options       how it is set up, and the errors that refuse a broker set up otherwise
    topology      what is declared (pure); declaring carries it out
    delays        which way a message takes to its queue (pure)
    publisher     whose fault it is when something cannot be published; confirms keeps the account
    consumption   what is in hand
    look          what `orderkeep doctor` sees: asks questions that change nothing, brings facts
    line          a connection that is there when it is asked for
    connection, channel, properties, field_table      AMQP itself, on top of pika

docs/architecture/rabbitmq.md tells how it fits together, and what happens when something breaks.
"""

from orderkeep.messaging.rabbitmq.broker import RabbitBroker
from orderkeep.messaging.rabbitmq.declaring import Difference
from orderkeep.messaging.rabbitmq.options import (
    DelayBackend,
    DelayPluginMissingError,
    QueueArguments,
    RabbitOptions,
    WrongTopologyError,
)

__all__ = [
    "DelayBackend",
    "DelayPluginMissingError",
    "Difference",
    "QueueArguments",
    "RabbitBroker",
    "RabbitOptions",
    "WrongTopologyError",
]
