"""Looking at a broker without changing it, for `orderkeep doctor`.

Invariant: nothing is made, changed or deleted, and no message is lost. What is looked for is found
first, so that declaring it again makes nothing; what is published is rolled back; a message that a
look at a queue is given goes back to it, and counts as handed out once more.

Bindings are not looked at: AMQP cannot list them. Each declaration makes those that are missing.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orderkeep.messaging.broker import BrokerUnavailableError, Topology
from orderkeep.messaging.rabbitmq.channel import Channel, ChannelLostError
from orderkeep.messaging.rabbitmq.connection import Connection
from orderkeep.messaging.rabbitmq.declaring import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    declare_on,
    find,
    has_wrong_type,
)
from orderkeep.messaging.rabbitmq.delays import DEFAULT_EXCHANGE
from orderkeep.messaging.rabbitmq.options import RabbitOptions, WrongTopologyError
from orderkeep.messaging.rabbitmq.topology import (
    BindingDeclaration,
    ExchangeDeclaration,
    QueueDeclaration,
    declarations_of,
)

# Below every consumer that consumes in earnest: they are given messages first.
_LOWEST_PRIORITY = -1_000

# Reaches nobody: it is rolled back.
_NOBODYS_KEY = "orderkeep.doctor"


class FoundState(StrEnum):
    """How something of the topology was found."""

    AS_DECLARED = "as_declared"
    # Used as it is.
    DIFFERENT = "different"
    # Sends messages elsewhere: refused.
    WRONG_TYPE = "wrong_type"
    MISSING = "missing"
    # It is there; whether it is as declared, this user may not ask.
    NOT_PERMITTED = "not_permitted"


class Right(StrEnum):
    """What the broker lets a user do."""

    CONFIGURE = "configure"
    WRITE = "write"
    READ = "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One exchange or queue of the topology.

    Attributes:
        detail: The broker's own words, where it is not as declared.
    """

    kind: str
    name: str
    state: FoundState
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRight:
    """Something that the user of our connection may not do."""

    right: Right
    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerReport:
    """What a look at the broker has found.

    Attributes:
        product: What the broker calls itself, such as RabbitMQ.
        version: Such as 3.10.8.
        found: Every exchange and queue that the options ask for.
        refused_rights: Empty where the user may do all that is needed.
        problems: What keeps us from using the broker at all, and how to mend it.
    """

    product: str
    version: str
    found: tuple[Found, ...]
    refused_rights: tuple[RefusedRight, ...]
    problems: tuple[WrongTopologyError, ...]


async def inspect_broker(
    connection: Connection,
    topology: Topology,
    *,
    options: RabbitOptions,
    problems: Sequence[WrongTopologyError],
) -> BrokerReport:
    """Return what is there, and what the user may do.

    Args:
        connection: To be thrown away.
        topology: What should be there.
        options: How it is declared.
        problems: What was found before, for the report.

    Raises:
        BrokerUnavailableError: the connection is lost.
    """
    properties = connection.server_properties or {}
    looking = _Looking(connection, options)
    try:
        found = await looking.find_all(topology)
        refused_rights = await looking.refused_rights(found)
    except ChannelLostError as error:
        raise BrokerUnavailableError(error.text) from error
    return BrokerReport(
        product=str(properties.get("product", "")),
        version=str(properties.get("version", "")),
        found=found,
        refused_rights=refused_rights,
        problems=tuple(problems),
    )


class _Looking:
    """One look; each call has a channel of its own, for a refusal closes it."""

    def __init__(self, connection: Connection, options: RabbitOptions) -> None:
        self._connection = connection
        self._options = options

    async def find_all(self, topology: Topology) -> tuple[Found, ...]:
        return tuple(
            [
                await self._find(declaration)
                for declaration in declarations_of(topology, self._options)
                if not isinstance(declaration, BindingDeclaration)
            ]
        )

    async def refused_rights(self, found: Sequence[Found]) -> tuple[RefusedRight, ...]:
        present = [each for each in found if each.state is not FoundState.MISSING]
        refused = [
            RefusedRight(right=Right.CONFIGURE, name=each.name, detail=each.detail)
            for each in present
            if each.state is FoundState.NOT_PERMITTED
        ]
        exchanges = [DEFAULT_EXCHANGE, *_names(present, kind="exchange")]
        for name in exchanges:
            refused += await self._refused(Right.WRITE, name or "amq.default", _publishing(name))
        for name in _names(present, kind="queue"):
            refused += await self._refused(Right.READ, name, _consuming(name))
        return tuple(refused)

    async def _find(self, declaration: ExchangeDeclaration | QueueDeclaration) -> Found:
        kind = "exchange" if isinstance(declaration, ExchangeDeclaration) else "queue"
        name = declaration.name
        missing = await self._refusal(lambda channel: find(channel, declaration))
        if missing is not None and missing.code == NOT_FOUND:
            return Found(kind=kind, name=name, state=FoundState.MISSING)
        refusal = await self._refusal(lambda channel: declare_on(channel, declaration))
        if refusal is None:
            return Found(kind=kind, name=name, state=FoundState.AS_DECLARED)
        if refusal.code == ACCESS_REFUSED:
            state = FoundState.NOT_PERMITTED
        elif refusal.code == PRECONDITION_FAILED and kind == "exchange" and has_wrong_type(refusal):
            state = FoundState.WRONG_TYPE
        else:
            state = FoundState.DIFFERENT
        return Found(kind=kind, name=name, state=state, detail=refusal.text)

    async def _refused(
        self, right: Right, name: str, call: Callable[[Channel], Awaitable[None]]
    ) -> list[RefusedRight]:
        refusal = await self._refusal(call)
        if refusal is None or refusal.code != ACCESS_REFUSED:
            return []
        return [RefusedRight(right=right, name=name, detail=refusal.text)]

    async def _refusal(self, call: Callable[[Channel], Awaitable[None]]) -> ChannelLostError | None:
        """Return the broker's refusal of the call, or None.

        Raises:
            ChannelLostError: the connection is lost, or the broker does not answer.
        """
        channel = await Channel.open(self._connection, call_timeout_s=self._options.call_timeout_s)
        try:
            await call(channel)
        except ChannelLostError as error:
            if error.code is None:
                raise
            return error
        await channel.close()
        return None


def _names(found: Iterable[Found], *, kind: str) -> list[str]:
    return [each.name for each in found if each.kind == kind]


def _publishing(exchange: str) -> Callable[[Channel], Awaitable[None]]:
    async def call(channel: Channel) -> None:
        # The broker asks for the right when it reads the message, and forgets the message here.
        await channel.select_transactions()
        channel.raw.basic_publish(exchange, _NOBODYS_KEY, b"")
        await channel.roll_back()

    return call


def _consuming(queue: str) -> Callable[[Channel], Awaitable[None]]:
    async def call(channel: Channel) -> None:
        await channel.set_prefetch(1)
        tag = await channel.consume(
            queue,
            on_message=lambda *_message: None,
            arguments={"x-priority": _LOWEST_PRIORITY},
        )
        await channel.cancel(tag)
        # All that is in hand, by its number: none.
        channel.raw.basic_nack(0, multiple=True, requeue=True)

    return call
