"""The broker port: declare, publish with a delay, consume with acknowledgement by hand.

Two implementations ship: `database_queue.py` (queues in the service's own database) and
`rabbitmq/` (across the network). `tests/contract/test_broker.py` holds them to one promise: a
confirmed message is durable and comes out of every queue bound to its route at least once, not
before `deliver_at`; an unacknowledged delivery comes back, marked `redelivered`. A message that the
broker cannot hold until `deliver_at` is `NOT_HELD`, and has not been taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.message import Delivery, Message, PublishOutcome


class ExchangeType(StrEnum):
    """How an exchange picks queues."""

    DIRECT = "direct"
    TOPIC = "topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange; messages reach it with their type as routing key."""

    name: str
    type: ExchangeType


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A queue that receives what an exchange routes by the key (`*` one word, `#` any number)."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """How messages to one queue are held until their time, at a broker that has no delay itself.

    Attributes:
        queue: Whose messages may carry a time before which they are not handed out.
        exchange: The durable exchange that leads to where they are held.
        hold_queue_prefix: Begins the name of each queue that holds them; the delay in
            milliseconds ends it.
    """

    queue: str
    exchange: str
    hold_queue_prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Every exchange, queue and binding, as data; a route is the name of an exchange or a queue."""

    queues: tuple[Queue, ...]
    exchanges: tuple[Exchange, ...]
    bindings: tuple[Binding, ...]
    delays: tuple[Delay, ...] = ()


class BrokerUnavailableError(Exception):
    """The broker cannot be reached now; nothing is known of what was asked."""


class BrokerRefusedError(Exception):
    """The broker is set up so that messages would go wrong: a person has to mend it first."""


class Consumption(Protocol):
    """One consumer's hold on one queue.

    A delivery is in hand from `take` until `acknowledge` or `give_back`; no more than the prefetch
    are in hand at any time.
    """

    async def take(self, *, count_max: int) -> Sequence[Delivery]:
        """Wait for messages and return at least one, at most `count_max`, oldest first.

        Return none only after `stop_taking`. A call is never cancelled by those who want it to
        end, or what it was about to return would be in nobody's hand until its lease ran out.

        Raises:
            BrokerUnavailableError: the broker is away.
            StoreUnavailableError: the database that holds the queue is away.
        """

    async def acknowledge_within(
        self, transaction: Transaction, deliveries: Sequence[Delivery]
    ) -> None:
        """Acknowledge inside the handler's transaction, where the broker can; else do nothing.

        Raises:
            LeaseLostError: another consumer has taken a delivery over; the transaction must not
                commit.
        """

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge after the handler's commit, where the broker needs it.

        Raises:
            BrokerUnavailableError: the broker is away; the deliveries will come again.
        """

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return untouched deliveries to the queue; those that were lost meanwhile are let go.

        Raises:
            BrokerUnavailableError: the broker is away; they return by themselves.
            StoreUnavailableError: the database that holds the queue is away.
        """

    def stop_taking(self) -> None:
        """Receive no more; a `take` under way returns what it has, or nothing."""

    async def close(self) -> None:
        """Let go of the queue; what is still in hand comes back to it in time."""


class LeaseLostError(Exception):
    """A delivery was taken over by another consumer while this one handled it."""


class Broker(Protocol):
    """A message broker."""

    async def declare(self, topology: Topology) -> None:
        """Make every queue, exchange and binding that is missing.

        Raises:
            BrokerUnavailableError: the broker is away.
            BrokerRefusedError: what is there already would let messages go wrong.
        """

    async def publish(
        self, messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        """Publish all with many confirms outstanding; return one outcome for each, in order.

        An unknown outcome is `ROUTE_DOWN`: sent again, made harmless by the consumers' inboxes.

        Args:
            messages: To be published.
            now: The database's clock when they were read: what is left of a delay counts from it.

        Raises:
            BrokerUnavailableError: the broker is away; nothing is known of any of the messages.
            StoreUnavailableError: the database that holds the queues is away; likewise.
        """

    def stop_publishing(self) -> None:
        """Close the way out at once: what is still on it must not leave any more.

        For a dispatcher that has lost what makes it the only one for its rows. A `publish` under
        way raises `BrokerUnavailableError`; the next one opens a new way.
        """

    async def consume(self, queue: str, *, prefetch: int) -> Consumption:
        """Start to receive from the queue.

        Raises:
            BrokerUnavailableError: the broker is away, or the queue is missing.
        """

    async def ready_count(self, queue: str) -> int:
        """Return how many messages wait in the queue, in no consumer's hand; 0 if there is none.

        Raises:
            BrokerUnavailableError: the broker is away.
            StoreUnavailableError: the database that holds the queue is away.
        """

    async def close(self) -> None:
        """Close every connection."""
