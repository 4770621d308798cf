"""Which way a message takes to its queue, by what is left of its delay. PURE.

Invariant: no way brings a message to its queue before its time. A way that could, or that would
hold up others, is not taken: the message waits in the outbox, and goes straight when it is due.

A queue expires messages at its head only, so a message behind one with more time left waits for it.
All messages in a hold queue have nearly the same time left; what has much less does not go there.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from orderkeep.instant import Instant
from orderkeep.messaging.broker import Delay, Topology
from orderkeep.messaging.message import Message
from orderkeep.messaging.rabbitmq.options import DelayBackend, RabbitOptions

_MICROSECONDS_PER_MILLISECOND = 1_000

# A message may wait this part of the hold queue's delay behind another one; more is not held there.
_HELD_PART_MIN = 0.9

# More, and the plugin takes it for no delay at all and delivers at once.
_PLUGIN_DELAY_MS_MAX = 2**32 - 1

_REMEMBERED_COUNT = 1024

# The default exchange, which leads to the queue that the routing key names.
DEFAULT_EXCHANGE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a message is published to.

    Attributes:
        is_mandatory: The broker shall return the message if it reaches no queue.
        expiration_ms: How long a hold queue holds it; None where it goes straight.
        delay_ms: How long the plugin holds it; likewise.
    """

    exchange: str
    routing_key: str
    is_mandatory: bool = True
    expiration_ms: int | None = None
    delay_ms: int | None = None


def hold_ms(options: RabbitOptions) -> int:
    """Return the delay of the hold queue in milliseconds, rounded up."""
    return ceil(options.hold_s * 1000)


def hold_queue(delay: Delay, options: RabbitOptions) -> str:
    """Return the name of the queue that holds messages for the delay."""
    return f"{delay.hold_queue_prefix}{hold_ms(options)}"


class Ways:
    """The ways of one topology."""

    def __init__(self, topology: Topology, options: RabbitOptions) -> None:
        """Find ways in the topology."""
        self._exchanges = frozenset(exchange.name for exchange in topology.exchanges)
        self._delays = {delay.queue: delay for delay in topology.delays}
        self._options = options
        # Few routes and types, and a bound all the same, should a sender invent them.
        self._straight_way = lru_cache(_REMEMBERED_COUNT)(self._find_straight_way)

    def way_of(self, message: Message, *, now: Instant) -> Way | None:
        """Return the way of the message, or None where it has to wait in the outbox.

        Args:
            message: About to be sent.
            now: The clock that its time is compared with.
        """
        if message.deliver_at is None or message.deliver_at <= now:
            return self._straight_way(message.route, message.type)
        # Rounded up: a millisecond late is in time, one early is not.
        left_ms = ceil((message.deliver_at - now) / _MICROSECONDS_PER_MILLISECOND)
        delay = self._delays.get(message.route)
        if delay is None:
            return None
        match self._options.delay:
            case DelayBackend.HOLD_QUEUE:
                return self._way_to_hold_queue(delay, left_ms=left_ms)
            case DelayBackend.PLUGIN:
                return _way_through_plugin(delay, left_ms=left_ms)
            case DelayBackend.OUTBOX:
                return None

    def _find_straight_way(self, route: str, message_type: str) -> Way:
        if route in self._exchanges:
            return Way(exchange=route, routing_key=message_type)
        return Way(exchange=DEFAULT_EXCHANGE, routing_key=route)

    def _way_to_hold_queue(self, delay: Delay, *, left_ms: int) -> Way | None:
        # The queue's own time to live ends the wait of a message that has more left, too early.
        longest_ms = hold_ms(self._options)
        if not _HELD_PART_MIN * longest_ms <= left_ms <= longest_ms:
            return None
        return Way(
            exchange=delay.exchange,
            routing_key=hold_queue(delay, self._options),
            expiration_ms=left_ms,
        )


def _way_through_plugin(delay: Delay, *, left_ms: int) -> Way | None:
    if left_ms > _PLUGIN_DELAY_MS_MAX:
        return None
    return Way(
        exchange=delay.exchange,
        routing_key=delay.queue,
        # The plugin returns every message that it is going to deliver later.
        is_mandatory=False,
        delay_ms=left_ms,
    )
