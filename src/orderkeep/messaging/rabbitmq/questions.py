"""Questions to RabbitMQ in a form that cannot succeed: only what the broker objects to is of use.

Invariant: nothing is made, taken or sent. AMQP tells most things only to those who want to change
something, so that is what is asked for, in a way that the broker has to refuse in the end:

- A declaration has an argument with a value that no argument may have. The broker compares what
  exists with what is declared, and looks at values only when it is about to make something.
- A consumer has a priority that is no number. The broker looks at rights before that.
- A binding is removed that nobody has made. The broker looks at rights first.
- A message is written in a transaction that is rolled back. Likewise.

Each objection closes the channel, so it costs a new one.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from orderkeep.messaging.broker import BrokerUnavailableError
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError, QueueCounts
from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.declaring import EXCHANGE_POISON, NO_EXCHANGE, NOBODYS_NAME

# A value that no argument may have, for arguments that quorum queues, or classic queues, do not
# have at all: a queue does not compare what its kind does not have.
QUEUE_POISONS = ("x-max-priority", "x-quorum-initial-group-size")
_NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """What the broker objects to.

    Attributes:
        code: Its reply code, such as 404.
        text: Its words.
    """

    code: int
    text: str


class Questions:
    """Asks over one connection."""

    def __init__(self, connection: Connection, *, call_timeout_s: float) -> None:
        """Ask over the connection; it is closed by whoever made it.

        Args:
            connection: Open.
            call_timeout_s: How long the broker has for each answer.
        """
        self._connection = connection
        self._call_timeout_s = call_timeout_s
        self._channel: Channel | None = None

    async def count(self, queue: str) -> QueueCounts | Objection:
        """Return how full the queue is; the objection is 404 where there is none."""
        counts: list[QueueCounts] = []

        async def ask(channel: Channel) -> None:
            counts.append(await channel.require_queue(queue))

        return await self._put(ask) or counts[0]

    async def declare_queue(
        self, name: str, arguments: Mapping[str, object], *, poison: str
    ) -> Objection | None:
        """Declare a queue with a poison; no objection says that one exists and is as declared."""
        poisoned = {**arguments, poison: _NEVER}
        return await self._put(lambda channel: channel.declare_queue(name, arguments=poisoned))

    async def declare_exchange(self, name: str, *, exchange_type: str) -> Objection | None:
        """Declare an exchange with a poison, which the broker compares after all else."""
        return await self._put(
            lambda channel: channel.declare_exchange(
                name, exchange_type=exchange_type, arguments={EXCHANGE_POISON: NO_EXCHANGE}
            )
        )

    async def find_exchange(self, name: str) -> Objection | None:
        """Look for an exchange; the objection is 404 where there is none."""
        return await self._put(lambda channel: channel.require_exchange(name))

    async def consume(self, queue: str) -> Objection | None:
        """Consume with a priority that is none."""

        async def ask(channel: Channel) -> None:
            # Should a broker take any priority: what it sends goes back with the channel.
            await channel.set_prefetch(1)
            await channel.consume(queue, on_message=_ignore, arguments={"x-priority": _NEVER})
            await channel.close()

        return await self._put(ask)

    async def unbind(self, queue: str, *, exchange: str) -> Objection | None:
        """Remove a binding that nobody has made."""
        return await self._put(
            lambda channel: channel.unbind_queue(queue, exchange=exchange, routing_key=NOBODYS_NAME)
        )

    async def write(self, exchange: str) -> Objection | None:
        """Write a message that is never sent."""

        async def ask(channel: Channel) -> None:
            await channel.select_transactions()
            channel.raw.basic_publish(exchange, NOBODYS_NAME, b"")
            await channel.roll_back()
            # What was once in transactions stays so.
            await channel.close()

        return await self._put(ask)

    async def _put(self, ask: Callable[[Channel], Awaitable[object]]) -> Objection | None:
        """Ask on an open channel and return what the broker objects to, if anything.

        Raises:
            BrokerUnavailableError: the connection is lost.
        """
        try:
            await ask(await self._open_channel())
        except ChannelLostError as error:
            if error.code is None:
                raise BrokerUnavailableError(error.text) from error
            return Objection(code=error.code, text=error.text)
        return None

    async def _open_channel(self) -> Channel:
        channel = self._channel
        if channel is None or channel.lost is not None or not channel.raw.is_open:
            channel = await Channel.open(self._connection, call_timeout_s=self._call_timeout_s)
            self._channel = channel
        return channel


def _ignore(*_delivery: object) -> None:
    """Let go of what comes: it returns with the channel."""
