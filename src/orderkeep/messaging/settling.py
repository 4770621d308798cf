"""What becomes of messages inside one transaction: effect, next try, or dead letter.

Invariant: when the transaction commits, each message has exactly one of an inbox row (its effect,
now or earlier), an outbox row that brings it back, or a dead letter. A next try is one row however
often it is written: its key names the consumer, the message, the chain of tries and the try. The
key alone is no record: where the row that bears it waits no more, the outbox writes another, so a
copy is only ever acknowledged for a try that is really there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from traceback import format_exception
from typing import Generic, assert_never

from msgspec import Struct

from orderkeep.database.transaction import Transaction
from orderkeep.failure_points import reach
from orderkeep.instant import Instant, after
from orderkeep.messaging.arrival import Arrival, Content
from orderkeep.messaging.column_text import error_words
from orderkeep.messaging.consumer import (
    BadMessageError,
    Body,
    Consumer,
    Handled,
    Outcome,
    SetAside,
    TryLater,
)
from orderkeep.messaging.dead_letter import Failure
from orderkeep.messaging.dead_letters import DeadLetters
from orderkeep.messaging.inbox import Inbox
from orderkeep.messaging.message import (
    ATTEMPT_HEADER,
    FAILED_TRIES_HEADER,
    FIRST_RECEIVED_HEADER,
)
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.return_to_queue import returned_event
from orderkeep.refusal import Refusal

# Why the kernel itself sets a message aside; stable, operators filter by them.
OUT_OF_TRIES = "out_of_tries"
KILLS_ITS_CONSUMER = "kills_its_consumer"


class MessageOutcome(StrEnum):
    """What became of one message, as metrics count it."""

    HANDLED = "handled"
    DUPLICATE = "duplicate"
    # It waits for something, by its handler's word.
    POSTPONED = "postponed"
    # It failed, and is tried again.
    RETRIED = "retried"
    SET_ASIDE = "set_aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a message is tried, and with what pauses between.

    Attributes:
        tries_max: After so many failed tries a message is set aside; it is also how often a
            message may have been in hand when its consumer died.
        base_s: The mean of the first pause.
        max_s: No pause is longer.
    """

    tries_max: int = 16
    base_s: float = 1.0
    max_s: float = 300.0


class Settled(Struct, Generic[Body], frozen=True, kw_only=True):
    """What became of one message, and why, where it took no effect."""

    arrival: Arrival[Body]
    outcome: MessageOutcome
    reason: str = ""
    detail: str = ""


class _NextTry(Struct, Generic[Body], frozen=True, kw_only=True):
    arrival: Arrival[Body]
    failed_tries: int
    # How many pauses there have been, by which they grow.
    pauses_count: int
    reason: str
    detail: str


