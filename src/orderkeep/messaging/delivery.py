"""Delivery: messages from a queue to their effect, and the only code that acknowledges.

Invariant: a message is acknowledged only once its effect, its next try or its dead letter is
committed. What fails in a batch is tried alone, so that it takes nobody with it; what ends the
process is counted before it is tried again, alone, and in the end set aside untried.

A crash before the commit leaves the message in its queue; it comes again, marked `redelivered`. A
crash after the commit, before the acknowledgement, brings a copy that the inbox recognises; where
the queue is in the database, the acknowledgement is part of the commit. While the database is away
nothing is tried, counted or set aside: what is in hand is held, and given back once the database
answers.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic

import structlog

from orderkeep.database.transaction import (
    Database,
    StoreBusyError,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import reach
from orderkeep.messaging.arrival import Arrival, identity_unread, read_arrival, unread_arrival
from orderkeep.messaging.broker import (
    Broker,
    BrokerUnavailableError,
    Consumption,
    LeaseLostError,
    Topology,
)
from orderkeep.messaging.consumer import Body, Consumer
from orderkeep.messaging.delivery_attempts import DeliveryAttempts
from orderkeep.messaging.message import Delivery
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.settling import MessageOutcome, RetryPolicy, Settled, Settling
from orderkeep.messaging.signal import is_set_within

log = structlog.get_logger()

# Says nothing about the message: its transaction is rolled back and it comes again as it was.
_NOBODYS_FAULT = (StoreUnavailableError, LeaseLostError, BrokerUnavailableError)

# An outage so many longest pauses after the last one is another one, with pauses of its own.
_OUTAGES_APART = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How a consumer goes about its queue.

    Attributes:
        prefetch: How many messages it has in hand at most, and handles in one transaction.
        retry: How often a message is tried.
        outage_pause_base_s: The mean of the first pause while database or broker is away.
        outage_pause_max_s: No such pause is longer.
    """

    prefetch: int = 100
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    outage_pause_base_s: float = 0.2
    outage_pause_max_s: float = 5.0


def _count_nothing(_queue: str, _outcome: MessageOutcome, _count: int) -> None: ...


