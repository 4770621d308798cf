"""The limit for dispatch and consumption: the same client library with nothing of ours around it.

A publisher keeps a thousand confirms outstanding; a consumer acknowledges a hundred at once. Both
come twice: as pika is, and over the connection as Orderkeep has it (properties as bytes, many
messages in one write), which is the harder limit.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.properties import RawProperties

# So many that the broker never waits for us; a thousand more bring no more.
OUTSTANDING_COUNT_MAX = 1000

# What it may send ahead, and how many are acknowledged at once.
PREFETCH = 1000
ACKNOWLEDGED_TOGETHER = 100

# The bare ones are so quick that they do the same work a few times over, to take a second.
REPEAT_COUNT = 4

_TIME_LIMIT_S = 60.0

_PERSISTENT = 2

# By the name of the row.
KINDS: dict[str, type[AsyncioConnection]] = {
    "bare pika": AsyncioConnection,
    "bare pika, our connection": Connection,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BareMessage:
    """What is published, ready to go."""

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties


def properties_of(
    *,
    message_id: str,
    type_: str,
    headers: dict[str, object],
    timestamp_s: int,
    expiration_ms: int | None = None,
) -> BasicProperties:
    """Return the properties as Orderkeep writes them."""
    return BasicProperties(
        content_type="application/json",
        headers=headers,
        delivery_mode=_PERSISTENT,
        expiration=None if expiration_ms is None else str(expiration_ms),
        message_id=message_id,
        timestamp=timestamp_s,
        type=type_,
    )


def prepared_for(
    kind: type[AsyncioConnection], messages: Iterable[BareMessage]
) -> list[BareMessage]:
    """Return the messages as the kind of connection takes them best."""
    if kind is not Connection:
        return list(messages)
    return [
        replace(message, properties=RawProperties(b"".join(message.properties.encode())))
        for message in messages
    ]


@asynccontextmanager
async def open_channel(url: str, *, kind: type[AsyncioConnection]) -> AsyncIterator[Channel]:
    """Give a channel of a connection of its own."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Channel] = loop.create_future()

    def note(result: AsyncioConnection | Exception) -> None:
        if isinstance(result, AsyncioConnection):
            result.channel(on_open_callback=opened.set_result)
        else:
            opened.set_exception(result)

    kind.create_connection([pika.URLParameters(url)], on_done=note, custom_ioloop=loop)
    channel = await opened
    closed = asyncio.Event()
    channel.connection.add_on_close_callback(lambda *_reason: closed.set())
    try:
        yield channel
    finally:
        channel.connection.close()
        await closed.wait()


async def _answered(start: Callable[[Callable[[object], None]], object]) -> None:
    answer = asyncio.get_running_loop().create_future()
    start(lambda _frame: answer.set_result(None))
    await answer


class _Publisher:
    """Publishes a list with many confirms outstanding."""

    def __init__(self, channel: Channel, messages: Sequence[BareMessage]) -> None:
        self.confirmed = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._messages = messages
        self._sent_count = 0
        # By the broker's number, in its order.
        self._outstanding: dict[int, None] = {}
        # Several leave in one write, where the connection can.
        connection = channel.connection
        self._gathered: Callable[[], AbstractContextManager[None]] = getattr(
            connection, "gathered_writes", nullcontext
        )

    def publish_more(self) -> None:
        """Publish up to the limit of what may be outstanding."""
        with self._gathered():
            free_count = OUTSTANDING_COUNT_MAX - len(self._outstanding)
            begin = self._sent_count
            for message in self._messages[begin : begin + free_count]:
                self._channel.basic_publish(
                    message.exchange,
                    message.routing_key,
                    message.body,
                    message.properties,
                    mandatory=True,
                )
                self._sent_count += 1
                self._outstanding[self._sent_count] = None

    def note_settled(self, frame: pika.frame.Method) -> None:
        """Take a confirm, of one message or of all up to one."""
        method = frame.method
        if not isinstance(method, Basic.Ack):
            self._fail("the broker refused a message")
            return
        if method.multiple:
            while self._outstanding and next(iter(self._outstanding)) <= method.delivery_tag:
                del self._outstanding[next(iter(self._outstanding))]
        else:
            del self._outstanding[method.delivery_tag]
        # Not for each confirm a message: what leaves together is cheaper.
        if len(self._outstanding) <= OUTSTANDING_COUNT_MAX // 2:
            self.publish_more()
        if not self._outstanding and not self.confirmed.done():
            self.confirmed.set_result(None)

    def note_returned(self, *_returned: object) -> None:
        """Take a message that reached no queue."""
        self._fail("the broker returned a message")

    def _fail(self, why: str) -> None:
        if not self.confirmed.done():
            self.confirmed.set_exception(RuntimeError(why))


async def publish_all(channel: Channel, messages: Sequence[BareMessage]) -> float:
    """Publish the messages and return how long it took until all were confirmed."""
    publisher = _Publisher(channel, messages)
    channel.add_on_return_callback(publisher.note_returned)
    await _answered(
        lambda answer: channel.confirm_delivery(publisher.note_settled, callback=answer)
    )
    started_at_s = time.perf_counter()
    publisher.publish_more()
    async with asyncio.timeout(_TIME_LIMIT_S):
        await publisher.confirmed
    return time.perf_counter() - started_at_s


async def consume_all(channel: Channel, queue: str, *, message_count: int) -> float:
    """Receive so many messages and return how long it took until the last was acknowledged."""
    finished = asyncio.get_running_loop().create_future()
    received_count = 0

    def take(
        _channel: Channel, method: Basic.Deliver, _properties: BasicProperties, _body: bytes
    ) -> None:
        nonlocal received_count
        received_count += 1
        if received_count % ACKNOWLEDGED_TOGETHER == 0 or received_count == message_count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if received_count == message_count:
            finished.set_result(None)

    await _answered(lambda answer: channel.basic_qos(prefetch_count=PREFETCH, callback=answer))
    started_at_s = time.perf_counter()
    channel.basic_consume(queue, take)
    async with asyncio.timeout(_TIME_LIMIT_S):
        await finished
    return time.perf_counter() - started_at_s
