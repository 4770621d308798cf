"""Reconciliation: every event that was sent is matched to the inbox of each consumer that it is for.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from orderkeep.database.schema import INSTANT
from orderkeep.database.statement import RowStatement, Statement, is_any_of, row_value, written_out
from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    Row,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.instant import Instant, after
from orderkeep.messaging.broker import Broker, BrokerUnavailableError, Topology
from orderkeep.messaging.headers import decode_headers
from orderkeep.messaging.message import Event
from orderkeep.messaging.outbox import Outbox
from orderkeep.messaging.routing import Routes
from orderkeep.messaging.signal import is_set_within
from orderkeep.messaging.tables import ServiceTables

log = structlog.get_logger()

# Read at once; each costs three look-ups by key.
PAGE_COUNT = 500

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A consumer for which events may be.

    Attributes:
        consumer: Its name in the inbox.
        queue: Where it reads.
        tables: Those of the service that it belongs to.
    """

    consumer: str
    queue: str
    tables: ServiceTables


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
class _Place:
    """Everything sent up to here is accounted for."""

    sent_at: Instant
    row_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    place: _Place
    rows: Sequence[Row]
    missing: Sequence[Row]


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
        note_missing: Callable[[str, int, int], None] = lambda _queue, _missing, _resent: None,
        policy: ReconciliationPolicy | None = None,
    ) -> None:
        """Look where the events of the outbox went.

        Args:
            outbox: Whose events are looked for, and where those that are missed leave again.
            receivers: Every consumer that keeps its inbox in the same database.
            database: Holds all of their tables.
            broker: Says whether a queue still holds what its consumer has not seen.
            topology: By which events reach queues.
            note_missing: Told, for each queue that was looked at, how many events were missed and
                how many of them were sent again.
            policy: None takes the defaults.
        """
        self._outbox = outbox
        self._database = database
        self._broker = broker
        self._note_missing = note_missing
        self._policy = policy or ReconciliationPolicy()
        self._routes = Routes(topology)
        self._lookups = [
            _Lookup(outbox.tables, receiver, routes=_routes_to(receiver.queue, topology))
            for receiver in receivers
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until the stop event is set."""
        while not await is_set_within(stop, timeout_s=self._policy.interval_s):
            try:
                await self.reconcile_once(stop)
            except (StoreUnavailableError, BrokerUnavailableError) as error:
                log.info(
                    "reconciliation_put_off",
                    outbox=self._outbox.tables.service,
                    error=str(error),
                )

    async def reconcile_once(self, stop: asyncio.Event) -> int:
        """Look for all that was sent since the last time, and return how much was sent again.

        Raises:
            StoreUnavailableError: the database is away; the pages before are done.
            BrokerUnavailableError: the broker is; likewise.
        """
        resent_count = 0
        for lookup in self._lookups:
            missing_count = 0
            while not stop.is_set():
                page = await self._read_page(lookup)
                missing_count += len(page.missing)
                resendable = page.missing
                if page.missing and await self._broker.ready_count(lookup.queue):
                    # The consumer is behind; what it has not seen may be in there.
                    resendable = []
                resent_count += await self._pass(lookup, page, resendable=resendable)
                if len(page.rows) < PAGE_COUNT or len(resendable) < len(page.missing):
                    break
            self._note_missing(lookup.queue, missing_count, resent_count)
        return resent_count

    async def _read_page(self, lookup: "_Lookup") -> _Page:
        policy = self._policy

        async def read(transaction: ReadTransaction) -> _Page | None:
            now = await transaction.now()
            place = await lookup.find_place(transaction)
            if place is None:
                return None
            oldest = _Place(sent_at=after(now, seconds=-policy.lookback_s), row_id=0)
            place = max(place, oldest, key=lambda each: (each.sent_at, each.row_id))
            rows = await lookup.read_sent(
                transaction, place=place, before=after(now, seconds=-policy.grace_s)
            )
            reaching = [
                row
                for row in rows
                if lookup.queue in self._routes.queues_for(row["route"], message_type=row["type"])
            ]
            missing = await lookup.read_missing(transaction, reaching) if reaching else []
            return _Page(place=place, rows=rows, missing=missing)

        page = await self._database.read(read)
        if page is not None:
            return page

        async def begin(transaction: Transaction) -> _Page:
            now = await transaction.now()
            place = _Place(sent_at=after(now, seconds=-policy.grace_s), row_id=0)
            await lookup.begin(transaction, place=place)
            return _Page(place=place, rows=[], missing=[])

        return await self._database.transact(begin)

    async def _pass(self, lookup: "_Lookup", page: _Page, *, resendable: Sequence[Row]) -> int:
        """Note how far everything is accounted for; send again what is missed."""
        passed = list(page.rows)
        if len(resendable) < len(page.missing):
            first_missing_id = page.missing[0]["id"]
            passed = passed[: [row["id"] for row in passed].index(first_missing_id)]
        if not passed:
            return 0
        place = _Place(sent_at=passed[-1]["sent_at"], row_id=passed[-1]["id"])

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
                why="the broker confirmed them, and the queue is empty without its consumer having "
                "seen them",
            )
        return resent_count


class _Lookup:
    """The statements for one outbox and one consumer."""

    def __init__(
        self, sender: ServiceTables, receiver: Receiver, *, routes: Sequence[str]
    ) -> None:
        self.queue = receiver.queue
        self._consumer = receiver.consumer
        self._routes = list(routes)
        outbox, inbox, letters = sender.outbox, receiver.tables.inbox, receiver.tables.dead_letters
        reconciled = sender.reconciled
        columns = [column.name for column in reconciled.columns]
        self._begin = RowStatement(
            insert(reconciled)
            .values({name: row_value(name, reconciled.c[name].type) for name in columns})
            .on_conflict_do_nothing(index_elements=["consumer"])
        )
        self._place = Statement(
            select(reconciled.c.sent_at, reconciled.c.row_id).where(
                reconciled.c.consumer == bindparam("consumer")
            )
        )
        self._move = Statement(
            update(reconciled)
            .where(
                reconciled.c.consumer == bindparam("of_consumer"),
                tuple_(reconciled.c.sent_at, reconciled.c.row_id)
                <= tuple_(bindparam("from_at", type_=INSTANT), bindparam("from_id")),
            )
            .values(sent_at=bindparam("to_at", type_=INSTANT), row_id=bindparam("to_id"))
        )
        self._sent = Statement(
            select(
                outbox.c.id,
                outbox.c.message_id,
                outbox.c.aggregate_id,
                outbox.c.type,
                outbox.c.route,
                outbox.c.sent_at,
            )
            .where(
                # Written out: partial indexes serve no parameter.
                outbox.c.state == written_out("sent"),
                outbox.c.deliver_at.is_(None),
                is_any_of(outbox.c.route, "routes"),
                outbox.c.sent_at >= bindparam("from_at", type_=INSTANT),
                tuple_(outbox.c.sent_at, outbox.c.id)
                > tuple_(bindparam("after_at", type_=INSTANT), bindparam("after_id")),
                outbox.c.sent_at < bindparam("before", type_=INSTANT),
            )
            .order_by(outbox.c.sent_at, outbox.c.id)
            .limit(PAGE_COUNT)
        )
        self._received = [
            Statement(
                select(table.c.message_id).where(
                    table.c.consumer == bindparam("consumer"),
                    is_any_of(table.c.message_id, "message_ids"),
                )
            )
            for table in (inbox, letters)
        ]
        # The index is on the aggregate.
        self._later = Statement(
            select(outbox.c.id, outbox.c.message_id).where(
                is_any_of(outbox.c.aggregate_id, "aggregate_ids"),
                is_any_of(outbox.c.message_id, "message_ids"),
                outbox.c.route == bindparam("queue"),
            )
        )
        self._events = Statement(
            select(
                outbox.c.id,
                outbox.c.message_id,
                outbox.c.aggregate_id,
                outbox.c.sequence,
                outbox.c.type,
                outbox.c.body,
                outbox.c.headers,
            )
            .where(is_any_of(outbox.c.id, "ids"))
            .order_by(outbox.c.id)
        )

    async def begin(self, transaction: Transaction, *, place: _Place) -> None:
        """Begin here, unless somebody has begun already."""
        await transaction.execute_rows(
            self._begin,
            [{"consumer": self._consumer, "sent_at": place.sent_at, "row_id": place.row_id}],
        )

    async def find_place(self, transaction: ReadTransaction) -> _Place | None:
        """Return up to where everything is accounted for, or None before the first time."""
        row = await transaction.fetch_one(self._place, consumer=self._consumer)
        if row is None:
            return None
        return _Place(sent_at=row["sent_at"], row_id=row["row_id"])

    async def move(
        self, transaction: Transaction, *, from_place: _Place, to_place: _Place
    ) -> bool:
        """Return whether this moved the place on; whoever was further already wins."""
        return bool(
            await transaction.execute(
                self._move,
                of_consumer=self._consumer,
                from_at=from_place.sent_at,
                from_id=from_place.row_id,
                to_at=to_place.sent_at,
                to_id=to_place.row_id,
            )
        )

    async def read_sent(
        self, transaction: ReadTransaction, *, place: _Place, before: Instant
    ) -> Sequence[Row]:
        """Return what was sent after the place, oldest first, `PAGE_COUNT` at most."""
        return await transaction.fetch_all(
            self._sent,
            routes=self._routes,
            from_at=place.sent_at,
            after_at=place.sent_at,
            after_id=place.row_id,
            before=before,
        )

    async def read_missing(
        self, transaction: ReadTransaction, rows: Sequence[Row]
    ) -> Sequence[Row]:
        """Return the rows whose messages the consumer never saw, and that nothing brings back."""
        missing = list(rows)
        for statement in self._received:
            found = await transaction.fetch_all(
                statement,
                consumer=self._consumer,
                message_ids=[row["message_id"] for row in missing],
            )
            received = {row["message_id"] for row in found}
            missing = [row for row in missing if row["message_id"] not in received]
            if not missing:
                return []
        found = await transaction.fetch_all(
            self._later,
            aggregate_ids=[row["aggregate_id"] for row in missing],
            message_ids=[row["message_id"] for row in missing],
            queue=self.queue,
        )
        latest: dict[str, int] = {}
        for row in found:
            latest[row["message_id"]] = max(latest.get(row["message_id"], 0), row["id"])
        return [row for row in missing if latest.get(row["message_id"], 0) <= row["id"]]

    async def read_events(
        self, transaction: ReadTransaction, rows: Sequence[Row]
    ) -> list[Event]:
        """Return the events as they go to this queue, once for each row."""
        found = await transaction.fetch_all(self._events, ids=[row["id"] for row in rows])
        return [
            Event(
                aggregate_id=row["aggregate_id"],
                sequence=row["sequence"],
                type=row["type"],
                route=self.queue,
                body=row["body"],
                # Its neighbours have gone on without it.
                ordered=False,
                message_id=row["message_id"],
                retry_key=f"missed {self._consumer} {row['id']}",
                headers=decode_headers(row["headers"]),
            )
            for row in found
        ]


def _routes_to(queue: str, topology: Topology) -> list[str]:
    exchanges = {binding.exchange for binding in topology.bindings if binding.queue == queue}
    return [queue, *sorted(exchanges)]
