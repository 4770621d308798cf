"""Looks at RabbitMQ: what is there of the topology, how it differs, and what our user may do.

Invariant: nothing is made, see `questions.py`, with the one exception that `work` makes,
too: a binding past the hold queue shows only when a message takes it. See `refuse_stray_bindings`.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from pika import spec

from orderkeep.messaging.broker import BrokerUnavailableError, Topology
from orderkeep.messaging.rabbitmq.channel import ChannelLostError
from orderkeep.messaging.rabbitmq.connection import (
    ConnectFailedError,
    Connection,
    address_of,
    connect,
    parameters_of,
)
from orderkeep.messaging.rabbitmq.declaring import (
    EXCHANGE_POISON,
    refuse_stray_bindings,
    require_plugin,
)
from orderkeep.messaging.rabbitmq.delays import DEFAULT_EXCHANGE
from orderkeep.messaging.rabbitmq.facts import (
    DEFAULT_EXCHANGE_IN_RIGHTS,
    AddressFacts,
    ArgumentDifference,
    BrokerFacts,
    ExchangeFacts,
    QueueFacts,
    Right,
    differing_argument,
    plain_value,
    refused_kind,
)
from orderkeep.messaging.rabbitmq.options import DelayBackend, RabbitOptions, WrongTopologyError
from orderkeep.messaging.rabbitmq.questions import (
    QUEUE_POISONS,
    Objection,
    Questions,
)
from orderkeep.messaging.rabbitmq.topology import (
    DELAYED_TYPE,
    BindingDeclaration,
    ExchangeDeclaration,
    QueueDeclaration,
    dead_queue,
    declarations_of,
)

# More arguments than any queue has.
_DIFFERENCES_COUNT_MAX = 20


async def look_at_address(url: str, *, options: RabbitOptions) -> AddressFacts:
    """Return what answers at the address."""
    parameters = parameters_of(url, options=options, name=options.connection_name)
    facts = AddressFacts(
        address=address_of(parameters),
        host=parameters.host,
        is_encrypted=parameters.ssl_options is not None,
    )
    try:
        async with _connected(url, options=options) as connection:
            properties: Mapping[str, Any] = connection.server_properties or {}
    except ConnectFailedError as error:
        return replace(facts, error=str(error))
    return replace(
        facts,
        product=str(properties.get("product", "")),
        version=str(properties.get("version", "")),
        cluster=str(properties["cluster_name"]) if "cluster_name" in properties else None,
    )


async def look_at_broker(
    url: str, topology: Topology, *, options: RabbitOptions, consumed_queues: Collection[str]
) -> BrokerFacts:
    """Return what there is of the topology at an address, and what its user may do with it.

    Args:
        url: An address that answers.
        topology: What we would declare.
        options: How we would.
        consumed_queues: The queues that services here read.
    """
    parts = urlsplit(url)
    facts = BrokerFacts(
        user=unquote(parts.username or "guest"), vhost=unquote(parts.path.removeprefix("/")) or "/"
    )
    try:
        async with _connected(url, options=options) as connection:
            look = _Look(
                Questions(connection, call_timeout_s=options.call_timeout_s),
                topology,
                options=options,
                consumed_queues=consumed_queues,
            )
            facts = replace(facts, queues=await look.queues())
            facts = replace(facts, exchanges=await look.exchanges())
        return replace(
            facts,
            plugin_error=await _find_plugin_error(url, options=options),
            stray_binding=await _find_stray_binding(
                url, topology, options=options, exchanges=facts.exchanges
            ),
        )
    except (BrokerUnavailableError, ChannelLostError, ConnectFailedError) as error:
        return replace(facts, lost=str(error))


@asynccontextmanager
async def _connected(url: str, *, options: RabbitOptions) -> AsyncIterator[Connection]:
    connection = await connect(parameters_of(url, options=options, name=options.connection_name))
    try:
        yield connection
    finally:
        connection.drop("everything has been looked at")


class _Look:
    """One pass over the topology."""

    def __init__(
        self,
        questions: Questions,
        topology: Topology,
        *,
        options: RabbitOptions,
        consumed_queues: Collection[str],
    ) -> None:
        declarations = declarations_of(topology, options)
        self._questions = questions
        self._read_queues = {*consumed_queues, *map(dead_queue, consumed_queues)}
        self._queues = [each for each in declarations if isinstance(each, QueueDeclaration)]
        self._exchanges = [each for each in declarations if isinstance(each, ExchangeDeclaration)]
        self._bindings = [each for each in declarations if isinstance(each, BindingDeclaration)]

    async def queues(self) -> tuple[QueueFacts, ...]:
        exchanges = {each.queue: each.exchange for each in self._bindings}
        return tuple(
            [await self._queue(each, exchange=exchanges.get(each.name)) for each in self._queues]
        )

    async def exchanges(self) -> tuple[ExchangeFacts, ...]:
        queues = {each.exchange: each.queue for each in self._bindings}
        default = ExchangeFacts(
            name=DEFAULT_EXCHANGE_IN_RIGHTS,
            wanted_type="direct",
            type="direct",
            refused=_right_if(Right.WRITE, await self._questions.write(DEFAULT_EXCHANGE)),
        )
        ours = [await self._exchange(each, queue=queues.get(each.name)) for each in self._exchanges]
        return (default, *ours)

    async def _queue(self, declaration: QueueDeclaration, *, exchange: str | None) -> QueueFacts:
        name = declaration.name
        facts = QueueFacts(name=name, message_count=None)
        counts = await self._questions.count(name)
        if isinstance(counts, Objection):
            if counts.code != spec.NOT_FOUND:
                return replace(facts, unclear=counts.text)
        else:
            facts = replace(
                facts, message_count=counts.message_count, consumer_count=counts.consumer_count
            )
        objection = await self._declare(name, declaration.arguments)
        refused = _right_if(Right.CONFIGURE, objection)
        if objection is not None and not refused and facts.message_count is not None:
            differences, unclear = await self._differences(declaration, objection)
            facts = replace(facts, differences=differences, unclear=unclear)
        if name in self._read_queues:
            refused |= _right_if(Right.READ, await self._questions.consume(name))
        if exchange is not None:
            objection = await self._questions.unbind(name, exchange=exchange)
            refused |= _right_if(Right.WRITE, objection, kind="queue")
        return replace(facts, refused=refused)

    async def _exchange(
        self, declaration: ExchangeDeclaration, *, queue: str | None
    ) -> ExchangeFacts:
        name, wanted = declaration.name, declaration.type
        facts = ExchangeFacts(name=name, wanted_type=wanted, type=None)
        missing = await self._questions.find_exchange(name)
        if missing is not None and missing.code != spec.NOT_FOUND:
            return replace(facts, unclear=missing.text)
        # A broker that does not know a type closes the connection; one that has it says so itself.
        asked_type = "direct" if wanted == DELAYED_TYPE else wanted
        objection = await self._questions.declare_exchange(name, exchange_type=asked_type)
        refused = _right_if(Right.CONFIGURE, objection)
        if missing is not None:
            return replace(facts, refused=refused)
        if refused:
            # Nobody tells us what it is; it is used as it is.
            facts = replace(facts, type=wanted)
        elif objection is not None:
            property_name, found = differing_argument(objection.text, ours={}) or (None, None)
            if property_name == EXCHANGE_POISON:
                facts = replace(facts, type=asked_type)
            elif property_name == "type":
                facts = replace(facts, type=str(found))
            else:
                facts = replace(facts, type=asked_type, unclear=objection.text)
        refused |= _right_if(Right.WRITE, await self._questions.write(name))
        if queue is not None:
            objection = await self._questions.unbind(queue, exchange=name)
            refused |= _right_if(Right.READ, objection, kind="exchange")
        return replace(facts, refused=refused)

    async def _declare(
        self, name: str, arguments: Mapping[str, object], *, poison: int = 0
    ) -> Objection | None:
        return await self._questions.declare_queue(name, arguments, poison=QUEUE_POISONS[poison])

    async def _differences(
        self, declaration: QueueDeclaration, objection: Objection
    ) -> tuple[tuple[ArgumentDifference, ...], str | None]:
        """Return how a queue differs, and what of the broker's words is unclear.

        The broker tells of one difference at a time. What it tells is taken over into the next
        question, until it objects to nothing but the poison.
        """
        ours = declaration.arguments
        assumed = dict(ours)
        found: list[ArgumentDifference] = []
        poison = 0
        current: Objection | None = objection
        while current is not None and len(found) < _DIFFERENCES_COUNT_MAX:
            is_told = current.code == spec.PRECONDITION_FAILED
            told = differing_argument(current.text, ours=assumed) if is_told else None
            if told is None or told[0] in {each.name for each in found}:
                return tuple(found), current.text
            name, theirs = told
            if name == QUEUE_POISONS[poison]:
                # Queues of this kind have it, and so compare it; they lack the other.
                poison += 1
                if poison == len(QUEUE_POISONS):
                    break
            else:
                found.append(
                    ArgumentDifference(name=name, ours=plain_value(ours.get(name)), theirs=theirs)
                )
                if not name.startswith("x-"):
                    # Durable, exclusive, auto-delete: nothing is told beyond it.
                    break
                assumed.pop(name, None)
                if theirs is not None:
                    assumed[name] = theirs
            current = await self._declare(declaration.name, assumed, poison=poison)
        return tuple(found), None


async def _find_plugin_error(url: str, *, options: RabbitOptions) -> WrongTopologyError | None:
    """Return why there are no delayed message exchanges, where they are wanted."""
    if options.delay is not DelayBackend.PLUGIN:
        return None
    # A broker that does not know the type closes the whole connection.
    async with _connected(url, options=options) as connection:
        try:
            await require_plugin(connection, options=options)
        except WrongTopologyError as error:
            return error
    return None


async def _find_stray_binding(
    url: str, topology: Topology, *, options: RabbitOptions, exchanges: Collection[ExchangeFacts]
) -> WrongTopologyError | None:
    """Return what leads past the hold queue, where there is one."""
    if options.delay is not DelayBackend.HOLD_QUEUE:
        return None
    usable = {
        each.name for each in exchanges if each.type == "direct" and Right.WRITE not in each.refused
    }
    delays = [delay for delay in topology.delays if delay.exchange in usable]
    if not delays:
        return None
    async with _connected(url, options=options) as connection:
        try:
            await refuse_stray_bindings(connection, delays, options=options)
        except WrongTopologyError as error:
            return error
    return None


def _right_if(
    right: Right, objection: Objection | None, *, kind: str | None = None
) -> frozenset[Right]:
    """Return the right if the objection is that it is missing, for this kind of thing."""
    if objection is None or objection.code != spec.ACCESS_REFUSED:
        return frozenset()
    if kind is not None and refused_kind(objection.text) != kind:
        return frozenset()
    return frozenset({right})
