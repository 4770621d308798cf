"""The dispatcher: outbox rows to the broker, and the only code that publishes.

Invariant: a row is settled as `sent` only after the broker has confirmed it. Of the ordered rows of
one aggregate and route at most one is on its way, and none while an earlier one is unsettled or
parked.

A crash after the read leaves every row pending. A crash after the publish, before the settlement,
leaves rows pending that the broker has: they are sent again, and the consumers' inboxes make the
copies harmless. A crash after the settlement loses nothing: the next round reads what is left.

What is the route's fault pauses the route in memory and costs its rows nothing; what is the row's
fault costs the row one of its tries, and after the last it is parked as `failed`.

Any number of dispatchers may share an outbox. Each works on the partitions that its session holds,
and reads and settles on that session's own connection. When the connection is lost the way to the
broker is closed before anything else, for the partitions may be another's by now; what was on its
way is sent again by whoever holds them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from orderkeep.database.transaction import (
    Database,
    ReadTransaction,
    Session,
    StoreUnavailableError,
    Transaction,
)
from orderkeep.failure_points import reach
from orderkeep.instant import Instant, after
from orderkeep.messaging.broker import Broker, Topology
from orderkeep.messaging.message import PublishOutcome, PublishResult
from orderkeep.messaging.outbox import PARTITION_COUNT, Outbox
from orderkeep.messaging.outbox_reading import OutboxReading, PendingRow, Ready, Refused
from orderkeep.messaging.publishing import Publishing
from orderkeep.messaging.retry_schedule import pause_before_attempt
from orderkeep.messaging.route_pauses import RoutePauses
from orderkeep.messaging.signal import is_set_within

log = structlog.get_logger()

# Waiting less would find the database's clock unchanged.
_WAIT_S_MIN = 0.001

# A dispatcher that cannot reach the broker for so long lets others have its partitions: it may be
# the only one that is cut off. It asks for them again once it can.
UNREACHABLE_S_MAX = 5.0

# How often a dispatcher that may not be the only one asks for its share of the partitions: so long
# those of one that died may lie idle, and the asking costs nothing beside the work.
SHARE_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPolicy:
    """How a dispatcher goes about it.

    Attributes:
        poll_interval_s: How often it looks without being woken.
        batch_size: How many rows it reads and publishes at once.
        refusals_max: After so many refusals a row is parked.
        retry_base_s: The mean of the first pause after a refusal.
        retry_max_s: No pause after a refusal is longer.
        route_pause_base_s: The mean of the first pause of a route that is down. It grows, but not
            far: when the route is back, its events shall not wait for the dispatcher to notice.
        route_pause_max_s: No pause of a route is longer.
    """

    poll_interval_s: float = 5.0
    batch_size: int = 100
    refusals_max: int = 16
    retry_base_s: float = 1.0
    retry_max_s: float = 300.0
    route_pause_base_s: float = 0.5
    route_pause_max_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchRound:
    """What one round did.

    Attributes:
        held_back_count: Rows that stay as they are because their route is down.
        postponed_count: Rows that wait here until their time, because the broker cannot hold them.
        wait_s: How long there is nothing to do, unless somebody appends; 0 is go on at once.
    """

    sent_count: int
    refused_count: int
    held_back_count: int
    wait_s: float
    postponed_count: int = 0


def _observe_nothing(_seconds: float) -> None:
    """Drop the measurement."""


class Dispatcher:
    """Sends what one service has appended to its outbox."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        database: Database,
        broker: Broker,
        topology: Topology,
        draw_jitter: Callable[[], float],
        policy: DispatchPolicy | None = None,
        observe_confirm_s: Callable[[float], None] = _observe_nothing,
        aggregate_name: str = "aggregate_id",
    ) -> None:
        """Dispatch the outbox to the broker.

        Args:
            outbox: What is dispatched.
            database: Holds the outbox.
            broker: Takes the messages.
            topology: Declared again after a route was down: what is missing may be why.
            draw_jitter: Draws 0.0..1.0 for each pause.
            policy: None takes the defaults.
            observe_confirm_s: Is told how long each batch took to be confirmed.
            aggregate_name: What log lines call an aggregate, such as `order_no`.
        """
        self._outbox = outbox
        self._reading = OutboxReading(outbox.tables)
        self._database = database
        self._broker = broker
        self._draw_jitter = draw_jitter
        self._policy = policy or DispatchPolicy()
        self._aggregate_name = aggregate_name
        self._pauses = RoutePauses(
            base_s=self._policy.route_pause_base_s, max_s=self._policy.route_pause_max_s
        )
        self._publishing = Publishing(
            broker,
            topology=topology,
            outbox_name=outbox.tables.outbox.name,
            observe_confirm_s=observe_confirm_s,
        )
        self._session: Session | None = None
        self._partitions: frozenset[int] = frozenset()
        self._shared_at_s = 0.0
        self._has_rivals = False

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until the stop event is set; the round in hand is finished."""
        try:
            await self._run(stop)
        finally:
            await self.close()

    async def _run(self, stop: asyncio.Event) -> None:
        outages_count = 0
        # Before there is anything to send: what is wrong at the broker shows at the start.
        await self._publishing.declare()
        async with self._outbox.appended.also_set_by(stop):
            while not stop.is_set():
                # Cleared before the reading: what is appended during it wakes the next wait.
                self._outbox.appended.clear()
                try:
                    dispatched = await self.run_once()
                except StoreUnavailableError as error:
                    outages_count += 1
                    if outages_count == 1:
                        log.warning("outbox_unavailable", outbox=self._name, error=str(error))
                    pause_s = pause_before_attempt(
                        outages_count,
                        jitter=self._draw_jitter(),
                        base_s=self._policy.route_pause_base_s,
                        max_s=self._policy.route_pause_max_s,
                    )
                    await is_set_within(stop, timeout_s=pause_s)
                    continue
                if outages_count:
                    log.info("outbox_available", outbox=self._name, outages_count=outages_count)
                    outages_count = 0
                await self._outbox.appended.wait(timeout_s=dispatched.wait_s)

    async def run_once(self) -> DispatchRound:
        """Send one batch of what may go, and return what became of it.

        Raises:
            StoreUnavailableError: the database is away; rows stay pending, and the partitions are
                held no longer.
        """
        try:
            return await self._run_once()
        except StoreUnavailableError:
            self._broker.stop_publishing()
            await self.close()
            raise

    async def close(self) -> None:
        """Give back the partitions; whoever goes on asks for them again."""
        session, self._session = self._session, None
        self._partitions = frozenset()
        if session is not None:
            await session.close()

    async def _run_once(self) -> DispatchRound:
        if self._has_rivals and self._publishing.unreachable_s > UNREACHABLE_S_MAX:
            await self.close()
            if not await self._publishing.declare():
                return DispatchRound(
                    sent_count=0, refused_count=0, held_back_count=0, wait_s=SHARE_INTERVAL_S
                )
        session = await self._hold_share()
        ready = await self._read(session)
        reach("dispatcher.after_read")
        if not ready.rows:
            return DispatchRound(
                sent_count=0,
                refused_count=0,
                held_back_count=0,
                wait_s=self._wait_s(ready.next_due_s, session=session),
            )
        outcomes = await self._publish(ready, session=session)
        reach("dispatcher.after_publish")
        return await self._settle(ready.rows, outcomes, session=session)

    async def _hold_share(self) -> Session:
        """Return the session, with this dispatcher's share of the partitions.

        Nothing is under way here: what was published is settled, so a partition that is given back
        has no message on its way.
        """
        session = self._session
        if session is None:
            session = await self._database.open_session(on_lost=self._broker.stop_publishing)
            self._session = session
            self._has_rivals = session.used_within_s is not None
            self._shared_at_s = -SHARE_INTERVAL_S
        if _monotonic_s() - self._shared_at_s >= SHARE_INTERVAL_S:
            partitions = await session.hold_share(self._name, part_count=PARTITION_COUNT)
            if session.used_within_s is not None and partitions != self._partitions:
                log.debug("outbox_share", outbox=self._name, partitions=sorted(partitions))
            self._partitions = partitions
            self._shared_at_s = _monotonic_s()
        return session

    @property
    def _name(self) -> str:
        return self._outbox.tables.outbox.name

    async def _read(self, session: Session) -> Ready:
        paused_routes = self._pauses.paused_routes(at_s=_monotonic_s())
        return await session.read(
            lambda transaction: self._reading.ready(
                transaction,
                partitions=self._partitions,
                paused_routes=paused_routes,
                limit=self._policy.batch_size,
            )
        )

    async def _publish(self, ready: Ready, *, session: Session) -> Sequence[PublishOutcome]:
        """Publish the rows; the session is used meanwhile, for a broker may take its time.

        Raises:
            StoreUnavailableError: the session is lost; what is on its way is given up.
        """
        publishing = asyncio.ensure_future(self._publishing.send(ready.rows, now=ready.now))
        try:
            while not publishing.done():
                await asyncio.wait([publishing], timeout=session.used_within_s)
                if not publishing.done():
                    await session.read(_use)
        except BaseException:
            self._broker.stop_publishing()
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            raise
        return publishing.result()

    async def _settle(
        self, rows: Sequence[PendingRow], outcomes: Sequence[PublishOutcome], *, session: Session
    ) -> DispatchRound:
        """Write down in one transaction what became of each row; pause routes that are down."""
        sent: list[PendingRow] = []
        postponed: list[PendingRow] = []
        refused: list[tuple[PendingRow, str]] = []
        down: dict[str, str] = {}
        for row, outcome in zip(rows, outcomes, strict=True):
            match outcome.result:
                case PublishResult.CONFIRMED:
                    sent.append(row)
                case PublishResult.NOT_HELD:
                    postponed.append(row)
                case PublishResult.REFUSED:
                    refused.append((row, outcome.detail))
                case PublishResult.ROUTE_DOWN:
                    down[row.message.route] = outcome.detail
        self._note_routes(up={row.message.route for row in sent} - down.keys(), down=down)
        reach("dispatcher.before_settle")
        if sent or refused or postponed:
            await session.transact(
                lambda transaction: self._write(
                    transaction, sent=sent, refused=refused, postponed=postponed
                )
            )
        reach("dispatcher.after_settle")
        self._log(sent=sent, refused=refused)
        return DispatchRound(
            sent_count=len(sent),
            refused_count=len(refused),
            held_back_count=len(rows) - len(sent) - len(refused) - len(postponed),
            wait_s=0.0,
            postponed_count=len(postponed),
        )

    async def _write(
        self,
        transaction: Transaction,
        *,
        sent: Sequence[PendingRow],
        refused: Sequence[tuple[PendingRow, str]],
        postponed: Sequence[PendingRow],
    ) -> None:
        now = await transaction.now()
        await self._reading.settle_sent(transaction, [row.id for row in sent], now=now)
        await self._reading.postpone(transaction, [row.id for row in postponed])
        await self._reading.settle_refused(
            transaction, [self._refused(row, detail, now=now) for row, detail in refused]
        )

    def _refused(self, row: PendingRow, detail: str, *, now: Instant) -> Refused:
        pause_s = pause_before_attempt(
            row.attempts + 1,
            jitter=self._draw_jitter(),
            base_s=self._policy.retry_base_s,
            max_s=self._policy.retry_max_s,
        )
        return Refused(
            id=row.id,
            detail=detail,
            not_before=after(now, seconds=pause_s),
            is_parked=self._is_last_refusal(row),
        )

    def _is_last_refusal(self, row: PendingRow) -> bool:
        return row.attempts + 1 >= self._policy.refusals_max

    def _note_routes(self, *, up: set[str], down: dict[str, str]) -> None:
        for route, detail in sorted(down.items()):
            # What is missing at the broker may be why.
            self._publishing.declare_again()
            if self._pauses.pause(route, at_s=_monotonic_s(), jitter=self._draw_jitter()):
                log.warning("route_down", outbox=self._name, route=route, detail=detail)
        for route in sorted(up):
            if self._pauses.resume(route):
                log.info("route_up", outbox=self._name, route=route)

    def _wait_s(self, next_due_s: float | None, *, session: Session) -> float:
        waits_s = [self._policy.poll_interval_s]
        if session.used_within_s is not None:
            waits_s.append(SHARE_INTERVAL_S)
        if next_due_s is not None:
            waits_s.append(max(next_due_s, _WAIT_S_MIN))
        next_pause_end_s = self._pauses.next_end_s(at_s=_monotonic_s())
        if next_pause_end_s is not None:
            waits_s.append(max(next_pause_end_s - _monotonic_s(), _WAIT_S_MIN))
        return min(waits_s)

    def _log(
        self, *, sent: Sequence[PendingRow], refused: Sequence[tuple[PendingRow, str]]
    ) -> None:
        for row in sent:
            # The services tell what happened; on the way of each message there is a line for those
            # who look for one.
            log.debug("outbox_published", **self._fields(row))
        for row, detail in refused:
            is_parked = self._is_last_refusal(row)
            event = "outbox_failed" if is_parked else "outbox_refused"
            level = log.error if is_parked else log.warning
            level(event, **self._fields(row), attempts=row.attempts + 1, detail=detail)

    def _fields(self, row: PendingRow) -> dict[str, str]:
        return {
            "message_id": row.message.message_id,
            "type": row.message.type,
            "route": row.message.route,
            self._aggregate_name: row.aggregate_id,
        }


async def _use(transaction: ReadTransaction) -> None:
    await transaction.now()


def _monotonic_s() -> float:
    # The loop's clock measures pauses in memory; due times are the database's.
    return asyncio.get_running_loop().time()
