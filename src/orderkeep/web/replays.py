"""Replays that operators ask for: dead letters, edited ones, and events that were sent before.

Invariant: a replay of many goes piece by piece. Each piece is one transaction for each service, in
which what is replayed is appended, settled and put on record; so whatever ends the process, a
message is either still to be replayed or on its way, never both and never neither. A cursor tells
where the next piece begins: what fails again meanwhile is not replayed again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from orderkeep.contracts.page import decode_cursor, encode_cursor
from orderkeep.database.audit import Act, AuditEntry, append_audit
from orderkeep.database.transaction import ReadTransaction, Transaction
from orderkeep.failure_points import reach
from orderkeep.messaging.consumer import BadMessageError
from orderkeep.messaging.dead_letter import (
    DeadLetterFilter,
    LetterBatch,
    SettledLetter,
    SettleResult,
)
from orderkeep.messaging.letter_settlement import Edit
from orderkeep.messaging.replay_rules import MEMORY_S, ReplayRules
from orderkeep.messaging.selection import SELECTED_COUNT_MAX
from orderkeep.messaging.sent_replay import (
    Destination,
    ReplayedEvent,
    SentBatch,
    SentFilter,
    SentReplayResult,
)
from orderkeep.refusal import Refusal, invalid
from orderkeep.web.service_messages import (
    Changed,
    ChangedNumber,
    RecordedChange,
    ServiceMessages,
    apply_on_record,
    is_refused,
    numbers_by_service,
    resolve,
)

# Messages in a second: far below what any consumer of ours takes beside its daily work.
RATE_DEFAULT = 100.0
RATE_MIN = 0.1
RATE_MAX = 1000.0

# One transaction takes so many at most.
PIECE_COUNT_MAX = SELECTED_COUNT_MAX

# What one call lets go takes so long to leave at most: what is remembered now must still be when it
# leaves, and what happens meanwhile to the same orders waits behind it.
_CALL_S_MAX = 60.0

FilterT = TypeVar("FilterT")

ReadBody = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay(Generic[FilterT]):
    """What shall be replayed: what is named, or what a filter finds.

    Attributes:
        references: Such as `order-17`; None where the filter tells.
        service: The filter's service; None is every one.
        cursor: Where the piece before said to go on; None begins at the first.
        count_max: How many a filter takes, at most `PIECE_COUNT_MAX`.
        rate_per_s: Messages that leave in a second.
        is_forced: Also what no consumer can be proved to remember.
        is_dry_run: Only tell what would become of each.
        act: Who asks for it, and why.
    """

    references: tuple[str, ...] | None
    filter: FilterT
    service: str | None
    cursor: str | None
    count_max: int
    rate_per_s: float
    is_forced: bool
    is_dry_run: bool
    act: Act

    def recorded(self, action: str, **detail: object) -> RecordedChange:
        """Return how the replay goes on record under the action."""
        forced = {"forced": True} if self.is_forced else {}
        return RecordedChange(
            act=self.act,
            action=action,
            is_dry_run=self.is_dry_run,
            detail={**{name: it for name, it in detail.items() if it}, **forced},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of each message of a piece, or would; next_cursor is None at the end."""

    results: list[Changed]
    next_cursor: str | None

    @property
    def replayed_count(self) -> int:
        """How many are on their way."""
        return sum(not one.is_refused for one in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditedReplay:
    """An edited message that shall go in the place of a dead letter's.

    Attributes:
        is_forced: Also where the message may have taken effect.
        is_dry_run: Only tell whether it would go.
    """

    reference: str
    body: bytes
    is_forced: bool
    is_dry_run: bool
    act: Act


# Replays what is selected of one service.
Apply: TypeAlias = Callable[[ServiceMessages, Any, ReplayRules], Awaitable[Sequence[ChangedNumber]]]


def call_count_max(rate_per_s: float) -> int:
    """Return how many messages one call lets go at most, at the rate."""
    return min(PIECE_COUNT_MAX, max(1, int(rate_per_s * _CALL_S_MAX)))


class ReplayDesk:
    """The edge of replays: opens each transaction, commits it once."""

    def __init__(
        self,
        services: Sequence[ServiceMessages],
        *,
        readers: Mapping[str, ReadBody],
        new_message_id: Callable[[], str],
    ) -> None:
        """Replay the messages of the given services, in their order.

        Args:
            services: Whose messages there are.
            readers: How the consumers of queues read a body, by queue: they raise
                `BadMessageError` for what they cannot take.
            new_message_id: Draws a UUID.
        """
        self._services = {one.service: one for one in services}
        self._readers = readers
        self._new_message_id = new_message_id

    async def replay_dead_letters(self, replay: Replay[DeadLetterFilter]) -> Replayed:
        """Send dead letters to their queues again.

        Raises:
            Refusal: `invalid_cursor`; `invalid_request` for more ids than one call takes.
        """

        async def apply(
            one: ServiceMessages, selection: Sequence[int] | LetterBatch, rules: ReplayRules
        ) -> Sequence[SettledLetter]:
            letters = one.letter_settlement
            return await apply_on_record(
                one,
                replay.recorded("dead_letters.replay"),
                work=lambda transaction, now: letters.replay(
                    transaction, selection, now=now, rules=rules, act=replay.act
                ),
                preview=lambda transaction: letters.preview_replay(
                    transaction, selection, rules=rules
                ),
            )

        def batch(after_id: int | None, count_max: int) -> LetterBatch:
            return LetterBatch(which=replay.filter, after_id=after_id, count_max=count_max)

        return await self._replay(replay, apply, batch)

    async def replay_sent(self, replay: Replay[SentFilter], *, to: Destination) -> Replayed:
        """Send events again that were sent before.

        Raises:
            Refusal: `invalid_cursor`; `invalid_request` if there is no such queue, and for more
                ids than one call takes.
        """
        if to.queue is not None and not any(
            one.sent_replay.has_queue(to.queue) for one in self._services.values()
        ):
            raise invalid("/queue", f"there is no queue {to.queue}")

        async def apply(
            one: ServiceMessages, selection: Sequence[int] | SentBatch, rules: ReplayRules
        ) -> Sequence[ReplayedEvent]:
            sent = one.sent_replay
            return await apply_on_record(
                one,
                replay.recorded("outbox.replay", queue=to.queue, key=to.key),
                work=lambda transaction, now: sent.replay(
                    transaction, selection, to=to, now=now, rules=rules
                ),
                preview=lambda transaction: sent.preview(
                    transaction, selection, to=to, rules=rules
                ),
            )

        def batch(after_id: int | None, count_max: int) -> SentBatch:
            return SentBatch(which=replay.filter, after_id=after_id, count_max=count_max)

        return await self._replay(replay, apply, batch)

    async def replay_edited(self, replay: EditedReplay) -> SettledLetter:
        """Send an edited message in the place of a dead letter's; return its new id.

        Raises:
            Refusal: `not_found`, `dead_letter_not_open`, `dead_letter_unreadable`,
                `message_not_remembered`, `message_took_effect`; `invalid_request` if its consumer
                could not read the body.
        """
        resolved = resolve(self._services, replay.reference)
        if resolved is None:
            raise _refusal(SettleResult.NOT_FOUND, replay.reference)
        one, number = resolved
        rules = ReplayRules(memory_s=None if replay.is_forced else MEMORY_S)

        async def preview(transaction: ReadTransaction) -> SettledLetter:
            await self._check_body(transaction, one, number, body=replay.body)
            return await one.letter_settlement.preview_edited(transaction, number, rules=rules)

        async def work(transaction: Transaction) -> SettledLetter:
            now = await transaction.now()
            await self._check_body(transaction, one, number, body=replay.body)
            settled = await one.letter_settlement.replay_edited(
                transaction,
                number,
                Edit(message_id=self._new_message_id(), body=replay.body),
                now=now,
                rules=rules,
                act=replay.act,
            )
            if not is_refused(settled.result):
                forced = {"forced": True} if replay.is_forced else {}
                entry = AuditEntry(
                    act=replay.act,
                    action="dead_letters.edit",
                    subject=replay.reference,
                    detail={"message_id": settled.message_id, **forced},
                )
                await append_audit(transaction, [entry], now=now)
            return settled

        if replay.is_dry_run:
            settled = await one.database.read(preview)
        else:
            settled = await one.database.transact(work)
        if is_refused(settled.result):
            raise _refusal(settled.result, replay.reference)
        return settled

    async def _check_body(
        self, transaction: ReadTransaction, one: ServiceMessages, number: int, *, body: bytes
    ) -> None:
        """Refuse a body that would be set aside at once."""
        letter = await one.dead_letters.find(transaction, number)
        read = None if letter is None else self._readers.get(letter.summary.queue)
        if read is None:
            return
        try:
            read(body)
        except BadMessageError as error:
            raise invalid("/body", f"the queue cannot take it: {error}") from None

    async def _replay(
        self,
        replay: Replay[FilterT],
        apply: Apply,
        batch: Callable[[int | None, int], object],
    ) -> Replayed:
        if replay.references is not None:
            return await self._replay_named(replay, replay.references, apply)
        names = [name for name in self._services if replay.service in {None, name}]
        after_id: int | None = None
        if replay.cursor is not None:
            first, after_id = decode_cursor(replay.cursor, str, int)
            if first not in names:
                raise Refusal(
                    "invalid_cursor", "the cursor is not one this replay gave out; begin again"
                )
            names = names[names.index(first) :]
        results: list[Changed] = []
        left_count = min(replay.count_max, PIECE_COUNT_MAX)
        for name in names:
            rows = await self._apply(
                replay, apply, name, batch(after_id, left_count), before=results
            )
            # A filter means what goes to the queue: of the rest there is nothing to tell.
            results.extend(
                _changed(name, row)
                for row in rows
                if row.result != SentReplayResult.NOT_FOR_QUEUE.value
            )
            after_id = None
            left_count -= len(rows)
            if left_count <= 0:
                return Replayed(results=results, next_cursor=encode_cursor(name, rows[-1].id))
        return Replayed(results=results, next_cursor=None)

    async def _replay_named(
        self,
        replay: Replay[FilterT],
        references: Sequence[str],
        apply: Apply,
    ) -> Replayed:
        count_max = call_count_max(replay.rate_per_s)
        if len(references) > count_max:
            raise invalid("/rate", f"at this rate, one call takes {count_max} ids at most")
        numbers = numbers_by_service(self._services, references)
        results: list[Changed] = []
        for name in self._services:
            if name in numbers:
                rows = await self._apply(replay, apply, name, numbers[name], before=results)
                results.extend(_changed(name, row) for row in rows)
        found = {one.reference: one for one in results}
        missing = SettleResult.NOT_FOUND.value
        return Replayed(
            results=[
                found.get(reference, Changed(reference=reference, result=missing))
                for reference in dict.fromkeys(references)
            ],
            next_cursor=None,
        )

    async def _apply(
        self,
        replay: Replay[FilterT],
        apply: Apply,
        name: str,
        selection: object,
        *,
        before: Sequence[Changed],
    ) -> Sequence[ChangedNumber]:
        rules = ReplayRules(
            per_s=replay.rate_per_s,
            preceding_count=sum(not one.is_refused for one in before),
            memory_s=None if replay.is_forced else MEMORY_S,
        )
        rows = await apply(self._services[name], selection, rules)
        if not replay.is_dry_run:
            reach("replay.after_piece")
        return rows


def _changed(service: str, row: ChangedNumber) -> Changed:
    return Changed(reference=f"{service}-{row.id}", result=row.result)


_CODES = {
    SettleResult.NOT_FOUND: ("not_found", "There is no dead letter {}."),
    SettleResult.NOT_OPEN: (
        "dead_letter_not_open",
        "The dead letter {} was replayed or discarded before.",
    ),
    SettleResult.NOT_READABLE: (
        "dead_letter_unreadable",
        "The row of the dead letter {} cannot be read: somebody has changed it by hand.",
    ),
    SettleResult.NOT_REMEMBERED: (
        "message_not_remembered",
        (
            "The message of {} is so old that its consumer may have forgotten whether it took"
            " effect; find out, and then force it."
        ),
    ),
    SettleResult.NOT_WITHOUT_EFFECT: (
        "message_took_effect",
        (
            "The message of {} has taken effect meanwhile, or an edited one has gone in its place;"
            " a second one has an effect of its own, so it must be forced."
        ),
    ),
}


def _refusal(result: SettleResult, reference: str) -> Refusal:
    code, words = _CODES[result]
    return Refusal(code, words.format(reference))
