"""A cart and a payment service of somebody else's, as their makers would write them with aio-pika.

They know the names of the queues and what bodies hold, and nothing else of Orderkeep: none of its
modules is used here. What they send are bodies alone, without a property or a header.

    with ForeignProgram(url) as program:
        bank = ForeignBank(program)
        program.declare(*BANK_QUEUES)
        bank.open()
        bank.pay(order_no, trade_no="T-1", amount="10.00")
"""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeVar

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq import spec

T = TypeVar("T")

Body = dict[str, Any]

CART_QUEUES = ("cart-sync",)
BANK_QUEUES = (
    "payment.order.events",
    "payment.success.notify",
    "payment.refund.request",
    "payment.refund.result",
    "payment.opened.notify",
)

# The property flags of AMQP, none of which is set.
NO_PROPERTIES = b"\x00\x00"

# What a broker answers at once may take long where everything shares two processors.
_CALL_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Digits:
    """A JSON number with a fraction, by its digits: 100.00 is not 100.0, and no "100.00"."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A message as a foreign program received it.

    Attributes:
        other_properties: Those that no message of Orderkeep has.
    """

    body: bytes
    content_type: str | None
    delivery_mode: int
    message_id: str | None
    type: str | None
    timestamp: datetime | None
    headers: Mapping[str, Any]
    is_redelivered: bool
    routing_key: str | None
    other_properties: Mapping[str, object]

    @property
    def members(self) -> Body:
        """The body's members; its fractions are `Digits`."""
        return json.loads(self.body, parse_float=Digits)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a program sends before it acknowledges what it was sent."""

    queue: str
    body: Body


# Takes a message to heart and says what is to be sent for it.
React = Callable[[Arrived], Sequence[Reply]]


def take_note(_arrived: Arrived) -> Sequence[Reply]:
    """Do nothing: that it arrived is all."""
    return ()


class ForeignProgram:
    """One connection to RabbitMQ, at work on a thread of its own.

    Attributes:
        arrived: What was received so far, by queue, in order.
    """

    def __init__(self, url: str) -> None:
        self.arrived: dict[str, list[Arrived]] = {}
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._connect())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self._run(self._connection.close())
        finally:
            self._end_thread()

    def declare(self, *queues: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Declare durable queues; with no arguments, which is what most programs do."""
        for queue in queues:
            self._run(self._declare(queue, arguments=arguments))

    def bind(self, queue: str, *, exchange: str, routing_key: str) -> None:
        """Have a queue receive what an exchange that is there routes by the key."""
        self._run(self._bind(queue, exchange=exchange, routing_key=routing_key))

    def finds(self, *queues: str) -> bool:
        """Return whether all the queues are there, by declaring them passively."""
        return self._run(self._finds(queues))

    def consume(
        self, queue: str, react: React = take_note, *, priority: int = 0
    ) -> Callable[[], None]:
        """Receive from a queue; each message is acknowledged once its replies are confirmed.

        Args:
            queue: Where from.
            react: Is called for each message, one at a time.
            priority: As long as this consumer has room, those of a lower one receive nothing.

        Returns:
            What ends it.
        """
        self.arrived.setdefault(queue, [])
        tag = self._run(self._consume(queue, react, priority=priority))
        return lambda: self._run(self._cancel(queue, tag))

    def give_back_first(self, queue: str) -> None:
        """Receive from a queue, and return each message to it when it comes for the first time."""
        self.arrived.setdefault(queue, [])
        self._run(self._consume(queue, None, priority=0))

    def send(self, queue: str, body: Body | bytes, *, properties: bytes = NO_PROPERTIES) -> None:
        """Send a message and wait until the broker has confirmed it.

        Args:
            queue: Where to, through the default exchange.
            body: As it is, or to be written as JSON.
            properties: As AMQP encodes them, flags first.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._run(self._send(queue, raw, properties=properties))

    def send_with_library_defaults(self, queue: str, body: Body) -> None:
        """Send a message as aio-pika does when nothing is asked for: each has a new message id."""
        message = aio_pika.Message(json.dumps(body).encode())
        self._run(self._channel.default_exchange.publish(message, routing_key=queue))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S_MAX)

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connect(self) -> None:
        self._connection = await aio_pika.connect(self._url)
        self._channel = await self._connection.channel()
        await self._channel.set_qos(prefetch_count=1)

    async def _declare(self, queue: str, *, arguments: Mapping[str, Any] | None) -> None:
        await self._channel.declare_queue(
            queue, durable=True, arguments=None if arguments is None else dict(arguments)
        )

    async def _bind(self, queue: str, *, exchange: str, routing_key: str) -> None:
        found = await self._channel.declare_exchange(exchange, passive=True)
        await (await self._find(queue)).bind(found, routing_key=routing_key)

    async def _finds(self, queues: Sequence[str]) -> bool:
        # The broker closes the channel on which something was asked for in vain.
        async with await self._connection.channel() as channel:
            try:
                for queue in queues:
                    await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return False
        return True

    async def _find(self, queue: str) -> AbstractQueue:
        return await self._channel.declare_queue(queue, passive=True)

    async def _consume(self, queue: str, react: React | None, *, priority: int) -> str:
        async def receive(message: AbstractIncomingMessage) -> None:
            arrived = _arrived(message)
            self.arrived[queue].append(arrived)
            if react is None and not message.redelivered:
                await message.nack(requeue=True)
                return
            for reply in () if react is None else react(arrived):
                await self._send(
                    reply.queue, json.dumps(reply.body).encode(), properties=NO_PROPERTIES
                )
            await message.ack()

        return await (await self._find(queue)).consume(receive, arguments={"x-priority": priority})

    async def _cancel(self, queue: str, tag: str) -> None:
        await (await self._find(queue)).cancel(tag)

    async def _send(self, queue: str, raw: bytes, *, properties: bytes) -> None:
        channel = await self._channel.get_underlay_channel()
        await channel.basic_publish(raw, routing_key=queue, properties=_Encoded(properties))


class _Encoded(spec.Basic.Properties):
    """Properties that go out as the given bytes.

    aio-pika invents a message id where there is none, and sends no text that is not UTF-8.
    """

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw

    def marshal(self) -> bytes:
        return self._raw


def _arrived(message: AbstractIncomingMessage) -> Arrived:
    others = (
        "content_encoding",
        "correlation_id",
        "reply_to",
        "expiration",
        "user_id",
        "app_id",
    )
    return Arrived(
        body=message.body,
        content_type=message.content_type,
        delivery_mode=int(message.delivery_mode or 0),
        message_id=message.message_id,
        type=message.type,
        timestamp=message.timestamp,
        headers=dict(message.headers),
        is_redelivered=bool(message.redelivered),
        routing_key=message.routing_key,
        other_properties={
            name: value for name in others if (value := getattr(message, name)) is not None
        },
    )


class ForeignCart:
    """A cart: lines that orders take out.

    Attributes:
        item_ids: What is in the cart of each user.
    """

    def __init__(self, program: ForeignProgram) -> None:
        self.item_ids: dict[str, set[str]] = {}
        self._program = program

    def open(self) -> None:
        """Begin to receive."""
        self._program.consume("cart-sync", self._take_out)

    def _take_out(self, arrived: Arrived) -> Sequence[Reply]:
        event = arrived.members
        assert event["event_type"] == "cart.item.removed"
        self.item_ids.get(event["user_id"], set()).discard(event["item_id"])
        return ()


@dataclass
class ForeignBank:
    """A payment service: learns what is owed, reports what was paid, pays back.

    Attributes:
        orders: The newest that it has heard of each order.
        refunds: The requests that it has carried out, by refund number.
        refund_request_count: How many requests came, copies too.
    """

    program: ForeignProgram
    orders: dict[str, Body] = field(default_factory=dict)
    refunds: dict[str, Body] = field(default_factory=dict)
    refund_request_count: int = 0

    def open(self) -> None:
        """Begin to receive."""
        self.program.consume("payment.order.events", self._learn)
        self.program.consume("payment.refund.request", self._pay_back)

    def status_of(self, order_no: str) -> str | None:
        """Return how the order stands, or None if it has not heard of it."""
        return self.orders.get(order_no, {}).get("status")

    def begin(self, order_no: str, *, payment_no: str) -> None:
        """Tell that somebody is about to pay."""
        self.program.send("payment.opened.notify", {"payment_no": payment_no, "order_no": order_no})

    def pay(self, order_no: str, *, trade_no: str, copy_count: int = 1) -> None:
        """Report that what is owed has been paid, as often as is asked for."""
        body = {
            "order_no": order_no,
            "trade_no": trade_no,
            "pay_channel": "foreign-bank",
            "amount": self.orders[order_no]["pay_amount"].text,
            "currency": self.orders[order_no]["currency"],
        }
        for _ in range(copy_count):
            self.program.send("payment.success.notify", body)

    def refunds_of(self, order_no: str) -> list[Body]:
        """Return the requests for refunds of an order that it has carried out."""
        return [refund for refund in self.refunds.values() if refund["order_no"] == order_no]

    def _learn(self, arrived: Arrived) -> Sequence[Reply]:
        event = arrived.members
        known = self.orders.get(event["order_no"])
        if known is None or known["version"] < event["version"]:
            self.orders[event["order_no"]] = event
        return ()

    def _pay_back(self, arrived: Arrived) -> Sequence[Reply]:
        request = arrived.members
        self.refund_request_count += 1
        self.refunds.setdefault(request["refund_no"], request)
        result = {
            "refund_no": request["refund_no"],
            "order_no": request["order_no"],
            "amount": float(request["amount"].text),
            "status": "succeeded",
            "channel_refund_no": f"B/{request['refund_no']}",
            "finished_at": "2024-01-01T18:41:00.5+08:00",
        }
        # Its own answer may come twice as well.
        return [Reply("payment.refund.result", result)] * 2
