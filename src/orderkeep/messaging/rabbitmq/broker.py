"""RabbitMQ as a broker: one connection to publish and one to consume, each made when needed.

Invariant: see the port. What is published and what is consumed never share a connection, for the
broker blocks the one that publishes while it has an alarm, and consuming is what ends the alarm.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from pika import spec

from orderkeep.instant import Instant
from orderkeep.messaging.broker import BrokerUnavailableError, Topology
from orderkeep.messaging.message import Message, PublishOutcome, PublishResult
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError
from orderkeep.messaging.rabbitmq.confirms import Publication
from orderkeep.messaging.rabbitmq.connection import Connection, parameters_of
from orderkeep.messaging.rabbitmq.consumption import RabbitConsumption
from orderkeep.messaging.rabbitmq.declaring import (
    Difference,
    declare_all,
    refuse_stray_bindings,
    require_plugin,
)
from orderkeep.messaging.rabbitmq.delays import Way, Ways
from orderkeep.messaging.rabbitmq.field_table import (
    SHORT_STRING_LENGTH_MAX,
    NotRepresentableError,
    short_string,
)
from orderkeep.messaging.rabbitmq.line import Line
from orderkeep.messaging.rabbitmq.options import (
    DelayBackend,
    RabbitOptions,
)
from orderkeep.messaging.rabbitmq.properties import encode_properties
from orderkeep.messaging.rabbitmq.publisher import Publisher
from orderkeep.messaging.rabbitmq.topology import declarations_of

log = structlog.get_logger()

# Names that together have no more characters are no longer than AMQP allows, whatever they are.
_NAME_LENGTH_SURE = SHORT_STRING_LENGTH_MAX // 4

_NOT_HELD = PublishOutcome(result=PublishResult.NOT_HELD)


class RabbitBroker:
    """A RabbitMQ broker, or a cluster of them."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        options: RabbitOptions,
        draw_jitter: Callable[[], float],
    ) -> None:
        """Use the broker, once something is asked of it.

        Args:
            urls: `amqp://` and `amqps://` addresses of the same broker, tried in turn.
            options: How it is used.
            draw_jitter: Draws 0.0..1.0 for each pause between attempts to connect.

        Raises:
            BrokerRefusedError: a URL is none.
        """
        self._urls = tuple(urls)
        self._options = options
        self._draw_jitter = draw_jitter
        self._topology = Topology(queues=(), exchanges=(), bindings=())
        self._ways = Ways(self._topology, options)
        self._consuming = self._line("consuming")
        self._setting_up = self._line("setting up")
        self._publisher = Publisher(self._line("publishing"), options=options)
        self._declaring = asyncio.Lock()
        self._declared_count = 0
        self._are_delays_checked = False
        self._differences: tuple[Difference, ...] = ()

    @property
    def differences(self) -> Sequence[Difference]:
        """What the latest declaration found in another form than it would have made it."""
        return self._differences

    async def connect(self) -> None:
        """Return if the broker lets us in.

        Raises:
            BrokerUnavailableError: it does not.
        """
        await self._consuming.connection()

    async def declare(self, topology: Topology) -> None:
        """Make every queue, exchange and binding that is missing.

        Those who call while a declaration is under way share the one after it.

        Raises:
            BrokerUnavailableError: the broker is away, or something is missing that cannot be made.
            WrongTopologyError: it is set up so that messages would go wrong.
        """
        # One that is under way may have passed what is missing now; the one after it will not.
        enough_count = self._declared_count + 1 + self._declaring.locked()
        async with self._declaring:
            if self._declared_count >= enough_count and topology == self._topology:
                return
            await self._declare(topology)
            self._declared_count += 1

    async def publish(
        self, messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        """Publish all with many confirms outstanding; see the port."""
        outcomes: list[PublishOutcome | None] = []
        publications: list[Publication] = []
        for message in messages:
            way = self._ways.way_of(message, now=now)
            if way is None:
                outcomes.append(_NOT_HELD)
                continue
            try:
                publications.append(_publication(message, way))
            except NotRepresentableError as error:
                outcomes.append(PublishOutcome(result=PublishResult.REFUSED, detail=str(error)))
            else:
                outcomes.append(None)
        sent = iter(await self._publisher.send(publications) if publications else ())
        return [next(sent) if outcome is None else outcome for outcome in outcomes]

    def stop_publishing(self) -> None:
        """Drop the publishing connection, with nothing flushed."""
        self._publisher.stop()

    async def consume(self, queue: str, *, prefetch: int) -> RabbitConsumption:
        """Start to receive from the queue, and from the one beside it."""
        connection = await self._consuming.connection()
        try:
            return await RabbitConsumption.start(
                connection,
                queue=queue,
                prefetch=prefetch,
                call_timeout_s=self._options.call_timeout_s,
            )
        except ChannelLostError as error:
            message = f"queue {queue} cannot be consumed: {error.text}"
            raise BrokerUnavailableError(message) from error

    async def ready_count(self, queue: str) -> int:
        """Return how many messages wait in the queue; 0 if there is none."""
        channel: Channel | None = None
        try:
            channel = await Channel.open(
                await self._consuming.connection(), call_timeout_s=self._options.call_timeout_s
            )
            return (await channel.require_queue(queue)).message_count
        except ChannelLostError as error:
            if error.code == spec.NOT_FOUND:
                return 0
            raise BrokerUnavailableError(error.text) from error
        finally:
            if channel is not None:
                await channel.close()

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(
            self._publisher.close(), self._consuming.close(), self._setting_up.close()
        )

    def _line(self, purpose: str) -> Line:
        name = f"{self._options.connection_name} {purpose}"
        return Line(
            [parameters_of(url, options=self._options, name=name) for url in self._urls],
            draw_jitter=self._draw_jitter,
        )

    async def _declare(self, topology: Topology) -> None:
        is_plugin = self._options.delay is DelayBackend.PLUGIN
        if is_plugin and not self._are_delays_checked:
            # A broker that has no plugin hangs up when it hears of the plugin's exchange.
            self._are_delays_checked = await self._check_delays(topology)
        try:
            connection = await self._setting_up.connection()
            differences = await declare_all(
                connection, declarations_of(topology, self._options), options=self._options
            )
        finally:
            # Dispatchers declare and never consume: none of them keeps a connection for it.
            await self._setting_up.close()
        if not self._are_delays_checked:
            self._are_delays_checked = await self._check_delays(topology)
        self._note_differences(differences)
        self._topology = topology
        self._ways = Ways(topology, self._options)
        self._publisher.keep(topology.bindings)

    async def _check_delays(self, topology: Topology) -> bool:
        """Return whether the broker told that messages wait where they should.

        Raises:
            BrokerUnavailableError: the broker is away.
            WrongTopologyError: they would not wait.
        """
        match self._options.delay:
            case DelayBackend.OUTBOX:
                return True
            case DelayBackend.HOLD_QUEUE:
                async with self._throw_away_connection() as connection:
                    return await refuse_stray_bindings(
                        connection, topology.delays, options=self._options
                    )
            case DelayBackend.PLUGIN:
                if topology.delays:
                    async with self._throw_away_connection() as connection:
                        await require_plugin(connection, options=self._options)
                return True

    @asynccontextmanager
    async def _throw_away_connection(self) -> AsyncIterator[Connection]:
        line = self._line("looking")
        try:
            yield await line.connection()
        finally:
            await line.close()

    def _note_differences(self, differences: Sequence[Difference]) -> None:
        for difference in differences:
            if difference not in self._differences:
                log.warning("declared_otherwise", name=difference.name, detail=difference.detail)
        self._differences = tuple(differences)


def _publication(message: Message, way: Way) -> Publication:
    """Return the message as it is written to a channel.

    Raises:
        NotRepresentableError: it has no form in AMQP.
    """
    if len(way.exchange) + len(way.routing_key) > _NAME_LENGTH_SURE:
        short_string(way.exchange, what="the exchange")
        short_string(way.routing_key, what="the routing key")
    return Publication(
        exchange=way.exchange,
        routing_key=way.routing_key,
        is_mandatory=way.is_mandatory,
        message_id=message.message_id,
        properties=encode_properties(
            message, expiration_ms=way.expiration_ms, delay_ms=way.delay_ms
        ),
        body=message.body,
    )
