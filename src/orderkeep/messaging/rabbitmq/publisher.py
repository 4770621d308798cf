"""Publishing with many confirms outstanding, and finding out whose fault it is when it fails.

Invariant: only what the broker has confirmed, and not returned, counts as sent. Every other
publication gets the outcome of its own fault, its route's, or nobody's:

- The broker returns it or refuses it (nack): its route is down.
- The broker closes the channel. It does so because of one publication and drops all behind it, so
  each route is tried again for itself, on a channel of its own, and in a route that fails again
  each publication: the others pass. A missing exchange or right is the route's fault; a size or a
  property that the broker does not take is the publication's own.
- No confirm in time, or the connection is lost: nobody knows. It counts as route down.

A crash leaves outcomes that nobody knows. While the broker has an alarm nothing is written.
"""

import asyncio
from collections.abc import Iterable, Sequence

from pika import spec

from orderkeep.messaging.broker import Binding, BrokerUnavailableError
from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.rabbitmq.bindings import KeptBindings
from orderkeep.messaging.rabbitmq.channel import ChannelLostError
from orderkeep.messaging.rabbitmq.confirms import ConfirmChannel, Publication
from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.frames import CONTENT_HEADER, FRAME_OVERHEAD_BYTES
from orderkeep.messaging.rabbitmq.line import Line
from orderkeep.messaging.rabbitmq.options import RabbitOptions

# Reply codes by which the broker closes a channel because of what stands in one message: too large,
# or a property that is wrong in itself.
_OWN_FAULTS = frozenset({spec.CONTENT_TOO_LARGE, spec.PRECONDITION_FAILED})

# What stands around a message's properties in their frame.
_HEADER_OVERHEAD_BYTES = FRAME_OVERHEAD_BYTES + CONTENT_HEADER.size

_Outcomes = list[PublishOutcome | None]


