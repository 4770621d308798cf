"""Carry out refunds: ask each one's channel, outside every transaction, and tell what came of it.

    claim [ attempts + 1, nobody else until T ] commit
      → ask the channel, by refund_no
        → end [ requested → succeeded or failed, answer in the outbox ] commit
        → or wait [ next attempt after a growing pause ] commit, until the time is up: then failed

Invariant: a refund leaves `requested` once, with one answer, in one transaction. The channel may be
asked more than once: it gives back once for each `refund_no`, that is its part of the contract.

A crash after the claim, or after the channel gave back, leaves the refund `requested`: when the
claim runs out, or is released by a start that knows itself alone, it is asked for again under the
same number, and the channel's answer is the same.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import reach
from orderkeep.instant import MICROSECONDS_PER_SECOND, Instant, after
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.signal import Signal
from orderkeep.payments.announce import announce
from orderkeep.payments.channels.channel import (
    Channel,
    ChannelUnavailableError,
    RefundAnswer,
    RefundFailed,
    RefundOrder,
    RefundSucceeded,
)
from orderkeep.payments.payment import Refund, not_refunded, refunded
from orderkeep.payments.refund_answers import refund_announcement
from orderkeep.payments.store import known_orders
from orderkeep.payments.store import refunds as refund_store
from orderkeep.payments.store.refunds import DueRefund

log = structlog.get_logger()

# All of a round are asked at once, each over a connection of its own.
REFUNDS_PER_ROUND_MAX = 20

# Refunds that another process accepted are found by looking; so is the database, when it is back.
POLL_INTERVAL_S = 5.0

# A channel that has not answered by then is asked again later.
CHANNEL_TIMEOUT_S = 30.0

# How long a claim holds; whoever claimed is done with the channel well before, or dead. What a dead
# process had in hand is to be done within a minute.
CLAIM_S = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRetry:
    """How long, and how often, a channel without an answer is asked.

    Attributes:
        for_s: From the receipt of the request; after that the refund has failed.
        base_s: The mean of the first pause; each is twice the one before it.
        max_s: No pause is longer.
    """

    for_s: float
    base_s: float
    max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """What came of asking a channel; an answer of None is no verdict."""

    due: DueRefund
    answer: RefundAnswer | None
    error: str = ""


class RefundWorker:
    """Asks channels for the refunds that are due."""

    def __init__(
        self,
        database: Database,
        *,
        outbox: Outbox,
        channels: Mapping[str, Channel],
        retry: RefundRetry,
        draw_jitter: Callable[[], float],
        requested: Signal,
    ) -> None:
        """Work on the refunds in the database.

        Args:
            database: Where they are.
            outbox: Where the answers leave.
            channels: By name.
            retry: How long a channel without an answer is asked.
            draw_jitter: Draws a number from 0.0 to 1.0.
            requested: Set when a refund was accepted; whoever runs the rounds waits on it.
        """
        assert CHANNEL_TIMEOUT_S < CLAIM_S
        self.requested = requested
        self._database = database
        self._outbox = outbox
        self._channels = channels
        self._retry = retry
        self._draw_jitter = draw_jitter

    async def run(self, stop: asyncio.Event) -> None:
        """Carry out refunds until the stop event is set; the round in hand is finished."""
        async with self.requested.also_set_by(stop):
            while not stop.is_set():
                # Cleared before the reading: what is accepted during it wakes the next wait.
                self.requested.clear()
                try:
                    wait_s = await self.run_once()
                except StoreUnavailableError as error:
                    log.warning("refunds_unavailable", error=str(error))
                    wait_s = None
                is_soon = wait_s is not None and wait_s < POLL_INTERVAL_S
                await self.requested.wait(timeout_s=wait_s if is_soon else POLL_INTERVAL_S)

    async def run_once(self) -> float | None:
        """Carry out what is due, and return how many seconds to wait for the next.

        Returns:
            0.0 when more may be due already; None when no refund waits at all.

        Raises:
            StoreUnavailableError: the database is away; what was claimed is tried again later.
        """
        claimed = await self._database.transact(_claim)
        if claimed:
            reach("refund.claimed")
            attempts = await asyncio.gather(*(self._ask(due) for due in claimed))
            reach("refund.answered")
            await self._database.transact(partial(self._write, attempts))
        if len(claimed) == REFUNDS_PER_ROUND_MAX:
            return 0.0
        return await self._database.read(_next_due_in_s)

    async def _ask(self, due: DueRefund) -> _Attempt:
        refund = due.refund
        channel = self._channels.get(refund.pay_channel or "")
        if channel is None:
            reason = f"there is no channel {refund.pay_channel} here: give back by hand"
            return _Attempt(due=due, answer=RefundFailed(reason=reason))
        order = RefundOrder(
            refund_no=refund.refund_no,
            trade_no=refund.trade_no,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
        )
        try:
            async with asyncio.timeout(CHANNEL_TIMEOUT_S):
                return _Attempt(due=due, answer=await channel.refund(order))
        except (ChannelUnavailableError, TimeoutError) as error:
            return _Attempt(due=due, answer=None, error=str(error) or "no answer in time")
        except Exception as error:
            # A bug in one channel must not hold up the refunds of the others.
            log.exception(
                "refund_attempt_broke", order_no=refund.order_no, refund_no=refund.refund_no
            )
            return _Attempt(due=due, answer=None, error=f"{type(error).__name__} in the channel")

    async def _write(self, attempts: Sequence[_Attempt], transaction: Transaction) -> None:
        now = await transaction.now()
        ended: list[Refund] = []
        due_at: dict[str, Instant] = {}
        for attempt in attempts:
            refund = self._ended(attempt, now=now)
            if refund is None:
                due_at[attempt.due.refund.refund_no] = self._next_attempt_at(attempt.due, now=now)
                _log_postponed(attempt)
            else:
                ended.append(refund)
        await finish_refunds(transaction, ended, outbox=self._outbox, now=now)
        await refund_store.postpone_refunds(transaction, due_at)

    def _ended(self, attempt: _Attempt, *, now: Instant) -> Refund | None:
        refund, answer = attempt.due.refund, attempt.answer
        if isinstance(answer, RefundSucceeded):
            return refunded(refund, channel_refund_no=answer.channel_refund_no, now=now)
        if isinstance(answer, RefundFailed):
            return not_refunded(refund, reason=answer.reason, now=now)
        if now < after(attempt.due.received_at, seconds=self._retry.for_s):
            return None
        reason = (
            f"no verdict from the channel in {self._retry.for_s:g} s, at last {attempt.error}:"
            " look there whether it gave back"
        )
        return not_refunded(refund, reason=reason, now=now)

    def _next_attempt_at(self, due: DueRefund, *, now: Instant) -> Instant:
        pause_s = pause_before_attempt(
            due.attempts + 1,
            jitter=self._draw_jitter(),
            base_s=self._retry.base_s,
            max_s=self._retry.max_s,
        )
        return after(now, seconds=pause_s)


async def finish_refunds(
    transaction: Transaction, refunds: Sequence[Refund], *, outbox: Outbox, now: Instant
) -> None:
    """Write how refunds ended and answer for each that had not ended before."""
    await known_orders.lock_orders(transaction, {refund.order_no for refund in refunds}, now=now)
    finished_nos = await refund_store.finish_refunds(transaction, refunds)
    finished = [refund for refund in refunds if refund.refund_no in finished_nos]
    announcements = [refund_announcement(refund) for refund in finished]
    await announce(transaction, announcements, outbox=outbox, now=now)
    transaction.after_commit(partial(_log_finished, finished))


async def release_refund_claims(transaction: Transaction) -> int:
    """Let every open refund be asked for at once; return how many would have waited.

    Only for a start that knows itself alone: whoever claimed them is dead. A claim looks like a
    pause between two tries, so pauses end as well; the channel is asked once more, no harm done.
    """
    return await refund_store.release_refunds(transaction, now=await transaction.now())


async def _claim(transaction: Transaction) -> list[DueRefund]:
    now = await transaction.now()
    due = await refund_store.due_refunds(transaction, now=now, count_max=REFUNDS_PER_ROUND_MAX)
    claimed = await refund_store.claim_refunds(transaction, due, until=after(now, seconds=CLAIM_S))
    return [it for it in due if it.refund.refund_no in claimed]


async def _next_due_in_s(transaction: ReadTransaction) -> float | None:
    next_due_at = await refund_store.find_next_due_at(transaction)
    if next_due_at is None:
        return None
    return max(0.0, (next_due_at - await transaction.now()) / MICROSECONDS_PER_SECOND)


def _log_finished(refunds: Sequence[Refund]) -> None:
    for refund in refunds:
        log.info(
            "refund_finished",
            order_no=refund.order_no,
            refund_no=refund.refund_no,
            payment_no=refund.payment_no,
            status=refund.status.value,
            reason=refund.failure_reason,
        )


def _log_postponed(attempt: _Attempt) -> None:
    log.warning(
        "refund_postponed",
        order_no=attempt.due.refund.order_no,
        refund_no=attempt.due.refund.refund_no,
        attempt=attempt.due.attempts + 1,
        error=attempt.error,
    )
