"""Declaring the topology at a broker where others may have been first.

Invariant: what exists is never changed and never deleted. A queue that somebody declared with other
arguments is used as it is, and noted; what would send messages wrong is refused.

Each refusal by the broker closes the channel, so it costs a new one; where all is as declared, one
channel serves for everything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from pika import spec

from orderkeep.messaging.broker import BrokerUnavailableError, Delay
from orderkeep.messaging.message import PublishResult
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError
from orderkeep.messaging.rabbitmq.confirms import ConfirmChannel, Publication
from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.options import (
    DelayPluginMissingError,
    RabbitOptions,
    WrongTopologyError,
)
from orderkeep.messaging.rabbitmq.properties import encode_probe_properties
from orderkeep.messaging.rabbitmq.topology import (
    DELAYED_ARGUMENTS,
    DELAYED_TYPE,
    BindingDeclaration,
    Declaration,
    ExchangeDeclaration,
    QueueDeclaration,
)

# An argument with a value that it may not have: an exchange declared with it is never made.
EXCHANGE_POISON = "alternate-exchange"
NO_EXCHANGE = 0

# Nobody binds with this key, and no queue and no exchange has this name.
NOBODYS_NAME = "orderkeep-looks"

# The properties of an exchange that decide where its messages go.
_TYPE_WORDS = ("'type'", "'x-delayed-type'")

_PROBE_ID = "orderkeep-probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that exists, but not as we would declare it.

    Attributes:
        name: Of the exchange or the queue.
        detail: What the broker says of it.
    """

    name: str
    detail: str


async def declare_all(
    connection: Connection, declarations: Iterable[Declaration], *, options: RabbitOptions
) -> list[Difference]:
    """Make what is missing, and return what is there in another form.

    Raises:
        BrokerUnavailableError: the connection is lost, or something is missing that cannot be made.
        WrongTopologyError: an exchange is of a type that sends messages elsewhere.
    """
    declaring = _Declaring(connection, options)
    try:
        for declaration in declarations:
            await declaring.declare(declaration)
    except ChannelLostError as error:
        raise BrokerUnavailableError(error.text) from error
    finally:
        await declaring.close()
    return declaring.differences


class _Declaring:
    """One pass over the declarations."""

    def __init__(self, connection: Connection, options: RabbitOptions) -> None:
        self.differences: list[Difference] = []
        self._connection = connection
        self._options = options
        self._channel: Channel | None = None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def declare(self, declaration: Declaration) -> None:
        channel = await self._open_channel()
        try:
            await _declare_on(channel, declaration)
        except ChannelLostError as error:
            match error.code:
                case None:
                    raise
                case spec.ACCESS_REFUSED | spec.PRECONDITION_FAILED:
                    await self._use_as_it_is(declaration, error)
                case _:
                    raise BrokerUnavailableError(error.text) from error

    async def _use_as_it_is(self, declaration: Declaration, error: ChannelLostError) -> None:
        if (
            isinstance(declaration, ExchangeDeclaration)
            and error.code == spec.PRECONDITION_FAILED
            and _has_wrong_type(error)
        ):
            raise _wrong_type(declaration, error) from error
        # Nobody can tell whether a binding is there; if not, messages are returned.
        name = (
            declaration.queue if isinstance(declaration, BindingDeclaration) else declaration.name
        )
        try:
            await _require(await self._open_channel(), declaration)
        except ChannelLostError as missing:
            if missing.code is None:
                raise
            message = f"{name} is missing and could not be made: {error.text}"
            raise BrokerUnavailableError(message) from missing
        self.differences.append(Difference(name=name, detail=error.text))

    async def _open_channel(self) -> Channel:
        if self._channel is None or self._channel.lost is not None:
            self._channel = await Channel.open(
                self._connection, call_timeout_s=self._options.call_timeout_s
            )
        return self._channel


async def _declare_on(channel: Channel, declaration: Declaration) -> None:
    """Declare one thing.

    Raises:
        ChannelLostError: the broker refuses it.
    """
    match declaration:
        case ExchangeDeclaration():
            await channel.declare_exchange(
                declaration.name,
                exchange_type=declaration.type,
                arguments=declaration.arguments,
            )
        case QueueDeclaration():
            await channel.declare_queue(declaration.name, arguments=declaration.arguments)
        case BindingDeclaration():
            await channel.bind_queue(
                declaration.queue,
                exchange=declaration.exchange,
                routing_key=declaration.routing_key,
            )
        case _:
            assert_never(declaration)


