"""Receiving from a queue, and from the queue beside it that takes what passes its limit.

Invariant: a delivery is acknowledged, or given back once, or comes back by itself when its channel
is lost; nothing is done twice to one, and nothing is done to one that is no longer in hand.

Both queues are consumed as one. What comes from the second has passed the limit of the first, most
likely by outages that it had no part in: it counts as redelivered, comes one at a time, and so is
tried once more, alone.

A crash leaves what is in hand at the broker, which hands it out again, marked as redelivered.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Self

from pika.channel import Channel as PikaChannel
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from orderkeep.database.transaction import Transaction
from orderkeep.messaging.broker import BrokerUnavailableError, LeaseLostError
from orderkeep.messaging.message import Delivery
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError
from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.properties import PROBE_HEADER, RawProperties, read_properties
from orderkeep.messaging.rabbitmq.topology import dead_queue

# A message that has passed its limit is tried alone, so no more than one is in hand.
_DEAD_PREFETCH = 1

# How long the broker may take to say that nothing more will come.
_CANCEL_S_MAX = 2.0


class Feed:
    """One channel that receives from one queue.

    Attributes:
        channel: The channel, for nothing but this.
        is_lost: What was in hand is no longer.
        has_ended: Nothing more will come.
        end_reason: Why, unless we have ended it ourselves.
    """

    def __init__(self, channel: Channel, *, queue: str) -> None:
        """See `open`."""
        self.channel = channel
        self.is_lost = False
        self.queue = queue
        self.has_ended = asyncio.Event()
        self.end_reason: str | None = None
        self._consumer_tag = ""
        self._is_stopping = False
        # In the order of their tags, as they came.
        self._unsettled: OrderedDict[int, None] = OrderedDict()

    @classmethod
    async def open(
        cls,
        connection: Connection,
        *,
        queue: str,
        prefetch: int,
        call_timeout_s: float,
        on_message: Callable[["Feed", Basic.Deliver, RawProperties, bytes], None],
        on_end: Callable[[], None],
    ) -> Self:
        """Start to receive.

        Args:
            connection: Carries the channel.
            queue: What is received from.
            prefetch: How many are in hand at most.
            call_timeout_s: How long the broker has for each call.
            on_message: Told of each message that is in hand from then on.
            on_end: Told, once, when nothing more will come, unless we have ended it.

        Raises:
            ChannelLostError: the queue is missing, or may not be read, or the connection is lost.
        """
        channel = await Channel.open(connection, call_timeout_s=call_timeout_s)
        feed = cls(channel, queue=queue)

        def take_in(
            _channel: PikaChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            assert isinstance(properties, RawProperties)
            feed._unsettled[tag_of(method)] = None
            on_message(feed, method, properties, body)

        def end(reason: str) -> None:
            if not feed.has_ended.is_set():
                feed.end_reason = reason
                feed.has_ended.set()
                on_end()

        def note_lost(error: ChannelLostError) -> None:
            feed.is_lost = True
            feed._unsettled.clear()
            end(error.text)

        def note_cancelled(_frame: Method[Basic.Cancel]) -> None:
            end(f"the broker ended the consumption of {queue}")

        channel.on_lost(note_lost)
        channel.raw.add_on_cancel_callback(note_cancelled)
        await channel.set_prefetch(prefetch)
        feed._consumer_tag = await channel.consume(queue, on_message=take_in)
        return feed

    def has_in_hand(self, tag: int) -> bool:
        """Whether the message is neither settled nor lost."""
        return tag in self._unsettled

    def acknowledge(self, tags: Iterable[int]) -> None:
        """Acknowledge messages in hand; many at once where none older is left."""
        raw = self.channel.raw
        self._settle(tags, lambda tag, multiple: raw.basic_ack(tag, multiple=multiple))

    def give_back(self, tags: Iterable[int]) -> None:
        """Return messages in hand to their queue, likewise."""
        raw = self.channel.raw
        self._settle(
            tags, lambda tag, multiple: raw.basic_nack(tag, multiple=multiple, requeue=True)
        )

    def stop(self) -> None:
        """Receive no more."""
        if self.has_ended.is_set() or self._is_stopping:
            return
        self._is_stopping = True
        with suppress(AMQPError):
            self.channel.raw.basic_cancel(
                self._consumer_tag, callback=lambda _frame: self.has_ended.set()
            )

    async def close(self) -> None:
        """Receive no more, and return what is in hand."""
        self.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S_MAX):
                await self.has_ended.wait()
        # Returned by us, a message is not counted as failed by newer brokers; by a closed channel
        # it is.
        self.give_back(list(self._unsettled))
        await self.channel.close()

    def _settle(self, tags: Iterable[int], write: Callable[[int, bool], None]) -> None:
        settled = [tag for tag in tags if tag in self._unsettled]
        if not settled or self.is_lost:
            return
        wanted = set(settled)
        together = 0
        for tag in self._unsettled:
            if tag not in wanted:
                break
            together = tag
        with suppress(AMQPError), self.channel.connection.gathered_writes():
            if together:
                write(together, True)  # noqa: FBT003 (the only argument it could be)
            for tag in sorted(wanted):
                if tag > together:
                    write(tag, False)  # noqa: FBT003 (likewise)
        for tag in settled:
            del self._unsettled[tag]


class RabbitConsumption:
    """One consumer's hold on one queue, and on the one beside it."""

    def __init__(self, queue: str) -> None:
        """See `start`."""
        self._queue = queue
        self._feeds: list[Feed] = []
        self._arrived: deque[Delivery] = deque()
        self._woken = asyncio.Event()
        self._is_taking = True

    @classmethod
    async def start(
        cls, connection: Connection, *, queue: str, prefetch: int, call_timeout_s: float
    ) -> Self:
        """Start to receive from the queue.

        Raises:
            ChannelLostError: the queue is missing, or may not be read, or the connection is lost.
        """
        consumption = cls(queue)
        await consumption._open_feed(
            connection, queue=queue, prefetch=prefetch, call_timeout_s=call_timeout_s
        )
        try:
            await consumption._open_feed(
                connection,
                queue=dead_queue(queue),
                prefetch=_DEAD_PREFETCH,
                call_timeout_s=call_timeout_s,
            )
        except ChannelLostError as error:
            if error.code is None:
                raise
            # A queue of somebody else's has none beside it.
        return consumption

    async def take(self, *, count_max: int) -> Sequence[Delivery]:
        """Wait for messages and return those that have come; none after `stop_taking`."""
        while self._is_taking:
            if (reason := self._end_reason) is not None:
                raise BrokerUnavailableError(reason)
            if self._arrived:
                count = min(count_max, len(self._arrived))
                return [self._arrived.popleft() for _ in range(count)]
            self._woken.clear()
            await self._woken.wait()
        return []

    async def acknowledge_within(
        self, transaction: Transaction, deliveries: Sequence[Delivery]
    ) -> None:
        """Spare the transaction its commit where a delivery will come again anyway."""
        del transaction  # the broker is not in it
        lost_count = sum(not self._has_in_hand(delivery) for delivery in deliveries)
        if lost_count:
            message = f"{lost_count} of {len(deliveries)} went back with their channel"
            raise LeaseLostError(message)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge at the broker; what is lost will come again."""
        lost_count = sum(not self._has_in_hand(delivery) for delivery in deliveries)
        for feed, tags in self._by_feed(deliveries):
            feed.acknowledge(tags)
        if lost_count:
            message = (
                f"{lost_count} of {len(deliveries)} could not be acknowledged: their channel "
                f"is closed ({self._end_reason})"
            )
            raise BrokerUnavailableError(message)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return untouched deliveries to their queue, once."""
        for feed, tags in self._by_feed(deliveries):
            feed.give_back(tags)

    def stop_taking(self) -> None:
        """Receive no more; a `take` that waits returns nothing."""
        self._is_taking = False
        self._woken.set()
        for feed in self._feeds:
            feed.stop()

    async def close(self) -> None:
        """Return what is in hand, and let go of the queue."""
        self.stop_taking()
        self._arrived.clear()
        await asyncio.gather(*(feed.close() for feed in self._feeds))

    async def _open_feed(
        self, connection: Connection, *, queue: str, prefetch: int, call_timeout_s: float
    ) -> None:
        feed = await Feed.open(
            connection,
            queue=queue,
            prefetch=prefetch,
            call_timeout_s=call_timeout_s,
            on_message=self._note_message,
            on_end=self._note_end,
        )
        self._feeds.append(feed)

    def _note_message(
        self, feed: Feed, method: Basic.Deliver, properties: RawProperties, body: bytes
    ) -> None:
        received = read_properties(properties.raw)
        tag = tag_of(method)
        if not body and PROBE_HEADER in received.headers:
            feed.acknowledge([tag])
            return
        self._arrived.append(
            Delivery(
                queue=self._queue,
                tag=self._tag_of(feed, tag),
                body=body,
                message_id=received.message_id,
                type=received.type,
                headers=received.headers,
                redelivered=method.redelivered or feed.queue != self._queue,
            )
        )
        self._woken.set()

    def _note_end(self) -> None:
        self._arrived = deque(each for each in self._arrived if self._has_in_hand(each))
        self._woken.set()

    @property
    def _end_reason(self) -> str | None:
        # With either of them gone all begins anew: with a declaration of what is missing.
        return next((feed.end_reason for feed in self._feeds if feed.end_reason is not None), None)

    # The tags of two channels as one number: those of the queue are even, the others odd.

    def _tag_of(self, feed: Feed, tag: int) -> int:
        return tag * 2 + (feed.queue != self._queue)

    def _has_in_hand(self, delivery: Delivery) -> bool:
        tag, feed_index = divmod(delivery.tag, 2)
        return feed_index < len(self._feeds) and self._feeds[feed_index].has_in_hand(tag)

    def _by_feed(self, deliveries: Sequence[Delivery]) -> list[tuple[Feed, list[int]]]:
        return [
            (feed, [delivery.tag // 2 for delivery in deliveries if delivery.tag % 2 == feed_index])
            for feed_index, feed in enumerate(self._feeds)
        ]


def tag_of(method: Basic.Deliver) -> int:
    """Return the channel's number of a message."""
    tag = method.delivery_tag
    assert tag is not None, "pika fills it in"
    return tag
