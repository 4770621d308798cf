"""The broker port of one simulated process: one connection, over the simulated broker."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orderkeep.database.transaction import Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.arrival import identity_unread
from orderkeep.messaging.broker import BrokerUnavailableError, Topology
from orderkeep.messaging.message import Delivery, Message, PublishOutcome, PublishResult
from tests.simulation.broker_server import BrokerServer, Entry

if TYPE_CHECKING:
    from tests.simulation.process import Process

_CONFIRMED = PublishOutcome(result=PublishResult.CONFIRMED)

# How long a publisher waits for a confirm that is late.
_CONFIRM_TIMEOUT_S = 5.0


class SimulatedBroker:
    """A connection of one process, made anew whenever it has ended."""

    def __init__(self, server: BrokerServer, *, process: "Process") -> None:
        self._server = server
        self._process = process
        self._faults = server.faults
        self._draws = process.draws
        # Rises whenever the connection ends: what began on an older one has failed.
        self._connections_count = 0
        self._consumptions: list[SimulatedConsumption] = []
        self._number = server.number()
        server.clients[self._number] = self.drop
        process.brokers.append(self)

    async def declare(self, topology: Topology) -> None:
        """Make what is missing."""
        await self._travel()
        self._server.declare(topology)

    async def publish(
        self, messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        """Publish; whatever the connection does, a message arrives once or not at all."""
        del now  # the broker has the world's clock
        connection = self._connections_count
        await self._travel(connection)
        fault = self._faults.one_of(
            "connection-cut-before-publish",
            "connection-cut-midway",
            "confirm-lost",
            "confirm-late",
            "nack",
        )
        if fault == "connection-cut-before-publish":
            raise self._cut(fault)
        arriving = list(messages)
        if fault == "connection-cut-midway":
            del arriving[self._draws.randrange(len(arriving)) :]
        outcomes = [self._arrive(message, fault=fault) for message in arriving]
        self._process.note("publish", len(arriving), fault or "")
        if fault in ("connection-cut-midway", "confirm-lost"):
            raise self._cut(fault)
        if fault == "confirm-late":
            await self._process.pause(_CONFIRM_TIMEOUT_S)
            outcomes = self._unconfirmed(outcomes)
        await self._travel(connection)
        return outcomes

    def stop_publishing(self) -> None:
        """Close the way out at once."""
        self._connections_count += 1

    async def consume(self, queue: str, *, prefetch: int) -> "SimulatedConsumption":
        """Start to receive from the queue."""
        await self._travel()
        if queue not in self._server.queues:
            message = f"there is no queue {queue}"
            raise BrokerUnavailableError(message)
        consumption = SimulatedConsumption(
            self._server, process=self._process, queue=queue, prefetch=prefetch
        )
        self._consumptions.append(consumption)
        return consumption

    async def ready_count(self, queue: str) -> int:
        """Return how many messages wait in the queue."""
        await self._travel()
        return len(self._server.queues.get(queue, ()))

    async def close(self) -> None:
        """End the connection."""
        self.drop()

    def drop(self) -> None:
        """End the connection; what its consumers have in hand goes back."""
        self._connections_count += 1
        consumptions, self._consumptions = self._consumptions, []
        for consumption in consumptions:
            consumption.end()

    def forget(self) -> None:
        """End with the process."""
        self.drop()
        self._server.clients.pop(self._number, None)

    def _arrive(self, message: Message, *, fault: str | None) -> PublishOutcome:
        if fault == "nack" and self._draws.random() < 0.5:
            return PublishOutcome(result=PublishResult.ROUTE_DOWN, detail="nack")
        if message.deliver_at is not None and self._faults.happens("not-held"):
            return PublishOutcome(result=PublishResult.NOT_HELD, detail="no queue for that delay")
        if self._server.accept(message, now=self._process.database_now()):
            return _CONFIRMED
        return PublishOutcome(
            result=PublishResult.ROUTE_DOWN, detail=f"{message.route} leads to no queue"
        )

    def _unconfirmed(self, outcomes: Sequence[PublishOutcome]) -> list[PublishOutcome]:
        """Let the last of the confirms not have come."""
        confirmed_count = self._draws.randrange(len(outcomes))
        late = PublishOutcome(result=PublishResult.ROUTE_DOWN, detail="no confirm in time")
        return [
            *outcomes[:confirmed_count],
            *(late for _ in range(len(outcomes) - confirmed_count)),
        ]

    def _cut(self, why: str) -> BrokerUnavailableError:
        self.drop()
        return BrokerUnavailableError(why)

    async def _travel(self, connection: int | None = None) -> None:
        latency_s = self._process.world_latency_s * (0.5 + self._draws.random())
        if self._faults.happens("broker-slow"):
            latency_s += 3 * self._draws.random()
        await self._process.pause(latency_s)
        if self._server.is_down:
            message = "the broker does not answer"
            raise BrokerUnavailableError(message)
        if connection is not None and connection != self._connections_count:
            message = "the connection ended"
            raise BrokerUnavailableError(message)


class SimulatedConsumption:
    """One consumer's hold on one queue."""

    def __init__(
        self, server: BrokerServer, *, process: "Process", queue: str, prefetch: int
    ) -> None:
        self.queue = queue
        self.arrived = asyncio.Event()
        self._server = server
        self._process = process
        self._faults = server.faults
        self._prefetch = prefetch
        self._in_hand: dict[int, Entry] = {}
        self._is_taking = True
        self._is_ended = False
        self._number = server.number()
        server.consumptions[queue][self._number] = self

    async def take(self, *, count_max: int) -> Sequence[Delivery]:
        """Wait for messages."""
        while True:
            self._check()
            if not self._is_taking:
                return []
            waiting = self._server.queues.get(self.queue)
            free_count = min(count_max, self._prefetch - len(self._in_hand))
            if waiting and free_count > 0:
                # What comes meanwhile comes along.
                await self._process.pause(self._process.world_latency_s)
                self._check()
                if deliveries := self._taken(count_max=free_count):
                    return deliveries
                continue
            self.arrived.clear()
            await self.arrived.wait()

    async def acknowledge_within(
        self, transaction: Transaction, deliveries: Sequence[Delivery]
    ) -> None:
        """Do nothing: this broker is acknowledged to after the commit."""

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge; it may be lost on the way, with the connection."""
        self._check()
        if self._faults.happens("acknowledgement-lost"):
            self.end()
            self._check()
        for delivery in deliveries:
            del self._in_hand[delivery.tag]
            # What is planted has no id: it is known by its body, for nobody can read it.
            self._server._watch.acknowledged(self.queue, identity_unread(delivery))
        self._process.note("ack", self.queue, len(deliveries))
        self.arrived.set()

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return untouched deliveries."""
        self._check()
        self._server.bring_back(
            self.queue, [self._in_hand.pop(delivery.tag) for delivery in deliveries]
        )

    def stop_taking(self) -> None:
        """Take no more."""
        self._is_taking = False
        self.arrived.set()

    async def close(self) -> None:
        """Let go of the queue."""
        self.end()

    def end(self) -> None:
        """End with the connection: what is in hand goes back to the queue."""
        if self._is_ended:
            return
        self._is_ended = True
        del self._server.consumptions[self.queue][self._number]
        entries, self._in_hand = list(self._in_hand.values()), {}
        self._server.bring_back(self.queue, entries)
        self.arrived.set()

    def _taken(self, *, count_max: int) -> list[Delivery]:
        waiting = self._server.queues.get(self.queue)
        deliveries: list[Delivery] = []
        while waiting and len(deliveries) < count_max:
            entry = waiting.popleft()
            tag = self._server.number()
            self._in_hand[tag] = entry
            deliveries.append(
                Delivery(
                    queue=self.queue,
                    tag=tag,
                    body=entry.body,
                    message_id=entry.message_id,
                    type=entry.type,
                    headers=entry.headers,
                    redelivered=entry.redelivered,
                )
            )
        if deliveries:
            self._process.note("take", self.queue, len(deliveries))
        return deliveries

    def _check(self) -> None:
        if self._is_ended:
            message = "the connection ended"
            raise BrokerUnavailableError(message)
