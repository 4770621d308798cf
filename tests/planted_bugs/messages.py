"""Mistakes in how messages are sent and received."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

from orderkeep.database.transaction import StoreBusyError, Transaction
from orderkeep.messaging.delivery import _NOBODYS_FAULT, Subscription
from orderkeep.messaging.dispatcher import Dispatcher
from orderkeep.messaging.inbox import Inbox
from orderkeep.messaging.message import Delivery, PublishOutcome, PublishResult
from tests.planted_bugs.plant import Plant
from tests.simulation.broker_server import BrokerServer
from tests.simulation.database_server import DatabaseServer


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
def _no_mandatory() -> Iterator[None]:
    with patch.object(BrokerServer, "honours_mandatory", new=False):
        yield


@contextmanager
def _no_ownership() -> Iterator[None]:
    def hold_all(_self: Any, _session: int, _name: str, *, part_count: int) -> frozenset[int]:
        return frozenset(range(part_count))

    with patch.object(DatabaseServer, "hold_share", hold_all):
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


PLANTS = (
    Plant(
        name="ack-before-commit",
        says="a message is acknowledged, and then its effect is committed",
        caught_by=frozenset({"I10"}),
        planted=_ack_before_commit,
    ),
    Plant(
        name="inbox-outside-transaction",
        says="the inbox row is committed before the effect, by itself",
        caught_by=frozenset({"I1", "I5", "I10", "I15"}),
        planted=_inbox_outside_transaction,
    ),
    Plant(
        name="sent-before-confirm",
        says="an event counts as sent once it is written to the socket",
        caught_by=frozenset({"I9"}),
        planted=_sent_before_confirm,
    ),
    Plant(
        name="no-mandatory",
        says="what reaches no queue is confirmed, and nobody asks",
        caught_by=frozenset({"I9"}),
        planted=_no_mandatory,
    ),
    Plant(
        name="no-ownership",
        says="every dispatcher sends every row it sees",
        caught_by=frozenset({"I9"}),
        planted=_no_ownership,
    ),
    Plant(
        name="tail-dropped",
        says="after a batch that failed, all but its last message are tried one by one",
        caught_by=frozenset({"I10"}),
        planted=_tail_dropped,
    ),
)
