"""The broker on the database: queues as rows, for one machine with nothing else to run.

Invariant: a published message is a committed row, and the row goes only in the transaction that
takes the message's effect. To take a message is to lease its row: an owner's token, drawn for each
take, and an end by the database's clock; every later statement on the row is guarded by the token.
Of the messages with one order key only the earliest is handed out, and the next one not before
that row is gone.

A crash before the commit of `publish` leaves nothing, and the outbox sends again. A crash of the
consumer leaves its leases: they run out, or `release_all_leases` ends them where it is known that
nobody holds one; the messages then come again, marked `redelivered`. A crash after the commit of
the handler's transaction finds the row gone: there is no acknowledgement to lose.

A lease is not renewed: what is taken at once must be handled within `lease_s`, or another consumer
takes it over, and the slower one's transaction is refused by the guard and rolled back.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from orderkeep.database.transaction import Database, ReadTransaction, Transaction
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant, after
from orderkeep.messaging.broker import BrokerUnavailableError, LeaseLostError, Topology
from orderkeep.messaging.message import Delivery, Message, PublishOutcome, PublishResult
from orderkeep.messaging.queue_messages import (
    ACKNOWLEDGE,
    GIVE_BACK,
    NEXT_DUE_AT,
    NEXT_LEASE_END,
    PUBLISH,
    READY_COUNT,
    RELEASE_ALL,
    TAKE,
    delivery_of,
    published_row,
)
from orderkeep.messaging.routing import Routes
from orderkeep.messaging.signal import Signal

# A batch of a hundred is handled in well under a second; a minute covers a disk that hangs. Where
# leases can be released at start, nobody waits for their end.
LEASE_S = 60.0

# The database's clock may count milliseconds: a shorter wait would only find it unchanged.
_WAIT_S_MIN = 0.001


def _tell_nobody(_queue: str) -> None:
    """Do nothing: there is no other process."""


class DatabaseQueue:
    """A broker whose queues are rows in the service's own database."""

    def __init__(
        self,
        database: Database,
        *,
        new_token: Callable[[], str],
        poll_interval_s: float = 5.0,
        lease_s: float = LEASE_S,
        tell_others: Callable[[str], None] = _tell_nobody,
    ) -> None:
        """Keep the queues in the database.

        Args:
            database: Holds the table `queue_messages`.
            new_token: Draws a text that nobody else draws, such as a UUID.
            poll_interval_s: How often a waiting consumer looks for what another process has
                published; what this process publishes wakes it at once.
            lease_s: How long a consumer has for what it took.
            tell_others: Told each queue in which there may be something to take, so that consumers
                in other processes look as well; they call `wake`.
        """
        self._database = database
        self._new_token = new_token
        self._poll_interval_s = poll_interval_s
        self._lease_s = lease_s
        self._tell_others = tell_others
        self._routes = Routes(Topology(queues=(), exchanges=(), bindings=()))
        self._waiting: defaultdict[str, set[Signal]] = defaultdict(set)

    async def declare(self, topology: Topology) -> None:
        """Route by the topology from now on; a queue needs nothing but its rows."""
        self._routes = Routes(topology)

    async def publish(
        self, messages: Sequence[Message], *, now: Instant
    ) -> Sequence[PublishOutcome]:
        """Write every message into each queue it reaches, all in one transaction."""
        del now  # the transaction of the write reads the clock itself
        reached = [
            self._routes.queues_for(message.route, message_type=message.type)
            for message in messages
        ]
        queues = {queue for queues in reached for queue in queues}

        async def write(transaction: Transaction) -> None:
            now = await transaction.now()
            await transaction.execute_rows(
                PUBLISH,
                [
                    published_row(message, queue=queue, now=now)
                    for message, queues in zip(messages, reached, strict=True)
                    for queue in queues
                ],
            )
            transaction.after_commit(lambda: self.announce(queues))

        if queues:
            await self._database.transact(write)
        return [
            _outcome(message, is_routed=bool(queues))
            for message, queues in zip(messages, reached, strict=True)
        ]

    def stop_publishing(self) -> None:
        """Do nothing: a transaction that has not committed has published nothing."""

    async def consume(self, queue: str, *, prefetch: int) -> "DatabaseConsumption":
        """Start to receive from the queue."""
        if queue not in self._routes.queues:
            message = f"queue {queue} is not declared"
            raise BrokerUnavailableError(message)
        arrived = Signal()
        self._waiting[queue].add(arrived)
        return DatabaseConsumption(self, queue=queue, prefetch=prefetch, arrived=arrived)

    async def ready_count(self, queue: str) -> int:
        """Return how many messages are due and leased by nobody."""

        async def count(transaction: ReadTransaction) -> int:
            now = await transaction.now()
            row = await transaction.fetch_one(READY_COUNT, queue=queue, now=now)
            return row["message_count"] if row is not None else 0

        return await self._database.read(count)

    async def close(self) -> None:
        """Hold nothing: the database is its owner's to close."""

    async def release_all_leases(self) -> int:
        """End every lease and return how many there were.

        Only for a start that knows itself alone: the lock on the data directory proves that no
        other process of this database consumes.
        """

        async def release(transaction: Transaction) -> int:
            return await transaction.execute(RELEASE_ALL)

        return await self._database.transact(release)

    def announce(self, queues: Iterable[str]) -> None:
        """Let the consumers of the queues look again, in every process."""
        self.wake(queues)
        for queue in queues:
            self._tell_others(queue)

    def wake(self, queues: Iterable[str]) -> None:
        """Let the consumers of the queues in this process look again."""
        for queue in queues:
            for arrived in self._waiting[queue]:
                arrived.set()

    def forget(self, queue: str, *, arrived: Signal) -> None:
        """Wake this consumer no more."""
        self._waiting[queue].discard(arrived)

    async def take_now(self, queue: str, *, count_max: int) -> tuple[str, list[Delivery], float]:
        """Lease what may be handed out, without waiting.

        Returns:
            The token of the leases, what was leased, and, where that is nothing, after how many
            seconds to look again.
        """
        token = self._new_token()

        async def take(transaction: Transaction) -> tuple[list[Delivery], float]:
            now = await transaction.now()
            rows = await transaction.fetch_all(
                TAKE,
                queue=queue,
                now=now,
                token=token,
                new_lease_until=after(now, seconds=self._lease_s),
                count_max=count_max,
            )
            if not rows:
                return [], await self._wait_s(transaction, queue=queue, now=now)
            # RETURNING promises no order.
            rows.sort(key=lambda row: (row["due_at"], row["id"]))
            return [delivery_of(row, queue=queue) for row in rows], 0.0

        deliveries, wait_s = await self._database.transact(take)
        return token, deliveries, wait_s

    async def acknowledge_within(
        self, transaction: Transaction, ids_by_token: dict[str, list[int]]
    ) -> None:
        """Delete leased rows, or raise `LeaseLostError` if one of them is no longer leased."""
        for token, ids in sorted(ids_by_token.items()):
            deleted_count = await transaction.execute(ACKNOWLEDGE, ids=sorted(ids), token=token)
            if deleted_count != len(ids):
                message = f"{len(ids) - deleted_count} of {len(ids)} leases ran out"
                raise LeaseLostError(message)

    async def give_back(self, ids_by_token: dict[str, list[int]]) -> None:
        """End leases as if they had never been."""

        async def release(transaction: Transaction) -> None:
            for token, ids in sorted(ids_by_token.items()):
                await transaction.execute(GIVE_BACK, ids=sorted(ids), token=token)

        await self._database.transact(release)

    async def _wait_s(self, transaction: ReadTransaction, *, queue: str, now: Instant) -> float:
        due = await transaction.fetch_one(NEXT_DUE_AT, queue=queue, now=now)
        lease = await transaction.fetch_one(NEXT_LEASE_END, queue=queue, now=now)
        moments: list[Instant] = []
        if due is not None:
            moments.append(due["due_at"])
        if lease is not None and lease["lease_until"] is not None:
            moments.append(lease["lease_until"])
        if not moments:
            return self._poll_interval_s
        wait_s = (min(moments) - now) / MICROSECONDS_PER_SECOND
        return min(max(wait_s, _WAIT_S_MIN), self._poll_interval_s)


