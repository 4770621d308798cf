"""A channel whose calls are awaited: pika's callbacks, made into answers or errors.

Invariant: every call ends, with the broker's answer or with `ChannelLostError`: when the channel or
its connection is closed, by whomever, and when no answer comes in time. A channel that did not
answer in time takes its connection with it, for nobody knows what the broker made of the call.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import pika.channel
from pika.exceptions import (
    AMQPChannelError,
    AMQPConnectionError,
    AMQPError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
)

from orderkeep.messaging.column_text import error_words
from orderkeep.messaging.rabbitmq.connection import Connection

# How long a goodbye may take; whoever says it has nothing more to lose.
_CLOSE_S_MAX = 2.0


class ChannelLostError(Exception):
    """The channel is closed.

    Attributes:
        code: The broker's reply code where it closed the channel alone, such as 404; else None.
        connection_code: Likewise where it closed the whole connection.
        text: Why, for a person.
    """

    def __init__(
        self, text: str, *, code: int | None = None, connection_code: int | None = None
    ) -> None:
        """Tell why it is closed."""
        super().__init__(text)
        self.text = text
        self.code = code
        self.connection_code = connection_code


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """How full a queue is."""

    message_count: int
    consumer_count: int


class Channel:
    """An open channel of a connection."""

    def __init__(self, connection: Connection, *, call_timeout_s: float) -> None:
        """See `open`."""
        self.connection = connection
        self.lost: ChannelLostError | None = None
        self._call_timeout_s = call_timeout_s
        self._answers: set[asyncio.Future[Any]] = set()
        self._on_lost: list[Callable[[ChannelLostError], None]] = []
        self.raw: pika.channel.Channel

    @classmethod
    async def open(cls, connection: Connection, *, call_timeout_s: float) -> Self:
        """Return a new channel of the connection.

        Raises:
            ChannelLostError: the connection is closed.
        """
        channel = cls(connection, call_timeout_s=call_timeout_s)
        await channel._call(channel._open)
        return channel

    def on_lost(self, notify: Callable[[ChannelLostError], None]) -> None:
        """Let the function be told, once, that the channel is closed."""
        self._on_lost.append(notify)

    async def declare_exchange(
        self, name: str, *, exchange_type: str, arguments: Mapping[str, object]
    ) -> None:
        """Declare a durable exchange."""
        await self._call(
            lambda answer: self.raw.exchange_declare(
                name,
                exchange_type=exchange_type,
                durable=True,
                arguments=arguments,
                callback=answer,
            )
        )

    async def require_exchange(self, name: str) -> None:
        """Return if the exchange exists, of whatever type; else the channel is lost with 404."""
        await self._call(
            lambda answer: self.raw.exchange_declare(name, passive=True, callback=answer)
        )

    async def declare_queue(self, name: str, *, arguments: Mapping[str, object]) -> None:
        """Declare a durable queue."""
        await self._call(
            lambda answer: self.raw.queue_declare(
                name, durable=True, arguments=arguments, callback=answer
            )
        )

    async def require_queue(self, name: str) -> QueueCounts:
        """Return how full the queue is, whatever it is; else the channel is lost with 404."""
        frame = await self._call(
            lambda answer: self.raw.queue_declare(name, passive=True, callback=answer)
        )
        return QueueCounts(
            message_count=frame.method.message_count, consumer_count=frame.method.consumer_count
        )

    async def bind_queue(self, name: str, *, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange."""
        await self._call(
            lambda answer: self.raw.queue_bind(
                name, exchange, routing_key=routing_key, callback=answer
            )
        )

    async def unbind_queue(self, name: str, *, exchange: str, routing_key: str) -> None:
        """Remove a binding; that there is none is no error."""
        await self._call(
            lambda answer: self.raw.queue_unbind(name, exchange, routing_key, callback=answer)
        )

    async def set_prefetch(self, count: int) -> None:
        """Limit what each consumer of the channel has in hand."""
        await self._call(lambda answer: self.raw.basic_qos(prefetch_count=count, callback=answer))

    async def select_confirms(self, on_settled: Callable[[Any], object]) -> None:
        """Have the broker confirm what is published, to the function."""
        await self._call(lambda answer: self.raw.confirm_delivery(on_settled, callback=answer))

    async def select_transactions(self) -> None:
        """Have the broker hold what is published until it is committed."""
        await self._call(lambda answer: self.raw.tx_select(callback=answer))

    async def roll_back(self) -> None:
        """Have the broker forget what was published and not committed."""
        await self._call(lambda answer: self.raw.tx_rollback(callback=answer))

    async def consume(
        self,
        queue: str,
        *,
        on_message: Callable[..., object],
        arguments: Mapping[str, object] | None = None,
    ) -> str:
        """Start to receive from the queue and return the consumer's tag."""
        tags: list[str] = []
        await self._call(
            lambda answer: tags.append(
                self.raw.basic_consume(queue, on_message, arguments=arguments, callback=answer)
            )
        )
        return tags[0]

    async def close(self) -> None:
        """Close the channel; what is in hand goes back to its queue."""
        if self.lost is not None or not self.raw.is_open:
            return
        closed = asyncio.get_running_loop().create_future()
        self.on_lost(lambda _error: None if closed.done() else closed.set_result(None))
        with suppress(AMQPError, TimeoutError):
            self.raw.close()
            async with asyncio.timeout(_CLOSE_S_MAX):
                await closed

    def _open(self, answer: Callable[[object], None]) -> None:
        self.raw = self.connection.channel(on_open_callback=answer)
        self.raw.add_on_close_callback(self._note_closed)

    async def _call(self, start: Callable[[Callable[[object], None]], object]) -> Any:  # noqa: ANN401 (pika's frames have no common type)
        """Make a call and return the broker's answer.

        Args:
            start: Is given the function that takes the answer.

        Raises:
            ChannelLostError: see there.
        """
        if self.lost is not None:
            raise self.lost
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        try:
            start(lambda frame: None if answer.done() else answer.set_result(frame))
            async with asyncio.timeout(self._call_timeout_s):
                return await answer
        except TimeoutError as error:
            text = f"no answer within {self._call_timeout_s:g} s"
            self.connection.drop(text)
            raise ChannelLostError(text) from error
        except (AMQPConnectionError, AMQPChannelError) as error:
            raise ChannelLostError(error_words(error)) from error
        finally:
            self._answers.discard(answer)

    def _note_closed(self, _channel: pika.channel.Channel, reason: Exception) -> None:
        match reason:
            case ChannelClosedByBroker():
                code, text = reason.reply_code, f"{reason.reply_code} {reason.reply_text}"
                self.lost = ChannelLostError(text, code=code)
            case ConnectionClosedByBroker():
                code, text = reason.reply_code, f"{reason.reply_code} {reason.reply_text}"
                self.lost = ChannelLostError(text, connection_code=code)
            case _:
                self.lost = ChannelLostError(error_words(reason))
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(self.lost)
        for notify in self._on_lost:
            notify(self.lost)