class Publisher:
    """Publishes over a line of its own."""

    def __init__(self, line: Line, *, options: RabbitOptions) -> None:
        """Publish over the line."""
        self._line = line
        self._options = options
        self._bindings = KeptBindings((), call_timeout_s=options.call_timeout_s)
        self._channel: ConfirmChannel | None = None
        self._opening = asyncio.Lock()
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._alarm_patience: asyncio.TimerHandle | None = None
        # Raised by each `stop`: what began before it ends with it.
        self._stops_count = 0

    def keep(self, bindings: Sequence[Binding]) -> None:
        """Have these bindings in place whenever something is published to their exchange."""
        self._bindings = KeptBindings(bindings, call_timeout_s=self._options.call_timeout_s)

    async def send(self, publications: Sequence[Publication]) -> list[PublishOutcome]:
        """Publish all, and return one outcome for each.

        Raises:
            BrokerUnavailableError: nothing is known of any of them.
        """
        stops_count = self._stops_count
        channel = await self._ready_channel()
        failed = await self._bindings.keep(
            channel.connection, {publication.exchange for publication in publications}
        )
        self._refuse_after_stop(stops_count)
        outcomes: _Outcomes = [
            failed.get(publication.exchange)
            or _refused_for_size(publication, frame_size_max=channel.connection.frame_size_max)
            for publication in publications
        ]
        lost = await self._run(channel, publications, outcomes, _unknown_indexes(outcomes))
        if lost is not None and lost.code is not None:
            lost = await self._examine(channel.connection, publications, outcomes)
        self._refuse_after_stop(stops_count)
        if lost is not None and not any(outcomes):
            raise BrokerUnavailableError(lost.text)
        unknown = PublishOutcome(
            result=PublishResult.ROUTE_DOWN, detail=f"the outcome is not known: {lost}"
        )
        return [outcome or unknown for outcome in outcomes]

    def stop(self) -> None:
        """Drop the connection: what the network does not carry yet, it never will."""
        self._stops_count += 1
        self._line.drop("publishing was stopped")

    async def close(self) -> None:
        """Close the connection, and wait for nothing that is on its way."""
        self._stops_count += 1
        if self._alarm_patience is not None:
            self._alarm_patience.cancel()
        await self._line.close()

    def _refuse_after_stop(self, stops_count: int) -> None:
        if stops_count != self._stops_count:
            message = "publishing was stopped"
            raise BrokerUnavailableError(message)

    async def _ready_channel(self) -> ConfirmChannel:
        """Return the open channel of a broker that takes messages."""
        connection = await self._line.connection()
        if connection.blocked_reason is not None:
            await self._wait_for_end_of_alarm(connection)
        async with self._opening:
            channel = self._channel
            if channel is not None and channel.connection is connection and channel.is_open:
                if not channel.has_refused:
                    return channel
                await channel.close()
            connection.on_alarm = self._note_alarm
            channel = await self._open_channel(connection)
            self._channel = channel
            return channel

    async def _open_channel(self, connection: Connection) -> ConfirmChannel:
        try:
            return await ConfirmChannel.open(
                connection, call_timeout_s=self._options.call_timeout_s
            )
        except ChannelLostError as error:
            raise BrokerUnavailableError(error.text) from error

    async def _wait_for_end_of_alarm(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._options.blocked_wait_s):
                await self._unblocked.wait()
        except TimeoutError:
            raise BrokerUnavailableError(_words_of_alarm(connection)) from None

    def _note_alarm(self, connection: Connection) -> None:
        """Give up what is on its way if the broker will not take it for long."""
        if self._alarm_patience is not None:
            self._alarm_patience.cancel()
            self._alarm_patience = None
        if connection.blocked_reason is None:
            self._unblocked.set()
            return
        self._unblocked.clear()

        def lose_patience() -> None:
            if self._channel is not None and self._channel.connection is connection:
                self._channel.abandon(_words_of_alarm(connection))

        self._alarm_patience = asyncio.get_running_loop().call_later(
            self._options.blocked_wait_s, lose_patience
        )

    async def _run(
        self,
        channel: ConfirmChannel,
        publications: Sequence[Publication],
        outcomes: _Outcomes,
        indexes: Sequence[int],
    ) -> ChannelLostError | None:
        """Publish some, note what is known of them, and return why the rest is not."""
        batch = await channel.run(
            [publications[index] for index in indexes], timeout_s=self._options.confirm_timeout_s
        )
        for index, outcome in zip(indexes, batch.outcomes, strict=True):
            outcomes[index] = outcome
        return batch.lost

    async def _examine(
        self, connection: Connection, publications: Sequence[Publication], outcomes: _Outcomes
    ) -> ChannelLostError | None:
        """Find whose fault it is that the broker closes the channel.

        Returns:
            Why some are still unknown, or None if none is.
        """
        for indexes in _indexes_by_route(publications, _unknown_indexes(outcomes)):
            lost = await self._try(connection, publications, outcomes, indexes)
            if lost is None:
                continue
            if lost.code is None:
                return lost
            left = [index for index in indexes if outcomes[index] is None]
            if len(indexes) == 1 or lost.code not in _OWN_FAULTS:
                _blame(lost, outcomes, left)
                continue
            for index in left:
                lost = await self._try(connection, publications, outcomes, [index])
                if lost is not None and lost.code is None:
                    return lost
                if lost is not None:
                    _blame(lost, outcomes, [index])
        return None

    async def _try(
        self,
        connection: Connection,
        publications: Sequence[Publication],
        outcomes: _Outcomes,
        indexes: Sequence[int],
    ) -> ChannelLostError | None:
        """Publish some on a channel of their own, so that it is closed by nobody else's fault."""
        try:
            channel = await ConfirmChannel.open(
                connection, call_timeout_s=self._options.call_timeout_s
            )
        except ChannelLostError as error:
            return error
        lost = await self._run(channel, publications, outcomes, indexes)
        await channel.close()
        return lost


def _blame(lost: ChannelLostError, outcomes: _Outcomes, indexes: Iterable[int]) -> None:
    is_own_fault = lost.code in _OWN_FAULTS
    result = PublishResult.REFUSED if is_own_fault else PublishResult.ROUTE_DOWN
    for index in indexes:
        outcomes[index] = PublishOutcome(result=result, detail=lost.text)


def _unknown_indexes(outcomes: _Outcomes) -> list[int]:
    return [index for index, outcome in enumerate(outcomes) if outcome is None]


def _indexes_by_route(
    publications: Sequence[Publication], indexes: Iterable[int]
) -> list[list[int]]:
    by_route: dict[str, list[int]] = {}
    for index in indexes:
        publication = publications[index]
        route = publication.exchange or publication.routing_key
        by_route.setdefault(route, []).append(index)
    return list(by_route.values())


def _refused_for_size(publication: Publication, *, frame_size_max: int) -> PublishOutcome | None:
    """Return the refusal of properties that the broker would end the whole connection for."""
    size = len(publication.properties) + _HEADER_OVERHEAD_BYTES
    if size <= frame_size_max:
        return None
    detail = f"its headers take {size} bytes; the broker takes {frame_size_max}"
    return PublishOutcome(result=PublishResult.REFUSED, detail=detail)


def _words_of_alarm(connection: Connection) -> str:
    return f"blocked by an alarm of the broker: {connection.blocked_reason}"
