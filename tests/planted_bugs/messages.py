"""Mistakes in how messages are sent and received."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

from orderkeep.database.transaction import StoreBusyError, StoreUnavailableError, Transaction
from orderkeep.instant import Instant
from orderkeep.messaging.delivery import _NOBODYS_FAULT, Subscription
from orderkeep.messaging.dispatcher import Dispatcher
from orderkeep.messaging.inbox import Inbox
from orderkeep.messaging.message import Delivery, PublishOutcome, PublishResult
from orderkeep.messaging.outbox import PARTITION_COUNT
from orderkeep.messaging.publishing import Publishing
from orderkeep.messaging.settling import RetryPolicy
from tests.planted_bugs.plant import Plant


async def _acknowledge(in_hand: Any, deliveries: Sequence[Delivery]) -> None:
    """Acknowledge what is still in hand of them."""
    tags = {delivery.tag for delivery in in_hand.deliveries}
    held = [delivery for delivery in deliveries if delivery.tag in tags]
    await in_hand.consumption.acknowledge(held)
    in_hand.let_go(held)


@contextmanager
def _ack_before_commit() -> Iterator[None]:
    async def commit(self: Any, in_hand: Any, arrivals: Any, *, settle: Any) -> None:
        await _acknowledge(in_hand, [arrival.delivery for arrival in arrivals])
        self._report(await self._database.transact(settle))

    with patch.object(Subscription, "_commit", commit):
        yield


_FRESH: ContextVar[frozenset[str]] = ContextVar("fresh", default=frozenset())


@contextmanager
def _inbox_outside_transaction() -> Iterator[None]:
    record = Inbox.record
    settle_batch = Subscription._settle_batch

    async def settle(self: Any, in_hand: Any, arrivals: Any, *, stop: Any) -> None:
        inbox = self._settling._inbox

        async def work(transaction: Transaction) -> frozenset[str]:
            return await record(
                inbox,
                transaction,
                consumer=self._consumer.name,
                message_ids=[arrival.message_id for arrival in arrivals],
                now=await transaction.now(),
            )

        token = _FRESH.set(await self._database.transact(work))
        try:
            await settle_batch(self, in_hand, arrivals, stop=stop)
        finally:
            _FRESH.reset(token)

    async def recorded(
        _self: Any, _transaction: Transaction, *, message_ids: Sequence[str], **_rest: Any
    ) -> frozenset[str]:
        return _FRESH.get() & frozenset(message_ids)

    with (
        patch.object(Subscription, "_settle_batch", settle),
        patch.object(Inbox, "record", recorded),
    ):
        yield


@contextmanager
def _sent_before_confirm() -> Iterator[None]:
    async def conclude(self: Any, going: Any, *, session: Any, reads_ahead: bool = False) -> Any:
        del reads_ahead
        confirmed = PublishOutcome(result=PublishResult.CONFIRMED)
        dispatched = await self._settle(going.rows, [confirmed] * len(going.rows), session=session)
        await self._outcomes(going, session=session)
        return dispatched

    with patch.object(Dispatcher, "_conclude", conclude):
        yield


@contextmanager
def _returned_as_sent() -> Iterator[None]:
    publish = Publishing._publish_together

    async def confirmed(self: Any, rows: Any, *, now: Instant) -> Sequence[PublishOutcome]:
        outcomes = await publish(self, rows, now=now)
        return [
            PublishOutcome(result=PublishResult.CONFIRMED)
            if "leads to no queue" in outcome.detail
            else outcome
            for outcome in outcomes
        ]

    with patch.object(Publishing, "_publish_together", confirmed):
        yield


@contextmanager
def _no_ownership() -> Iterator[None]:
    hold_share = Dispatcher._hold_share

    async def hold_all(self: Any, *, is_anything_on_its_way: bool) -> Any:
        session = await hold_share(self, is_anything_on_its_way=is_anything_on_its_way)
        self._partitions = frozenset(range(PARTITION_COUNT))
        return session

    with patch.object(Dispatcher, "_hold_share", hold_all):
        yield


@contextmanager
def _tail_dropped() -> Iterator[None]:
    settle_batch = Subscription._settle_batch

    async def settle(self: Any, in_hand: Any, arrivals: Any, *, stop: Any) -> None:
        if len(arrivals) == 1:
            await settle_batch(self, in_hand, arrivals, stop=stop)
            return
        try:
            await self._commit(
                in_hand,
                arrivals,
                settle=lambda transaction: self._settling.take_effect(transaction, arrivals),
            )
        except Exception as error:
            if isinstance(error, _NOBODYS_FAULT) and not isinstance(error, StoreBusyError):
                raise
            for arrival in arrivals[:-1]:
                await settle_batch(self, in_hand, [arrival], stop=stop)
            await _acknowledge(in_hand, [arrival.delivery for arrival in arrivals])

    with patch.object(Subscription, "_settle_batch", settle):
        yield


@contextmanager
def _outage_costs_tries() -> Iterator[None]:
    async def settle(self: Any, in_hand: Any, arrivals: Any, *, stop: Any) -> None:
        del stop
        try:
            await self._commit(
                in_hand,
                arrivals,
                settle=lambda transaction: self._settling.take_effect(transaction, arrivals),
            )
        except StoreUnavailableError as error:
            self._settling._policy = RetryPolicy(tries_max=1)
            for arrival in arrivals:
                await self._settle_failed(in_hand, arrival, error)

    with patch.object(Subscription, "_settle_batch", settle):
        yield


@contextmanager
def _outage_ends_the_loop() -> Iterator[None]:
    run_once = Dispatcher.run_once

    async def run(self: Any) -> Any:
        try:
            return await run_once(self)
        except StoreUnavailableError as error:
            raise RuntimeError(str(error)) from error

    with patch.object(Dispatcher, "run_once", run):
        yield


PLANTS = (
    Plant(
        name="ack-before-commit",
        says="a message is acknowledged, and then its effect is committed",
        caught_by={"I10": "acknowledged in .* without an inbox row"},
        planted=_ack_before_commit,
    ),
    Plant(
        name="inbox-outside-transaction",
        says="the inbox row is committed before the effect, by itself",
        caught_by={
            "I1": "money of trade .* is on no record",
            "I5": "should be held of its money",
            "I10": "acknowledged in .* without an inbox row",
        },
        planted=_inbox_outside_transaction,
    ),
    Plant(
        name="sent-before-confirm",
        says="an event counts as sent once it is written to the socket",
        caught_by={"I9": "counts as sent to .*, which never had it"},
        planted=_sent_before_confirm,
    ),
    Plant(
        name="returned-as-sent",
        says="what reaches no queue counts as sent",
        caught_by={"I9": "counts as sent to .*, which never had it"},
        planted=_returned_as_sent,
    ),
    Plant(
        name="no-ownership",
        says="every dispatcher sends every row it sees",
        caught_by={"I9": "event .* reached .* after event"},
        planted=_no_ownership,
    ),
    Plant(
        name="tail-dropped",
        says="after a batch that failed, all but its last message are tried one by one",
        caught_by={"I10": "acknowledged in .* without an inbox row"},
        planted=_tail_dropped,
    ),
    Plant(
        name="outage-costs-tries",
        says="while the database is away messages use up their tries, and are set aside",
        caught_by={"I15": "set aside in .* as out_of_tries"},
        planted=_outage_costs_tries,
    ),
    Plant(
        name="outage-ends-loop",
        says="a loop does not bear that the database is away, and is started again",
        caught_by={"I19": "loop_failed .*-dispatcher: RuntimeError"},
        planted=_outage_ends_the_loop,
    ),
)