class Subscription(Generic[Body]):
    """One consumer at work on its queue."""

    def __init__(
        self,
        consumer: Consumer[Body],
        *,
        database: Database,
        broker: Broker,
        topology: Topology,
        outbox: Outbox,
        draw_jitter: Callable[[], float],
        policy: DeliveryPolicy | None = None,
        count_outcome: Callable[[str, MessageOutcome, int], None] = _count_nothing,
        aggregate_name: str = "aggregate_id",
    ) -> None:
        """Let the consumer have the messages of its queue.

        Args:
            consumer: Reads and handles them.
            database: Holds the consumer's tables and those of its service.
            broker: Holds the queue.
            topology: Declared before each start to consume: the queue may be missing.
            outbox: The service's own, through which messages are tried again.
            draw_jitter: Draws 0.0..1.0 for each pause.
            policy: None takes the defaults.
            count_outcome: Is told after each commit: queue, outcome, number of messages.
            aggregate_name: What log lines call an aggregate, such as `order_no`.
        """
        self._consumer = consumer
        self._database = database
        self._broker = broker
        self._topology = topology
        self._draw_jitter = draw_jitter
        self._policy = policy or DeliveryPolicy()
        self._count_outcome = count_outcome
        self._aggregate_name = aggregate_name
        self._settling = Settling(
            consumer, outbox=outbox, policy=self._policy.retry, draw_jitter=draw_jitter
        )
        self._attempts = DeliveryAttempts(outbox.tables)
        # In a row, without a batch that went through in between.
        self._outages_count = 0
        self._outage_at_s = 0.0
        self._is_broker_away = False

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until the stop event is set; finish what is under way, give back the rest."""
        while not stop.is_set():
            try:
                await self._consume(stop)
            except (StoreUnavailableError, BrokerUnavailableError) as error:
                self._is_broker_away = isinstance(error, BrokerUnavailableError)
                await self._pause(stop, error=error)

    async def _consume(self, stop: asyncio.Event) -> None:
        await self._broker.declare(self._topology)
        consumption = await self._broker.consume(
            self._consumer.queue, prefetch=self._policy.prefetch
        )
        if self._is_broker_away:
            self._is_broker_away = False
            self._note_success()
        stopping = asyncio.create_task(_stop_taking(consumption, stop=stop))
        try:
            while deliveries := await consumption.take(count_max=self._policy.prefetch):
                reach("delivery.after_take")
                await self._deliver(_InHand(consumption, deliveries), stop=stop)
        finally:
            stopping.cancel()
            await consumption.close()

    async def _deliver(self, in_hand: "_InHand", *, stop: asyncio.Event) -> None:
        """Settle what is in hand, or give it back."""
        try:
            await self._settle_all(in_hand, stop=stop)
        except LeaseLostError as error:
            log.warning("lease_lost", queue=self._consumer.queue, error=str(error))
        except BrokerUnavailableError:
            await self._take_back_counts(in_hand)
            raise
        except StoreUnavailableError as error:
            await self._wait_out(in_hand, stop=stop, error=error)
        else:
            self._note_success()
        # What was counted for a try that somebody else cut short is counted no longer.
        await self._take_back_counts(in_hand)
        if in_hand.deliveries:
            await in_hand.give_back()

    async def _settle_all(self, in_hand: "_InHand", *, stop: asyncio.Event) -> None:
        if stop.is_set():
            return
        fresh = [
            read_arrival(delivery, consumer=self._consumer)
            for delivery in in_hand.deliveries
            if not delivery.redelivered
        ]
        # Those that are new come first: one of the others may end the process.
        if fresh:
            await self._settle_batch(in_hand, fresh, stop=stop)
        redelivered = [delivery for delivery in in_hand.deliveries if delivery.redelivered]
        for delivery in redelivered:
            if stop.is_set():
                return
            await self._settle_redelivered(in_hand, delivery, stop=stop)

    async def _settle_batch(
        self, in_hand: "_InHand", arrivals: Sequence[Arrival[Body]], *, stop: asyncio.Event
    ) -> None:
        """Settle the messages in one transaction; where that fails, each in one of its own."""
        try:
            await self._commit(
                in_hand,
                arrivals,
                settle=lambda transaction: self._settling.take_effect(transaction, arrivals),
            )
        except Exception as error:
            is_busy = isinstance(error, StoreBusyError)
            if isinstance(error, _NOBODYS_FAULT) and not is_busy:
                raise
            if len(arrivals) == 1:
                settle = self._postpone_busy if is_busy else self._settle_failed
                await settle(in_hand, arrivals[0], error)
                return
            log.warning(
                "batch_failed",
                queue=self._consumer.queue,
                messages_count=len(arrivals),
                exc_info=error,
            )
            for arrival in arrivals:
                if stop.is_set():
                    return
                await self._settle_batch(in_hand, [arrival], stop=stop)

    async def _postpone_busy(
        self, in_hand: "_InHand", arrival: Arrival[Body], error: Exception
    ) -> None:
        """Let a message whose rows somebody holds come again later, so that it holds up nobody."""
        await self._commit(
            in_hand,
            [arrival],
            settle=lambda transaction: self._settling.postpone(transaction, arrival, error),
        )

    async def _settle_failed(
        self, in_hand: "_InHand", arrival: Arrival[Body], error: Exception
    ) -> None:
        log.warning("message_failed", **self._fields(arrival), exc_info=error)
        await self._commit(
            in_hand,
            [arrival],
            settle=lambda transaction: self._settling.fail(transaction, arrival, error),
        )

    async def _settle_redelivered(
        self, in_hand: "_InHand", delivery: Delivery, *, stop: asyncio.Event
    ) -> None:
        """Count the message, then settle it alone; over the limit, set it aside unread."""
        message_id = identity_unread(delivery)
        in_hand.counted_ids.add(message_id)
        attempts = await self._count_attempt(message_id)
        if attempts <= self._policy.retry.tries_max:
            arrival = read_arrival(delivery, consumer=self._consumer)
            await self._settle_batch(in_hand, [arrival], stop=stop)
        else:
            unread: Arrival[Body] = unread_arrival(delivery)
            await self._commit(
                in_hand,
                [unread],
                settle=lambda transaction: self._settling.set_aside_untried(
                    transaction, unread, attempts=attempts
                ),
            )
        in_hand.counted_ids.discard(message_id)

    async def _commit(
        self,
        in_hand: "_InHand",
        arrivals: Sequence[Arrival[Body]],
        *,
        settle: Callable[[Transaction], Awaitable[list[Settled[Body]]]],
    ) -> None:
        """Settle and acknowledge the messages in one transaction, as far as the broker can."""
        consumption = in_hand.consumption
        deliveries = [arrival.delivery for arrival in arrivals]
        counted_ids = [identity_unread(delivery) for delivery in deliveries if delivery.redelivered]

        async def work(transaction: Transaction) -> list[Settled[Body]]:
            settled = await settle(transaction)
            if counted_ids:
                await self._attempts.forget(
                    transaction, consumer=self._consumer.name, message_ids=counted_ids
                )
            await consumption.acknowledge_within(transaction, deliveries)
            reach("delivery.before_commit")
            return settled

        settled = await self._database.transact(work)
        reach("delivery.after_commit")
        self._report(settled)
        await consumption.acknowledge(deliveries)
        reach("delivery.after_acknowledge")
        in_hand.let_go(deliveries)

    async def _count_attempt(self, message_id: str) -> int:
        async def count(transaction: Transaction) -> int:
            return await self._attempts.count(
                transaction,
                consumer=self._consumer.name,
                message_id=message_id,
                now=await transaction.now(),
            )

        return await self._database.transact(count)

    async def _wait_out(self, in_hand: "_InHand", *, stop: asyncio.Event, error: Exception) -> None:
        """Hold what is in hand until the database answers, then give it back uncounted."""
        while not stop.is_set():
            await self._pause(stop, error=error)
            try:
                await self._database.transact(self._taking_back(in_hand))
                in_hand.counted_ids.clear()
                await in_hand.give_back()
            except StoreUnavailableError as again:
                error = again
            else:
                return

    async def _take_back_counts(self, in_hand: "_InHand") -> None:
        if not in_hand.counted_ids:
            return
        try:
            await self._database.transact(self._taking_back(in_hand))
        except StoreUnavailableError as error:
            # One try too many is on record: of the many that it takes, none is missed.
            log.warning("count_not_taken_back", queue=self._consumer.queue, error=str(error))
        in_hand.counted_ids.clear()

    def _taking_back(self, in_hand: "_InHand") -> Callable[[Transaction], Awaitable[None]]:
        async def take_back(transaction: Transaction) -> None:
            await self._attempts.take_back(
                transaction, consumer=self._consumer.name, message_ids=in_hand.counted_ids
            )

        return take_back

    async def _pause(self, stop: asyncio.Event, *, error: Exception) -> None:
        now_s = asyncio.get_running_loop().time()
        policy = self._policy
        if now_s - self._outage_at_s > _OUTAGES_APART * policy.outage_pause_max_s:
            self._outages_count = 0
        self._outage_at_s = now_s
        self._outages_count += 1
        if self._outages_count == 1:
            log.warning("consumer_paused", queue=self._consumer.queue, error=str(error))
        pause_s = pause_before_attempt(
            self._outages_count,
            jitter=self._draw_jitter(),
            base_s=policy.outage_pause_base_s,
            max_s=policy.outage_pause_max_s,
        )
        await is_set_within(stop, timeout_s=pause_s)

    def _note_success(self) -> None:
        if self._outages_count:
            log.info("consumer_resumed", queue=self._consumer.queue)
            self._outages_count = 0

    def _report(self, settled: Sequence[Settled[Body]]) -> None:
        queue = self._consumer.queue
        for outcome, count in Counter(each.outcome for each in settled).items():
            self._count_outcome(queue, outcome, count)
        for each in settled:
            match each.outcome:
                case MessageOutcome.HANDLED:
                    pass
                case MessageOutcome.DUPLICATE:
                    log.debug("message_is_copy", **self._fields(each.arrival))
                case MessageOutcome.POSTPONED:
                    log.info("message_postponed", **self._fields(each.arrival, each))
                case MessageOutcome.RETRIED:
                    log.info("message_retried", **self._fields(each.arrival, each))
                case MessageOutcome.SET_ASIDE:
                    log.error("message_set_aside", **self._fields(each.arrival, each))

    def _fields(
        self, arrival: Arrival[Body], settled: Settled[Body] | None = None
    ) -> dict[str, str | int]:
        fields: dict[str, str | int] = {
            "message_id": arrival.message_id,
            "queue": self._consumer.queue,
            "attempt": arrival.attempt,
        }
        if arrival.aggregate_id:
            fields[self._aggregate_name] = arrival.aggregate_id
        if settled is not None:
            fields |= {"reason": settled.reason, "detail": settled.detail}
        return fields


class _InHand:
    """What was taken together and is not settled yet."""

    def __init__(self, consumption: Consumption, deliveries: Sequence[Delivery]) -> None:
        self.consumption = consumption
        # Those of redelivered messages whose count was raised for a try that has not ended.
        self.counted_ids: set[str] = set()
        self._by_tag = {delivery.tag: delivery for delivery in deliveries}

    @property
    def deliveries(self) -> list[Delivery]:
        return list(self._by_tag.values())

    def let_go(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            del self._by_tag[delivery.tag]

    async def give_back(self) -> None:
        await self.consumption.give_back(self.deliveries)
        self._by_tag.clear()


async def _stop_taking(consumption: Consumption, *, stop: asyncio.Event) -> None:
    await stop.wait()
    consumption.stop_taking()
