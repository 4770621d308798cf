"""Reconciliation: what was sent is matched to the inbox of each consumer that it is for.

A broker can lose what it has confirmed: its disk is lost, a queue is deleted with what is in it, or
one of several bindings goes, and messages are routed past the queue without a word. So what counts
as sent is looked up where it should have arrived.

Invariant: a sent event is passed only when the consumer has it (in its inbox, among its dead
letters, or in a later row that brings it back), or when a new row brings it to that queue alone, in
the transaction that passes it. A copy too many changes nothing, by the inbox. A crash before the
commit leaves all as it was; a crash after it leaves the row, which is reconciled in its turn.

Events with a delay are passed over: each has a sweep behind it that does what the message would.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    Row,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.instant import after
from orderkeep.messaging.broker import Broker, BrokerUnavailableError, Topology
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.routing import Routes
from orderkeep.messaging.sent_events import (
    PAGE_COUNT,
    Place,
    Receiver,
    SentEvents,
    routes_to,
)
from orderkeep.messaging.signal import is_set_within

log = structlog.get_logger()

_DAY_S = 86_400.0

# Between two tries to begin, while the database is away: well below the grace, for what is sent
# longer before the beginning is never looked for.
_BEGIN_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationPolicy:
    """When an event is missed.

    Attributes:
        grace_s: So long after it was sent nobody looks for it.
        interval_s: Between two looks.
        lookback_s: What is older is not brought again: a consumer that was switched off for long
            starts from the state of today.
    """

    grace_s: float = 30.0
    interval_s: float = 10.0
    lookback_s: float = _DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    place: Place
    rows: Sequence[Row]
    missing: Sequence[Row]


class NoteMissing(Protocol):
    """Told, for each queue that was looked at, what was found."""

    def __call__(self, queue: str, *, missing_count: int, resent_count: int) -> None:
        """Note how many events were missed, and how many of them were sent again."""


def _note_nothing(queue: str, *, missing_count: int, resent_count: int) -> None:
    """Do nothing."""


class Reconciliation:
    """Looks after the events of one outbox."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        receivers: Sequence[Receiver],
        database: Database,
        broker: Broker,
        topology: Topology,
        note_missing: NoteMissing = _note_nothing,
        policy: ReconciliationPolicy | None = None,
    ) -> None:
        """Look where the events of the outbox went.

        Args:
            outbox: Whose events are looked for, and where those that are missed leave again.
            receivers: Every consumer that keeps its inbox in the same database.
            database: Holds all of their tables.
            broker: Says whether a queue still holds what its consumer has not seen.
            topology: By which events reach queues.
            note_missing: Told of each queue that was looked at.
            policy: None takes the defaults.
        """
        self._outbox = outbox
        self._database = database
        self._broker = broker
        self._note_missing = note_missing
        self._policy = policy or ReconciliationPolicy()
        self._routes = Routes(topology)
        self._has_begun = False
        self._lookups = [
            SentEvents(outbox.tables, receiver, routes=routes_to(receiver.queue, topology))
            for receiver in receivers
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until the stop event is set; the first time at once."""
        while not stop.is_set():
            try:
                await self.reconcile_once(stop)
            except (StoreUnavailableError, BrokerUnavailableError) as error:
                log.info(
                    "reconciliation_put_off",
                    outbox=self._outbox.tables.service,
                    error=str(error),
                )
            # What is sent before the beginning is not looked for: it must not wait for a look.
            pause_s = self._policy.interval_s if self._has_begun else _BEGIN_PAUSE_S
            await is_set_within(stop, timeout_s=pause_s)

    async def reconcile_once(self, stop: asyncio.Event) -> int:
        """Look for all that was sent since the last time, and return how much was sent again.

        Raises:
            StoreUnavailableError: the database is away; the pages before are done.
            BrokerUnavailableError: the broker is; likewise.
        """
        if not self._has_begun:
            await self._database.transact(self._begin)
            self._has_begun = True
        resent_count = 0
        for lookup in self._lookups:
            resent_count += await self._reconcile(lookup, stop)
        return resent_count

    async def _reconcile(self, lookup: SentEvents, stop: asyncio.Event) -> int:
        missing_count = resent_count = 0
        while not stop.is_set():
            page = await self._read_page(lookup)
            missing_count += len(page.missing)
            # Else the consumer is behind: what it has not seen may be in the queue.
            is_lost = bool(page.missing) and (
                not await self._broker.ready_count(lookup.queue)
                or await self._is_overtaken(lookup, page)
            )
            resendable = page.missing if is_lost else []
            resent_count += await self._pass(lookup, page, resendable=resendable)
            if len(page.rows) < PAGE_COUNT or len(resendable) < len(page.missing):
                break
        self._note_missing(lookup.queue, missing_count=missing_count, resent_count=resent_count)
        return resent_count

    async def _is_overtaken(self, lookup: SentEvents, page: _Page) -> bool:
        """Return whether the consumer has something that was sent after all that is missing.

        A busy queue is never empty; but it keeps its order.
        """
        place = Place(
            sent_at=after(page.missing[-1]["sent_at"], seconds=self._policy.grace_s), row_id=0
        )

        async def read(transaction: ReadTransaction) -> bool:
            rows = await lookup.read_sent(transaction, place=place, before=await transaction.now())
            reaching = self._reaching(lookup, rows)
            return len(await lookup.read_missing(transaction, reaching)) < len(reaching)

        return await self._database.read(read)

    def _reaching(self, lookup: SentEvents, rows: Sequence[Row]) -> list[Row]:
        """Return the rows whose messages reach the consumer's queue."""
        return [
            row
            for row in rows
            if lookup.queue in self._routes.queues_for(row["route"], message_type=row["type"])
        ]

    async def _read_page(self, lookup: SentEvents) -> _Page:
        policy = self._policy

        async def read(transaction: ReadTransaction) -> _Page:
            now = await transaction.now()
            place = await lookup.find_place(transaction)
            assert place is not None, "it has begun"
            oldest = Place(sent_at=after(now, seconds=-policy.lookback_s), row_id=0)
            place = max(place, oldest, key=lambda each: (each.sent_at, each.row_id))
            rows = await lookup.read_sent(
                transaction, place=place, before=after(now, seconds=-policy.grace_s)
            )
            missing = await lookup.read_missing(transaction, self._reaching(lookup, rows))
            return _Page(place=place, rows=rows, missing=missing)

        return await self._database.read(read)

    async def _begin(self, transaction: Transaction) -> None:
        """Let everything sent up to now count as accounted for, where nobody has begun yet.

        For all consumers at once: were each begun at its first look, one look that fails would
        leave what was sent to the others meanwhile behind.
        """
        now = await transaction.now()
        place = Place(sent_at=after(now, seconds=-self._policy.grace_s), row_id=0)
        for lookup in self._lookups:
            await lookup.begin(transaction, place=place)

    async def _pass(self, lookup: SentEvents, page: _Page, *, resendable: Sequence[Row]) -> int:
        """Note how far everything is accounted for; send again what is missed."""
        passed = list(page.rows)
        if len(resendable) < len(page.missing):
            first_missing_id = page.missing[0]["id"]
            passed = passed[: [row["id"] for row in passed].index(first_missing_id)]
        if not passed:
            return 0
        place = Place(sent_at=passed[-1]["sent_at"], row_id=passed[-1]["id"])

        async def write(transaction: Transaction) -> int:
            if not await lookup.move(transaction, from_place=page.place, to_place=place):
                # Another process was here meanwhile.
                return 0
            if not resendable:
                return 0
            events = await lookup.read_events(transaction, resendable)
            await self._outbox.pass_on(transaction, events, now=await transaction.now())
            return len(events)

        resent_count = await self._database.transact(write)
        if resent_count:
            log.warning(
                "events_sent_again",
                queue=lookup.queue,
                events_count=resent_count,
                first_message_id=resendable[0]["message_id"],
                why="the broker confirmed them, and they are no longer before their consumer",
            )
        return resent_count