async def _require(channel: Channel, declaration: Declaration) -> None:
    """Return if what is declared exists in whatever form; a binding, if its ends do.

    Raises:
        ChannelLostError: it does not, with the code 404.
    """
    match declaration:
        case ExchangeDeclaration():
            await channel.require_exchange(declaration.name)
        case QueueDeclaration():
            await channel.require_queue(declaration.name)
        case BindingDeclaration():
            await channel.require_exchange(declaration.exchange)
            await channel.require_queue(declaration.queue)
        case _:
            assert_never(declaration)


def _has_wrong_type(error: ChannelLostError) -> bool:
    """Whether the broker refused an exchange because of how it picks queues."""
    return any(word in error.text for word in _TYPE_WORDS)


def _wrong_type(declaration: ExchangeDeclaration, error: ChannelLostError) -> WrongTopologyError:
    """Return the refusal of an exchange that has another type."""
    return WrongTopologyError(
        f"The exchange {declaration.name} is of another type than {declaration.type}: {error.text}",
        steps=(
            "stop the programs that publish to it, delete the exchange "
            f"(rabbitmqadmin delete exchange name={declaration.name}) and start again; it is made "
            "anew. If another program needs it as it is, choose the ORDERKEEP_DELAY_BACKEND that "
            "fits its type: plugin for x-delayed-message, outbox for none of our business."
        ),
    )


async def require_plugin(connection: Connection, *, options: RabbitOptions) -> None:
    """Refuse a broker that has no delayed message exchanges; nothing is made.

    Args:
        connection: To be thrown away: a broker that does not know the type closes it.
        options: How long the broker has.

    Raises:
        DelayPluginMissingError: it has none.
        BrokerUnavailableError: the connection is lost.
    """
    try:
        channel = await Channel.open(connection, call_timeout_s=options.call_timeout_s)
        await channel.declare_exchange(
            NOBODYS_NAME,
            exchange_type=DELAYED_TYPE,
            arguments={**DELAYED_ARGUMENTS, EXCHANGE_POISON: NO_EXCHANGE},
        )
    except ChannelLostError as error:
        if spec.COMMAND_INVALID in (error.connection_code, error.code):
            raise _plugin_missing(error) from error
        # Whatever else it objects to, it has found the type before.
        if error.code is None:
            raise BrokerUnavailableError(error.text) from error


def _plugin_missing(error: ChannelLostError) -> DelayPluginMissingError:
    return DelayPluginMissingError(
        f"The broker has no exchanges of the type {DELAYED_TYPE}: {error.text}",
        steps=(
            "set ORDERKEEP_DELAY_BACKEND=hold-queue, which needs no plugin; or "
            "install and enable rabbitmq_delayed_message_exchange on every node (it is not "
            "maintained any more, and does not run on RabbitMQ 4.3 and later)."
        ),
    )


async def refuse_stray_bindings(
    connection: Connection, delays: Sequence[Delay], *, options: RabbitOptions
) -> bool:
    """Refuse a binding that leads from a delayed exchange straight to its queue.

    AMQP has no way to list bindings. So an empty message is published with the queue's name as
    key, which is what somebody used who bound the queue there: where nothing is bound, the broker
    returns it. Where it arrives, every consumption of ours lets it go.

    Args:
        connection: To be thrown away: a broker with an alarm blocks the connection of a probe.
        delays: Those whose exchange is a direct one.
        options: How long the broker has.

    Returns:
        Whether the broker answered. During an alarm it does not, and consumers shall start.

    Raises:
        WrongTopologyError: there is one.
    """
    try:
        channel = await ConfirmChannel.open(connection, call_timeout_s=options.call_timeout_s)
    except ChannelLostError:
        return False
    batch = await channel.run([_probe(delay) for delay in delays], timeout_s=options.blocked_wait_s)
    for delay, outcome in zip(delays, batch.outcomes, strict=True):
        if outcome is not None and outcome.result is PublishResult.CONFIRMED:
            raise _stray_binding(delay)
    return all(batch.outcomes)


def _probe(delay: Delay) -> Publication:
    return Publication(
        exchange=delay.exchange,
        routing_key=delay.queue,
        is_mandatory=True,
        message_id=_PROBE_ID,
        properties=encode_probe_properties(_PROBE_ID),
        body=b"",
    )


def _stray_binding(delay: Delay) -> WrongTopologyError:
    return WrongTopologyError(
        f"The exchange {delay.exchange} is bound straight to the queue {delay.queue}, so that a "
        "delayed message would arrive at once",
        steps=(
            "remove the binding (rabbitmqadmin delete binding "
            f"source={delay.exchange} destination_type=queue destination={delay.queue} "
            f"properties_key={delay.queue}) and start again. The queue gets its messages from "
            f"the queue that holds them, {delay.hold_queue_prefix}…, by itself."
        ),
    )