class Settling(Generic[Body]):
    """Settles the messages of one consumer."""

    def __init__(
        self,
        consumer: Consumer[Body],
        *,
        outbox: Outbox,
        policy: RetryPolicy,
        draw_jitter: Callable[[], float],
    ) -> None:
        """Settle by the tables of the service that owns the outbox."""
        self._consumer = consumer
        self._outbox = outbox
        self._inbox = Inbox(outbox.tables)
        self._dead_letters = DeadLetters(outbox)
        self._policy = policy
        self._draw_jitter = draw_jitter

    async def take_effect(
        self, transaction: Transaction, arrivals: Sequence[Arrival[Body]]
    ) -> list[Settled[Body]]:
        """Handle what can be read and is new; set aside what can never be read.

        Raises:
            Exception: whatever the handler raised, or what reading a body raised unforeseen.
        """
        now = await transaction.now()
        settled = [
            Settled(
                arrival=arrival,
                outcome=MessageOutcome.SET_ASIDE,
                reason=arrival.content.reason,
                detail=arrival.content.detail,
            )
            for arrival in arrivals
            if isinstance(arrival.content, BadMessageError)
        ]
        readable = [arrival for arrival in arrivals if isinstance(arrival.content, Content)]
        for arrival in arrivals:
            if isinstance(arrival.content, Exception) and not isinstance(
                arrival.content, BadMessageError
            ):
                raise arrival.content
        reach("delivery.before_handle")
        settled += await self._handle(transaction, readable, now=now)
        reach("delivery.after_handle")
        await self._write(transaction, settled, now=now)
        return settled

    async def fail(
        self, transaction: Transaction, arrival: Arrival[Body], error: Exception
    ) -> list[Settled[Body]]:
        """Settle a message that raised when it was handled alone: one more try, or none."""
        now = await transaction.now()
        failed_tries = arrival.failed_tries + 1
        detail = error_words(error)
        match error:
            case Refusal():
                return await self._set_aside(
                    transaction, arrival, reason=error.code, detail=error.detail, error=error
                )
            case BadMessageError():
                return await self._set_aside(
                    transaction, arrival, reason=error.reason, detail=error.detail, error=error
                )
            case _ if failed_tries >= self._policy.tries_max:
                return await self._set_aside(
                    transaction, arrival, reason=OUT_OF_TRIES, detail=detail, error=error
                )
        next_try = _NextTry(
            arrival=arrival,
            failed_tries=failed_tries,
            pauses_count=failed_tries,
            reason=type(error).__name__,
            detail=detail,
        )
        await self._write_next_tries(transaction, [next_try], now=now)
        return [
            Settled(
                arrival=arrival,
                outcome=MessageOutcome.RETRIED,
                reason=type(error).__name__,
                detail=detail,
            )
        ]

    async def postpone(
        self, transaction: Transaction, arrival: Arrival[Body], error: Exception
    ) -> list[Settled[Body]]:
        """Settle a message that met what somebody else holds: later, and at no cost."""
        now = await transaction.now()
        next_try = _NextTry(
            arrival=arrival,
            failed_tries=arrival.failed_tries,
            pauses_count=arrival.attempt,
            reason=type(error).__name__,
            detail=error_words(error),
        )
        await self._write_next_tries(transaction, [next_try], now=now)
        return [
            Settled(
                arrival=arrival,
                outcome=MessageOutcome.POSTPONED,
                reason=type(error).__name__,
                detail=error_words(error),
            )
        ]

    async def set_aside_untried(
        self, transaction: Transaction, arrival: Arrival[Body], *, attempts: int
    ) -> list[Settled[Body]]:
        """Settle a message that was in hand too often when its consumer died."""
        return await self._set_aside(
            transaction,
            arrival,
            reason=KILLS_ITS_CONSUMER,
            detail=f"its consumer ended without settling it {attempts - 1} times",
        )

    async def _handle(
        self, transaction: Transaction, arrivals: Sequence[Arrival[Body]], *, now: Instant
    ) -> list[Settled[Body]]:
        """Hand what is new to the handler.

        Of copies in one batch the one furthest along is the message: the row of its next try is
        not written yet, while that of an earlier try was, and would not be written again.
        """
        consumer = self._consumer
        fresh_ids = await self._inbox.record(
            transaction,
            consumer=consumer.name,
            message_ids=[arrival.message_id for arrival in arrivals],
            now=now,
        )
        furthest: dict[str, Arrival[Body]] = {}
        for arrival in arrivals:
            rival = furthest.get(arrival.message_id)
            if rival is None or rival.attempt < arrival.attempt:
                furthest[arrival.message_id] = arrival
        fresh = [arrival for id_, arrival in furthest.items() if id_ in fresh_ids]
        chosen = {id(arrival) for arrival in fresh}
        settled = [
            Settled(arrival=arrival, outcome=MessageOutcome.DUPLICATE)
            for arrival in arrivals
            if id(arrival) not in chosen
        ]
        if not fresh:
            return settled
        outcomes = await consumer.handle(
            transaction,
            [
                arrival.received(arrival.content, now=now)
                for arrival in fresh
                if isinstance(arrival.content, Content)
            ],
        )
        settled += [
            _settled(arrival, outcome) for arrival, outcome in zip(fresh, outcomes, strict=True)
        ]
        return settled

    async def _write(
        self, transaction: Transaction, settled: Sequence[Settled[Body]], *, now: Instant
    ) -> None:
        """Write the next tries and the dead letters of what took no effect."""
        postponed = [each for each in settled if each.outcome is MessageOutcome.POSTPONED]
        set_aside = [each for each in settled if each.outcome is MessageOutcome.SET_ASIDE]
        without_effect = [each.arrival for each in (*postponed, *set_aside)]
        if not without_effect:
            return
        await self._inbox.forget(
            transaction,
            consumer=self._consumer.name,
            message_ids=[
                arrival.message_id
                for arrival in without_effect
                # What could not be read was never recorded, but a namesake of it may have been.
                if isinstance(arrival.content, Content)
            ],
        )
        await self._write_next_tries(
            transaction,
            [
                _NextTry(
                    arrival=each.arrival,
                    failed_tries=each.arrival.failed_tries,
                    pauses_count=each.arrival.attempt,
                    reason=each.reason,
                    detail=each.detail,
                )
                for each in postponed
            ],
            now=now,
        )
        await self._dead_letters.write(
            transaction,
            [self._failure(each, traceback=None, now=now) for each in set_aside],
            now=now,
        )

    async def _set_aside(
        self,
        transaction: Transaction,
        arrival: Arrival[Body],
        *,
        reason: str,
        detail: str,
        error: Exception | None = None,
    ) -> list[Settled[Body]]:
        now = await transaction.now()
        settled = Settled(
            arrival=arrival, outcome=MessageOutcome.SET_ASIDE, reason=reason, detail=detail
        )
        traceback = None if error is None else "".join(format_exception(error))
        failure = self._failure(settled, traceback=traceback, now=now)
        await self._dead_letters.write(transaction, [failure], now=now)
        return [settled]

    def _failure(self, settled: Settled[Body], *, traceback: str | None, now: Instant) -> Failure:
        arrival = settled.arrival
        return Failure(
            consumer=self._consumer.name,
            message_id=arrival.message_id,
            delivery=arrival.delivery,
            reason=settled.reason,
            detail=settled.detail,
            traceback=traceback,
            tries=arrival.attempt,
            first_received_at=arrival.first_received_by(now),
        )

    async def _write_next_tries(
        self, transaction: Transaction, next_tries: Sequence[_NextTry[Body]], *, now: Instant
    ) -> None:
        if not next_tries:
            return
        chains = await self._dead_letters.settled_counts(
            transaction,
            consumer=self._consumer.name,
            message_ids=[next_try.arrival.message_id for next_try in next_tries],
        )
        events = []
        for next_try in next_tries:
            arrival = next_try.arrival
            chain = chains.get(arrival.message_id, 0)
            pause_s = pause_before_attempt(
                next_try.pauses_count,
                jitter=self._draw_jitter(),
                base_s=self._policy.base_s,
                max_s=self._policy.max_s,
            )
            events.append(
                returned_event(
                    arrival.delivery,
                    message_id=arrival.message_id,
                    retry_headers={
                        ATTEMPT_HEADER: arrival.attempt + 1,
                        FAILED_TRIES_HEADER: next_try.failed_tries,
                        FIRST_RECEIVED_HEADER: arrival.first_received_by(now),
                    },
                    not_before=after(now, seconds=pause_s),
                    retry_key=":".join(
                        (self._consumer.name, arrival.message_id, f"{chain}", f"{arrival.attempt}")
                    ),
                    why=f"try {arrival.attempt + 1} waits: {next_try.reason}: {next_try.detail}",
                )
            )
        await self._outbox.bring_again(transaction, events, now=now)


def _settled(arrival: Arrival[Body], outcome: Outcome) -> Settled[Body]:
    match outcome:
        case Handled():
            return Settled(arrival=arrival, outcome=MessageOutcome.HANDLED)
        case TryLater():
            kind = MessageOutcome.POSTPONED
        case SetAside():
            kind = MessageOutcome.SET_ASIDE
        case _:
            assert_never(outcome)
    return Settled(arrival=arrival, outcome=kind, reason=outcome.reason, detail=outcome.detail)