class DatabaseConsumption:
    """One consumer's hold on one queue in the database."""

    def __init__(
        self, broker: DatabaseQueue, *, queue: str, prefetch: int, arrived: Signal
    ) -> None:
        """Receive from the queue; see `DatabaseQueue.consume`."""
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._arrived = arrived
        self._is_taking = True
        # The token of each delivery in hand, by its tag.
        self._tokens: dict[int, str] = {}

    async def take(self, *, count_max: int) -> Sequence[Delivery]:
        """Wait for messages and lease at least one; none after `stop_taking`."""
        while self._is_taking:
            self._arrived.clear()
            wait_s: float | None = None
            free_count = min(count_max, self._prefetch - len(self._tokens))
            if free_count > 0:
                token, deliveries, wait_s = await self._broker.take_now(
                    self._queue, count_max=free_count
                )
                if deliveries:
                    self._tokens.update((delivery.tag, token) for delivery in deliveries)
                    return deliveries
            # With the hands full only an acknowledgement or `stop_taking` changes anything, and
            # both wake.
            await self._arrived.wait(timeout_s=wait_s)
        return []

    async def acknowledge_within(
        self, transaction: Transaction, deliveries: Sequence[Delivery]
    ) -> None:
        """Delete the messages in the handler's transaction."""
        if any(delivery.tag not in self._tokens for delivery in deliveries):
            message = "a delivery is no longer in hand"
            raise LeaseLostError(message)
        await self._broker.acknowledge_within(transaction, self._ids_by_token(deliveries))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Have the deliveries no longer in hand: their rows went with the handler's commit."""
        self._let_go(deliveries)
        # Another consumer may wait for the next message of an order key.
        self._broker.announce([self._queue])

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return untouched deliveries: they do not count as delivered."""
        ids_by_token = self._ids_by_token(deliveries)
        if ids_by_token:
            await self._broker.give_back(ids_by_token)
        self._let_go(deliveries)
        self._broker.announce([self._queue])

    def stop_taking(self) -> None:
        """Take no more; wake a `take` that waits."""
        self._is_taking = False
        self._arrived.set()

    async def close(self) -> None:
        """Leave what is in hand to the end of its lease."""
        self.stop_taking()
        self._broker.forget(self._queue, arrived=self._arrived)
        self._tokens.clear()

    def _ids_by_token(self, deliveries: Sequence[Delivery]) -> dict[str, list[int]]:
        ids_by_token: dict[str, list[int]] = {}
        for delivery in deliveries:
            token = self._tokens.get(delivery.tag)
            if token is not None:
                ids_by_token.setdefault(token, []).append(delivery.tag)
        return ids_by_token

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._tokens.pop(delivery.tag, None)


def _outcome(message: Message, *, is_routed: bool) -> PublishOutcome:
    if is_routed:
        return PublishOutcome(result=PublishResult.CONFIRMED)
    return PublishOutcome(
        result=PublishResult.ROUTE_DOWN,
        detail=f"no queue is bound to {message.route} for {message.type}",
    )
